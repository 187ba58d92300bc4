"""Checkpoints of a run under way: the last two, whole or absent, and never in the way of the training."""

import itertools
import json
import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from test_trainer import fresh, run

from aigc_lab.host import files, run_folders
from aigc_lab.host.files import replacing, write_atomically
from aigc_lab.host.settings import Settings
from aigc_lab.registry.run_lifecycle import Outdated
from aigc_lab.training import checkpoint
from aigc_lab.training.checkpoint import Checkpointer, checkpoints, restore_state
from aigc_lab.training.host_copy import HostCopy
from aigc_lab.training.state import TrainingState


@pytest.fixture(scope="module")
def states() -> list[TrainingState]:
    """A run after 1, 2, … steps, within an interval."""
    found = []
    for steps in range(1, 6):
        state, system = fresh()
        system.watch = False
        list(run(state, steps, every=10))
        found.append(state)
    return found


def told(step: int) -> dict[str, Any]:
    return {"step": step, "curve": [0.1] * step}


def selected(step: int) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((3,), float(step))}


def save(to: Checkpointer, state: TrainingState, *, wait: bool = True) -> None:
    to.save(state, told(state.step), selected(state.step), wait=wait)


def nothing(step: int) -> None: ...


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def steps(folder: Path) -> list[int]:
    return [stored.step for stored in checkpoints(folder)]


def same(one: TrainingState, other: TrainingState) -> bool:
    """Whether two states are the same to the bit."""
    (tensors, facts), (others, their) = checkpoint.parts_of(one), checkpoint.parts_of(other)
    equal = tensors.keys() == others.keys() and all(torch.equal(tensors[key], others[key]) for key in tensors)
    return equal and facts == their


