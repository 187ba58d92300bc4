"""Inception is pytorch-fid's to the last features, and torch-fidelity's to the logits, from one file of weights."""

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from pytorch_fid import inception as theirs
from torch import Tensor

from aigc_lab.data.digits import Digits
from aigc_lab.errors import UsageError
from aigc_lab.extractors.base import Extractor
from aigc_lab.extractors.shared import lookup
from aigc_lab.extractors.shared.pretrained import InceptionFeatures
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.nets import inception
from aigc_lab.samples import Images

NAMES = {64: "inception_64", 192: "inception_192", 768: "inception_768", 2048: "inception"}


def prepare(weights: WeightsPolicy, name: str = "inception") -> Extractor:
    dataset = Digits(Digits.Config(), Path())
    return lookup.find_extractor(name).prepare(dataset, cache=Path(), weights=weights, device="cpu", say=print)


def of(weights: WeightsPolicy) -> Path:
    found = InceptionFeatures.published.found(weights)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def state(inception_weights: WeightsPolicy) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = torch.load(of(inception_weights), weights_only=True)
    return tensors


def pictures(channels: int, side: int) -> Images:
    values = torch.randint(0, 256, (2, channels, side, side), generator=torch.Generator().manual_seed(0))
    return Images(values.to(torch.uint8))


@pytest.fixture(scope="module")
def truths(state: dict[str, Tensor]) -> dict[tuple[int, int], Tensor]:
    """pytorch-fid's features of grey and of colour at all depths, pooled as its own command does."""
    with mock.patch.object(theirs, "load_state_dict_from_url", return_value=state):
        network = theirs.InceptionV3([0, 1, 2, 3]).eval()
    found = {}
    for channels in (1, 3):
        with torch.inference_mode():
            maps = network(pictures(channels, 32).values.float().expand(-1, 3, -1, -1) / 255)
        for depth, each in zip(NAMES, maps, strict=True):
            found[channels, depth] = F.adaptive_avg_pool2d(each, 1).flatten(1)
    return found


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("depth", NAMES)
def test_features_are_pytorch_fids(
    channels: int, depth: int, inception_weights: WeightsPolicy, truths: dict[tuple[int, int], Tensor]
) -> None:
    """To 1e-4 of each, and of those near zero to 1e-6 of the largest: pytorch-fid's own are so far from float64's."""
    truth = truths[channels, depth]
    features = prepare(inception_weights, NAMES[depth]).extract(pictures(channels, 32), block=1)
    assert features.vectors.shape == (2, depth)
    torch.testing.assert_close(features.vectors, truth, rtol=1e-4, atol=1e-6 * truth.max().item())
    assert ((features.vectors - truth).norm(dim=1) < 1e-5 * truth.norm(dim=1)).all()
    assert truth.std(0).mean() > 1e-3 * truth.mean(), "the weights tell images apart"
    assert (features.logits is None) == (depth != 2048)


def test_logits_are_torch_fidelitys_without_bias(inception_weights: WeightsPolicy) -> None:
    """At 299 pixels, where neither resizes: torch-fidelity's resize is TensorFlow's, and pytorch-fid's is not.

    (x − 128) / 128, which torch-fidelity feeds in, is not x / 127.5 − 1 either: its input is put in the place of ours.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    other: Any = FeatureExtractorInceptionV3(
        "inception", ["192", "2048", "logits_unbiased"], feature_extractor_weights_path=of(inception_weights)
    )
    images = pictures(3, 299).values
    ours: Any = prepare(inception_weights).network
    with torch.inference_mode():
        _, vectors, logits = other(images)
        same = ((images.float() - 128) / 128 + 1) * 127.5
        got_vectors, got_logits = ours(same)
    assert got_logits.shape == (2, 1008)
    assert (got_vectors - vectors).norm() < 1e-4 * vectors.norm()
    assert (got_logits - logits).norm() < 1e-4 * logits.norm()


def test_it_is_pytorch_fids_module_which_downloads_nothing(
    offline: None, inception_weights: WeightsPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("pytorch-fid asked for its weights")

    monkeypatch.setattr(theirs, "load_state_dict_from_url", refuse)
    before = dict(vars(theirs)), torch.random.get_rng_state()
    network: Any = prepare(inception_weights).network
    assert isinstance(network.blocks, theirs.InceptionV3)
    assert vars(theirs) == before[0], "pytorch-fid's own module is as it was"
    assert torch.equal(torch.random.get_rng_state(), before[1])


@pytest.mark.parametrize("depth", NAMES)
def test_normalisation_is_in_the_convolutions_and_channels_come_last(
    depth: int, inception_weights: WeightsPolicy
) -> None:
    network = prepare(inception_weights, NAMES[depth]).network
    assert not [each for each in network.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    kernels = [each.weight for each in network.modules() if isinstance(each, torch.nn.Conv2d)]
    assert len(kernels) == {64: 3, 192: 5, 768: 70, 2048: 94}[depth]
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in kernels)
    assert all(each.dtype == torch.float32 and not each.requires_grad for each in network.parameters())


def test_each_depth_has_its_own_name_and_identity(inception_weights: WeightsPolicy) -> None:
    kinds = {depth: lookup.find_extractor(name) for depth, name in NAMES.items()}
    assert [kind.short for kind in kinds.values()] == list(NAMES.values())
    assert len({str(kind.kind) for kind in kinds.values()}) == 4  # type: ignore[attr-defined]
    assert tuple(kinds) == inception.DIMENSIONS


def test_weights_of_another_network_are_refused_by_name(
    tmp_path: Path, state: dict[str, Tensor], inception_weights: WeightsPolicy
) -> None:
    key = "Mixed_6b.branch7x7_2.conv.weight"

    def refusal(tensors: object) -> str:
        path = tmp_path / "other.pth"
        torch.save(tensors, path)
        with pytest.raises(UsageError) as caught:
            prepare(WeightsPolicy(file=path, allow_unverified=True))
        assert str(path) in str(caught.value)
        return str(caught.value)

    assert key in refusal({name: tensor for name, tensor in state.items() if name != key})
    said = refusal(state | {key: state[key].transpose(2, 3)})
    assert key in said and "[128, 128, 7, 1]" in said and "[128, 128, 1, 7]" in said
    assert "list" in refusal([1, 2])
    (tmp_path / "half.pth").write_bytes(of(inception_weights).read_bytes()[:1000])
    with pytest.raises(UsageError, match="half.pth"):
        prepare(WeightsPolicy(file=tmp_path / "half.pth", allow_unverified=True))


def test_a_pickle_among_the_weights_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"fc.weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(UsageError, match="trap.pth"):
        prepare(WeightsPolicy(file=tmp_path / "trap.pth", allow_unverified=True))
    assert not (tmp_path / "sprung").exists()
