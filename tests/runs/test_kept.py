"""No refusal costs what was trained: names are refused before a training, and what fails after one leaves weights,
scores and a state to go on from.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import WriterHere
from harness import NoWriter, plain_environment, stored
from shell import command

from aigc_lab.commands import verify
from aigc_lab.errors import UsageError
from aigc_lab.experiment.checks import check_experiment
from aigc_lab.experiment.experiment import load_experiment
from aigc_lab.host import confined, names
from aigc_lab.host.settings import Settings
from aigc_lab.metrics.modes import ModeCount
from aigc_lab.registry.records import DESCRIBED
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import attempt_environments
from aigc_lab.sweeps import rehearsal
from aigc_lab.systems.base import Loss, Phase
from aigc_lab.systems.point_gan import PointGAN
from aigc_lab.tracking import writer
from aigc_lab.tracking.mlflow import MlflowTracker
from aigc_lab.tracking.spool import SpoolRun
from aigc_lab.training.checkpoint import load_system

TEXT = """\
data: {name: ring, points: 500}
system: {name: point_gan, hidden: 16}
training: {steps: 40, batch_size: 16, log_every: 10, evaluate_every: 20, threads: 1}
evaluation: {name: points, samples: 200, metrics: [./mine.py, modes]}
objective: {minimize: rkl}
"""
METRIC = """\
from aigc_lab.config import Strict
from aigc_lab.metrics import base


class Mine(base.Metric):
    class Config(Strict):
        pass

    @property
    def gives(self):
        return {"NAME": "lower"}

    def check(self, dataset, samples):
        pass

    def scores(self, evidence):
        return [base.Score("NAME", 1.0, 1.0, 1.0, len(evidence.generated), 1.0, self.signature(evidence), "lower")]
"""
SYSTEM = """\
from aigc_lab.systems.point_gan import PointGAN


class Mine(PointGAN):
    pass
"""
TRAIN = ["train", "mine.yaml", "--device", "cpu"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in set(os.environ) - set(plain_environment()):
        monkeypatch.delenv(name)
    monkeypatch.setenv(confined.VARIABLE, "0")
    monkeypatch.setattr(writer, "Writer", NoWriter)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(TEXT)
    (tmp_path / "mine.py").write_text(METRIC.replace("NAME", "mine"))
    return tmp_path


# ---- names


BAD = ["hit@right", "fid%", "größe", "a+b", "x" * 237, "", "a\nb", "../up", "/top", "a//b"]


@pytest.mark.parametrize("name", BAD)
def test_a_score_that_no_store_takes_is_refused_at_load(folder: Path, name: str) -> None:
    (folder / "mine.py").write_text(METRIC.replace('"NAME"', repr(name)))
    experiment = load_experiment("mine.yaml", data_dir=folder)
    with pytest.raises(UsageError, match=r"metric \./mine\.py: no store takes a score called .*letters, digits"):
        check_experiment(experiment)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "    def phases(self, batch_size):\n"
            "        return [phase._replace(name=phase.name + '@1') for phase in super().phases(batch_size)]\n",
            "phase name 'critic@1'",
        ),
        ("    class Config(PointGAN.Config):\n        größe: int = 3\n", "param name 'training.größe'"),
    ],
)
def test_a_system_whose_curves_no_store_takes_is_refused_at_load(folder: Path, body: str, said: str) -> None:
    (folder / "system.py").write_text(SYSTEM.replace("    pass\n", body), "utf-8")
    (folder / "mine.yaml").write_text(TEXT.replace("name: point_gan, hidden: 16", "name: ./system.py"))
    with pytest.raises(UsageError, match=said):
        check_experiment(load_experiment("mine.yaml", data_dir=folder))


@pytest.mark.parametrize(
    "body",
    [
        '    def summary(self):\n        return {"left@end": 1.0}\n',
        "    def _critic_loss(self, batch, noise, step):\n"
        "        loss = super()._critic_loss(batch, noise, step)\n"
        '        return loss._replace(dynamics={"left@end": loss.total})\n',
    ],
)
def test_what_only_its_first_steps_say_is_refused_before_training(folder: Path, body: str) -> None:
    (folder / "system.py").write_text(SYSTEM.replace("    pass\n", body))
    (folder / "mine.yaml").write_text(TEXT.replace("name: point_gan, hidden: 16", "name: ./system.py"))
    experiment = load_experiment("mine.yaml", data_dir=folder)
    given: dict[str, Any] = {
        "data": experiment.document.data,
        "data_dir": str(folder),
        "weights": (None, False),
        "device": "cpu",
    }
    with pytest.raises(UsageError, match=r"system: metric name '.*left@end'"):
        rehearsal.perform(lambda **told: None, "mine", experiment.document.file, **given)


@pytest.mark.parametrize("name", ["hit-right", "bleu_2", "top.1", "a b", "x" * 236])
def test_what_is_not_refused_mlflow_takes(folder: Path, name: str) -> None:
    """MLflow's own rule is the yardstick."""
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name

    names.refuse_scores([name])
    _validate_metric_name(f"score/{name}_holdout")  # type: ignore[no-untyped-call]
    names.refuse_parameters(["hidden_size"])
    _validate_param_name("training.hidden_size")  # type: ignore[no-untyped-call]


