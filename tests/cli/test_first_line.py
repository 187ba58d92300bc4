"""The first line of a command that trains: it is there before anything is imported that takes seconds."""

import subprocess
import sys

import pytest

# Ends the process where the first of these libraries is about to be imported.
WATCHED = """
import sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "mlflow", "optuna", "sqlalchemy", "pandas", "numpy", "rich"}:
            sys.stderr.write(f"<{name}>\\n")
            sys.stderr.flush()
            import os
            os._exit(7)

sys.meta_path.insert(0, Watch())
from aigc_lab.cli import main
main()
"""


@pytest.mark.parametrize("command", ["sweep", "train", "resume"])
def test_it_says_what_begins_before_torch_is_imported(command: str) -> None:
    done = subprocess.run([sys.executable, "-c", WATCHED, command, "digits"], capture_output=True, text=True)
    first, then = done.stderr.splitlines()
    assert first == f"{command} digits: importing torch, which takes some seconds …"
    assert done.returncode == 7 and then.startswith("<"), "the import that takes long comes after it"
    assert not done.stdout


def test_what_it_names_is_shown_and_not_obeyed() -> None:
    done = subprocess.run([sys.executable, "-c", WATCHED, "sweep", "\x1b[31mred"], capture_output=True, text=True)
    assert done.stderr.startswith(r"sweep \x1b[31mred: importing torch")
