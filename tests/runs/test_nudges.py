"""Nudges between a sweep's process and its workers: what waits for a look looks at once."""

import sys
import threading
from pathlib import Path

import pytest

from aigc_lab.host import nudges
from aigc_lab.runs import worker_process
from aigc_lab.runs.reporter import Pause

# Far longer than any of it takes.
_LONG = 60.0

ANSWERING = """
import os, sys
from aigc_lab.host import nudges
assert os.read(0, 3) == b"go\\n"
nudges.has_parent(0)
nudges.parent()
sys.exit(7 if os.read(0, 8) == b"\\n" and os.read(0, 8) == b"" else 8)
"""
# Its parent hears nothing of what it says, and is gone before it could.
UNHEARD = """
import sys
from aigc_lab.host import nudges, signals
from aigc_lab.runs import worker
nudges.has_parent(0)
for _ in range(5000):
    nudges.parent()
worker._listen()
sys.exit(7 if signals.stop_requested() else 8)
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    monkeypatch.setattr(worker_process, "_WORKER", (sys.executable, "-c", request.param))
    return tmp_path


def started(folder: Path) -> worker_process.Worker:
    return worker_process.start(str(folder), "mine", "cpu", 1, folder / "log", {}, 1)


def test_a_nudge_ends_a_pause() -> None:
    pause = Pause()
    pause.seconds = 10 * _LONG
    waiting = threading.Thread(target=pause.wait, daemon=True)
    waiting.start()
    nudges.awake.set()
    waiting.join(_LONG)
    assert not waiting.is_alive() and not nudges.awake.is_set()
    assert pause.seconds < 1, "what is looked at is not over"


class Late(threading.Event):
    """The nudge comes when the time is over, before anybody has looked whether there was one."""

    def wait(self, timeout: float | None = None) -> bool:
        self.set()
        return False


def test_a_nudge_at_the_end_of_a_wait_is_that_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nudges, "awake", Late())
    assert not nudges.wait(0.0)
    assert nudges.awake.is_set()


@pytest.mark.parametrize("child", [ANSWERING], indirect=True)
def test_a_worker_and_its_parent_hear_each_other(child: Path) -> None:
    process, heard = started(child), threading.Event()
    threading.Thread(target=worker_process.hear, args=(process, heard.set), daemon=True).start()
    worker_process.go(process)
    assert heard.wait(_LONG)
    worker_process.nudge(process)
    worker_process.close(process)
    assert process.wait(_LONG) == 7, (child / "log").read_text()
    worker_process.nudge(process)  # it is gone


@pytest.mark.parametrize("child", [UNHEARD], indirect=True)
def test_a_worker_that_nobody_heard_ends_when_its_parent_is_gone(child: Path) -> None:
    process = started(child)
    worker_process.close(process)
    assert process.wait(_LONG) == 7, (child / "log").read_text()
