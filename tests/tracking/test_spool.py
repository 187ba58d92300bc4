"""The spool and its shipper: all that a run shows reaches the tracker once, whatever fails on the way."""

import errno
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aigc_lab.errors import Failure
from aigc_lab.host import files
from aigc_lab.host.files import locked
from aigc_lab.tracking import spool_log
from aigc_lab.tracking.base import DatasetInfo, MetricPoint
from aigc_lab.tracking.in_memory import MemoryRun, MemoryTracker
from aigc_lab.tracking.shipper import Shipper
from aigc_lab.tracking.spool import SpoolRun, SpoolTracker

DATA = DatasetInfo("ring", "0" * 40, None, "points 2, 100 samples")
GRID = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
KEY = "points-01234567.0.0.1"


class Store(MemoryTracker):
    """A tracker whose store fails when `down`: what runs take then waits for their next flush."""

    down = False

    def experiment(self, name: str) -> str:
        if self.down:
            raise Failure("the store is down")
        return super().experiment(name)

    def start(self, *given: Any, **options: Any) -> MemoryRun:
        if self.down:
            raise Failure("the store is down")
        run = super().start(*given, **options)
        run.flush = self._flush(run)  # type: ignore[method-assign]
        return run

    def _flush(self, run: MemoryRun) -> Any:
        return lambda: 1 if self.down else MemoryRun.flush(run)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def opened(folder: Path, key: str = KEY) -> SpoolRun:
    return SpoolTracker(folder).start("points-01234567", "point_gan 0.0", key, {"lr": 0.1}, {"seed": "0"}, DATA)


def shipper(folder: Path, tracker: MemoryTracker, told: list[tuple[str, str, str]] | None = None) -> Shipper:
    return Shipper(folder, tracker, lambda *ids: None if told is None else told.append(ids))


def fill(run: SpoolRun, file: Path) -> None:
    run.scalars(10, {"loss/a": 1.5, "loss/b": float("nan")})
    run.scores(10, {"fid": 3.0})
    run.image("samples/grid", GRID, 10)
    run.text("samples/10.txt", "a text")
    run.artifact(file, "model")
    assert run.flush() == 0


def check(run: MemoryRun) -> None:
    assert run.params == {"lr": "0.1"}
    assert run.dataset == DATA
    assert run.metrics == {"loss/a": [(10, 1.5)], "score/fid": [(10, 3.0)]}
    ((key, step, pixels),) = run.images
    assert (key, step) == ("samples/grid", 10) and np.array_equal(pixels, GRID)
    assert run.texts == {"samples/10.txt": "a text"}
    assert run.artifacts == {"model/weights.bin": b"weights"}
    assert run.tag["seed"] == "0" and run.tag["aigc_lab.nonfinite"] == "loss/b: 1 from step 10"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"weights")
    return path


def test_all_arrives_and_nothing_is_left(folder: Path, file: Path) -> None:
    store, told = MemoryTracker(), list[tuple[str, str, str]]()
    shipping, run = shipper(folder, store, told), opened(folder)
    fill(run, file)
    assert shipping.ship() == 0
    shown = store.runs[KEY]
    check(shown)
    assert told == [(KEY, "1", shown.run_id)] and shown.status == "RUNNING"
    run.scalars(20, {"loss/a": 2.5})
    assert run.end("FINISHED", {"state": "PRUNED"}) == 0
    assert shipping.ship() == 0 == shipping.ship()
    assert (shown.status, shown.tag["state"]) == ("FINISHED", "PRUNED")
    assert shown.metrics["loss/a"] == [(10, 1.5), (20, 2.5)]
    assert list(folder.iterdir()) == []
    assert len(told) == 1


