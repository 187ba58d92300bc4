"""GANs that read labels: what networks compute, what a loss and a penalty see of a label, and that it is learned."""

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from shell import command
from torch import Tensor, nn

from aigc_lab import noise, plugins
from aigc_lab.config import Strict
from aigc_lab.data.digits import Digits
from aigc_lab.data.ring import Ring
from aigc_lab.data.shared.batches import Batches
from aigc_lab.extractors.classifier import Classifier
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.nets.classes import one_hot
from aigc_lab.nets.conditional import Auxiliary, Bound, ClassNormalised, Concatenated, Projection
from aigc_lab.objectives import penalties
from aigc_lab.samples import Points, Samples
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.base import System
from aigc_lab.systems.point_gan import PointGAN
from aigc_lab.training.loop import train_one
from aigc_lab.training.state import TrainingState

CLASSES = 3
SMALL = {"width": 8, "hidden": 12, "critic_hidden": 8, "latent_size": 6, "groups": 4}
LABELLED = ("dcgan", "ns_gan", "sngan", "r3gan", "point_gan", "maxout_gan")
KINDS = ("concat", "projection", "auxiliary")
DIGITS, RING = Digits(Digits.Config(), Path()), Ring(Ring.Config(points=2000), Path())


def normal(*size: int, seed: int = 1) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fresh(name: str, batch: int = 8, **options: Any) -> tuple[TrainingState, Samples]:
    """A small system, its weights as they begin, and a batch of its data."""
    kind: Any = plugins.find(System, name)
    dataset: Any = RING if kind.modality == Modality.POINTS else DIGITS
    small = {key: value for key, value in SMALL.items() if key in kind.Config.model_fields}
    config = kind.Config(**small | options)
    state = TrainingState.fresh(kind, config, dataset.shape, seed=0, batch_size=batch, device="cpu")
    return state, Batches(dataset.load("train"), batch, 0)[0]


def loss(state: TrainingState, index: int, batch: Samples) -> Any:
    phase = state.phases[index]
    return phase.loss(batch, {name: noise.draw(what, name) for name, what in phase.noise.items()}, 0)


def critic(inputs: int, features: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, features), nn.Tanh(), nn.Linear(features, 1)).double()


# ---- projection


def test_a_projection_critic_is_the_inner_product() -> None:
    layers: Any = critic(4)
    features, last = layers[:-1], layers[-1]
    projection = Projection(layers, CLASSES).double()
    embedding = layers[-1].classes.weight
    x, labels = normal(7, 4), torch.arange(7) % CLASSES
    for row in range(7):
        phi = features(x[row])
        expected = last(phi)[0] + sum(embedding[labels[row], place] * phi[place] for place in range(5))
        assert projection(x, labels)[row, 0].item() == pytest.approx(expected.item(), abs=1e-12)


def test_a_projection_critic_is_the_log_ratio_of_conditional_gaussians() -> None:
    """Data N(μ_y, 1) and samples N(0, 1), with equal shares of labels: log p(x, y)/q(x, y) = ⟨μ_y, x⟩ − ½‖μ_y‖² is a
    projection critic on the features (x, 1), ψ at zero and e(y) = (μ_y, −½‖μ_y‖²) (section 3 of the paper).
    """
    means, x, labels = normal(CLASSES, 2), normal(9, 2, seed=2), torch.arange(9) % CLASSES
    network: Any = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)).double()
    projection = Projection(network, CLASSES).double()
    heads = network[1]
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0, 0], [0, 1], [0, 0]]))
        network[0].bias.copy_(torch.tensor([0.0, 0, 1]))
        heads.score.weight.zero_()
        heads.score.bias.zero_()
        heads.classes.weight.copy_(torch.cat([means, -0.5 * means.square().sum(1, keepdim=True)], 1))
    normal_law: Any = torch.distributions.Normal
    data, made = (normal_law(centre, 1.0).log_prob(x).sum(1, keepdim=True) for centre in (means[labels], 0 * x))
    assert torch.allclose(projection(x, labels), data - made, atol=1e-12)


def test_the_embedding_is_normalised_by_itself_where_the_critic_is() -> None:
    state, _ = fresh("projgan")
    heads: Any = state.system.critic.network.out  # type: ignore[union-attr]
    for layer in (heads.score, heads.classes):
        assert torch.linalg.matrix_norm(layer.normalised(), 2).item() == pytest.approx(1, abs=1e-3)
    plain, _ = fresh("projgan", spectral_norm=False)
    assert type(plain.system.critic.network.out.classes) is nn.Linear  # type: ignore[union-attr]


# ---- batch normalisation of each class


