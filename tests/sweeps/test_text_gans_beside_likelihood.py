"""A sweep of a text GAN and a language model, from the file to the tag in MLflow."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from aigc_lab.api import sweep
from aigc_lab.archive import export, import_
from aigc_lab.commands import rebuild, verify
from aigc_lab.data.oracle import OracleText
from aigc_lab.display.beside_likelihood import TAG, Contest, contests
from aigc_lab.host.settings import Settings
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import artifacts_by_run
from aigc_lab.systems.base import Loss, OptimizerConfig, Phase, updates_of
from aigc_lab.systems.leakgan import LeakGAN
from aigc_lab.tracking import relocation
from aigc_lab.tracking.mlflow import MlflowTracker

EXPERIMENT: dict[str, Any] = {
    "name": "texts",
    "data": {"name": "oracle", "words": 12, "length": 6, "train": 120, "scored": 100},
    "system": {
        "choice": [
            {"name": "lstm_lm", "embedding": 6, "hidden": 8},
            {
                "name": "seqgan",
                "embedding": 6,
                "hidden": 8,
                "critic_embedding": 5,
                "filters": 0.03,
                "rollouts": 2,
                "pretrain_steps": 4,
                "critic_steps": 2,
                "n_critic": 1,
            },
        ]
    },
    "training": {"steps": 10, "batch_size": 8, "log_every": 10, "evaluate_every": 10, "threads": 1},
    "evaluation": {
        "name": "text-oracle",
        "samples": 30,
        "temperatures": [0.6, 1.5],
        "metrics": [{"nll": {"oracle": True}}, {"self_bleu": {"orders": [2]}}, "unique"],
    },
    "objective": {"minimize": "nll_gen"},
    "search": {"sampler": "grid", "trials": 2, "seeds": 1},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, str]:
    """A home with the sweep, and its id."""
    folder = tmp_path_factory.mktemp("texts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIGC_LAB_DATA_DIR", str(folder / "data"))
        rows = sweep(EXPERIMENT, home=folder / "home").to_dict("records")
    return Settings.load(folder / "home"), rows[0]["sweep"]


def contest(settings: Settings, sweep: str) -> Contest:
    with Registry.open(settings.registry_url, home=settings.home, create=False) as registry:
        (found,) = contests(registry, [sweep])
    return found


def tags(settings: Settings, sweep: str) -> dict[str, str | None]:
    """The tag that MLflow has of each system."""
    tracker = MlflowTracker(settings.tracking_uri, settings.artifacts)
    return {run.tags["system"]: run.tags.get(TAG) for runs in tracker.runs_by_key(sweep).values() for run in runs}


def test_a_sweep_tells_of_its_text_gan(trained: tuple[Settings, str]) -> None:
    settings, name = trained
    found = contest(settings, name)
    with Registry.open(settings.registry_url, home=settings.home, create=False) as registry:
        assert verify.verify_sweeps(registry, settings).problems == []
        files = artifacts_by_run(registry, name)
    assert [run.system for run in found.runs + found.others] == ["seqgan", "lstm_lm"]
    # Four of maximum likelihood, and one in each of the four steps after two that are the critic's alone.
    assert (found.runs[0].updates, found.others[0].updates) == (8, 10)
    assert "8 generator updates in" in found.sentence and "beside 10 generator updates in" in found.sentence
    path = next(Path(file["path"]) for file in files[found.runs[0].run] if file["name"] == "temperature")
    curve = json.loads(path.read_text("utf-8"))
    assert [len(point["without"]["bleu_4"]) for point in curve["points"]] == [20, 20, 20]
    assert tags(settings, name) == {"lstm_lm": None, "seqgan": found.sentence}


def test_an_imported_sweep_tells_of_it_too(trained: tuple[Settings, str], tmp_path: Path) -> None:
    settings, name = trained
    file = export.export("texts", settings, tmp_path / "texts.tar", force=False).path
    other = Settings.load(tmp_path / "other")
    assert import_.import_(file, other, lambda said: None) == name
    assert tags(other, name) == {"lstm_lm": None, "seqgan": contest(settings, name).sentence}


def test_what_mlflow_lost_is_told_again(trained: tuple[Settings, str]) -> None:
    settings, name = trained
    sentence = contest(settings, name).sentence

    def again() -> list[str]:
        with Registry.open(settings.registry_url, home=settings.home, create=False) as registry:
            return [finding.what for finding in rebuild.rebuild(registry, settings, name)]

    assert again() == []
    with closing(sqlite3.connect(settings.home / "mlflow.db")) as database, database:
        assert database.execute("DELETE FROM tags WHERE key = ?", [TAG]).rowcount == 1
    assert tags(settings, name)["seqgan"] is None
    assert again() == [f"MLflow lacks its tag {TAG}: shown again"]
    assert tags(settings, name) == {"lstm_lm": None, "seqgan": sentence}


def test_a_lost_database_tells_of_it_again(trained: tuple[Settings, str], tmp_path: Path) -> None:
    settings, name = trained
    shutil.copytree(settings.home, tmp_path / "home")  # of another place: this process holds the database of the first
    relocation.repair(settings := Settings.load(tmp_path / "home"))
    for file in settings.home.glob("mlflow.db*"):
        file.unlink()
    with Registry.open(settings.registry_url, home=settings.home, create=False) as registry:
        assert len(list(rebuild.rebuild(registry, settings, name))) == 2
    assert tags(settings, name) == {"lstm_lm": None, "seqgan": contest(settings, name).sentence}


def test_updates_are_those_of_phases_that_train_the_modules() -> None:
    one, two = nn.Linear(2, 2), nn.Linear(2, 2)

    def phase(trains: list[nn.Module], **when: Any) -> Phase:
        return Phase("phase", lambda batch, noise, step: Loss(torch.zeros(())), trains, OptimizerConfig(1.0), **when)

    phases = [phase([one], stop=4), phase([two], start=4, repeat=5), phase([one, two], start=6, repeat=2)]
    seldom = phase([one], start=4, every=3)  # in the steps 4, 7 and 10
    assert updates_of(phases, [one], 10) == 4 + 2 * 4
    assert updates_of(phases, [nn.Sequential(one)], 5) == 4
    assert updates_of(phases, [two], 10) == 5 * 6 + 2 * 4
    assert updates_of(phases, [one], 3) == 3
    assert [updates_of([seldom], [one], steps) for steps in (3, 4, 5, 10, 11)] == [0, 0, 1, 2, 3]
    assert [sum(seldom.runs(step) for step in range(steps)) for steps in (3, 4, 5, 10, 11)] == [0, 0, 1, 2, 3]
    assert updates_of(phases, [nn.Linear(2, 2)], 10) == 0
    # Steps 2, 5 and 8, twice each.
    assert updates_of([phase([one], start=2, every=3, repeat=2)], [one], 10) == 6
    assert updates_of([phase([one], start=2, every=3, repeat=2)], [one], 8) == 4


def test_a_critic_that_is_read_to_sample_is_no_generator(tmp_path: Path) -> None:
    data = OracleText(OracleText.Config(words=12, length=6, train=100, scored=100), tmp_path)
    small: dict[str, Any] = {"embedding": 6, "hidden": 8, "filters": 0.03, "goal_size": 3}
    system = LeakGAN(LeakGAN.Config(pretrain_steps=4, critic_steps=2, interleave=3, **small), data.shape)
    assert any(module is system.critic for module in system.samplers())
    # Four of pretraining, six of the policy, and of likelihood in steps 6 and 9.
    assert updates_of(system.phases(4), system.generator(), 12) == 4 + 6 + 2
