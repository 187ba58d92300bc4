"""The experiments as they ship, with their samplers, pruners, confirmations and systems, in a short form: on two
workers, which are real processes.
"""

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Judged, WriterHere
from PIL import Image

from aigc_lab.commands import verify
from aigc_lab.commands.sweep import resume_sweep, sweep_experiment
from aigc_lab.host import content
from aigc_lab.host.settings import Settings
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.store import Registry
from aigc_lab.sweeps.study import Suggestion
from aigc_lab.tracking import writer

# Few steps, scored twice, and as few samples as the scores allow; keys that an experiment does not have are left out.
TRAINING = {"training.steps": 8, "training.log_every": 4, "training.evaluate_every": 4}
PROTOCOLS: dict[str, dict[str, Any]] = {
    "image-small": {"samples": 100},
    "points": {"samples": 500},
    "folder": {"samples": 100},
    "text-oracle": {"samples": 100, "temperatures": [0.8]},
    "text-vae": {"samples": 120},
    "disentangle": {"samples": 100},
    "vae": {"samples": 100, "metrics": ["elbo", {"fd": {"features": "classifier"}}]},
    "conditional": {"samples": 400},
    "text-panel": {"samples": 120},
}
QUICK_CAS = {"name": "image-small", "samples": 100, "metrics": [{"cas": {"steps": 10, "seeds": 2}}]}


def _adversarial(*systems: str | int) -> dict[str, Any]:
    """Changes by which text GANs come to their last phase within the steps of TRAINING."""
    return {f"system.{name}.{key}": 2 for name in systems for key in ("pretrain_steps", "critic_steps")}


SEARCH: dict[str, dict[str, Any]] = {
    "are-gans-created-equal-small": {"search.trials": 24, "confirm.seeds": 1},
    "augment-digits": {"search.seeds": 1, "evaluation": QUICK_CAS},
    "digits": {"confirm.seeds": 1},
    "disentangle-shapes": {"search.seeds": 1, "data.train": 1000, "data.reference": 600, "data.holdout": 600},
    "digits-8x8": {"search.trials": 6, "confirm.seeds": 1},
    "pacgan-grid": {"search.seeds": 2},
    "pacgan-grid-small": {"search.seeds": 2},
    "pacgan-ring": {"search.seeds": 2},
    "pacgan-ring-small": {"search.seeds": 2},
    "pydoc": {"confirm.seeds": 1},
    "ring": {"search.trials": 4, "confirm.seeds": 2},
    "seqgan-oracle": {"search.seeds": 1, "data.words": 100, "data.train": 500, "data.scored": 200}
    | {"system.1.rollouts": 1, "system.1.n_critic": 1, "system.1.filters": 0.1, "system.2.filters": 0.1}
    | {"training.batch_size": 8}
    | _adversarial(1, 2),
    "seqgan-oracle-small": {"search.seeds": 1, "data.train": 500, "data.scored": 200, "training.batch_size": 8}
    | {"system.1.rollouts": 1, "system.1.n_critic": 1}
    | _adversarial(1, 2),
    "text-gans-pydoc": {"training.batch_size": 8, "system.seqgan.rollouts": 1, "system.rankgan.rollouts": 1}
    | {"evaluation": {"name": "text-panel", "samples": 120, "temperatures": [0.8]}}
    | _adversarial("seqgan", "rankgan", "maligan", "gumbel_gan", "relgan", "leakgan"),
}
#: what needs files that nobody has without a download
DOWNLOADED = {
    *("are-gans-created-equal", "are-gans-created-equal-narrow", "captions", "captions-small", "gans-mnist", "mnist"),
    *("sngan-cifar10", "stacked-mnist", "stacked-mnist-small", "text-vae", "vaes-mnist", "autoencoders-mnist"),
    *("conditional-mnist", "text-gans-captions", "text-gans-captions-small"),
}
FAST = ("digits-8x8", "ring")


