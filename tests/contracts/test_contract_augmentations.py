"""What every file in `augmentations/` must do, found by name; that these contracts can fail; and a user's file."""

from pathlib import Path

import pytest
import torch

from aigc_lab import plugins
from aigc_lab.augmentations.base import Augmentation
from aigc_lab.contracts.augmentations import AUGMENTATION, Case, cases
from aigc_lab.contracts.base import Contract, ContractResult, examine
from aigc_lab.errors import UsageError
from aigc_lab.experiment import experiment
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.dcgan import DCGAN
from aigc_lab.training.checkpoint import load_system, save_weights

NAMES = plugins.names("augmentations")


@pytest.mark.parametrize("contract", AUGMENTATION, ids=lambda contract: contract.name.replace(" ", "_"))
@pytest.mark.parametrize("name", NAMES)
def test_an_augmentation_keeps_its_contracts(name: str, contract: Contract[Case]) -> None:
    for case in cases(plugins.find(Augmentation, name)).values():
        contract.check(case)


def test_it_is_tried_on_every_kind_of_samples_that_it_takes(tmp_path: Path) -> None:
    def modalities(name: str) -> list[str]:
        return [case.modality for case in cases(plugins.find(Augmentation, name)).values()]

    assert [modalities(name) for name in NAMES] == [["images"], ["images"], ["images", "points"]]
    points = JITTER.replace("modality = ", "modality = Modality.POINTS  # ")
    (tmp_path / "jitter.py").write_text(points)
    assert modalities(str(tmp_path / "jitter.py")) == ["points"]
    (tmp_path / "waves.py").write_text(JITTER.replace("modality = ", 'modality = Modality("waves")  # '))
    with pytest.raises(UsageError, match="waves changes waves, and GANs that ship make images or points"):
        modalities(str(tmp_path / "waves.py"))


def test_what_breaks_a_contract_on_points_alone_is_caught_there(tmp_path: Path) -> None:
    """One for all samples that adds a channel where there is one axis: pictures go through it unchanged."""
    path = tmp_path / "jitter.py"
    path.write_text(JITTER)
    assert {result.state for result in examine(AUGMENTATION, cases(plugins.find(Augmentation, str(path))), path)} == {
        "kept"
    }
    path.write_text(JITTER.replace("return samples", "return samples if samples.ndim == 4 else samples.repeat(1, 2)"))
    results = list(examine(AUGMENTATION, cases(plugins.find(Augmentation, str(path))), path))
    first = next(result for result in results if result.state == "broken")
    assert (first.contract, first.case) == ("shape and range are kept", "points")
    assert first.message == "points of [6, 2] become [6, 4]"


def test_what_experiments_and_stored_states_may_say_is_as_it_was() -> None:
    assert NAMES == ["adaptive", "diffaugment", "none"]
    memory = plugins.find(Augmentation, "adaptive")().memory()
    assert memory.keys() == {"augment_strength", "augment_sign", "augment_signs", "augment_batches"}
    names = {name: set(plugins.find(Augmentation, name)().noise("real", 2)) for name in NAMES}
    assert names == {
        "adaptive": {"augment_real", "augment_real_normal"},
        "diffaugment": {"augment_real"},
        "none": set(),
    }


def test_the_strength_moves_by_the_published_rule() -> None:
    """After four updates, by 4 · batch / 500,000, towards where E sign D(x) is the target."""
    augmentation = plugins.find(Augmentation, "adaptive")()
    config = DCGAN.Config(augment="adaptive", augment_target=0.6)
    for score, moved in ((1.0, 4 * 1000 / 500_000), (-1.0, 0.0)):
        memory = augmentation.memory()
        for _ in range(4):
            assert memory["augment_strength"].item() == 0
            augmentation.seen(torch.full((8,), score), 0.0, memory)
            augmentation.after(memory, config, 1000)
        assert memory["augment_strength"].item() == pytest.approx(moved)


