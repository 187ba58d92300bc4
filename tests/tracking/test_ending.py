"""The end of a run beyond the registry."""

from pathlib import Path

import pytest

from aigc_lab.host import run_folders
from aigc_lab.host.settings import Settings
from aigc_lab.registry.records import StoredScore
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.runs.record import Record
from aigc_lab.tracking import spool_log
from aigc_lab.tracking.base import run_key
from aigc_lab.tracking.ending import Ending, conclude
from aigc_lab.tracking.spool import SpoolTracker

PLACE = ("s-1", 0, 2)


@pytest.mark.parametrize(("result", "collapse"), [(10, "NONE"), (20, "SEVERE"), (None, "SEVERE")])
def test_a_run_ends_with_what_is_said_of_its_result(result: int | None, collapse: str) -> None:
    verdicts = [("collapse", 20, "SEVERE"), ("collapse", 10, "NONE"), ("stability", 20, "STABLE")]
    said = Ending(RunState.FINISHED, None, verdicts, result).tags
    assert said == {"state": "FINISHED", "collapse": collapse, "stability": "STABLE"}
    assert Ending(RunState.FAILED, "why").tags == {"state": "FAILED", "reason": "why"}


@pytest.mark.parametrize(
    ("ending", "stays"),
    [
        (Ending(RunState.FINISHED, result_step=9), {"last.safetensors"}),
        (Ending(RunState.PRUNED), {"last.safetensors"}),
        (Ending(RunState.FAILED), {"last.safetensors"}),
        # Its training is done, and only its scoring failed: it can go on from there.
        (Ending(RunState.FAILED, result_step=9), {"last.safetensors", "state-9.safetensors"}),
    ],
)
def test_what_stays_of_a_run_that_has_ended(tmp_path: Path, ending: Ending, stays: set[str]) -> None:
    settings = Settings.load(home=tmp_path)
    folder = run_folders.folder(settings, *PLACE)
    for attempt in ("1", "2"):
        (folder / attempt).mkdir(parents=True)
        for name in ("last.safetensors", "state-9.safetensors"):
            (folder / attempt / name).write_bytes(b"x")
    told: list[object] = []
    Ending(RunState.KILLED).complete(settings, PLACE, 2, lambda *end: told.append(end))
    assert told == [("KILLED", {"state": "KILLED"})]
    assert len(list(folder.glob("*/*"))) == 4  # interrupted, it goes on from whatever is there
    ending.complete(settings, PLACE, 2, None)
    assert {path.name for path in folder.iterdir()} == {"2"}
    assert {path.name for path in (folder / "2").iterdir()} == stays


def test_a_floor_is_told_by_whoever_ends_the_run(tmp_path: Path) -> None:
    floors: list[tuple[float | None, float | None]] = [(0.9634, 0.35), (0.9634, None), (None, None)]
    said = [Ending(RunState.FINISHED, floor=floor).tags.get("floor") for floor in floors]
    assert said == ["0.963 ± 0.35", "0.963", None]
    score = StoredScore("fd", 3.0, 2.0, 4.0, 500, 0.5, "fd|n:500", "lower", "last", 20, "holdout", 0.1)
    record = Record(tmp_path)
    record._store(score)
    assert record.floor_of("fd") == (0.5, 0.1) and record.floor_of("other") == (None, None)
    with Registry.open(f"sqlite:///{tmp_path / 'registry.db'}", home=tmp_path) as registry:
        sweep = registry.sweep("toy", "0123456789", {}, "fd", "lower")
        registry.trial(sweep, 0, "vae", {}, {})
        run = registry.run(sweep, 0, 1, "search")
        registry.finish(run, registry.begin(run, {}), RunState.FINISHED, scores=[score])
        spool = SpoolTracker(tmp_path / "spool")
        spool.start(sweep, "n", run_key(run, 1), {}, {})
        conclude(registry, Settings.load(tmp_path), spool, run_key(run, 1))
    (*_, end) = spool_log.records(tmp_path / "spool" / run_key(run, 1))
    assert (end["end"], end["tags"]["floor"]) == ("FINISHED", "0.5 ± 0.1")
