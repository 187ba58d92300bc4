"""Data that are fewer than a protocol takes: what can be scored is; what cannot is said once, with what would do."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aigc_lab import train
from aigc_lab.commands.sweep import resume_sweep
from aigc_lab.errors import UsageError
from aigc_lab.experiment.checks import check_data, check_experiment
from aigc_lab.experiment.experiment import Experiment, load_experiment
from aigc_lab.sweeps.fitting import fitted


def pictures(folder: Path, count: int, first: int = 0) -> Path:
    folder.mkdir()
    for number in range(first, first + count):
        values = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(values).save(folder / f"{number:03d}.png")
    return folder


def of(folder: Path, **changes: Any) -> Experiment:
    """The experiment `folder` on these pictures, of 16 pixels a side."""
    given = {"data.path": str(folder), "data.size": "16"} | {key.replace("__", "."): v for key, v in changes.items()}
    options = [(key, text, f"--set {key}={text}") for key, text in given.items()]
    return load_experiment("folder", options, data_dir=folder.parent / "data")


def test_160_pictures_are_scored_by_what_24_allow(tmp_path: Path) -> None:
    experiment, notes = fitted(of(pictures(tmp_path / "pics", 160)))
    check_experiment(experiment)
    assert check_data(experiment)[1:] == ["160 of 160 pictures are enlarged to 16×16"]
    (name,) = experiment.metrics[0].gives
    assert experiment.protocol.samples == 24 and [metric for metric, _ in experiment.protocol.metrics] == ["kid"]
    assert experiment.file.objective.minimize == name and name.startswith("kid")
    reason = "a Fréchet distance needs at least 100 samples, not 24"
    assert experiment.protocol.left_out == {"fd": reason}
    assert notes == [
        "24 samples are scored, which leaves intervals about 4.1 times as wide: protocol folder takes 400 where there "
        "are as many, and the reference split has 24 (2,667 in all would do)",
        f"fd is left out: {reason} (667 in all would do)",
        f"the objective is to minimize {name}, for fd_lite0 is left out",
    ]
    again, nothing = fitted(experiment)  # as a sweep is resumed
    assert again is experiment and not nothing


def test_the_numbers_that_are_said_would_do(tmp_path: Path) -> None:
    experiment, notes = fitted(of(pictures(tmp_path / "pics", 667)))
    assert experiment.protocol.samples == 100 and experiment.file.objective.minimize == "fd_lite0"
    assert len(notes) == 1 and not experiment.protocol.left_out and len(experiment.metrics) == 2
    check_experiment(experiment)
    check_data(experiment)


def test_600_pictures_are_told_the_shares_that_keep_the_distance(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pics", 600)
    _, notes = fitted(of(folder))
    shares = "--set data.reference=0.17 --set data.holdout=0.17"
    assert "90 samples are scored, which leaves intervals about 2.1 times as wide" in notes[0]
    assert "(2,667 in all would do)" in notes[0] and f"({shares}, or 667 in all would do)" in notes[1]
    experiment, notes = fitted(of(folder, data__reference="0.17", data__holdout="0.17"))
    assert experiment.protocol.samples == 102 and experiment.file.objective.minimize == "fd_lite0" and len(notes) == 1
    assert check_data(experiment)[1:] == ["600 of 600 pictures are enlarged to 16×16"]


def test_folders_that_are_the_splits_are_not_told_shares(tmp_path: Path) -> None:
    for split, count in (("train", 120), ("val", 12), ("test", 12)):
        pictures(tmp_path / split, count, first=1000 * len(split))
    (tmp_path / "pics").mkdir()
    for split in ("train", "val", "test"):
        (tmp_path / split).rename(tmp_path / "pics" / split)
    _, notes = fitted(of(tmp_path / "pics"))
    assert len(notes) == 3 and not [note for note in notes if "data.reference" in note]


def test_what_was_named_is_refused_with_the_n_that_it_needs(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pics", 160)
    experiment, notes = fitted(of(folder, evaluation__samples="24"))
    assert experiment.protocol.samples == 24 and len(experiment.metrics) == 1 and len(notes) == 2
    with pytest.raises(UsageError, match=r"--set objective.minimize=fd_lite0: .* at least 100 samples, not 24"):
        fitted(of(folder, objective__minimize="fd_lite0"))
    with pytest.raises(UsageError, match=r"metric fd: .* at least 100 samples, not 24"):
        check_experiment(fitted(of(folder, evaluation__metrics="[{fd: {features: random}}]"))[0])
    with pytest.raises(UsageError, match=r"takes 100 samples, and the reference split of folder has 24|too few"):
        check_data(fitted(of(folder, evaluation__samples="100"))[0])


def test_too_few_for_any_score_are_told_what_would_do(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pics", 60)
    with pytest.raises(UsageError, match=r"has 9 samples.*kid needs 10; set data.reference and .* 0.17, or give 67 in"):
        fitted(of(folder))
    experiment, _ = fitted(of(folder, data__reference="0.17", data__holdout="0.17"))
    assert experiment.protocol.samples == 10
    check_experiment(experiment)


def test_a_protocol_that_does_not_allow_fewer_says_how(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pics", 160)
    experiment = of(folder, evaluation__fewer="false")
    assert fitted(experiment) == (experiment, [])
    with pytest.raises(UsageError, match=r"24 samples, too few to be scored .*evaluation.fewer"):
        check_data(experiment)


def test_all_that_conditional_scores_need_is_said_at_once(tmp_path: Path) -> None:
    """Systems, objective and number of pictures; once the first two are right, the last alone, and no way that is none:
    with `evaluation.fewer` the objective that was named could not be computed.
    """
    (tmp_path / "pics").mkdir()
    for number, name in enumerate(("cats", "dogs")):
        pictures(tmp_path / "pics" / name, 60, first=100 * number)
    with pytest.raises(UsageError) as refused:
        check_experiment(fitted(of(tmp_path / "pics", evaluation="conditional"))[0])
    systems, objective, few = str(refused.value).split("; also ")
    assert "dcgan and vae are not conditional" in systems
    assert systems.endswith("; set `conditional` of dcgan, and choose a system that is in place of vae, as cgan")
    assert "unknown score of protocol conditional 'fd_lite0'" in objective
    assert "has 18 samples, too few to be scored (18 samples say little: it needs at least 20; 2 classes need" in few
    assert "at least 40 samples, 20 of each" in few and "evaluation.fewer" in few
    right = {"evaluation": "conditional", "system": "cgan", "objective": "{maximize: label_accuracy}"}
    check_experiment(of(tmp_path / "pics", **right))
    with pytest.raises(UsageError, match=r"has 18 samples, too few .* the dataset must be larger$"):
        check_data(of(tmp_path / "pics", **right))


@pytest.mark.usefixtures("without_mlflow")
def test_few_pictures_are_trained_on_and_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {"data.path": str(pictures(tmp_path / "pics", 70)), "data.size": 16, "system": {"name": "vae"}}
    changes |= {"system.width": 8, "training.evaluate_every": 2, "training.log_every": 2, "training.batch_size": 16}
    row = train("folder", steps=2, changes=changes, device="cpu", home=tmp_path / "home")
    assert row["state"] == "FINISHED" and row["objective"].startswith("kid")
    assert row["scores"] and all(score["n"] == 10 for score in row["scores"])
    assert capsys.readouterr().err.count("fd is left out") == 1
    sweep = row["run"].removesuffix(".0.0")
    assert resume_sweep(sweep, device="cpu", table=False, home=tmp_path / "home")  # the same experiment


BRIGHTNESS = '''
from aigc_lab.metrics.base import Metric

class Brightness(Metric):
    """Says what samples are like; neither more nor less of it is better."""
    def scores(self, evidence):
        return self.mean_scores(evidence, lambda images: images.float().mean((1, 2, 3)))
'''


def test_a_score_that_only_describes_is_no_objective_in_the_place_of_one_left_out(tmp_path: Path) -> None:
    (tmp_path / "brightness.py").write_text(BRIGHTNESS)
    own = tmp_path / "own.yaml"
    metrics = f"[{{fd: {{features: lite0}}}}, {tmp_path / 'brightness.py'}]"
    own.write_text(f"samples: 400\nfewer: true\nmetrics: {metrics}\n")
    folder = pictures(tmp_path / "pics", 160)
    with pytest.raises(UsageError, match=r"fd_lite0 cannot be computed: .* name another score, or give more samples"):
        fitted(of(folder, evaluation=str(own)))