def test_batch_normalisation_of_a_class_is_torchs_with_its_scale_and_shift() -> None:
    for norm, x in ((nn.BatchNorm1d(4), normal(10, 4)), (nn.BatchNorm2d(4), normal(10, 4, 3, 3))):
        mine = ClassNormalised(nn.Sequential(norm), CLASSES).double()
        layer: Any = mine.network[0]  # type: ignore[index]
        assert layer.scale.eq(1).all() and layer.shift.eq(0).all()
        with torch.no_grad():
            layer.scale.copy_(normal(CLASSES, 4, seed=2))
            layer.shift.copy_(normal(CLASSES, 4, seed=3))
        for label in range(CLASSES):
            torchs = copy.deepcopy(norm).double()
            with torch.no_grad():
                torchs.weight.copy_(layer.scale[label])
                torchs.bias.copy_(layer.shift[label])
            layer.norm.reset_running_stats()
            assert torch.allclose(mine(x, torch.full((10,), label)), torchs(x), atol=1e-12)
            for name, value in torchs.named_buffers():
                assert torch.equal(getattr(layer.norm, name), value), name
        mixed = torch.arange(10) % CLASSES
        whole = torch.stack([mine(x, torch.full((10,), label)) for label in range(CLASSES)])
        assert torch.allclose(mine(x, mixed), whole[mixed, torch.arange(10)], atol=1e-12)


def test_labels_do_not_outlive_their_pass() -> None:
    normalised = ClassNormalised(nn.Sequential(nn.BatchNorm1d(4)), CLASSES)
    normalised(normal(10, 4).float(), torch.zeros(10, dtype=torch.int64))
    with pytest.raises(LookupError):
        normalised.network(normal(10, 4).float())


# ---- concatenation


