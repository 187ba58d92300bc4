"""Files of one's own as the README shows them: read out of it, held to the contracts that `aigc-lab check` runs, and
trained together in one sweep.
"""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import WriterHere

from aigc_lab import plugins
from aigc_lab.commands.sweep import sweep_experiment
from aigc_lab.contracts import datasets, metrics
from aigc_lab.contracts.system_case import Case
from aigc_lab.contracts.systems import SYSTEM
from aigc_lab.data.base import Dataset
from aigc_lab.data.digits import Digits
from aigc_lab.experiment.checks import check_experiment
from aigc_lab.experiment.experiment import load_experiment
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.metrics.base import Metric
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.systems.base import System
from aigc_lab.tracking import writer

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
SECTION = README.partition("\n## Bring your own\n")[2].partition("\n## ")[0]
FILES = dict(re.findall(r"^<!-- own file: (\S+) -->\n```\w+\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE))
DIGITS = Digits(Digits.Config(), Path())


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all of the files, from which commands are run."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, "utf-8")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("AIGC_LAB_") or name == "MLFLOW_TRACKING_URI"]:
        if name != "AIGC_LAB_PLUGIN_SECONDS":
            monkeypatch.delenv(name)
    return tmp_path


def test_every_block_is_a_file_short_and_named_in_a_command() -> None:
    assert list(FILES) == ["vae.py", "gan.py", "class_vae.py", "bars.py", "edge.py", "mine.yaml"]
    assert SECTION.count("```") == 2 * len(FILES)
    for name, text in FILES.items():
        assert len(text.splitlines()) <= 50, name
        assert f"`aigc-lab check {'./' if name.endswith('.py') else ''}{name}`" in SECTION, name


@pytest.mark.parametrize("name", ["vae.py", "gan.py", "class_vae.py"])
def test_a_system_keeps_its_contracts(mine: Path, name: str) -> None:
    kind = plugins.find(System, f"./{name}")  # type: ignore[type-abstract]
    case = Case(kind, DIGITS.shape, DIGITS.load("train").take(slice(0, 300)), {"hidden": 16})
    for contract in SYSTEM:
        contract.check(case)


def test_the_vae_learns(mine: Path) -> None:
    case = Case(plugins.find(System, "./vae.py"), DIGITS.shape, DIGITS.load("train"), {"hidden": 32})  # type: ignore[type-abstract]
    curve = [each.scalars["loss/vae/total"] for each in case.run(case.fresh(), 200, every=100)]
    assert curve[-1] < 0.9 * curve[0]


def test_the_conditional_vae_draws_the_class_that_it_is_asked_for(mine: Path) -> None:
    """Of two classes of plain pictures, black and white, which no latent could know."""
    train = DIGITS.load("train").take(slice(0, 200))
    labels = torch.arange(200) % 2
    plain = type(train)((labels * 255).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 16, 16).clone(), labels)
    case = Case(plugins.find(System, "./class_vae.py"), plain.shape(2), plain, {"hidden": 16, "lr": 1e-2})  # type: ignore[type-abstract]
    system = case.finished(case.fresh(), 150, decay=0.5, every=150).average
    drawn = system.generate(8, "samples")
    assert drawn.labels is not None
    assert drawn.labels.tolist() == [0, 1] * 4
    means = drawn.values.flatten(1).mean(1)
    assert means[0::2].max() < 0.2
    assert means[1::2].min() > 0.8


def test_the_dataset_keeps_its_contracts(mine: Path) -> None:
    case = datasets.Case(plugins.find(Dataset, "./bars.py"), mine)  # type: ignore[type-abstract]
    for contract in datasets.DATASET:
        contract.check(case)
    bars = case.dataset.load("train")
    assert bars.labels is not None
    bright = bars.values[:, 0] == 255  # [N, row, column]
    assert torch.equal(bright.all(2).any(1), bars.labels == 0)
    assert torch.equal(bright.all(1).any(1), bars.labels == 1)


def test_the_metric_keeps_its_contracts(mine: Path) -> None:
    edge = _metric("./edge.py")
    for contract in metrics.METRIC:
        contract.check(_measuring(edge, mine))
    real = DIGITS.load("train").take(slice(0, 400))
    expected = real.values[..., [0, 15]].double().mean().item() / 255
    assert _measuring(edge, mine).of_real["edge"].value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("old", "new", "contract", "said"),
    [
        ('"lower"', '"higher"', "real samples score better than faulty ones", "higher is better"),
        (".flatten(1).mean(1)", ".mean()", "it gives the scores that it declares", "a number a sample"),
    ],
)
def test_a_mistake_in_the_metric_is_caught(mine: Path, old: str, new: str, contract: str, said: str) -> None:
    (mine / "edge.py").write_text(FILES["edge.py"].replace(old, new))
    case = _measuring(_metric("./edge.py"), mine)
    broken = {}
    for each in metrics.METRIC:
        try:
            each.check(case)
        except Exception as error:  # noqa: BLE001 -- as `aigc-lab check` does
            broken[each.name] = str(error)
    assert said in broken[contract]


def test_the_experiment_can_be_run(mine: Path) -> None:
    experiment = load_experiment("./mine.yaml", data_dir=mine)
    check_experiment(experiment)
    assert experiment.systems == ["./gan.py loss=hinge", "./gan.py loss=wasserstein clip=0.05", "./class_vae.py"]
    for key in ("system.0.lr", "system.class_vae.lr"):  # as the README says below it
        assert f"`--set {key}=1e-4`" in SECTION or f"`{key}`" in SECTION
        load_experiment("./mine.yaml", [(key, "1e-4", f"--set {key}=1e-4")], data_dir=mine)


def test_two_variants_of_one_file_compete_in_one_sweep(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "Writer", WriterHere)
    data = yaml.safe_load(FILES["mine.yaml"])
    data["training"] |= {"steps": 2, "log_every": 2, "evaluate_every": 2}
    data["evaluation"] = {"name": "image-small", "samples": 100, "metrics": ["./edge.py"]}
    data["objective"] = {"minimize": "edge"}
    (mine / "tiny.yaml").write_text(yaml.safe_dump(data))
    options: dict[str, Any] = {"device": "cpu", "json": True, "home": mine / "home"}
    rows = sweep_experiment("tiny.yaml", [("confirm", "null", "--set confirm=null")], **options)
    told = {row["trial"]: (row["system"], row["config"], row["state"]) for row in rows}
    assert told == {
        0: ("gan", {"loss": "hinge"}, "FINISHED"),
        1: ("gan", {"loss": "wasserstein", "clip": 0.05}, "FINISHED"),
        2: ("class_vae", {}, "FINISHED"),
    }
    assert len({row["score"]["value"] for row in rows}) == 3


def _metric(name: str) -> Metric:
    kind = plugins.find(Metric, name)  # type: ignore[type-abstract]
    return kind(kind.Config())


def _measuring(metric: Metric, cache: Path) -> metrics.Case:
    store = FeatureStore(DIGITS, cache=cache, weights=WeightsPolicy(), device="cpu", say=lambda text: None)
    return metrics.Case.of(metric, DIGITS, store, 400)
