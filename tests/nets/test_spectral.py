"""Layers of critics: spectral normalisation against singular values; the deviation of a batch, and maxout, in numpy."""

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aigc_lab.nets.critics import MinibatchStd
from aigc_lab.nets.mlp import Maxout
from aigc_lab.nets.spectral import SpectralConv2d, SpectralLinear, iterate, spectral


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """The same initial weights in every run of a test."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def normal(*size: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def layer(kind: str, dtype: torch.dtype = torch.float32) -> SpectralLinear | SpectralConv2d:
    plain = nn.Linear(7, 5) if kind == "linear" else nn.Conv2d(3, 6, 4, stride=2, padding=1)
    found = spectral(plain.to(dtype))
    assert isinstance(found, SpectralLinear | SpectralConv2d)
    return found


def samples(kind: str, dtype: torch.dtype = torch.float32) -> Tensor:
    return normal(4, 7, seed=1, dtype=dtype) if kind == "linear" else normal(4, 3, 8, 8, seed=1, dtype=dtype)


each_kind = pytest.mark.parametrize("kind", ["linear", "convolution"])


@each_kind
def test_the_largest_singular_value_is_one(kind: str) -> None:
    part = layer(kind)
    # As it begins, after the iterations it has made, and then exactly.
    singular = torch.linalg.svdvals(part.normalised().detach().flatten(1).double())
    assert singular[0].item() == pytest.approx(1, abs=0.05)
    for _ in range(500):
        part.iterate()
    weight = part.weight.detach().flatten(1).double()
    singular = torch.linalg.svdvals(part.normalised().detach().flatten(1).double())
    assert singular[0].item() == pytest.approx(1, abs=1e-4)
    # All others are divided by the same number.
    truth = torch.linalg.svdvals(weight)
    torch.testing.assert_close(singular, truth / truth[0], rtol=1e-4, atol=1e-4)
    # The vectors are those of the largest, up to one sign for both.
    u, _, v = torch.linalg.svd(weight)
    assert abs(part.u.double() @ u[:, 0]).item() == pytest.approx(1, abs=1e-4)
    assert abs(part.v.double() @ v[0]).item() == pytest.approx(1, abs=1e-4)


@each_kind
def test_an_iteration_is_that_of_the_paper(kind: str) -> None:
    """Algorithm 1: v ← Wᵀu, u ← Wv, each of length 1; and W / uᵀWv of the vectors as they are."""
    part = layer(kind, torch.float64)
    part.u.copy_(F.normalize(normal(len(part.u), seed=2, dtype=torch.float64), dim=0))
    weight, u = part.weight.detach().flatten(1).numpy(), part.u.numpy().copy()
    part.iterate()
    v = weight.T @ u
    v /= np.sqrt((v**2).sum())
    u = weight @ v
    u /= np.sqrt((u**2).sum())
    np.testing.assert_allclose(part.v.numpy(), v, rtol=1e-12)
    np.testing.assert_allclose(part.u.numpy(), u, rtol=1e-12)
    np.testing.assert_allclose(part.normalised().detach().flatten(1).numpy(), weight / (u @ weight @ v), rtol=1e-12)


@each_kind
def test_the_gradient_goes_through_the_weight_and_not_through_the_vectors(kind: str) -> None:
    part = layer(kind, torch.float64)
    u, v = part.u.clone().numpy(), part.v.clone().numpy()
    # Any function of the normalised weight will do.
    pull = normal(*part.weight.shape, seed=3, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((pull * part.normalised()).sum(), part.weight)
    weight, along = part.weight.detach().flatten(1).numpy().copy(), pull.flatten(1).numpy()

    def value(matrix: np.typing.NDArray[np.float64]) -> float:
        return float((along * matrix / (u @ matrix @ v)).sum())

    step, truth = 1e-6, np.zeros_like(weight)
    for place in np.ndindex(weight.shape):
        nudge = np.zeros_like(weight)
        nudge[place] = step
        truth[place] = (value(weight + nudge) - value(weight - nudge)) / (2 * step)
    np.testing.assert_allclose(gradient.flatten(1).numpy(), truth, rtol=1e-6, atol=1e-7)


@each_kind
def test_a_forward_pass_is_that_of_the_normalised_weight_and_moves_nothing(kind: str) -> None:
    part = layer(kind)
    before = {name: value.clone() for name, value in part.state_dict().items()}
    assert set(before) == {"weight", "bias", "u", "v"}
    assert {name for name, _ in part.named_buffers()} == {"u", "v"}
    x = samples(kind)
    weight = part.weight / (part.u @ part.weight.flatten(1) @ part.v)
    truth = F.linear(x, weight, part.bias) if kind == "linear" else F.conv2d(x, weight, part.bias, 2, 1)
    for _ in range(2):
        torch.testing.assert_close(part.train()(x), truth, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(part.eval()(x), truth, rtol=1e-5, atol=1e-6)
    assert all(value.equal(before[name]) for name, value in part.state_dict().items())
    part.iterate()
    after = part.state_dict()
    assert not after["u"].equal(before["u"]) and not after["v"].equal(before["v"])
    assert after["weight"].equal(before["weight"]) and after["bias"].equal(before["bias"])


def test_an_iteration_does_not_reach_a_graph_that_is_there_already() -> None:
    part = layer("linear")
    x = samples("linear")
    total = part(x).square().sum()
    truth = torch.autograd.grad(part(x).square().sum(), part.weight)[0]
    part.iterate()
    assert torch.autograd.grad(total, part.weight)[0].equal(truth)


def test_under_autocast_the_weight_is_normalised_in_single_precision() -> None:
    part = layer("convolution")
    truth = part.normalised()
    with torch.autocast("cpu", torch.bfloat16):
        assert part.normalised().equal(truth) and part.normalised().dtype == torch.float32
        assert part(samples("convolution")).dtype == torch.bfloat16
        here = copy.deepcopy(part)
        here.iterate()
    part.iterate()
    assert here.u.equal(part.u) and here.v.equal(part.v)


def test_a_whole_network_is_converted_and_keeps_its_parameters() -> None:
    inner = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.LeakyReLU(0.2))
    network = nn.Sequential(nn.Conv2d(1, 4, 3), inner, nn.Flatten(), nn.Linear(4 * 36, 8, bias=False), nn.Linear(8, 1))
    before = {name: (weight, weight.detach().clone()) for name, weight in network.named_parameters()}
    assert spectral(network) is network
    kinds = [type(part) for part in network.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    assert kinds == [SpectralConv2d, SpectralConv2d, SpectralLinear, SpectralLinear]
    assert type(inner[1]) is nn.BatchNorm2d
    after = dict(network.named_parameters())
    assert list(after) == list(before)
    for name, (weight, values) in before.items():
        assert after[name] is weight and weight.equal(values)
    x = normal(2, 1, 8, 8, seed=1)
    assert network(x).shape == (2, 1)
    normalised = [part for part in network.modules() if isinstance(part, SpectralConv2d | SpectralLinear)]
    for _ in range(500):
        iterate(network)
    for part in normalised:
        singular = torch.linalg.svdvals(part.normalised().detach().flatten(1).double())
        assert singular[0].item() == pytest.approx(1, abs=1e-4)


def test_a_normalised_network_can_be_stored_and_loaded() -> None:
    part, other = layer("linear"), layer("linear")
    with torch.no_grad():
        part.weight.mul_(normal(5, 7, seed=4))
    part.iterate()
    other.load_state_dict(part.state_dict())
    assert other(samples("linear")).equal(part(samples("linear")))


def test_a_normalised_critic_is_a_contraction() -> None:
    """Linear layers of norm 1 between slopes of at most 1: no two points are pulled apart."""
    network = spectral(
        nn.Sequential(nn.Linear(3, 16), nn.LeakyReLU(0.2), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
    )
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(10)
    for _ in range(500):
        iterate(network)
    x, y = normal(200, 3, seed=1), normal(200, 3, seed=2)
    assert ((network(x) - network(y)).abs().squeeze(1) <= (x - y).norm(dim=1) * (1 + 1e-4)).all()


@pytest.mark.parametrize("size", [(6, 3, 4, 5), (7, 5)])
def test_the_deviation_over_a_batch_is_one_more_feature(size: tuple[int, ...]) -> None:
    x = 2 * normal(*size, seed=1) + 1
    appended = MinibatchStd()(x)
    assert appended.shape == (size[0], size[1] + 1, *size[2:])
    assert appended[:, :-1].equal(x)
    # The population's deviation of each feature at each place, and one average of them all.
    truth = x.double().numpy().std(axis=0).mean()
    np.testing.assert_allclose(appended[:, -1].numpy(), np.full_like(appended[:, -1].numpy(), truth), rtol=1e-6)


def test_a_batch_that_is_all_alike_has_finite_gradients() -> None:
    x = torch.ones(4, 2, 3, 3, requires_grad=True)
    appended = MinibatchStd()(x)
    assert appended[:, -1].max().item() == pytest.approx(1e-4, rel=1e-5)
    (slope,) = torch.autograd.grad(appended.square().sum(), x)
    torch.testing.assert_close(slope, 2 * torch.ones_like(x))


def test_maxout_is_the_largest_of_linear_maps() -> None:
    part = Maxout(4, 3, pieces=5).double()
    x = normal(60, 4, seed=1, dtype=torch.float64)
    weight, bias = (each.detach().numpy() for each in (part.linear.weight, part.linear.bias))
    maps = x.numpy() @ weight.T + bias
    truth = np.stack([maps[:, 5 * feature : 5 * feature + 5].max(axis=1) for feature in range(3)], axis=1)
    np.testing.assert_allclose(part(x).detach().numpy(), truth, rtol=1e-12)
    # Every feature has pieces of its own, and more than one of them is the largest somewhere.
    largest = np.stack([maps[:, 5 * feature : 5 * feature + 5].argmax(axis=1) for feature in range(3)])
    assert all(len(set(row)) > 1 for row in largest.tolist())
