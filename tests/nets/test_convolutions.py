"""Convolutions of few channels: torch's own in double precision are the truth, at every order of derivative."""

import copy
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from aigc_lab.nets import began, convolutions, resnet
from aigc_lab.nets.convolutions import Conv2d, ConvTranspose2d, DoublingConv2d, HalvingConv2d
from aigc_lab.nets.precision import products
from aigc_lab.nets.spectral import is_spectral, spectral
from aigc_lab.training.program import record

# layer, in channels, out channels, kernel, stride, padding, height, width
Case = tuple[str, int, int, int, int, int, int, int]
CASES: list[Case] = [
    ("Conv2d", 1, 9, 4, 2, 1, 8, 8),
    ("Conv2d", 3, 8, 4, 2, 1, 7, 10),  # a row is left over
    ("Conv2d", 1, 9, 3, 1, 1, 6, 5),
    ("Conv2d", 9, 1, 3, 1, 1, 6, 5),
    ("Conv2d", 8, 3, 3, 1, 0, 6, 6),
    ("Conv2d", 9, 2, 5, 1, 2, 5, 8),
    ("Conv2d", 2, 8, 2, 2, 0, 7, 6),
    ("Conv2d", 8, 1, 3, 1, 1, 1, 1),  # of one place
    ("Conv2d", 6, 2, 4, 1, 0, 4, 4),  # all of the picture
    ("ConvTranspose2d", 9, 1, 4, 2, 1, 4, 4),
    ("ConvTranspose2d", 8, 3, 4, 2, 1, 3, 5),
    ("ConvTranspose2d", 8, 2, 3, 1, 1, 5, 4),
    ("ConvTranspose2d", 8, 2, 6, 3, 2, 3, 2),
    ("ConvTranspose2d", 8, 1, 2, 2, 0, 3, 3),
    ("ConvTranspose2d", 9, 3, 4, 2, 1, 1, 1),
    ("ConvTranspose2d", 5, 7, 4, 1, 0, 1, 1),  # of one place
]
ids = [f"{name}-{inputs}-{outputs}-k{k}s{s}p{p}-{h}x{w}" for name, inputs, outputs, k, s, p, h, w in CASES]
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def pair(case: Case, dtype: torch.dtype = torch.float64, *, bias: bool = True) -> tuple[nn.Module, nn.Module]:
    """torch's layer and ours with the same weights."""
    name, inputs, outputs, kernel, stride, padding, *_ = case
    layers = []
    for source in (nn, convolutions):
        torch.manual_seed(0)
        layers.append(getattr(source, name)(inputs, outputs, kernel, stride, padding, bias=bias).to(dtype))
    theirs, ours = layers
    assert all(torch.equal(one, other) for one, other in zip(theirs.parameters(), ours.parameters(), strict=True))
    assert theirs.state_dict().keys() == ours.state_dict().keys()
    return theirs, ours