def test_labels_are_concatenated_as_one_hot_planes() -> None:
    seen: list[Tensor] = []

    class Kept(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x

    images, labels = normal(4, 2, 3, 3), torch.tensor([2, 0, 1, 1])
    Concatenated(Kept(), CLASSES)(images, labels)
    assert torch.equal(seen[-1][:, :2], images)
    for row, plane in itertools.product(range(4), range(CLASSES)):
        assert seen[-1][row, 2 + plane].eq(float(labels[row] == plane)).all()
    # Two samples packed into one have a label each, in their order.
    Concatenated(Kept(), CLASSES)(images.reshape(2, 4, 3, 3), labels)
    assert seen[-1].shape == (2, 4 + 2 * CLASSES, 3, 3)
    assert seen[-1][:, 4:, 0, 0].tolist() == [[0, 0, 1, 1, 0, 0], [0, 1, 0, 0, 1, 0]]


@pytest.mark.parametrize("kind", ["concat", "projection"])
def test_the_critic_of_two_labels_differs_and_r1_is_its_gradient_in_the_samples(kind: str) -> None:
    networks = {"concat": Concatenated(critic(2 + CLASSES), CLASSES), "projection": Projection(critic(2), CLASSES)}
    network = networks[kind].double()
    x, labels, step = normal(6, 2), torch.arange(6) % CLASSES, 1e-6
    assert (network(x, labels) - network(x, (labels + 1) % CLASSES)).abs().min() > 1e-4
    slopes = []
    for place in range(2):
        move = step * one_hot(torch.tensor([place]), 2, torch.float64)
        slopes.append((network(x + move, labels) - network(x - move, labels)) / (2 * step))
    expected = 0.5 * torch.cat(slopes, 1).square().sum(1).mean()
    assert penalties.zero_centred(Bound(network, labels), x).item() == pytest.approx(expected.item(), rel=1e-6)


# ---- auxiliary


def test_the_gradient_of_the_classes_is_softmax_minus_one_hot() -> None:
    """∂/∂logits of the mean cross-entropy is (softmax − one-hot)/N, in the critic's loss of real and made samples, and
    in the generator's of made ones; the score gets none of it.
    """
    state, batch = fresh("acgan", auxiliary_weight=2.0)
    assert batch.labels is not None
    system: Any = state.system
    said: list[Tensor] = []

    def keep(_: nn.Module, given: Any, outputs: Tensor) -> None:
        outputs.retain_grad()
        said.append(outputs)

    system.critic.network.register_forward_hook(keep)
    for index, count in ((0, 2), (1, 1)):
        said.clear()
        total = loss(state, index, batch)
        (total.total - total.parts["adversarial"]).backward()
        assert len(said) == count
        for outputs in said:
            logits = outputs[:, 1:].detach()
            shares = logits.exp() / logits.exp().sum(1, keepdim=True)
            for row in range(len(batch)):
                shares[row, batch.labels[row]] -= 1
            assert outputs.grad is not None
            assert torch.allclose(outputs.grad[:, 1:], 2.0 * shares / len(batch), atol=1e-6)
            assert not outputs.grad[:, 0].any()
        rows = [
            -outputs[row, 1:].detach().log_softmax(0)[y].item()
            for outputs in said
            for row, y in enumerate(batch.labels)
        ]
        assert total.parts["auxiliary"].item() == pytest.approx(sum(rows) / len(batch), rel=1e-5)


def test_how_many_classes_the_critic_names_right_is_logged() -> None:
    state, batch = fresh("acgan")
    system: Any = state.system
    assert batch.labels is not None
    heads = system.critic.network[-2]
    with torch.no_grad():
        heads.classes.weight.zero_()
        heads.classes.bias.copy_(F.one_hot(batch.labels[0], 10))
    share = (batch.labels == batch.labels[0]).float().mean().item()
    dynamics = loss(state, 0, batch).dynamics
    assert {name: dynamics[f"class_accuracy_{name}"].item() for name in ("real", "fake")} == {
        "real": share,
        "fake": share,
    }


def test_penalties_see_the_score_alone() -> None:
    auxiliary, x, step = Auxiliary(critic(2), CLASSES).double(), normal(6, 2), 1e-6
    assert [each.shape[1] for each in auxiliary.judged(x)] == [1, CLASSES]
    assert torch.equal(auxiliary(x), auxiliary.judged(x)[0])
    slopes = []
    for place in range(2):
        move = step * one_hot(torch.tensor([place]), 2, torch.float64)
        slopes.append((auxiliary.judged(x + move)[0] - auxiliary.judged(x - move)[0]) / (2 * step))
    expected = 0.5 * torch.cat(slopes, 1).square().sum(1).mean()
    assert penalties.zero_centred(auxiliary, x).item() == pytest.approx(expected.item(), rel=1e-6)
    state, batch = fresh("acgan", penalty="r1", critic_norm="none")
    system: Any = state.system
    made = loss(state, 0, batch)
    leaf = system.real(batch).requires_grad_()
    (gradient,) = torch.autograd.grad(system.critic.judged(leaf)[0].sum(), leaf)
    assert made.parts["penalty"].item() == pytest.approx(
        0.5 * gradient.square().flatten(1).sum(1).mean().item(), rel=1e-5
    )
    assert made.total.item() == pytest.approx(
        (made.parts["adversarial"] + 10 * made.parts["penalty"] + made.parts["auxiliary"]).item(), rel=1e-5
    )


# ---- the labels of a turn


def seen_by(network: nn.Module) -> list[tuple[Tensor, Tensor | None]]:
    """What goes into a network from now on, and the labels beside it."""
    calls: list[tuple[Tensor, Tensor | None]] = []
    network.register_forward_hook(lambda _, given, out: calls.append((given[0], given[1] if given[1:] else None)))
    return calls


@pytest.mark.parametrize("conditional", ["concat", "projection"])
def test_wgan_gp_looks_between_samples_of_one_class(conditional: str) -> None:
    state, batch = fresh("wgan_gp", conditional=conditional, critic_norm="none")
    system: Any = state.system
    generated, judged = seen_by(system.generator), seen_by(system.critic)
    loss(state, 0, batch)
    real, fake, between = judged
    assert batch.labels is not None
    for _, labels in (*generated, *judged):
        assert labels is not None and torch.equal(labels, batch.labels)
    alpha = noise.draw(state.phases[0].noise["alpha"], "alpha")[:, None, None, None]
    line = real[0] + alpha * (fake[0] - real[0])
    assert torch.allclose(torch.func.debug_unwrap(between[0]), line, atol=1e-6)


@pytest.mark.parametrize("loss_name", ["nonsaturating", "relativistic"])
def test_the_generator_is_judged_with_the_labels_that_it_was_given(loss_name: str) -> None:
    state, batch = fresh("dcgan", conditional="concat", loss=loss_name)
    system: Any = state.system
    calls = [*seen_by(system.generator), *seen_by(system.critic)]
    made, judged = seen_by(system.generator), seen_by(system.critic)
    loss(state, 1, batch)
    assert not calls and len(judged) == (2 if loss_name == "relativistic" else 1)
    assert batch.labels is not None
    assert all(labels is not None and torch.equal(labels, batch.labels) for _, labels in (*made, *judged))


def test_augmentation_comes_before_the_labels() -> None:
    state, batch = fresh("dcgan", conditional="concat", augment="diffaugment")
    system: Any = state.system
    inner = seen_by(system.critic.network)
    loss(state, 0, batch)
    assert batch.labels is not None
    for images, _ in inner:
        planes = images[:, 1:]
        assert torch.equal(planes, one_hot(batch.labels, 10)[:, :, None, None].expand_as(planes))


# ---- what goes together


@pytest.mark.parametrize("conditional", KINDS)
@pytest.mark.parametrize("name", LABELLED)
def test_every_gan_is_conditional_by_the_same_key(name: str, conditional: str) -> None:
    state, batch = fresh(name, conditional=conditional)
    assert state.system.conditional
    for index, phase in enumerate(state.phases):
        made = loss(state, index, batch)
        leaves = [weight for module in phase.trains for weight in module.parameters()]
        gradients = torch.autograd.grad(made.total, leaves, allow_unused=True)
        assert made.total.isfinite() and all(each is not None for each in gradients)
    samples = state.average.generate(4, labels=torch.tensor([1, 1, 0, 1]))
    assert samples.values.shape == (4, *state.system.shape.size)
    assert samples.labels is not None and samples.labels.tolist() == [1, 1, 0, 1]


def test_a_thousand_classes_are_built_and_sampled() -> None:
    shape = Shape(Modality.IMAGES, (3, 32, 32), classes=1000)
    for name in ("cgan", "acgan", "projgan"):
        kind: Any = plugins.find(System, name)
        system = kind(kind.Config(width=4, latent_size=4), shape).eval()
        one, two = (system.generate(2, labels=torch.tensor([0, label])).values for label in (999, 998))
        assert torch.equal(one[0], two[0])
        assert name == "projgan" or not torch.equal(one[1], two[1])  # whose scales all begin at 1


REFUSED = [
    ({"conditional": "projection", "packing": 2}, "packing is 2: set packing to 1, or conditional to concat"),
    ({"conditional": "auxiliary", "packing": 2}, "packing is 2: set packing to 1, or conditional to concat"),
    ({"conditional": "auxiliary", "penalty": "consensus"}, "penalty consensus reads the losses of both players"),
]


@pytest.mark.parametrize(("options", "said"), REFUSED)
def test_what_does_not_go_with_labels_is_refused(options: dict[str, Any], said: str) -> None:
    kind: Any = plugins.find(System, "point_gan")
    with pytest.raises(ValueError, match=said):
        kind.Config(**options)


@pytest.mark.parametrize(
    ("name", "value", "other"),
    [("cgan", "concat", "dcgan"), ("acgan", "auxiliary", "dcgan"), ("projgan", "projection", "sngan")],
)
def test_a_variant_by_name_is_no_other(name: str, value: str, other: str) -> None:
    kind: Any = plugins.find(System, name)
    assert kind.Config().conditional == value
    with pytest.raises(ValueError, match=f"{name} is {other} with conditional {value}; .* name system {other}"):
        kind.Config(conditional="none")


def test_own_networks_that_read_no_labels_are_refused() -> None:
    state, _ = fresh("point_gan", conditional="concat")
    state.system.generator = nn.Linear(6, 2)
    with pytest.raises(ValueError, match="its own networks read no labels, and conditional is concat: set it to none"):
        state.system.phases(8)


def test_a_subclass_may_read_labels_in_its_own_way() -> None:
    class Own(plugins.find(System, "point_gan")):  # type: ignore[misc]
        conditional = True

        def sample(self, latents: Tensor, *, labels: Tensor | None = None) -> Points:
            assert labels is not None
            return Points(self.generator(latents) + labels[:, None])

    system = Own(Own.Config(hidden=4, latent_size=6), RING.shape)
    assert [phase.name for phase in system.phases(8)] == ["critic", "generator"]
    assert system.generate(2, labels=torch.tensor([0, 5])).values.shape == (2, 2)
    assert type(system.generator) is nn.Sequential


@pytest.mark.parametrize(("value", "conditional"), [(False, False), (True, True)])
def test_a_users_own_key_of_this_name_may_say_no(value: bool, conditional: bool) -> None:
    class Config(Strict):
        conditional: bool = value

    class Own(PointGAN):
        def __init__(self, config: Config, shape: Shape) -> None:
            System.__init__(self, config, shape)

    unlabelled = Shape(Modality.POINTS, (2,))
    if conditional:
        with pytest.raises(ValueError, match="it is conditional, and the dataset has no labels"):
            Own(Config(), unlabelled)
    else:
        assert not Own(Config(), unlabelled).conditional


def test_classes_stand_beside_a_score_wherever_it_looks() -> None:
    images = torch.randn(4, 3, 2, 2)
    body = nn.Sequential(nn.Conv2d(3, 1, 3, stride=2, padding=1), nn.Flatten())
    score = body(images)
    scores, classes = Auxiliary(body, 5).judged(images)
    assert torch.equal(scores, score) and classes.shape == (4, 5)


def test_a_sample_without_a_label_is_refused() -> None:
    state, _ = fresh("point_gan", conditional="concat")
    with pytest.raises(ValueError, match="pass labels"):
        state.system.sample(torch.zeros(3, 6))


@pytest.mark.parametrize(
    ("labels", "said"),
    [([0, 8, 1], "knows the classes 0 to 7, not 8"), ([0, 1, -1], "not -1"), ([0, 1], "3 samples take as many")],
)
def test_samples_of_a_class_that_does_not_exist_are_refused(labels: list[int], said: str) -> None:
    state, _ = fresh("point_gan", conditional="concat")
    with pytest.raises(ValueError, match=said):
        state.system.generate(3, labels=torch.tensor(labels))


UNLABELLED = """\
data: {name: folder, path: flat, size: 16, channels: 1}
system: {name: NAME, width: 8}
training: {steps: 50, batch_size: 16, evaluate_every: 50}
evaluation: image-small
objective: {minimize: fd_clf}
"""
LACKING = "(images 1×16×16): it is conditional, and the dataset has no labels; choose one with classes"


@pytest.mark.parametrize(
    ("name", "said"),
    [("cgan", LACKING), ("dcgan, conditional: auxiliary", f"{LACKING}, or set conditional to none")],
)
def test_data_without_labels_are_refused_in_one_line(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    (tmp_path / "flat").mkdir()
    for number in range(8):
        Image.new("L", (16, 16), number).save(tmp_path / "flat" / f"{number}.png")
    (tmp_path / "mine.yaml").write_text(UNLABELLED.replace("NAME", name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIGC_LAB_HOME", str(tmp_path / "home"))
    told = command("sweep", "mine.yaml", "--dry-run")
    assert told.code == 2
    system = name.partition(",")[0]
    assert told.why == f"error: mine.yaml:2: system: {system} cannot be built for dataset folder {said}"


# ---- learning


@pytest.mark.parametrize("conditional", ["concat", "projection", "auxiliary"])
def test_each_class_of_the_ring_is_put_at_its_own_mode(conditional: str) -> None:
    ring = Ring(Ring.Config(sigma=0.1, points=20_000), Path())
    kind: Any = plugins.find(System, "point_gan")
    config = kind.Config(latent_size=8, hidden=64, critic_layers=2, lr=2e-3, conditional=conditional)
    state = TrainingState.fresh(kind, config, ring.shape, seed=0, batch_size=128, device="cpu")
    for _ in train_one(
        state, Batches(ring.load("train"), 128, 0), seed=0, steps=400, every=400, decay=0.95, precision="fp32"
    ):
        pass
    made = state.average.generate(2000, "judged")
    assert isinstance(made, Points) and made.labels is not None
    nearest = torch.cdist(made.values, ring.modes.centres).argmin(1)
    share = (nearest == made.labels).float().mean().item()
    print(f"{conditional}: {share:.3f} of the points are nearest to the mode that was asked for")
    assert share >= 0.9


# ---- a night's work: digits of the class that is asked for


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "options", "steps"),
    [
        ("cgan", {"width": 32}, 1000),
        ("acgan", {"width": 32}, 1000),
        # The scales of the classes begin alike and move by the step of Adam: at the paper's 2·10⁻⁴ they need thousands.
        ("projgan", {"width": 16, "lr": 1e-3, "n_critic": 2}, 600),
    ],
)
def test_digits_are_of_the_class_that_is_asked_for(
    name: str, options: dict[str, Any], steps: int, tmp_path: Path
) -> None:
    """Under the stored classifier, which names 97.8 % of real digits right."""
    judge = Classifier.prepare(DIGITS, cache=tmp_path, weights=WeightsPolicy(), device="cpu", say=print)
    kind: Any = plugins.find(System, name)
    state = TrainingState.fresh(kind, kind.Config(**options), DIGITS.shape, seed=0, batch_size=64, device="cpu")
    batches = Batches(DIGITS.load("train"), 64, 0)
    for _ in train_one(state, batches, seed=0, steps=steps, every=steps, decay=0.99, precision="fp32"):
        pass
    made = state.average.generate(1000, "judged")
    assert made.labels is not None
    with torch.inference_mode():
        named = judge.network(255 * made.values)[1].argmax(1)
    share = (named == made.labels).float().mean().item()
    print(f"{name}: the classifier names {share:.3f} of 1,000 digits as asked for, after {steps} steps")
    assert share >= 0.9