MINE = '''"""Brightness (nobody 2026): every picture lighter or darker, with a probability of one half."""
import torch
from aigc_lab.augmentations.base import Augmentation
from aigc_lab.noise import Draw

class Mine(Augmentation):
    probability = "bright"

    def noise(self, which, count):
        return {f"bright_{which}": Draw((count, 2), "unit")}

    def changed(self, images, noise, which, memory):
        drawn = noise[f"bright_{which}"][..., None, None]
        return images + torch.where(drawn[:, :1] < memory["bright"], drawn[:, 1:] - 0.5, 0.0)

    def memory(self):
        return {"bright": torch.full((), 0.5)}
'''
JITTER = '''"""Jitter (nobody 2026): a little noise on samples of any kind."""
from aigc_lab.augmentations.base import Augmentation
from aigc_lab.noise import Draw
from aigc_lab.shape import Modality

class Jitter(Augmentation):
    modality = Modality.IMAGES

    def check_shape(self, shape):
        if self.modality != Modality.IMAGES:
            super().check_shape(shape)

    def noise(self, which, count):
        return {f"jitter_{which}": Draw((count, 1))}

    def changed(self, samples, noise, which, memory):
        drawn = noise[f"jitter_{which}"].reshape(len(samples), *[1] * (samples.ndim - 1))
        samples = samples + 0.1 * drawn
        return samples
'''
BREAKS: dict[str, tuple[str, dict[str, str]]] = {
    "its noise is drawn for each side": ("put `which` into its name", {"bright_{which}": "bright"}),
    "shape and range are kept": (
        "images of [6, 1, 16, 16] become [6, 1, 17, 17]",
        {"images + ": "torch.nn.functional.pad(images, (0, 1, 0, 1)) + "},
    ),
    "the same key gives the same bits": ("draw nothing but", {"images + ": "images + torch.rand(()) + "}),
    "a probability of zero changes nothing": ("bright = 0 a number is", {"< memory": "< 0.5 + memory"}),
    "gradients pass through it": ("no gradient reaches", {"images + ": "images.detach() + "}),
    "a step asks the device for no number": (
        "_local_scalar_dense",
        {"images + ": "images * (1 + 0 * images.mean().item()) + "},
    ),
}


def examined(folder: Path, text: str) -> list[ContractResult]:
    path = folder / "mine.py"
    path.write_text(text)
    return list(examine(AUGMENTATION, {"": Case(plugins.find(Augmentation, str(path)))}, path))


def test_a_sound_file_keeps_all(tmp_path: Path) -> None:
    assert [(result.contract, result.message) for result in examined(tmp_path, MINE) if result.state != "kept"] == []


@pytest.mark.parametrize("contract", BREAKS)
def test_a_contract_catches_the_augmentation_that_breaks_it(contract: str, tmp_path: Path) -> None:
    said, changes = BREAKS[contract]
    text = MINE
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    first = next(result for result in examined(tmp_path, text) if result.state == "broken")
    assert first.contract == contract and said in first.message


def test_a_users_file_is_named_by_an_experiment_and_travels_with_weights(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "e.yaml").write_text(
        "data: {name: digits}\n"
        "system: {name: dcgan, width: 8, latent_size: 6, augment: ./mine.py}\n"
        "training: {steps: 4, batch_size: 8}\n"
        "evaluation: {name: image-small}\n"
        "objective: {minimize: fd}\n"
    )
    loaded = experiment.load_experiment(str(tmp_path / "e.yaml"), data_dir=tmp_path)
    plan = loaded.resolve(lambda hole: hole.ends()[0])
    assert loaded.own_files == [tmp_path / "mine.py"] and plan.named_files == {"augment": "./mine.py"}
    system = DCGAN(plan.system_config, Shape(Modality.IMAGES, (1, 16, 16), classes=10))
    assert set(dict(system.named_buffers())) >= {"bright"}
    path = tmp_path / "model" / "last.safetensors"
    names = [file.name for file in save_weights(system, system.state_dict(), path, {})]
    assert names == ["last.safetensors", "last.json", "augment.mine.py"]
    (tmp_path / "mine.py").unlink()
    assert load_system(path).config.augment == str(path.with_name("augment.mine.py"))