# ---- failures after a training


def _breaks_on_the_holdout(patch: pytest.MonkeyPatch) -> None:
    scores = ModeCount.scores

    def broken(metric: ModeCount, evidence: Any) -> Any:
        if "ref:holdout" in metric.signature(evidence):
            raise RuntimeError("no luck")
        return scores(metric, evidence)

    patch.setattr(ModeCount, "scores", broken)


def _breaks_at_the_last_evaluation(patch: pytest.MonkeyPatch) -> None:
    scores, count = ModeCount.scores, []

    def broken(metric: ModeCount, evidence: Any) -> Any:
        count.append(1)
        if len(count) >= 2:
            raise RuntimeError("no luck")
        return scores(metric, evidence)

    patch.setattr(ModeCount, "scores", broken)


def _refuses_a_score(patch: pytest.MonkeyPatch) -> None:
    scores = SpoolRun.scores

    def refusing(run: SpoolRun, step: int, values: Any) -> None:
        if any(name.endswith("_holdout") for name in values):
            raise ValueError("no luck")
        scores(run, step, values)

    patch.setattr(SpoolRun, "scores", refusing)


def _refuses_the_weights(patch: pytest.MonkeyPatch) -> None:
    def refusing(run: SpoolRun, path: Path, folder: str, name: str = "") -> None:
        raise ValueError("no luck")

    patch.setattr(SpoolRun, "artifact", refusing)


def _has_no_summary(patch: pytest.MonkeyPatch) -> None:
    def broken(system: PointGAN) -> Any:
        raise RuntimeError("no luck")

    patch.setattr(PointGAN, "summary", broken)


FAULTS: list[Callable[[pytest.MonkeyPatch], None]] = [
    _breaks_on_the_holdout,
    _breaks_at_the_last_evaluation,
    _refuses_a_score,
    _refuses_the_weights,
    _has_no_summary,
]


def shown() -> dict[str, Any]:
    with Registry.open(Settings.load().registry_url, create=False) as registry:
        (run,) = list_runs(registry)
        return show_run(registry, run["run"])


