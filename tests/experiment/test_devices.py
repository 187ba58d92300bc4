"""`training.devices` in an experiment: what cannot be trained in parts is refused before any training."""

from pathlib import Path

import pytest

from aigc_lab.errors import UsageError
from aigc_lab.executors.base import Place
from aigc_lab.experiment.checks import check_experiment
from aigc_lab.experiment.experiment import Experiment, load_experiment
from aigc_lab.host import environment
from aigc_lab.sweeps import places
from aigc_lab.systems.point_gan import PointGAN

RING = """\
data: {name: ring}
system: {name: point_gan, packing: 4}
training: {steps: 20, log_every: 10, evaluate_every: 20, batch_size: 24}
evaluation: {name: points, samples: 400}
objective: {minimize: rkl}
"""


def load(folder: Path, *changes: str) -> Experiment:
    (folder / "mine.yaml").write_text(RING, "utf-8")
    split = [change.partition("=") for change in changes]
    given = [(key, value, f"--set {key}={value}") for key, _, value in split]
    return load_experiment(str(folder / "mine.yaml"), given, data_dir=folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["devices=5"], "batch_size 24 is not divisible by devices 5: .*set training.batch_size to 20"),
        (["devices=2", "stacked=true"], "devices is 2, which train one run together, and stacked trains several"),
        (["devices=4"], "point_gan cannot be built .*on 4 devices each has 6 samples of the batch: packing 4 does not"),
        (["devices={choice: [1, 2]}"], "give it one number"),
    ],
)
def test_what_cannot_be_parted_is_refused(changes: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        check_experiment(load(tmp_path, *(f"training.{change}" for change in changes)))


def test_a_system_that_says_why_not_is_refused_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_experiment(load(tmp_path, "training.devices=2"))
    monkeypatch.setattr(PointGAN, "unparallel", "it counts its batches")
    with pytest.raises(UsageError, match="it cannot be trained on several devices: it counts its batches"):
        check_experiment(load(tmp_path, "training.devices=2"))
    check_experiment(load(tmp_path))


def test_devices_are_a_part_of_what_the_experiment_is_and_their_default_is_not(tmp_path: Path) -> None:
    assert load(tmp_path).digest != load(tmp_path, "training.devices=2").digest
    # Of the file as it was before the key was there: what is stored is found again.
    assert load(tmp_path).sweep == "mine-7016eb03"


def test_a_run_on_several_gpus_has_them_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "check_devices", lambda count, device: None)
    two, gpus = load(tmp_path, "training.devices=2"), [Place(f"cuda:{index}", 1) for index in range(4)]
    assert places.places_of_parts(load(tmp_path), gpus, chosen=False) == gpus
    assert places.places_of_parts(two, gpus, chosen=False) == gpus[:1]
    with pytest.raises(UsageError, match="one run takes 2 devices, and 4 workers would share them: use --workers 1"):
        places.places_of_parts(two, gpus, chosen=True)


def test_workers_leave_each_process_its_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "cores", lambda: 8)
    monkeypatch.setattr(environment, "omp_threads", lambda: None)
    monkeypatch.setattr(places, "most_at_once", lambda experiment: 9)  # whatever memory this machine has
    experiment = load(tmp_path, "training.devices=2", "training.threads=2", "system.lr={log: [1e-4, 1e-3]}")
    chosen, _ = places.choose_places(experiment, 1000.0)
    assert len(chosen) == 2, "two processes of two threads each"