def test_points_keep_the_time_of_their_recording(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[MetricPoint] = []
    monkeypatch.setattr(MemoryRun, "points", lambda self, points: taken.extend(points))
    monkeypatch.setattr("aigc_lab.tracking.base.now", lambda: 123456)
    run = opened(folder)
    run.scalars(1, {"loss/a": 1.0})
    run.flush()
    monkeypatch.undo()
    monkeypatch.setattr(MemoryRun, "points", lambda self, points: taken.extend(points))
    shipper(folder, MemoryTracker()).ship()
    assert taken == [MetricPoint("loss/a", 1.0, 123456, 1)]


@pytest.mark.parametrize("restart", [False, True])
def test_a_store_that_is_down_for_a_while_loses_and_doubles_nothing(folder: Path, file: Path, restart: bool) -> None:
    store = Store()
    shipping, run = shipper(folder, store), opened(folder)
    store.down = True
    with pytest.raises(Failure):
        shipping.ship()
    store.down = False
    assert shipping.ship() == 0
    store.down = True
    run.scalars(10, {"loss/a": 1.0})
    run.flush()
    assert shipping.ship() == 1 == shipping.ship()
    run.scalars(20, {"loss/a": 2.0})
    run.end("FINISHED", {})
    assert shipping.ship() == 1
    if restart:  # the process that shipped is gone, and with it what waited in its memory
        shown = store.runs[KEY]
        shown._points.clear()
        shipping = shipper(folder, store)
        with pytest.raises(Failure):
            shipping.ship()
    store.down = False
    assert shipping.ship() == 0
    assert store.runs[KEY].metrics == {"loss/a": [(10, 1.0), (20, 2.0)]}
    assert store.runs[KEY].status == "FINISHED"
    assert list(folder.iterdir()) == []


def test_another_shipper_goes_on_where_one_was_killed(folder: Path, file: Path) -> None:
    store, run = MemoryTracker(), opened(folder)
    fill(run, file)
    shipper(folder, store).ship()
    run.scalars(20, {"loss/a": 2.5})
    run.flush()
    shipper(folder, store).ship()
    check_metrics = {"loss/a": [(10, 1.5), (20, 2.5)], "score/fid": [(10, 3.0)]}
    assert store.runs[KEY].metrics == check_metrics and len(store.runs[KEY].images) == 1
    run.end("KILLED", {})
    shipper(folder, store).ship()
    assert store.runs[KEY].status == "KILLED" and len(store.runs) == 1


def test_a_line_that_a_kill_cut_off_is_skipped(folder: Path) -> None:
    store, run = MemoryTracker(), opened(folder)
    log = folder / KEY / spool_log.LOG
    with log.open("ab") as half:
        half.write(b'{"points": [["loss/a", 1.0,')
    shipping = shipper(folder, store)
    assert shipping.ship() == 0 and store.runs[KEY].metrics == {}
    SpoolTracker(folder).abandon("", KEY)
    assert shipping.ship() == 0
    assert (store.runs[KEY].status, store.runs[KEY].tag["state"]) == ("KILLED", "KILLED")
    assert run.run_id == KEY


def test_runs_that_nobody_works_on_are_ended_once(folder: Path) -> None:
    SpoolTracker(folder).abandon_all()  # there is no folder yet
    for key in ("a.0.0.1", "a.0.1.1"):
        opened(folder, key)
    ended = opened(folder, "a.1.0.1")
    ended.end("FINISHED", {})
    for _ in range(2):
        SpoolTracker(folder).abandon_all()
    ends = {path.parent.name: path.read_text().count('"end"') for path in folder.glob("*/log.jsonl")}
    assert ends == {"a.0.0.1": 1, "a.0.1.1": 1, "a.1.0.1": 1}
    store = MemoryTracker()
    shipper(folder, store).ship()
    assert {key: run.status for key, run in store.runs.items()} == {
        "a.0.0.1": "KILLED",
        "a.0.1.1": "KILLED",
        "a.1.0.1": "FINISHED",
    }


def test_what_is_gone_or_damaged_holds_nothing_up(folder: Path, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, run = MemoryTracker(), opened(folder)
    fill(run, file)
    file.unlink()
    next((folder / KEY).glob("*.bin")).unlink()
    next((folder / KEY).glob("*.png")).write_bytes(b"not a picture")
    (folder / "stray").mkdir()
    (folder / "stray" / spool_log.LOG).write_text(json.dumps({"points": []}) + "\n")
    assert shipper(folder, store).ship() == 0
    assert store.runs[KEY].metrics["score/fid"] == [(10, 3.0)]
    assert "artifact" in caplog.text and "picture of step 10 cannot be shown" in caplog.text


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes: the kernel takes a part of a write, and then nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [5, 40, -1])
def test_what_a_full_disk_does_not_take_waits_and_is_told_once(
    folder: Path, file: Path, caplog: pytest.LogCaptureFixture, room: int
) -> None:
    """`room` for so many bytes of the next record; -1: for all of it but the end of its line."""
    run = opened(folder)
    log = folder / KEY / spool_log.LOG
    size = log.stat().st_size
    if room < 0:
        run.text("samples/1.txt", "a text")
        room = log.stat().st_size - size - 1
        os.truncate(log, size)
    with full_disk(size + room):
        run.text("samples/1.txt", "a text")
        assert log.stat().st_size == size, "a record is whole or absent"
        for step in (1, 2):
            run.scalars(step, {"loss/a": float(step)})
            assert run.flush() == 1 + step
        run.image("samples/grid", GRID, 2)
        assert run.flush() == 4
    assert caplog.text.count("cannot be written") == 1
    assert run.flush() == 0
    store = MemoryTracker()
    shipper(folder, store).ship()
    shown = store.runs[KEY]
    assert shown.metrics == {"loss/a": [(1, 1.0), (2, 2.0)]}
    assert (shown.texts, len(shown.images)) == ({"samples/1.txt": "a text"}, 1)
    assert [next(iter(record)) for record in spool_log.records(folder / KEY)] == [
        *("start", "text", "points", "points", "image")
    ]


def test_a_run_that_ended_on_a_full_disk_is_written_when_the_next_one_starts(folder: Path) -> None:
    tracker, store = SpoolTracker(folder), MemoryTracker()
    run = tracker.start("points", "r", "a.0.0.1", {}, {})
    with full_disk(1):
        run.scalars(1, {"loss/a": 1.0})
        assert run.end("FINISHED", {}) == 2
        tracker.abandon("", "a.0.0.1")  # harmless, as nothing is
    tracker.start("points", "r", "a.0.1.1", {}, {})
    shipper(folder, store).ship()
    assert (store.runs["a.0.0.1"].status, store.runs["a.0.0.1"].metrics) == ("FINISHED", {"loss/a": [(1, 1.0)]})


def test_names_and_pixels_are_refused_where_they_are_given(folder: Path, file: Path) -> None:
    with pytest.raises(ValueError, match="param name"):
        SpoolTracker(folder).start("a", "b", "c", {"a?": 1}, {})
    run = opened(folder)
    calls: tuple[Callable[[], object], ...] = (
        lambda: run.scalars(1, {"a?": 1.0}),
        lambda: run.text("../a", ""),
        lambda: run.image("a", GRID.astype(float), 0),
        lambda: run.artifact(file.with_name("none"), ""),
        lambda: run.tags({"a?": "b"}),
    )
    for call in calls:
        with pytest.raises(ValueError):
            call()
    run.end("FINISHED", {})
    with pytest.raises(AssertionError, match="has ended"):
        run.tags({"a": "b"})


# ---- attempts that go on from each other

STEPS = range(0, 60, 10)


def attempt(folder: Path, file: Path, number: int, first: int, last: int) -> SpoolRun:
    """One attempt: it resumes at step `first` and is killed after `last`, with what it had not flushed lost."""
    run = SpoolTracker(folder).start(
        "points-01234567", "point_gan 0.0", KEY, {"lr": 0.1}, {"seed": "0", "attempt": str(number)}, DATA
    )
    for step in range(first, last + 10, 10):
        run.scalars(step, {"loss/a": step / 10, "loss/b": float("nan") if step == 10 else 1.0})
        run.image("samples/grid", GRID + step, step)
        run.text(f"samples/{step}.txt", f"text of {step}")
        run.artifact(file, "model")
        if step != last or last == STEPS[-1]:
            run.flush()
    return run


def check_chain(run: MemoryRun) -> None:
    assert run.metrics == {
        "loss/a": [(step, step / 10) for step in STEPS],
        "loss/b": [(step, 1.0) for step in STEPS if step != 10],
    }
    assert [(key, step) for key, step, _ in run.images] == [("samples/grid", step) for step in STEPS]
    assert all(np.array_equal(pixels, GRID + step) for _, step, pixels in run.images)
    assert run.texts == {f"samples/{step}.txt": f"text of {step}" for step in STEPS}
    assert run.artifacts == {"model/weights.bin": b"weights"}
    assert run.tag["aigc_lab.nonfinite"] == "loss/b: 1 from step 10"


@pytest.mark.parametrize("between", ["shipped", "abandoned", "nothing"])
def test_attempts_of_a_chain_are_one_run_with_one_point_a_step(folder: Path, file: Path, between: str) -> None:
    store = MemoryTracker()
    spooling, shipping = SpoolTracker(folder), shipper(folder, store)
    for number, (first, last) in enumerate([(0, 20), (10, 30), (20, 30), (0, 50)], 1):
        run = attempt(folder, file, number, first, last)
        if last != STEPS[-1] and between != "nothing":
            spooling.abandon("", KEY)
            if between == "shipped":
                assert shipping.ship() == 0
                assert (store.runs[KEY].status, store.runs[KEY].tag["state"]) == ("KILLED", "KILLED")
                assert not list((folder / KEY).glob("*.png")), "what is delivered is deleted"
    assert shipping.ship() == 0
    assert (store.runs[KEY].status, store.runs[KEY].tag["attempt"]) == ("RUNNING", "4")
    if between != "nothing":
        assert store.runs[KEY].tag["state"] == "", "an attempt that goes on is not as the last one ended"
    run.end("FINISHED", {"state": "FINISHED"})
    assert shipping.ship() == 0
    assert len(store.runs) == 1
    check_chain(store.runs[KEY])
    assert (store.runs[KEY].status, store.runs[KEY].tag["state"]) == ("FINISHED", "FINISHED")
    assert list(folder.iterdir()) == []


def test_a_later_attempt_is_told_what_its_step_shows(folder: Path) -> None:
    first = opened(folder)
    assert first.scalars(20, {"time/a": 3.0, "loss/b": 1.0}) == {"time/a": 3.0, "loss/b": 1.0}
    first.scalars(10, {"time/c": 1.0})
    first.flush()
    later = opened(folder)
    given = {"time/a": 7.0, "time/c": 2.0, "time/d": 5.0}
    assert later.scalars(20, given) == given | {"time/a": 3.0}


def test_a_killed_run_keeps_its_log_and_costs_nothing(folder: Path, file: Path) -> None:
    store = MemoryTracker()
    attempt(folder, file, 1, 0, 20).end("KILLED", {"state": "KILLED"})
    shipper(folder, store).ship()
    store.runs.clear()
    assert shipper(folder, store).ship() == 0
    assert store.runs == {}, "nothing is opened for it any more"
    assert [path.name for path in folder.iterdir()] == [KEY]


@pytest.mark.parametrize("shipped", [False, True])
def test_a_run_that_nobody_will_resume_is_forgotten(folder: Path, file: Path, shipped: bool) -> None:
    store, spooling = MemoryTracker(), SpoolTracker(folder)
    spooling.forget(KEY)
    run = attempt(folder, file, 1, 0, 20)
    spooling.forget(KEY)  # it has not ended
    run.end("KILLED", {})
    if shipped:
        shipper(folder, store).ship()
    spooling.forget(KEY)
    assert spool_log.logged_runs(folder) == ([] if shipped else [folder / KEY]), "what waits is delivered first"
    shipper(folder, store).ship()
    assert spool_log.logged_runs(folder) == []
    assert (store.runs[KEY].status, len(store.runs[KEY].images)) == ("KILLED", 3)


def test_who_ships_is_left_to_forget(folder: Path, file: Path) -> None:
    store = MemoryTracker()
    attempt(folder, file, 1, 0, 20).end("KILLED", {})
    with locked(folder / spool_log.LOCK):
        shipping = shipper(folder, store)
        shipping.ship()
        SpoolTracker(folder).forget(KEY)
        assert spool_log.logged_runs(folder) == [folder / KEY]
        shipping.ship()
        assert spool_log.logged_runs(folder) == []


def test_a_run_is_ended_from_outside(folder: Path, file: Path) -> None:
    store, spooling = MemoryTracker(), SpoolTracker(folder)
    spooling.end(KEY, "FINISHED", {})  # it was shipped, or never began
    attempt(folder, file, 1, 0, 20)
    spooling.abandon_all()
    shipper(folder, store).ship()
    for _ in range(2):
        spooling.end(KEY, "FINISHED", {"state": "PRUNED"})
        spooling.abandon_all()
    assert (folder / KEY / spool_log.LOG).read_text().count('"end"') == 2
    assert store.runs[KEY].status == "KILLED"
    shipper(folder, store).ship()
    assert (store.runs[KEY].status, store.runs[KEY].tag["state"]) == ("FINISHED", "PRUNED")
    assert spool_log.logged_runs(folder) == []


def test_a_line_that_lacks_only_its_end_is_not_taken_twice(folder: Path) -> None:
    run = opened(folder)
    run.scalars(1, {"loss/a": 1.0})
    run.flush()
    log = folder / KEY / spool_log.LOG
    log.write_bytes(log.read_bytes()[:-1])
    again = opened(folder)
    again.scalars(1, {"loss/a": 1.0})
    again.end("FINISHED", {})
    store = MemoryTracker()
    shipper(folder, store).ship()
    assert store.runs[KEY].metrics == {"loss/a": [(1, 1.0)]}


# ---- files, wherever they were written


def test_a_file_arrives_whatever_became_of_the_attempts_that_wrote_it(tmp_path: Path) -> None:
    """The store is away. An attempt dies after it recorded its weights, the next writes the same, and when the run has
    ended the folder of the first goes; then the home is moved.
    """
    home, store = tmp_path / "home", MemoryTracker()
    for number in (1, 2):
        written = home / "checkpoints" / str(number) / "last.safetensors"
        written.parent.mkdir(parents=True)
        written.write_bytes(b"weights")
        run = opened(home / "spool")
        run.artifact(written, "model")
    run.end("FINISHED", {})
    shutil.rmtree(home / "checkpoints" / "1")
    home = home.rename(tmp_path / "moved")
    shipper(home / "spool", store).ship()
    assert store.runs[KEY].artifacts == {"model/last.safetensors": b"weights"}
    assert spool_log.logged_runs(home / "spool") == []


def test_a_shipper_killed_before_its_note_sends_the_file_again(
    folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, run = MemoryTracker(), opened(folder)
    run.artifact(file, "model")
    file.unlink()
    with monkeypatch.context() as patch:
        patch.setattr("aigc_lab.tracking.shipper.write_atomically", interrupted)
        with pytest.raises(KeyboardInterrupt):
            shipper(folder, store).ship()
    store.runs.clear()  # and what it had sent was lost
    run.end("FINISHED", {})
    shipper(folder, store).ship()
    assert store.runs[KEY].artifacts == {"model/weights.bin": b"weights"}


def interrupted(*given: object) -> None:
    raise KeyboardInterrupt


def test_a_file_that_is_nowhere_any_more_is_recorded_again(folder: Path, file: Path) -> None:
    store, run = MemoryTracker(), opened(folder)
    run.artifact(file, "model")
    next((folder / KEY).glob("*.bin")).unlink()
    again = opened(folder)
    again.artifact(file, "model")
    again.end("FINISHED", {})
    shipper(folder, store).ship()
    assert store.runs[KEY].artifacts == {"model/weights.bin": b"weights"}


def test_a_file_that_goes_while_the_disk_is_full_holds_nothing_up(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The attempt whose file waited to be recorded was collected meanwhile."""
    run, file, append = opened(folder), tmp_path / "last.safetensors", spool_log.append
    file.write_bytes(b"weights")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(spool_log, "append", full)
    monkeypatch.setattr(files, "share", full)
    run.artifact(file, "model")
    file.unlink()
    monkeypatch.undo()
    assert run.end("FINISHED", {"state": "FINISHED"}) == 0
    assert spool_log.append is append and "is gone, and MLflow will lack it" in caplog.text
    store = MemoryTracker()
    assert shipper(folder, store).ship() == 0
    assert [each.status for each in store.runs.values()] == ["FINISHED"]


def test_a_log_of_an_earlier_version_is_shipped_and_gone_on_with(folder: Path, file: Path) -> None:
    """It names the place where a file was written, in the folder of an attempt."""
    store, digest = MemoryTracker(), files.sha256(file)
    older = file.with_name("older.bin")
    for path in (file, older):
        shutil.copyfile(file, path) if path != file else None
        opened(folder).record("artifact", path=str(path), folder="model", sha256=digest)
    older.unlink()
    again = opened(folder)
    again.artifact(file, "model")
    assert again._logged.artifacts["model/weights.bin"] == "", "it may go before it is shipped"
    again.end("FINISHED", {})
    shipper(folder, store).ship()
    assert store.runs[KEY].artifacts == {"model/weights.bin": b"weights"}


def test_what_is_delivered_is_not_recorded_again_and_equal_files_go_one_by_one(folder: Path, file: Path) -> None:
    store, run = MemoryTracker(), opened(folder)
    shipping = shipper(folder, store)
    run.artifact(file, "model")
    run.artifact(file, "model", "other.bin")
    assert shipping.ship() == 0
    assert not list((folder / KEY).glob("*.bin"))
    size = (folder / KEY / spool_log.LOG).stat().st_size
    opened(folder).artifact(file, "model")
    again = (folder / KEY / spool_log.LOG).read_bytes()[size:]
    assert b'"start"' in again and b'"artifact"' not in again
    assert store.runs[KEY].artifacts == {"model/weights.bin": b"weights", "model/other.bin": b"weights"}


def test_tags_that_changed_stay_so_when_another_shipper_goes_on(folder: Path) -> None:
    store, run = MemoryTracker(), opened(folder)
    run.tags({"seed": "1"})
    shipper(folder, store).ship()
    run.scalars(1, {"loss/a": 1.0})
    run.flush()
    shipper(folder, store).ship()
    assert store.runs[KEY].tag["seed"] == "1"
