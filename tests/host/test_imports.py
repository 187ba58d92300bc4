"""The garbage collector during imports of large libraries, and at the end."""

import gc
import subprocess
import sys

import pytest

from aigc_lab.host import imports


def test_the_collector_rests_and_is_as_before_even_after_an_error() -> None:
    def failing() -> None:
        with imports.uncollected():
            assert not gc.isenabled()
            raise ImportError

    with pytest.raises(ImportError):
        failing()
    assert gc.isenabled()
    gc.disable()
    try:
        with imports.uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize("words", ["cli.main()", "runs.worker.main()"])
def test_a_process_of_ours_ends_without_a_search_for_garbage(words: str) -> None:
    code = f"""
import atexit, gc, sys
import aigc_lab.cli, aigc_lab.runs.worker
atexit.register(lambda: print("kept:", gc.get_freeze_count() > 1000))
sys.argv = ["aigc-lab"]
try:
    aigc_lab.{words}
except ValueError:
    pass  # a worker is told more
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("kept: True\n"), done.stderr


def test_what_would_be_reported_as_leaked_is_searched_for() -> None:
    pytest.importorskip("triton")
    code = "import triton._C.libtriton; from aigc_lab.host import imports; imports.end_quickly()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_a_sweep_imports_torch_while_the_collector_rests() -> None:
    code = """
import gc, sys
class Told:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "mlflow"):
            print(name, gc.isenabled())
        return None
sys.meta_path.insert(0, Told())
from aigc_lab.cli import main
sys.argv = ["aigc-lab", "sweep", "nothing-of-this-name"]
try:
    main()
except SystemExit:
    print(gc.isenabled())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["torch", "False", "True"]
