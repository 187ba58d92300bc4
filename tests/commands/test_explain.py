"""The command that repeats a sweep with more seeds: it is the sweep's own experiment, changed in that alone."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aigc_lab.commands.explain import _seeds_to_tell, with_more_seeds
from aigc_lab.experiment.experiment import Experiment, load_experiment
from aigc_lab.host import content
from aigc_lab.registry.pairs import pairs
from aigc_lab.registry.ranking import rank
from aigc_lab.registry.standings import Configuration, SeedOutcome
from aigc_lab.sweeps.fitting import fitted

FILE = """
data: {name: ring}
system: {choice: [{name: point_gan, lr: {log: [1e-4, 1e-3]}}]}
training: {steps: 40, batch_size: 32}
evaluation: points
objective: {minimize: rkl}
search: {sampler: random, trials: 2, seeds: 1}
"""


def loaded(source: str, changes: list[str], folder: Path) -> Experiment:
    pairs = [(key, text, "--set") for key, _, text in (change.partition("=") for change in changes)]
    return load_experiment(source, pairs, data_dir=folder)


def row(experiment: Experiment, **facts: Any) -> dict[str, Any]:
    """As the registry keeps a sweep."""
    document = experiment.document
    return {"command": "sweep", "name": experiment.name, "source": document.file, "experiment": document.data} | facts


@pytest.mark.parametrize(
    "changes",
    [
        [],
        ["training.steps=7", "search.trials=5"],
        ["system.point_gan.lr=1e-4", "search.sampler=tpe"],
        ["confirm.top=1", "confirm.seeds=2"],
        ["data.name=grid", "training.ema=0.99", "system.point_gan.latent_size=32"],
    ],
)
def test_the_command_is_the_same_experiment_with_fresh_seeds_for_two(tmp_path: Path, changes: list[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(FILE)
    swept = loaded(str(file), changes, tmp_path)
    command = with_more_seeds(row(swept))
    assert command is not None
    words = shlex.split(command)
    assert words[:3] == ["aigc-lab", "sweep", str(file)]
    again = loaded(words[2], [word for word in words[3:] if word != "--set"], tmp_path)
    assert again.document.data.pop("confirm") == {"top": 2, "seeds": 4}
    swept.document.data.pop("confirm", None)
    assert again.document.data == swept.document.data


def test_what_few_samples_do_not_allow_is_not_told_again(tmp_path: Path) -> None:
    """A sweep keeps the metrics that its data allow; its file says those of the protocol."""
    (tmp_path / "pics").mkdir()
    for number in range(160):
        values = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(values).save(tmp_path / "pics" / f"{number}.png")
    changes = [f"data.path={tmp_path / 'pics'}", "data.size=16"]
    shipped = content.find_file("experiments", "folder").read_text("utf-8")
    (tmp_path / "mine.yaml").write_text(shipped.replace("{name: folder, features: auto}", "folder"))
    for source in ("folder", str(tmp_path / "mine.yaml")):  # a table of the protocol's keys, and its name alone
        swept, _ = fitted(loaded(source, changes, tmp_path))
        assert swept.protocol.left_out.keys() == {"fd"}
        command = with_more_seeds(row(swept))
        assert command is not None and "at least 100 samples" not in command and "metrics" not in command
        options = [word for word in shlex.split(command)[3:] if word != "--set"]
        again, _ = fitted(loaded(source, options, tmp_path))
        assert again.document.data["evaluation"] == swept.document.data["evaluation"]
        assert again.document.data["objective"] == swept.document.data["objective"]


@pytest.mark.parametrize("changes", [[], ["training.steps=7", "confirm.budget=30"], ["confirm.race=false"]])
def test_of_a_race_the_command_takes_fixed_seeds(tmp_path: Path, changes: list[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"{FILE}confirm: {{top: 3, seeds: 9, race: true, report: 5}}\n")
    command = with_more_seeds(row(loaded(str(file), changes, tmp_path)))
    assert command is not None
    words = shlex.split(command)
    again = loaded(words[2], [word for word in words[3:] if word != "--set"], tmp_path)
    assert again.document.data["confirm"] == {"top": 2, "seeds": 4}
    assert again.file.confirm is not None and not again.file.confirm.race


def test_a_shipped_experiment_is_named(tmp_path: Path) -> None:
    command = with_more_seeds(row(loaded("ring", ["search.trials=3"], tmp_path)))
    assert command == "aigc-lab sweep ring --set search.trials=3 --set confirm.top=2 --set confirm.seeds=4"


def test_there_is_none_where_the_file_has_gone_or_lost_a_key(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(FILE)
    swept = row(loaded(str(file), [], tmp_path))
    assert with_more_seeds(swept | {"command": "train"}) is None
    assert with_more_seeds(swept | {"source": None}) is None
    file.write_text(FILE.replace("batch_size: 32", "batch_size: 32, ema: 0.9"))
    assert with_more_seeds(swept) is None
    file.unlink()
    assert with_more_seeds(swept) is None


@pytest.mark.parametrize(
    ("values", "most"), [([[1.0, 1.1, 1.2], [9.0, 9.1, 9.2]], 6), ([[1.0, 3.0, 5.0], [2.0, 4.5, 6.0]], 110)]
)
def test_it_asks_for_as_many_seeds_as_would_tell(values: list[list[float]], most: int, tmp_path: Path) -> None:
    """Values far apart take the fewest that can tell; such as overlap take what their spread says."""
    trials = [
        Configuration(
            "s", n, "gan", "FINISHED", [SeedOutcome.brief("search", "FINISHED", v, "x", "lower", "fd") for v in of]
        )
        for n, of in enumerate(values)
    ]
    comparison = rank(trials)
    (pair,) = pairs(comparison)
    assert pair.more is not None
    assert _seeds_to_tell(comparison) == max(4, 3 + pair.more) <= most
    assert (3 + pair.more > 6) == (most > 6)
    command = with_more_seeds(row(loaded("ring", [], tmp_path)), _seeds_to_tell(comparison))
    assert command is not None and f"confirm.seeds={3 + pair.more}" in command