def agreed() -> None:
    """All stores agree, and no file is missing."""
    settings = Settings.load()
    with Registry.open(settings.registry_url, create=False) as registry:
        result = verify.verify_sweeps(registry, settings)
    assert not result.problems, str(result)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the run stores that nothing happens to."""
    place = tmp_path_factory.mktemp("truth")
    (place / "mine.yaml").write_text(TEXT)
    (place / "mine.py").write_text(METRIC.replace("NAME", "mine"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "Writer", NoWriter)
        patch.setenv(confined.VARIABLE, "0")
        patch.chdir(place)
        assert command(*TRAIN, "--home", "home").code == 0
        with Registry.open(Settings.load(Path("home")).registry_url, create=False) as registry:
            (run,) = list_runs(registry)
        return stored(place / "home", run["run"])


def test_an_attempt_holds_which_scores_only_describe(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report takes them for scores without a direction, and runs no user's metric to know it."""
    monkeypatch.setattr(writer, "Writer", NoWriter)
    says = METRIC.replace("NAME", "mine").replace(
        "    class Config", '    describes = frozenset({"mine"})\n\n    class Config'
    )
    (folder / "mine.py").write_text(says)
    assert command(*TRAIN).code == 0
    with Registry.open(Settings.load().registry_url, create=False) as registry:
        (run,) = list_runs(registry)
        (environment,) = attempt_environments(registry, run["sweep"])
    assert environment[DESCRIBED]["describing"] == ["mine"]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_fails_after_a_training_costs_none_of_it(
    folder: Path, fault: Callable[[pytest.MonkeyPatch], None], truth: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "Writer", WriterHere)
    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        done = command(*TRAIN)
    assert done.code == 1
    assert "no luck" in done.why
    run = shown()
    assert run["state"] == "FAILED"
    kept = {file["kind"]: Path(file["path"]) for file in run["checkpoints"]}
    assert set(kept) == {"last", "selected"}
    for path in kept.values():
        load_system(path)
    # The other metric's scores stand, whichever evaluation failed.
    assert "mine" in {score["name"] for score in run["scores"]}
    assert {entry["step"] for entry in run["progress"]} >= {20}
    if fault not in (_refuses_the_weights, _refuses_a_score):
        agreed()

    assert command(*TRAIN, "--retry-failed").code == 0
    run = shown()
    assert run["state"] == "FINISHED"
    assert run["attempts"][-1]["from_step"] == 40, "no step is trained again"
    assert stored(folder / ".aigc-lab", run["run"]) == truth
    assert not list(folder.glob(".aigc-lab/checkpoints/**/state-*"))
    agreed()
    settings = Settings.load()
    # MLflow's run of the second attempt has the curves of the first.
    client = MlflowTracker(settings.tracking_uri, settings.artifacts)._client()
    for metric in ("loss/critic/total", "score/mine"):
        steps = [point.step for point in client.get_metric_history(run["mlflow_run_id"], metric)]
        assert steps == ([10, 20, 30, 40] if metric.startswith("loss") else [20, 40])


def test_a_fault_of_the_training_is_none_of_the_scoring(
    folder: Path, truth: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three steps after an evaluation: half of a step is no state to go on from, and its weights are no result."""
    monkeypatch.setattr(writer, "Writer", WriterHere)
    phases = PointGAN.phases

    def breaking(system: PointGAN, batch_size: int) -> list[Phase]:
        critic, generator = phases(system, batch_size)

        def loss(batch: Any, noise: Any, step: int) -> Loss:
            if step == 23:  # after the critic's update of the same step
                raise RuntimeError("no luck")
            return generator.loss(batch, noise, step)

        return [critic, generator._replace(loss=loss)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PointGAN, "phases", breaking)
        assert command(*TRAIN).code == 1
    run = shown()
    assert run["state"] == "FAILED" and run["checkpoints"] == []
    assert {score["checkpoint"] for score in run["scores"]} <= {"progress"}
    assert command(*TRAIN, "--retry-failed").code == 0
    assert stored(folder / ".aigc-lab", shown()["run"]) == truth


def test_a_registry_that_refuses_the_result_costs_no_training(
    folder: Path, truth: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(registry: Registry, *words: object, **facts: object) -> None:
        raise RuntimeError("no luck")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Registry, "finish", refusing)
        with pytest.raises(RuntimeError, match="no luck"):
            command(*TRAIN)
    (path,) = folder.glob(".aigc-lab/checkpoints/**/state-*.json")
    assert json.loads(path.read_text())["step"] == 40
    assert command(*TRAIN).code == 0
    run = shown()
    assert run["attempts"][-1]["from_step"] == 40
    assert stored(folder / ".aigc-lab", run["run"]) == truth
