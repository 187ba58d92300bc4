"""An executor that does more runs at once than this machine has places: the estimate counts its slots."""

import re
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from conftest import WriterHere

from aigc_lab.commands import sweep
from aigc_lab.sweeps.estimate import Estimate
from aigc_lab.tracking import writer

CLUSTER = '''"""Three machines, or as many as are free: here they take turns."""
import threading
from aigc_lab.executors import inline

class Cluster(inline.Inline):
    turn = threading.Lock()
    slots = 3

    def __init__(self, *given):
        super().__init__(*given)
        self.slots = 3

    def run(self, job, watcher):
        with self.turn:
            return super().run(job, watcher)
'''
POINTS: dict[str, Any] = {
    "name": "points",
    "data": {"name": "ring", "points": 2000},
    "system": {"name": "point_gan", "hidden": 8, "lr": {"log": [1e-4, 1e-2]}},
    "training": {"steps": 4, "batch_size": 16, "log_every": 2, "evaluate_every": 4, "threads": 1},
    "evaluation": {"name": "points", "samples": 200},
    "objective": {"minimize": "rkl"},
    "search": {"trials": 4, "sampler": "random"},
}
ALONE = Estimate(4, 4, 3600.0, {"point_gan": 1.0})


def told(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, **options: Any) -> list[str]:
    """The time and the workers of each estimate that is printed."""
    (tmp_path / "cluster.py").write_text(text)
    executor = str(tmp_path / "cluster.py")
    with mock.patch.object(sweep, "estimate", return_value=ALONE), mock.patch.object(writer, "Writer", WriterHere):
        sweep.sweep_experiment(POINTS, [], device="cpu", home=tmp_path / "home", executor=executor, **options)
    lines = re.sub(r"\s+", " ", capsys.readouterr().err)
    return re.findall(r"points: 4 trials, at most 4 runs, about ([^(]*) \(point_gan", lines)


def test_slots_that_the_class_names_are_in_the_estimate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(tmp_path, capsys, CLUSTER, dry_run=True) == ["20.0 min of training on 3 workers"]


def test_slots_that_are_known_once_it_is_open_correct_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    free = CLUSTER.replace("    slots = 3\n", "").replace("self.slots = 3", "self.slots = 2")
    assert told(tmp_path, capsys, free) == ["60.0 min of training", "30.0 min of training on 2 workers"]


def test_no_more_than_there_are_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(tmp_path, capsys, CLUSTER.replace("= 3", "= 50"), dry_run=True) == ["15.0 min of training on 4 workers"]