def pictures(case: Case, dtype: torch.dtype = torch.float64, count: int = 3) -> Tensor:
    drawn = torch.randn(count, case[1], *case[6:], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return drawn.to(dtype)


def derivatives(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """The output, the gradients of a loss by all, and those of a penalty on the gradient by the input."""
    x = x.clone().requires_grad_()
    y = layer(x)
    weights = list(layer.parameters())
    loss = (y.sin() * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum()
    first = torch.autograd.grad(loss, [x, *weights], create_graph=True)
    second = torch.autograd.grad(first[0].square().sum(), [x, *weights])
    return [y, *first, *second]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("case", CASES, ids=ids)
def test_it_is_torchs_layer_with_its_derivatives(case: Case, form: str) -> None:
    theirs, ours = (layer.to(memory_format=FORMATS[form]) for layer in pair(case))
    x = pictures(case).contiguous(memory_format=FORMATS[form])
    for one, other in zip(derivatives(theirs, x), derivatives(ours, x), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_numbers_in_single_precision_differ_by_rounding(case: Case) -> None:
    truth = [each.double() for each in derivatives(pair(case)[0], pictures(case))]
    theirs, ours = (derivatives(layer, pictures(case, torch.float32)) for layer in pair(case, torch.float32))
    for one, other, exact in zip(theirs, ours, truth, strict=True):
        scale = exact.abs().max()
        assert (other - exact).abs().max() <= 2 * (one - exact).abs().max() + 1e-6 * scale


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_derivatives_are_those_of_differences(case: Case) -> None:
    _, ours = pair(case)
    weights = [weight.detach().clone().requires_grad_() for weight in ours.parameters()]

    def of(x: Tensor, *weights: Tensor) -> Any:
        return torch.func.functional_call(ours, dict(zip(("weight", "bias"), weights, strict=True)), x)

    given = (pictures(case, count=2).requires_grad_(), *weights)
    assert gradcheck(of, given, fast_mode=True)
    assert gradgradcheck(of, given, fast_mode=True)


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_in_16_bits_it_is_as_close_as_torchs(case: Case) -> None:
    truth = pair(case)[0](pictures(case))
    found = []
    for layer in pair(case, torch.float32):
        x = pictures(case, torch.float32).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = layer(x)
        assert y.dtype == torch.bfloat16
        y.float().sum().backward()
        assert x.grad is not None and x.grad.dtype == torch.float32
        found.append((y, x.grad))
    (theirs, of_theirs), (ours, of_ours) = found
    assert (ours - truth).abs().max() <= 2 * (theirs - truth).abs().max() + 0.01 * truth.abs().max()
    torch.testing.assert_close(of_ours, of_theirs, rtol=0.03, atol=0.03 * float(of_theirs.abs().max()))


def each_by_itself(layers: list[nn.Module], several: Tensor, form: str) -> None:
    """Under `vmap`, with the gradients that a stack of replicas takes, a layer is each by itself."""
    weights = {name: torch.stack([layer.get_parameter(name) for layer in layers]) for name in ("weight", "bias")}
    if form == "channels_last":
        several = several.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)

    def loss(weights: dict[str, Tensor], x: Tensor) -> Any:
        return torch.func.functional_call(layers[0], weights, x).square().sum()

    gradients = torch.func.vmap(torch.func.grad(loss))(weights, several)
    for number, layer in enumerate(layers):
        alone = torch.autograd.grad(layer(several[number]).square().sum(), list(layer.parameters()))
        for name, gradient in zip(("weight", "bias"), alone, strict=True):
            torch.testing.assert_close(gradients[name][number], gradient, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("case", CASES, ids=ids)
def test_of_several_at_once(case: Case, form: str) -> None:
    layers = [pair(case)[1] for _ in range(3)]
    for number, layer in enumerate(layers):
        with torch.no_grad():
            for weight in layer.parameters():
                weight.add_(0.1 * number)
    each_by_itself(layers, torch.stack([pictures(case) * (1 + number) for number in range(3)]), form)


OTHERS: dict[str, Callable[[Any], nn.Module]] = {
    "groups": lambda kind: kind(2, 16, 3, groups=2),
    "dilation": lambda kind: kind(2, 16, 3, dilation=2),
    "an oblong window": lambda kind: kind(2, 16, (3, 2)),
    "a window that its stride does not divide": lambda kind: kind(2, 16, 3, stride=2, padding=1),
    "many channels": lambda kind: kind(8, 8, 3, padding=1),
    "few channels on both sides": lambda kind: kind(2, 3, 3, padding=1),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("kind", ["Conv2d", "ConvTranspose2d"])
def test_other_shapes_are_torchs(name: str, kind: str) -> None:
    """With the gradient by the picture, which the fast way would compute."""
    torch.manual_seed(0)
    theirs, ours = OTHERS[name](getattr(nn, kind)), OTHERS[name](getattr(convolutions, kind))
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 8 if name == "many channels" else 2, 9, 9, requires_grad=True)
    with (
        mock.patch.object(convolutions, "_by_product", side_effect=AssertionError("was used")),
        mock.patch.object(convolutions._Read, "apply", side_effect=AssertionError("was used")),
    ):
        found, expected = ours(x), theirs(x)
        assert torch.equal(expected, found)
        one, other = (torch.autograd.grad(y.square().sum(), [x])[0] for y in (expected, found))
        assert torch.equal(one, other)


def test_products_that_may_be_less_precise_are_torchs_convolutions() -> None:
    layer, x = Conv2d(16, 1, 3, padding=1), torch.randn(2, 16, 6, 6)
    with (
        products("medium"),
        mock.patch.object(convolutions, "_by_product", side_effect=AssertionError("was used")),
    ):
        assert torch.equal(layer(x), nn.Conv2d._conv_forward(layer, x, layer.weight, layer.bias))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("Conv2d", ((16, 1, 5), (2, 16, 4, 4))),
        ("Conv2d", ((16, 1, 5), (2, 16, 3, 9))),
        ("Conv2d", ((16, 1, 3), (2, 8, 9, 9))),
        ("ConvTranspose2d", ((16, 1, 4, 2, 3), (2, 16, 1, 1))),
        ("ConvTranspose2d", ((16, 1, 4, 2, 1), (2, 8, 4, 4))),
    ],
)
def test_what_does_not_fit_is_refused_as_torch_does(name: str, given: tuple[Any, Any]) -> None:
    arguments, shape = given
    said = []
    for source in (nn, convolutions):
        with pytest.raises(RuntimeError) as refused:
            getattr(source, name)(*arguments)(torch.randn(shape))
        said.append(str(refused.value))
    assert said[0] == said[1]


@pytest.mark.parametrize("layer", [Conv2d(1, 8, 4, 2, 1), Conv2d(8, 1, 3, padding=1), ConvTranspose2d(8, 1, 4, 2, 1)])
def test_autocast_touches_no_double_and_no_gradient(layer: Any) -> None:
    x = torch.randn(2, layer.in_channels, 8, 8, requires_grad=True)
    expected = torch.autograd.grad(layer(x).square().sum(), [x])[0]
    y = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert copy.deepcopy(layer).double()(x.double()).dtype == torch.float64
        assert layer(x).dtype == torch.bfloat16
        (found,) = torch.autograd.grad(y.square().sum(), [x])
    assert torch.equal(found, expected)


@pytest.mark.parametrize("arguments", [(8, 1, 2, 2), (8, 3, 2, 2), (8, 1, 4, 2, 1)])
def test_what_is_drawn_may_be_changed_in_place(arguments: Any) -> None:
    kind: Any = ConvTranspose2d
    layer = kind(*arguments, bias=False)
    x = torch.randn(2, 8, 3, 3)
    drawn = layer(x)
    assert torch.equal(F.relu(layer(x), inplace=True), drawn.clamp_min(0))


@pytest.mark.parametrize("form", FORMATS)
def test_in_16_bits_a_step_is_a_program(form: str) -> None:
    """None of what draws and reads pictures asks the host for anything."""
    drawing, reading = ConvTranspose2d(8, 1, 4, 2, 1), Conv2d(1, 8, 4, 2, 1)
    for layer in (drawing, reading):
        layer.to(memory_format=FORMATS[form])

    def step(x: Tensor) -> list[Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = reading(drawing(x)).float().square().sum()
        return list(torch.autograd.grad(loss, [drawing.weight, reading.weight]))

    one, other = torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4)
    step(one)
    _, program = record(lambda: step(one), [one])
    assert program.fault is None
    piece = program.compiled()
    with torch.no_grad():
        found = dict(zip(piece.gives, piece.run(other), strict=True))
    assert all(map(torch.equal, [found[name] for name in program.outputs], step(other)))


def test_more_arguments_are_torchs() -> None:
    same, reflected = Conv2d(1, 2, 3, padding="same"), Conv2d(1, 2, 3, padding=1, padding_mode="reflect")
    x = torch.randn(2, 1, 6, 6)
    assert torch.equal(same(x), nn.Conv2d._conv_forward(same, x, same.weight, same.bias))
    assert torch.equal(reflected(x), nn.Conv2d._conv_forward(reflected, x, reflected.weight, reflected.bias))
    doubled = ConvTranspose2d(4, 1, 4, 2, 1)
    features = torch.randn(2, 4, 3, 3)
    assert doubled(features, output_size=[7, 7]).shape == (2, 1, 7, 7)
    assert ConvTranspose2d(4, 1, 4, 2, 1, output_padding=1)(features).shape == (2, 1, 7, 7)
    assert torch.equal(same(x[0]), nn.Conv2d._conv_forward(same, x[0], same.weight, same.bias))  # no batch


@pytest.mark.parametrize("bias", [True, False])
def test_what_draws_a_picture_is_computed_here(bias: bool) -> None:
    """A test that the fast way is taken at all, by a layer and by the gradient of another."""
    used = mock.Mock(side_effect=convolutions._by_product)
    with mock.patch.object(convolutions, "_by_product", used):
        ConvTranspose2d(8, 1, 4, 2, 1, bias=bias)(torch.randn(2, 8, 4, 4))
        assert used.call_count == 1
        Conv2d(8, 1, 3, padding=1, bias=bias)(torch.randn(2, 8, 4, 4))
        assert used.call_count == 2
        x = torch.randn(2, 1, 8, 8, requires_grad=True)
        Conv2d(1, 8, 4, 2, 1, bias=bias)(x).sum().backward()
        assert used.call_count == 3


def test_a_spectral_norm_is_that_of_torchs_layer() -> None:
    found = []
    for kind in (nn.Conv2d, Conv2d):
        torch.manual_seed(0)
        layer = spectral(nn.Sequential(kind(1, 4, 3, padding=1)))
        x = torch.linspace(-1, 1, 72).view(2, 1, 6, 6).requires_grad_()
        y = layer(x)
        found.append((y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["Conv2d", "ConvTranspose2d"])
def test_memory_stays_as_it_is_laid_out(kind: str) -> None:
    """What follows a picture, or its gradient, is not slowed by another layout."""
    layer = getattr(convolutions, kind)(*((3, 8) if kind == "Conv2d" else (8, 3)), 4, 2, 1)
    x = torch.randn(2, layer.in_channels, 8, 8)
    for form in FORMATS.values():
        layer.to(memory_format=form)
        given = x.contiguous(memory_format=form).requires_grad_()
        y = layer(given)
        (gradient,) = torch.autograd.grad(y.square().sum(), [given])
        for each in (y, gradient):
            assert (each.stride(1) == 1) == (form == torch.channels_last)


# ---- twice the side


def doublings(
    inputs: int, outputs: int, dtype: torch.dtype = torch.float64, *, bias: bool = True
) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    theirs = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)).to(dtype)
    torch.manual_seed(0)
    ours = DoublingConv2d(inputs, outputs, bias=bias).to(dtype)
    assert all(torch.equal(one, other) for one, other in zip(theirs.parameters(), ours.parameters(), strict=True))
    return theirs, ours


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small layers are computed as large ones."""
    monkeypatch.setattr(convolutions._Scaling, "_pays", lambda layer, picture, channels: True)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("inputs", "outputs", "height", "width"), [(3, 5, 4, 4), (4, 2, 1, 3), (1, 1, 2, 1)])
def test_what_doubles_is_an_upsampling_and_a_convolution(
    inputs: int, outputs: int, height: int, width: int, bias: bool, form: str
) -> None:
    theirs, ours = (layer.to(memory_format=FORMATS[form]) for layer in doublings(inputs, outputs, bias=bias))
    x = torch.randn(3, inputs, height, width, dtype=torch.float64).contiguous(memory_format=FORMATS[form])
    for one, other in zip(derivatives(theirs, x), derivatives(ours, x), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", [DoublingConv2d, HalvingConv2d])
def test_several_of_another_size_at_once(kind: type[nn.Module], form: str) -> None:
    each_by_itself([kind(3, 4).double() for _ in range(2)], torch.randn(2, 5, 3, 4, 4, dtype=torch.float64), form)


def test_a_picture_without_a_batch_is_torchs() -> None:
    for side in (4, 16):
        x = torch.randn(64, side, side)
        for theirs, ours in (doublings(64, 64), halvings(64, 64)):
            assert torch.equal(ours(x.double()), theirs(x.double()))


def test_a_doubling_is_computed_on_the_smaller_picture_where_it_pays() -> None:
    with mock.patch("torch.nn.functional.interpolate", side_effect=AssertionError("was doubled first")):
        theirs, ours = doublings(64, 64, torch.float32)
        x = torch.randn(2, 64, 8, 8)
        found = ours(x)
    weight, bias = theirs.parameters()
    expected = F.conv2d(x.repeat_interleave(2, 2).repeat_interleave(2, 3), weight, bias, padding=1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for channels, side in ((32, 8), (64, 4)):
        theirs, ours = doublings(channels, channels, torch.float32)
        x = torch.randn(2, channels, side, side)
        assert torch.equal(theirs(x), ours(x))


def test_in_16_bits_a_doubling_is_as_close_as_torchs() -> None:
    theirs, ours = doublings(64, 64, torch.float32)
    x = torch.randn(2, 64, 8, 8)
    exact = theirs.double()(x.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        one, other = theirs.float()(x), ours(x)
    assert other.dtype == torch.bfloat16
    assert (other - exact).abs().max() <= 1.5 * (one - exact).abs().max()


# ---- half the side


def halvings(inputs: int, outputs: int, *, bias: bool = True) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    theirs = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias), nn.AvgPool2d(2)).double()
    torch.manual_seed(0)
    ours = HalvingConv2d(inputs, outputs, bias=bias).double()
    assert all(torch.equal(one, other) for one, other in zip(theirs.parameters(), ours.parameters(), strict=True))
    return theirs, ours


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("inputs", "outputs", "height", "width", "bias"), [(3, 5, 8, 6, True), (1, 2, 2, 2, False), (4, 3, 5, 7, True)]
)
def test_what_halves_is_a_convolution_and_its_mean(
    inputs: int, outputs: int, height: int, width: int, bias: bool, form: str
) -> None:
    theirs, ours = (layer.to(memory_format=FORMATS[form]) for layer in halvings(inputs, outputs, bias=bias))
    x = torch.randn(3, inputs, height, width, dtype=torch.float64).contiguous(memory_format=FORMATS[form])
    for one, other in zip(derivatives(theirs, x), derivatives(ours, x), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("channels", "side", "pays"), [(32, 8, True), (16, 8, False), (32, 4, False)])
def test_a_mean_is_taken_of_the_weights_where_it_pays(channels: int, side: int, pays: bool) -> None:
    x = torch.randn(2, channels, side, side)
    with mock.patch("torch.nn.functional.avg_pool2d", side_effect=F.avg_pool2d) as pooled:
        HalvingConv2d(channels, channels)(x)
    (call,) = pooled.call_args_list
    assert call.args[0].shape[2:] == ((5, 5) if pays else (side, side))


@pytest.mark.parametrize("kind", [Conv2d, DoublingConv2d, HalvingConv2d])
def test_every_convolution_is_normalised(kind: Any) -> None:
    assert is_spectral(spectral(nn.Sequential(kind(4, 4, **({"kernel_size": 3} if kind is Conv2d else {})))))


@pytest.mark.usefixtures("always")
def test_what_halves_has_the_spectral_norm_of_its_own_weights() -> None:
    theirs, ours = (spectral(nn.Sequential(layer)) for layer in halvings(2, 4))
    for part, other in zip(theirs.buffers(), ours.buffers(), strict=True):
        other.copy_(part)
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    for one, other in zip(derivatives(theirs, x), derivatives(ours, x), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)  # the norm is in single precision


def test_stored_weights_have_the_names_that_they_had() -> None:
    """Of the layers before pictures were doubled within a convolution."""
    names = [name for name in resnet.Decoder(4, 8, (1, 16, 16)).state_dict() if name.startswith("2.")]
    assert [name for name in names if "weight" in name] == [
        *("2.branch.0.weight", "2.branch.3.weight", "2.branch.4.weight", "2.branch.6.weight", "2.skip.1.weight"),
    ]
    weights = [name for name in began.Decoder(4, 8, (1, 16, 16)).state_dict() if "weight" in name]
    assert weights == [f"{number}.weight" for number in (0, 2, 4, 7, 9, 11)]
    names = [name for name in resnet.Encoder(1, 8, (1, 16, 16)).blocks[:2].state_dict() if "weight" in name]
    assert names == [
        "0.branch.0.weight",
        "0.branch.2.weight",
        "0.skip.1.weight",
        "1.branch.1.weight",
        "1.branch.3.weight",
    ]


@pytest.mark.parametrize("halve", [True, False])
def test_a_block_of_the_critic_is_two_convolutions_and_a_mean(halve: bool) -> None:
    block: Any = resnet._Down(3, 4, first=True, halve=halve)
    x = torch.randn(2, 3, 6, 6)
    first, _, second = block.branch
    branch = F.conv2d(F.relu(F.conv2d(x, first.weight, first.bias, padding=1)), second.weight, second.bias, padding=1)
    skip = F.conv2d(x, block.skip[-1].weight, block.skip[-1].bias)
    expected = F.avg_pool2d(branch + skip, 2) if halve else branch + skip
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [8, 16, 32])
def test_seeds_of_began_give_the_weights_that_they_gave(side: int) -> None:
    """In the order in which its layers were made when pictures were doubled by a layer of their own."""

    def pair(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
        last = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        return [nn.Conv2d(inputs, inputs, 3, padding=1), nn.ELU(), last, nn.ELU()]

    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range((side // 8).bit_length() - 1):
        layers += [*pair(4, 4), nn.Upsample(scale_factor=2)]
    ends = [nn.Linear(3, 256), nn.Unflatten(1, (4, 8, 8))], [*pair(4, 4), nn.Conv2d(4, 1, 3, padding=1)]
    before = nn.Sequential(*ends[0], *layers, *ends[1])
    torch.manual_seed(0)
    now = began.Decoder(3, 4, (1, side, side))
    assert before.state_dict().keys() == now.state_dict().keys()
    assert all(map(torch.equal, before.state_dict().values(), now.state_dict().values()))
    x = torch.randn(2, 3)
    torch.testing.assert_close(now(x), before(x), rtol=1e-4, atol=1e-5)


def test_a_residual_block_is_that_of_the_doubled_picture() -> None:
    block: Any = resnet.Decoder(4, 8, (1, 16, 16))[2].eval()
    x = torch.randn(2, 8, 4, 4)
    doubled = F.interpolate(x, scale_factor=2.0)
    norm, _, _, first, *rest = block.branch
    branch = F.relu(F.interpolate(norm(x), scale_factor=2.0))
    branch = F.conv2d(branch, first.weight, first.bias, padding=1)
    for layer in rest:
        branch = layer(branch)
    skip = F.conv2d(doubled, block.skip[1].weight)
    torch.testing.assert_close(block(x), branch + skip, rtol=1e-4, atol=1e-5)