class Gate:
    """Holds the thread that writes, just before it does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        true = HostCopy.write

        def held(*given: Any) -> str:
            self.reached.set()
            assert self.open.wait(60), "nobody opened the gate"
            return true(*given)

        monkeypatch.setattr(HostCopy, "write", held)


# ---- which are kept


def test_the_last_two_are_kept_and_come_back_to_the_bit(tmp_path: Path, states: list[TrainingState]) -> None:
    stored: list[int] = []
    to = Checkpointer(tmp_path / "1", stored.append)
    for state in states:
        save(to, state)
        assert names(tmp_path / "1")[-1] == f"state-{state.step:09d}.safetensors"
    assert stored == [1, 2, 3, 4, 5]
    assert names(tmp_path / "1") == [f"state-{step:09d}.{kind}" for step in (4, 5) for kind in ("json", "safetensors")]
    found = list(checkpoints(tmp_path))
    assert [each.step for each in found] == [5, 4]
    for each in found:
        assert each.history == told(each.step)
        assert each.selected.keys() == {"weight"} and torch.equal(
            each.selected["weight"], selected(each.step)["weight"]
        )
        state, _ = fresh()
        assert not same(state, states[each.step - 1])
        restore_state(state, each.state)
        assert same(state, states[each.step - 1])


def test_nothing_selected_yet(tmp_path: Path, states: list[TrainingState]) -> None:
    Checkpointer(tmp_path / "1", nothing).save(states[0], told(1), None, wait=True)
    assert next(checkpoints(tmp_path)).selected == {}


def test_the_newest_step_goes_first_and_of_two_that_of_the_newest_attempt(
    tmp_path: Path, states: list[TrainingState]
) -> None:
    for attempt, state in (("1", states[1]), ("2", states[2]), ("3", states[2]), ("10", states[0])):
        save(Checkpointer(tmp_path / attempt, nothing), state)
        os.utime(tmp_path / attempt, (int(attempt), int(attempt)))
    found = [(stored.step, stored.state.parent.name) for stored in checkpoints(tmp_path)]
    assert found == [(3, "3"), (3, "2"), (2, "1"), (1, "10")]


# ---- while the training goes on


def test_while_one_is_being_written_the_next_is_left_out(
    tmp_path: Path, states: list[TrainingState], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, to = Gate(monkeypatch), Checkpointer(tmp_path / "1", nothing)
    save(to, states[0], wait=False)
    assert gate.reached.wait(60)
    save(to, states[1], wait=False)
    assert steps(tmp_path) == []
    gate.open.set()
    to.finish()
    assert steps(tmp_path) == [1]
    save(to, states[2], wait=False)
    to.finish()
    assert steps(tmp_path) == [3, 1]


def test_what_the_training_does_meanwhile_is_not_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, system = fresh()
    system.watch = False
    list(run(state, 2, every=10))
    kept, _ = fresh()
    gate, to = Gate(monkeypatch), Checkpointer(tmp_path / "1", nothing)
    history = told(2)
    to.save(state, history, None)
    assert gate.reached.wait(60)
    history["curve"].append(0.2)
    list(run(state, 5, every=10))
    gate.open.set()
    to.finish()
    (stored,) = checkpoints(tmp_path)
    restore_state(kept, stored.state)
    list(run(kept, 5, every=10))
    assert stored.history == told(2) and same(kept, state)


def test_who_waits_waits_for_both(tmp_path: Path, states: list[TrainingState], monkeypatch: pytest.MonkeyPatch) -> None:
    gate, to = Gate(monkeypatch), Checkpointer(tmp_path / "1", nothing)
    save(to, states[0], wait=False)
    assert gate.reached.wait(60)
    waiting = threading.Thread(target=save, args=(to, states[1]))
    waiting.start()
    assert waiting.is_alive()  # it cannot end before the gate is open
    gate.open.set()
    waiting.join(60)
    assert not waiting.is_alive()
    assert steps(tmp_path) == [2, 1]


# ---- what goes wrong


def test_a_disk_that_takes_nothing_is_one_warning(
    tmp_path: Path,
    states: list[TrainingState],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stored: list[int] = []
    to = Checkpointer(tmp_path / "1", stored.append)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with caplog.at_level(logging.WARNING):
        save(to, states[0])
        with monkeypatch.context() as patch:
            patch.setattr(HostCopy, "write", full)
            for state in states[1:4]:
                save(to, state)
        assert steps(tmp_path) == [1]  # the run goes on with what it has
        save(to, states[4])
    assert stored == [1, 5]
    assert steps(tmp_path) == [5, 1]
    assert len(names(tmp_path / "1")) == 4  # nothing half is left
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 and said[0].startswith(f"{tmp_path / '1'}: a checkpoint could not be written: ")


@pytest.mark.parametrize("how", ["finish", "save", "wait"])
def test_what_stored_raises_is_raised_where_the_training_is(
    tmp_path: Path, states: list[TrainingState], how: str
) -> None:
    def outdated(step: int) -> None:
        if step == 1:
            raise Outdated("another has taken over")

    to = Checkpointer(tmp_path / "1", outdated)
    if how == "wait":
        with pytest.raises(Outdated, match="another has taken over"):
            save(to, states[0])
    else:
        save(to, states[0], wait=False)
        assert to._thread is not None
        to._thread.join()
        with pytest.raises(Outdated, match="another has taken over"):
            to.finish() if how == "finish" else save(to, states[1], wait=False)
    to.finish()  # it was said
    assert steps(tmp_path) == [1]


def damage_state(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit": damage_state,
    "cut off": lambda path: os.truncate(path, path.stat().st_size // 2),
    "gone": Path.unlink,
    "another's": lambda path: path.write_bytes((path.with_name("state-000000001.safetensors")).read_bytes()),
    "its JSON cut off": lambda path: os.truncate(path.with_suffix(".json"), 20),
    "its JSON empty": lambda path: os.truncate(path.with_suffix(".json"), 0),
    "its JSON a list": lambda path: path.with_suffix(".json").write_text("[]"),
    "its JSON without history": lambda path: path.with_suffix(".json").write_text(
        json.dumps({"step": 2, "sha256": files.sha256(path)})
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_one_that_is_damaged_is_said_and_the_one_before_is_used(
    tmp_path: Path, states: list[TrainingState], caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    to = Checkpointer(tmp_path / "1", nothing)
    for state in states[:2]:
        save(to, state)
    path = tmp_path / "1" / "state-000000002.safetensors"
    DAMAGES[damage](path)
    with caplog.at_level(logging.WARNING):
        assert steps(tmp_path) == [1]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{path}: damaged, so an older checkpoint is used: ")


# ---- kill −9 anywhere


WRITING = {checkpoint.__file__, files.__file__}


def killed_at(line: int, folder: Path, state: TrainingState) -> bool:
    """A process that stores a checkpoint, killed before the so many-th line of ours in its writing thread. False when
    it was done before that.
    """
    child = os.fork()
    if not child:
        left = line

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left
            if frame.f_code.co_filename not in WRITING:
                return None
            left -= event == "line"
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        try:
            threading.settrace(trace)
            save(Checkpointer(folder, nothing), state)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_a_kill_at_any_line_leaves_no_half_checkpoint(
    tmp_path: Path, states: list[TrainingState], caplog: pytest.LogCaptureFixture
) -> None:
    before = tmp_path / "before"
    for state in states[:2]:
        save(Checkpointer(before, nothing), state)
    left = set()
    for line in itertools.count(1):
        home = tmp_path / f"{line}"
        shutil.copytree(before, home / "1")
        killed = killed_at(line, home / "1", states[2])
        with caplog.at_level(logging.WARNING):
            found = list(checkpoints(home))
        assert not caplog.records, "one was read that is not whole"
        kinds = tuple(each.step for each in found)
        if kinds not in left:
            state, _ = fresh()
            restore_state(state, found[0].state)
            assert same(state, states[found[0].step - 1])
        left.add(kinds)
        if not killed:
            break
    assert line > 50
    assert left == {(2, 1), (3, 2, 1), (3, 2)}


@pytest.mark.parametrize("what", ["state", "json"])
def test_a_kill_within_a_write_leaves_no_half_checkpoint(
    tmp_path: Path,
    states: list[TrainingState],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    what: str,
) -> None:
    save(Checkpointer(tmp_path / "1", nothing), states[0])
    child = os.fork()
    if not child:
        true_write = Path.write_bytes

        true_copy = HostCopy.write

        def half_a_state(copy: HostCopy, path: Path, facts: Any) -> None:
            true_copy(copy, path, facts)
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

        def half_a_file(path: Path, content: bytes) -> int:
            true_write(path, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
            return 0

        try:
            if what == "state":
                monkeypatch.setattr(HostCopy, "write", half_a_state)
            else:
                monkeypatch.setattr(Path, "write_bytes", half_a_file)
            save(Checkpointer(tmp_path / "1", nothing), states[1])
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert [name for name in names(tmp_path / "1") if name.startswith(".")], "it was not killed half-way"
    with caplog.at_level(logging.WARNING):
        assert steps(tmp_path) == [1]
    assert not caplog.records
    settings = Settings.load(tmp_path / "home")
    of_the_run = run_folders.folder(settings, "mine", 3, 1)
    shutil.copytree(tmp_path / "1", of_the_run / "1")
    run_folders.collect(settings, "mine", 3, 1, keep=1)
    assert names(of_the_run / "1") == []


def test_a_picture_that_was_being_written_goes_when_the_run_has_ended(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path)
    pictures = run_folders.artifacts(settings, "mine", 3, 1) / "samples"
    write_atomically(pictures / "000120.png", b"whole")
    (pictures / ".mine").write_bytes(b"of the user")
    child = os.fork()
    if not child:
        try:
            with replacing(pictures / "000240.png") as temporary:
                temporary.write_bytes(b"ha")
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert len(names(pictures)) == 3, "it was not killed half-way"
    run_folders.collect(settings, "mine", 3, 1, keep=1)
    assert sorted(names(pictures)) == [".mine", "000120.png"]
