"""What a worker is given to do runs of a sweep: the same code wherever it is, trusted before it is run, or a reason."""

import json
from pathlib import Path
from typing import Any

import pytest

from aigc_lab.errors import Failure, UsageError
from aigc_lab.experiment.experiment import Experiment, load_experiment
from aigc_lab.host import environment, trust
from aigc_lab.host.settings import Settings
from aigc_lab.runs.opening import check_versions, experiment_of, opening_of

MINE = """
from aigc_lab.systems import point_gan

class Mine(point_gan.PointGAN):
    '''Of one's own.'''
"""
TEXT = """
data: {name: ring, points: 2000}
system: {name: ./mine.py, hidden: 8, lr: {log: [1e-4, 1e-2]}}
training: {steps: 20, batch_size: 32, log_every: 10, evaluate_every: 10}
evaluation: {name: points, samples: 400}
objective: {minimize: rkl}
search: {trials: 1}
"""


@pytest.fixture
def begun(tmp_path: Path) -> tuple[Experiment, dict[str, Any]]:
    """The experiment where the sweep began, and its opening as it comes out of a registry."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.py").write_text(MINE)
    (tmp_path / "there" / "own.yaml").write_text(TEXT)
    experiment = load_experiment(str(tmp_path / "there" / "own.yaml"), data_dir=tmp_path)
    experiment.resolve(lambda hole: hole.ends()[0])  # loads its code, which the user has named
    return experiment, json.loads(json.dumps(opening_of(experiment, "mark", {})))


def joined(tmp_path: Path, opening: dict[str, Any], *, trusts: Experiment | None = None) -> Experiment:
    """The experiment in another home, which may trust the code of one."""
    settings = Settings.load(tmp_path / "home")
    if trusts is not None:
        trust.remember(settings.home, trusts.code)
    return experiment_of(opening, settings, "own-1", trusted=False)


def test_code_that_is_not_there_comes_with_the_opening(begun: Any, tmp_path: Path) -> None:
    experiment, opening = begun
    digest = experiment.digest
    (tmp_path / "there" / "mine.py").unlink()
    with pytest.raises(UsageError, match=r"mine\.py: this code came from elsewhere"):
        joined(tmp_path, opening)
    there = joined(tmp_path, opening, trusts=experiment)
    assert there.digest == digest
    plan = there.resolve(lambda hole: hole.ends()[0])
    assert plan.system_class.__doc__ == "Of one's own."
    copy = tmp_path / "home" / "checkpoints" / "own-1" / "code" / "mine.py"
    assert copy.read_text() == MINE


def test_other_code_at_the_same_path_is_not_run(begun: Any, tmp_path: Path) -> None:
    experiment, opening = begun
    (tmp_path / "there" / "mine.py").write_text("raise SystemExit('somebody else put this here')")
    there = joined(tmp_path, opening, trusts=experiment)
    assert there.resolve(lambda hole: hole.ends()[0]).system_class.__doc__ == "Of one's own."


def test_code_where_the_sweep_began_stays_where_it_is(begun: Any, tmp_path: Path) -> None:
    experiment, opening = begun
    there = joined(tmp_path, opening, trusts=experiment)
    assert there.copies is None and there.path == experiment.path


def test_an_experiment_that_is_another_here(begun: Any, tmp_path: Path) -> None:
    experiment, opening = begun
    opening["data"]["data"]["points"] = 1999
    with pytest.raises(Failure, match=r"own\.yaml: .*has changed since the sweep began, or the data here are others"):
        joined(tmp_path, opening, trusts=experiment)


@pytest.mark.parametrize("name", ["python", "aigc-lab", "torch", "numpy"])
def test_a_worker_of_another_version_is_refused(begun: Any, name: str) -> None:
    _, opening = begun
    check_versions(opening)
    ours, opening["versions"][name] = opening["versions"][name], "0.0.7"
    with pytest.raises(UsageError, match=rf"has {name} {ours}, and .* has {name} 0\.0\.7: install the same here"):
        check_versions(opening)


def test_a_worker_of_another_commit_is_refused(begun: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, opening = begun
    monkeypatch.setattr(environment, "code", lambda: {"git_commit": "a" * 40})
    opening["versions"]["git_commit"] = "b" * 40
    with pytest.raises(UsageError, match="commit aaaaaaaaaa, and .* bbbbbbbbbb: check the same out here"):
        check_versions(opening)
    del opening["versions"]["git_commit"]  # a wheel has none
    check_versions(opening)
