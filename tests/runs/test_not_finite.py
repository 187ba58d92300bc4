"""A model that comes to NaN or infinity has diverged, wherever that shows; what the machine does is no divergence."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from aigc_lab.api import compare, sweep
from aigc_lab.errors import Failure
from aigc_lab.host.settings import Settings
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.store import Registry

BREAKING = """
import torch
from torch import nn
from aigc_lab.config import Strict
from aigc_lab.noise import Draw
from aigc_lab.samples import Modality, Points
from aigc_lab.systems.base import Loss, OptimizerConfig, Phase, System

class Breaking(System):
    # Learns a point; what breaks is chosen.
    modality = Modality.POINTS
    class Config(Strict):
        breaks: str = "nothing"
        lr: float = 0.01
    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.centre = nn.Linear(shape.size[0], shape.size[0])
    def phases(self, batch_size):
        draws = {"z": self.latents(batch_size)}
        def loss(batch, noise, step):
            return Loss((self.centre(noise["z"]) - batch.values).square().mean())
        def after(step):
            if self.config.breaks in ("weights", "error") and step == 19:
                self.centre.bias.fill_(torch.inf)
        return [Phase("fit", loss, [self.centre], OptimizerConfig(self.config.lr), draws, after=after)]
    def samplers(self):
        return [self.centre]
    def latents(self, count):
        return Draw((count, self.shape.size[0]))
    def sample(self, latents, *, labels=None):
        made = self.centre(latents)
        if self.config.breaks == "error" and not made.isfinite().all():
            raise RuntimeError("what comes of it")
        if self.config.breaks == "machine":
            raise OSError("a file is gone")
        return Points(made * torch.nan if self.config.breaks == "samples" else made)
"""
EXPERIMENT: dict[str, Any] = {
    "name": "breaking",
    "data": {"name": "ring", "points": 600},
    "training": {"steps": 20, "batch_size": 8, "log_every": 10, "evaluate_every": 10, "ema": 0, "threads": 1},
    "evaluation": {"name": "points", "samples": 200},
    "objective": {"minimize": "rkl"},
    "search": {"sampler": "grid", "trials": 1, "seeds": 1},
}


pytestmark = pytest.mark.usefixtures("without_mlflow")


def ended(tmp_path: Path, breaks: str) -> tuple[str, str]:
    """State and reason of a run."""
    source = tmp_path / "breaking.py"
    source.write_text(BREAKING)
    home = tmp_path / "home"
    system = {"name": str(source), "breaks": breaks}
    with suppress(Failure):  # where all runs failed
        sweep(EXPERIMENT | {"system": system}, home=home)
    settings = Settings.load(home)
    with Registry.open(settings.registry_url, home=settings.home, create=False) as registry:
        (run,) = list_runs(registry)
        return run["state"], show_run(registry, run["run"])["reason"]


@pytest.mark.parametrize(
    ("breaks", "reason"),
    [
        ("samples", "2000 of 2000 samples hold NaN or infinity at step 0"),
        ("weights", "centre.bias is not finite at step 20"),
        ("error", "centre.bias is not finite at step 20"),
    ],
)
def test_what_is_not_finite_diverged(tmp_path: Path, breaks: str, reason: str) -> None:
    """With finite losses and gradients throughout: the weights break after the last step."""
    assert ended(tmp_path, breaks) == ("DIVERGED", reason)


def test_an_error_of_the_machine_is_no_divergence(tmp_path: Path) -> None:
    assert ended(tmp_path, "machine") == ("FAILED", "OSError: a file is gone")


def test_seeds_whose_samples_are_nan_count_as_the_worst(tmp_path: Path) -> None:
    """Three of six seeds come to NaN: the median is not what the other three have."""
    source = tmp_path / "half.py"
    half = BREAKING.replace("class Breaking", "class Half").replace(
        'torch.nan if self.config.breaks == "samples"', "torch.nan if self.centre.weight[0, 0] > self.config.limit"
    )
    source.write_text(half.replace('breaks: str = "nothing"', 'breaks: str = "nothing"; limit: float = 0.0'))
    home = tmp_path / "home"
    system = {"name": str(source), "limit": {"choice": [0.0, 9.0]}, "lr": 1e-6}
    sweep(EXPERIMENT | {"system": system, "search": {"sampler": "grid", "trials": 2, "seeds": 6}}, home=home)
    rows = compare(home=home).to_dict("records")
    settings = Settings.load(home)
    with Registry.open(settings.registry_url, home=settings.home, create=False) as registry:
        states = [[run["state"] for run in list_runs(registry) if run["trial"] == trial] for trial in (0, 1)]
    by_limit = {row["config.limit"]: row for row in rows}
    broken = states[by_limit[0.0]["trial"]]
    assert set(broken) == {"FINISHED", "DIVERGED"} and broken.count("DIVERGED") >= 3
    assert set(states[by_limit[9.0]["trial"]]) == {"FINISHED"}
    assert by_limit[9.0]["rank"] == 1 and by_limit[0.0]["state"] == "DIVERGED" and by_limit[0.0]["rank"] != 1


NAN_FIRST = """
from aigc_lab.config import Strict
from aigc_lab.metrics.base import Metric, Score

class Late(Metric):
    # NaN at the first evaluation, then better each time.
    values = [float("nan"), 0.5, 0.4, 0.3]
    class Config(Strict):
        pass
    @property
    def gives(self):
        return {"late": "lower"}
    def check(self, dataset, samples):
        if samples < 20:
            raise ValueError(f"at least 20 samples, not {samples}")
    def scores(self, evidence):
        value = self.values.pop(0) if len(self.values) > 1 else self.values[0]
        return [Score("late", value, value, value, len(evidence.generated), 0.0, self.signature(evidence), "lower")]
"""


def test_a_value_that_is_none_is_never_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With patience it would be the result, and nothing that follows better than it."""
    monkeypatch.setenv("AIGC_LAB_PLUGIN_SECONDS", "0")
    source, metric = tmp_path / "breaking.py", tmp_path / "late.py"
    source.write_text(BREAKING)
    metric.write_text(NAN_FIRST)
    changed: dict[str, Any] = {
        "system": {"name": str(source)},
        "training": EXPERIMENT["training"] | {"steps": 40, "patience": 3},
        "evaluation": {"name": "points", "samples": 200, "metrics": [str(metric)]},
        "objective": {"minimize": "late"},
    }
    sweep(EXPERIMENT | changed, home=tmp_path / "home")
    settings = Settings.load(tmp_path / "home")
    with Registry.open(settings.registry_url, home=settings.home, create=False) as registry:
        (run,) = list_runs(registry)
        kept = show_run(registry, run["run"])["checkpoints"]
    assert run["state"] == "FINISHED" and {file["step"] for file in kept} == {40}