class Lab:
    """A home, and the shipped experiments in it."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        shutil.copytree(cache, self.home / "cache")  # the digits' classifier, which takes seconds to train

    def sweep(self, name: str) -> list[dict[str, Any]]:
        return sweep_experiment(name, self._short(name), device="cpu", workers=2, json=True, home=self.home)

    def resume(self, sweep: str) -> list[dict[str, Any]]:
        return resume_sweep(sweep, device="cpu", workers=2, json=True, home=self.home)

    def _short(self, name: str) -> list[tuple[str, str, str]]:
        protocol = _value(name, "evaluation")
        protocol = {"name": protocol} if isinstance(protocol, str) else protocol
        changes: dict[str, Any] = TRAINING | {"evaluation": protocol | PROTOCOLS.get(protocol["name"], {})}
        changes |= SEARCH.get(name, {})
        if name == "folder":
            changes["data.path"] = str(_pictures(self.folder / "pictures"))
        return [(key, json.dumps(value), f"{key}={value}") for key, value in changes.items()]

    def runs(self) -> dict[str, dict[str, Any]]:
        """All that is known of each run, by `trial.seed`."""
        with Registry.open(f"sqlite:///{self.home / 'registry.db'}") as registry:
            found = [show_run(registry, run["run"]) for run in list_runs(registry)]
            return {run["run"].partition(".")[2]: run for run in found}

    def check(self) -> None:
        """The stores agree, and every run that finished is in MLflow."""
        with Registry.open(f"sqlite:///{self.home / 'registry.db'}") as registry:
            found = verify.verify_sweeps(registry, Settings.load(self.home))
        assert not found.problems and not found.notes, str(found)
        assert found.checked["MLflow runs"] == found.checked["runs"]


def _value(name: str, key: str) -> Any:
    from aigc_lab.experiment import experiment

    return experiment.load_experiment(name, [], data_dir=Path()).document.data[key]


def _pictures(folder: Path) -> Path:
    folder.mkdir()
    source = np.random.default_rng(0)
    for index in range(680):
        Image.fromarray(source.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def lab(tmp_path: Path, judged: Judged, monkeypatch: pytest.MonkeyPatch) -> Lab:
    for name in list(os.environ):
        if name.startswith("AIGC_LAB_") or name == "MLFLOW_TRACKING_URI":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(writer, "Writer", WriterHere)
    return Lab(tmp_path, judged.cache)


class Pruner:
    """The pruner that ships, asked of values that become worse from trial to trial; interrupts once where it is told.

    A trial is pruned that is worse than the median of two that have ended. With two workers one other at most is under
    way, so that one of the last two of six trials of two systems meets two that have ended, whatever the order.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, interrupts: int | None = None) -> None:
        self.answers: list[object] = []
        self.interrupts = interrupts
        should_stop = Suggestion.should_stop

        def asked(suggestion: Suggestion, system: str, step: int, value: float, **told: object) -> bool:
            number = suggestion._trial.number
            if number == self.interrupts:
                self.interrupts = None
                raise KeyboardInterrupt
            self.answers.append(should_stop(suggestion, system, step, value + 10_000 * number))
            return self.answers[-1]  # type: ignore[return-value]  # as it was said

        monkeypatch.setattr(Suggestion, "should_stop", asked)


def test_digits_on_two_workers_interrupted_and_resumed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    pruner = Pruner(monkeypatch, interrupts=3)
    with pytest.raises(KeyboardInterrupt):
        lab.sweep("digits-8x8")
    before = lab.runs()
    states = Counter(run["state"] for run in before.values())
    assert before["3.0"]["state"] == "KILLED", "its worker waited for the answer, and may not be left waiting"
    assert states["FINISHED"] and states["FINISHED"] + states["KILLED"] == len(before)
    (sweep,) = {run["sweep"] for run in before.values()}
    rows = lab.resume(sweep)

    runs = lab.runs()
    searched = {key: run["state"] for key, run in runs.items() if key.endswith(".0")}
    assert sorted(searched) == [f"{trial}.0" for trial in range(6)]
    assert {searched[f"{trial}.0"] for trial in range(4)} == {"FINISHED"}
    assert "PRUNED" in {searched["4.0"], searched["5.0"]}
    assert set(pruner.answers) == {True, False} and {type(answer) for answer in pruner.answers} == {bool}
    assert {run["system"] for run in runs.values()} == {"dcgan", "vae"}
    confirmed = [run for run in runs.values() if run["role"] == "confirm"]
    assert [run["state"] for run in confirmed] == ["FINISHED"] * 2
    assert {row["trial"] for row in rows if row["confirmed"]} == {run["trial"] for run in confirmed}
    for key, run in before.items():
        if run["state"] == "FINISHED":
            assert runs[key] == run, "what had ended is not done again"
    assert all(runs[key]["attempts"][0]["state"] == "KILLED" for key, run in before.items() if run["state"] == "KILLED")
    lab.check()


@pytest.mark.slow
def test_ring_on_two_workers(lab: Lab) -> None:
    (best, *_) = lab.sweep("ring")
    runs = lab.runs()
    assert Counter(run["role"] for run in runs.values()) == {"search": 4, "confirm": 2}
    assert {run["state"] for run in runs.values()} == {"FINISHED"}
    assert {run["trial"] for run in runs.values() if run["role"] == "confirm"} == {best["trial"]}
    lab.check()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in content.names("experiments") if name not in {*DOWNLOADED, *FAST}])
def test_an_experiment_that_ships_on_two_workers(lab: Lab, name: str) -> None:
    lab.sweep(name)
    runs = lab.runs()
    assert runs and {run["state"] for run in runs.values()} <= {"FINISHED", "PRUNED", "DIVERGED"}
    assert "FINISHED" in {run["state"] for run in runs.values()}
    lab.check()


def test_what_is_downloaded_ships() -> None:
    assert {*DOWNLOADED, *FAST, *SEARCH} <= set(content.names("experiments"))
