"""Replicas trained as one program are what each is alone, and what is not alike is not stacked.

Two yardsticks. In double precision the order of sums is worth 10⁻¹⁵ a step: after 24 steps of Adam stacked and alone
agree to `DOUBLE`, while a learning rate, a seed or a place that is swapped is off by 10⁻² and more. In single
precision a gradient near zero has a sign that rounding decides, and Adam makes a whole step of it: there stacked and
alone may differ by what single precision itself is worth, the distance of the plain loop to its own double.
"""

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from aigc_lab import noise, plugins
from aigc_lab.data.shared.batches import Batches
from aigc_lab.penalties.instance_noise import InstanceNoise
from aigc_lab.samples import Images, Points, Samples, Text
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.base import System
from aigc_lab.systems.dcgan import DCGAN
from aigc_lab.systems.point_gan import PointGAN
from aigc_lab.systems.transformer_lm import TransformerLM
from aigc_lab.systems.vae import VAE
from aigc_lab.text.vocabulary import SPECIAL, Vocabulary
from aigc_lab.training.captured import as_ever
from aigc_lab.training.checkpoint import restore_state, save_state
from aigc_lab.training.course import Course
from aigc_lab.training.loop import train
from aigc_lab.training.own_numbers import OwnNumbers
from aigc_lab.training.plain import Plain
from aigc_lab.training.recorder import Diverged
from aigc_lab.training.stack import Stack
from aigc_lab.training.stacked import Stacked
from aigc_lab.training.state import Progress, Replica, TrainingState

STEPS, EVERY, DECAY, BATCH = 24, 8, 0.9, 8
DOUBLE = 1e-8  # of a tensor's largest entry
RATES = (1e-3, 3e-4, 2e-3)

_source = torch.Generator().manual_seed(0)
POINTS = Points(torch.randn(60, 2, generator=_source))
PICTURES = Images(torch.randint(0, 256, (60, 1, 16, 16), generator=_source, dtype=torch.uint8), torch.arange(60) % 10)

Setup = tuple[type[System], dict[str, Any], Samples, int]
WORDS = Vocabulary((*SPECIAL, *"abcdefgh"))
# Of many lengths, so that batches are of different ones; a short gradient is shortened for one replica and not another.
SENTENCES = Text.of([[3 + (row * place) % 8 for place in range(1, 2 + row % 6)] for row in range(60)], 8, WORDS)
SETUPS: dict[str, Setup] = {
    "transformer_lm": (
        TransformerLM,
        {"width": 8, "layers": 1, "heads": 2, "dropout": 0.2, "max_norm": 0.5},
        SENTENCES,
        2,
    ),
    "point_gan": (PointGAN, {"hidden": 16, "latent_size": 8, "n_critic": 2}, POINTS, 3),
    "vae": (VAE, {"width": 4, "latent_size": 3, "likelihood": "gaussian"}, PICTURES, 2),
    "dcgan": (DCGAN, {"width": 4, "latent_size": 5}, PICTURES, 2),
}


def replicas(
    setup: Setup,
    rates: Sequence[float] = RATES,
    *,
    first_seed: int = 0,
    averaged: bool = True,
    own: Sequence[dict[str, float]] = ({}, {}, {}),
) -> list[Replica]:
    kind, options, data, count = setup
    classes = 10 if data.modality == Modality.IMAGES else None
    vocabulary = data.vocabulary if isinstance(data, Text) else None
    shape = Shape(data.modality, tuple(data.values.shape[1:]), classes, vocabulary)
    made = []
    for seed in range(first_seed, first_seed + count):
        config = kind.Config(**(options | {"lr": rates[seed - first_seed]} | own[seed - first_seed]))
        state = TrainingState.fresh(kind, config, shape, seed=seed, batch_size=BATCH, device="cpu", averaged=averaged)
        made.append(Replica(state, Batches(data, BATCH, seed), seed))
    return made


def finish(course: type[Course], runs: Sequence[Replica], steps: int = STEPS) -> list[list[Any]]:
    """How each of the runs stood at each round. A stack may make programs of its steps; what is alone computes them."""
    found: dict[int, list[Any]] = {id(run): [] for run in runs}
    with as_ever() if course is Plain else nullcontext():
        for round_ in train(runs, steps=steps, every=EVERY, decay=DECAY, precision="fp32", course=course):
            for run, end in round_:
                found[id(run)].append(end)
    return [found[id(run)] for run in runs]


def contents(run: Replica, ends: Sequence[Progress] = ()) -> dict[str, Tensor]:
    """All that a run is and tells: weights, buffers, average, optimisers' memory, samples, curves."""
    state = run.state
    tensors = {f"system.{name}": value for name, value in state.system.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in state.average.state_dict().items()}
    for phase, optimizer in state.optimizers.items():
        for number, memory in optimizer.state_dict()["state"].items():
            tensors |= {f"{phase}.{number}.{name}": value for name, value in memory.items()}
    tensors["samples"] = state.average.generate(6, "samples").values
    tensors |= {f"{end.step} {name}": torch.tensor(value) for end in ends for name, value in end.scalars.items()}
    return {name: value.detach().double().clone() for name, value in tensors.items()}


def distance(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    """The largest difference of any tensor, relative to its largest entry."""
    assert one.keys() == two.keys()
    return max(((one[key] - two[key]).abs().max() / one[key].abs().max().clamp_min(1e-12)).item() for key in one)


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Replica]], list[Replica]]:
    """Everything in double precision, from the same initial weights, data and noise as in single."""
    single = noise.draw
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    monkeypatch.setattr(noise, "draw", lambda *key, **options: single(*key, **options).double())
    monkeypatch.setattr("aigc_lab.systems.base.draw", noise.draw)

    def widened(runs: list[Replica]) -> list[Replica]:
        for run in runs:
            run.state.system.double()
            run.state.average.double()
            if run.batches.samples.values.is_floating_point():
                run.batches.samples = type(run.batches.samples)(run.batches.samples.values.double())
        return runs

    return widened


@pytest.mark.parametrize("name", SETUPS)
def test_stacked_is_alone(name: str, double: Callable[[list[Replica]], list[Replica]]) -> None:
    alone, stacked = double(replicas(SETUPS[name])), double(replicas(SETUPS[name]))
    curves, curves_stacked = finish(Plain, alone), finish(Stacked, stacked)
    for one, two, curve, curve_stacked in zip(alone, stacked, curves, curves_stacked, strict=True):
        assert [end.step for end in curve_stacked] == [8, 16, 24] == [end.step for end in curve]
        assert two.state.step == STEPS
        assert distance(contents(one, curve), contents(two, curve_stacked)) < DOUBLE
    # What the tolerance must tell apart: a replica from its neighbour, and a replica from one of another rate or seed.
    assert distance(contents(alone[0], curves[0]), contents(stacked[1], curves_stacked[1])) > 1e4 * DOUBLE
    for swapped in (
        double(replicas(SETUPS[name], (*RATES[1::-1], *RATES[2:]))),
        double(replicas(SETUPS[name], first_seed=1)),
    ):
        finish(Stacked, swapped)
        assert distance(contents(alone[0]), contents(swapped[0])) > 1e4 * DOUBLE


# Every system as it comes, and each knob that draws, keeps buffers, moves after an update or differentiates twice.
KNOBS: dict[str, list[dict[str, Any]]] = {
    "dcgan": [
        {"loss": "relativistic", "penalty": "r1_r2", "update": "simultaneous"},
        {"penalty": "lecam", "critic_norm": "spectral", "augment": "adaptive"},
        {"penalty": "consistency", "minibatch_std": True, "packing": 2},
        {"penalty": "wgan_gp", "augment": "diffaugment", "packing": 2},
        {"penalty": "consensus", "penalty_weight": 0.1},
        {"share_fakes": True, "n_critic": 2, "packing": 2, "conditional": "concat"},
    ],
    "infogan": [{"share_fakes": True, "optimizer": "sgd"}],
    "maxout_gan": [{"penalty": "consensus", "penalty_weight": 0.1}],
    "point_gan": [{"penalty": "instance_noise", "spectral_norm": True, "packing": 4}],
    "dirac": [{"penalty": "consensus", "update": "simultaneous"}, {"penalty": "instance_noise"}],
}
SMALL = {"width": 4, "hidden": 12, "critic_hidden": 6, "latent_size": 5, "groups": 2}
# Every phase of a text GAN runs within five steps, and its networks are small.
SMALL |= {"pretrain_steps": 2, "critic_steps": 1, "head_size": 4, "critic_embedding": 8, "representations": 2}
# Adam makes a step of a gradient that is hardly more than rounding, and by that much a bias that began at 0 is off.
BY_DEFAULT: dict[str, dict[str, Any]] = {"infogan": {"optimizer": "sgd"}}
EVERY_SYSTEM = [
    (name, knobs) for name in plugins.names("systems") for knobs in [BY_DEFAULT.get(name, {}), *KNOBS.get(name, [])]
]


def setup_of(name: str, knobs: dict[str, Any]) -> Setup:
    """Two small replicas of the system, with these knobs."""
    kind = plugins.find(System, name)  # type: ignore[type-abstract]
    data: Samples = {Modality.IMAGES: PICTURES, Modality.POINTS: POINTS, Modality.TEXT: SENTENCES}[kind.modality]
    if name == "dirac":
        data = Points(torch.zeros(60, 1))
    small = {key: value for key, value in SMALL.items() if key in kind.Config.model_fields}
    if "n_critic" in kind.Config.model_fields:
        small["n_critic"] = min(kind.Config.model_fields["n_critic"].default, 2)
    return kind, small | knobs, data, 2


@pytest.mark.parametrize(("name", "knobs"), EVERY_SYSTEM)
def test_every_system_that_stacks_is_what_it_is_alone(
    name: str, knobs: dict[str, Any], double: Callable[[list[Replica]], list[Replica]]
) -> None:
    setup = setup_of(name, knobs)
    alone, stacked = double(replicas(setup)), double(replicas(setup))
    if alone[0].state.system.unstackable is not None:
        with pytest.raises(ValueError, match="cannot be stacked: torch's (vmap|LSTM)"):
            finish(Stacked, stacked, steps=5)
        return
    for run in [*alone, *stacked]:
        if hasattr(run.state.system, "augment_strength"):
            cast("Tensor", run.state.system.augment_strength).fill_(
                0.5
            )  # from 0 it takes 100,000 pictures to change anything
    # Five: adaptive augmentation looks at its strength after four.
    for course, runs in ((Plain, alone), (Stacked, stacked)):
        finish(course, runs, steps=5)
    for one, two in zip(alone, stacked, strict=True):
        assert distance(contents(one), contents(two)) < DOUBLE
    assert distance(contents(alone[0]), contents(stacked[1])) > 1e4 * DOUBLE


# Each number that only losses read, where something reads it. The others of a system are the same code as these.
NUMBERS: list[tuple[str, dict[str, Any], dict[str, Sequence[float]]]] = [
    ("vae", {"likelihood": "gaussian"}, {"beta": (4, 0.5), "free_bits": (0.05, 0.3), "sigma": (0.2, 0.7)}),
    ("vae", {"annealing": "linear", "anneal_steps": 3}, {"beta": (4, 0.5)}),
    ("beta_tc_vae", {}, {"mutual_information": (1, 2), "beta": (6, 1), "dimension_wise": (1, 0.2)}),
    ("factor_vae", {}, {"gamma": (10, 40)}),
    ("info_vae", {}, {"alpha": (0.5, 0.2), "mmd_weight": (1000, 300), "kernel_scale": (3, 11)}),
    ("wae_mmd", {}, {"mmd_weight": (10, 1), "kernel_scale": (3, 11)}),
    ("rae", {"regulariser": "gradient"}, {"code_weight": (0.01, 1), "regulariser_weight": (1e-4, 0.3)}),
    ("vae_gan", {}, {"beta": (1, 7), "feature_weight": (1e-2, 1)}),
    # With fewer codes some begin anew as equals, which rounding decides between.
    ("vq_vae", {"codes": 24}, {"commitment": (0.25, 2), "restart": (0.1, 1.2)}),
    ("began", {}, {"gamma": (0.5, 0.9), "control": (1e-3, 0.5)}),
    ("dcgan", {"penalty": "wgan_gp"}, {"penalty_weight": (10, 1)}),
    ("dcgan", {"conditional": "auxiliary"}, {"auxiliary_weight": (1, 0.1)}),
    ("point_gan", {"penalty": "instance_noise"}, {"penalty_weight": (0.1, 0.7)}),
    ("point_gan", {"penalty": "consensus", "update": "simultaneous"}, {"penalty_weight": (0.1, 0.4)}),
    ("point_gan", {"loss": "wasserstein"}, {"clip": (0.01, 0.05)}),
    ("r3gan", {"decay_images": 40}, {"penalty_weight": (0.05, 1), "final_penalty": (0.1, 0.5)}),
    ("infogan", {"optimizer": "sgd"}, {"information_weight": (1, 5), "continuous_weight": (0.1, 3)}),
    ("dirac", {"penalty": "r1"}, {"penalty_weight": (0.3, 1)}),
    ("dirac", {"penalty": "instance_noise"}, {"penalty_weight": (0.3, 1)}),
    ("transformer_lm", {}, {"dropout": (0.2, 0.5)}),
    (
        "gumbel_gan",
        {"decoder": "transformer", "hidden": 8, "heads": 2, "filters": 0.02},
        {"critic_l2": (0.1, 2), "critic_dropout": (0.25, 0.6)},
    ),
]


def declared(kind: type[System]) -> frozenset[str]:
    """What a system says of itself beside its bases."""
    return kind.loss_only - frozenset().union(*(getattr(base, "loss_only", frozenset()) for base in kind.__bases__))


@pytest.mark.parametrize(("name", "knobs", "numbers"), NUMBERS)
def test_replicas_of_other_numbers_are_what_each_is_alone(
    name: str,
    knobs: dict[str, Any],
    numbers: dict[str, Sequence[float]],
    double: Callable[[list[Replica]], list[Replica]],
) -> None:
    """One seed of all: what sets the replicas apart are these numbers, each of which is missed where it is not read."""
    setup = setup_of(name, knobs)
    own = [{key: values[number] for key, values in numbers.items()} for number in range(2)]
    alone, stacked = (double(replicas(setup, (1e-3, 1e-3), own=own)) for _ in range(2))
    finish(Plain, alone, steps=5)
    finish(Stacked, stacked, steps=5)
    for one, two in zip(alone, stacked, strict=True):
        assert distance(contents(one), contents(two)) < DOUBLE
    for key in numbers:
        others = double(replicas(setup, (1e-3, 1e-3), own=[each | {key: own[0][key]} for each in own]))
        finish(Plain, others, steps=5)
        assert distance(contents(others[1]), contents(stacked[1])) > 1e3 * DOUBLE, key


def test_every_number_that_only_losses_read_is_tried() -> None:
    kinds = {name: plugins.find(System, name) for name in plugins.names("systems")}  # type: ignore[type-abstract]
    tried = {key for _, _, numbers in NUMBERS for key in numbers}
    assert {key for kind in kinds.values() for key in kind.loss_only} == tried
    for name, kind in kinds.items():
        assert declared(kind) <= {key for each, _, numbers in NUMBERS if each == name for key in numbers}, name


def test_a_number_that_is_0_makes_another_program() -> None:
    kind, options, data, _ = SETUPS["vae"]

    def of(free_bits: float, beta: float) -> TrainingState:
        return replicas((kind, options | {"free_bits": free_bits, "beta": beta}, data, 1))[0].state

    with pytest.raises(ValueError, match="replicas 0 and 1 cannot be stacked: free_bits is zero and positive"):
        Stack([of(0, 1), of(0.5, 2)])
    Stack([of(0, 1), of(0, 2)])
    Stack([of(0.5, 1), of(0.25, 1)])


def test_a_penalty_that_changes_samples_says_whether_its_weight_may_be_a_tensor() -> None:
    kind, options, data, _ = SETUPS["point_gan"]
    for penalty, keys in (("r1", {"penalty_weight"}), ("instance_noise", {"penalty_weight"})):
        assert keys <= kind.loss_only_of(PointGAN.Config(penalty=penalty))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InstanceNoise, "tensor_weight", False)
        states = [
            replicas((kind, options | {"penalty": "instance_noise", "penalty_weight": weight}, data, 1))[0].state
            for weight in (0.1, 0.2)
        ]
        with pytest.raises(ValueError, match="penalty_weight is 0.1 and 0.2"):
            Stack(states)


def test_numbers_that_are_equal_are_those_of_the_program() -> None:
    """A stack computes with them as before, to the same bits."""
    kind, options, data, _ = SETUPS["vae"]
    own = [{"beta": 0.3, "free_bits": 0.1}, {"beta": 0.3, "free_bits": 0.2}]
    systems = [run.state.system for run in replicas((kind, options, data, 2), own=own)]
    (own_of_each,) = OwnNumbers(systems).tensors.items()
    assert own_of_each[0] == "free_bits" and torch.equal(own_of_each[1], torch.tensor([0.1, 0.2]))
    assert not OwnNumbers(systems[:1]).tensors


@pytest.mark.parametrize("name", SETUPS)
def test_in_single_precision_they_differ_by_its_rounding(name: str, request: pytest.FixtureRequest) -> None:
    alone, stacked = replicas(SETUPS[name]), replicas(SETUPS[name])
    finish(Plain, alone)
    finish(Stacked, stacked)
    ours = [(contents(one), contents(two)) for one, two in zip(alone, stacked, strict=True)]
    exact = request.getfixturevalue("double")(replicas(SETUPS[name]))
    finish(Plain, exact)
    for (plain, together), truth in zip(ours, map(contents, exact), strict=True):
        assert distance(truth, together) < 10 * distance(truth, plain)


@pytest.mark.parametrize("name", SETUPS)
def test_one_stored_and_stacked_again_goes_on_to_the_same_bits(name: str, tmp_path: Path) -> None:
    """Stored in the middle of an interval of the loop, in the company and places that it had."""
    straight, first, second = (replicas(SETUPS[name]) for _ in range(3))
    finish(Stacked, straight)
    finish(Stacked, first, 11)
    for number, (run, again) in enumerate(zip(first, second, strict=True)):
        save_state(run.state, tmp_path / f"{number}.safetensors")
        restore_state(again.state, tmp_path / f"{number}.safetensors")
    finish(Stacked, second)
    for one, two in zip(straight, second, strict=True):
        assert same(contents(one), contents(two))


def test_it_goes_on_in_the_plain_loop_and_back(double: Callable[[list[Replica]], list[Replica]]) -> None:
    alone, mixed = double(replicas(SETUPS["point_gan"])), double(replicas(SETUPS["point_gan"]))
    finish(Plain, alone)
    for course, steps in ((Stacked, 8), (Plain, 16), (Stacked, STEPS)):
        finish(course, mixed, steps)
    for one, two in zip(alone, mixed, strict=True):
        assert distance(contents(one), contents(two)) < DOUBLE


def test_between_two_steps_a_state_is_what_it_would_be_alone() -> None:
    """While they are stacked: the windows show the present weights, and unstacking changes nothing."""
    runs = replicas(SETUPS["dcgan"])
    loop = train(runs, steps=STEPS, every=EVERY, decay=DECAY, precision="fp32", course=Stacked)
    next(loop)
    first = [contents(run) for run in runs]
    next(loop)
    second = [contents(run) for run in runs]
    assert all(not same(one, two) for one, two in zip(first, second, strict=True))
    loop.close()  # type: ignore[attr-defined]
    assert all(same(one, contents(run)) for one, run in zip(second, runs, strict=True))
    untouched = contents(runs[1])
    with torch.no_grad():
        for tensor in (*runs[0].state.system.parameters(), *runs[0].state.system.buffers()):
            tensor.fill_(1)
    assert same(untouched, contents(runs[1])), "memory of its own"


@pytest.mark.parametrize("name", SETUPS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_replica_that_diverges_leaves_the_others_bits_alone(name: str, value: float) -> None:
    clean, spoiled = replicas(SETUPS[name]), replicas(SETUPS[name])
    key, weight = next((key, p) for key, p in spoiled[0].state.system.named_parameters() if p.ndim > 1)
    with torch.no_grad():
        weight.view(-1)[0] = value
    # One interval, in which the diverged replica is trained on with the others.
    ends, curves = finish(Stacked, spoiled, EVERY), finish(Stacked, clean, EVERY)
    assert isinstance(ends[0][0], Diverged) and ends[0][0].step == 1, key
    assert not spoiled[0].live and all(run.live for run in spoiled[1:])
    for one, two, curve, end in zip(clean[1:], spoiled[1:], curves[1:], ends[1:], strict=True):
        assert same(contents(one, curve), contents(two, end))


def test_the_others_go_on_without_those_that_leave(double: Callable[[list[Replica]], list[Replica]]) -> None:
    alone, stacked = double(replicas(SETUPS["point_gan"])), double(replicas(SETUPS["point_gan"]))
    finish(Plain, alone)
    left = None
    for round_ in train(stacked, steps=STEPS, every=EVERY, decay=DECAY, precision="fp32", course=Stacked):
        assert [run for run, _ in round_] == [run for run in stacked if run.live]
        if stacked[1].live:
            stacked[1].live = False
            left = contents(stacked[1])
    assert left is not None and same(left, contents(stacked[1])) and stacked[1].state.step == EVERY
    for number in (0, 2):
        assert distance(contents(alone[number]), contents(stacked[number])) < DOUBLE


@pytest.mark.parametrize("name", ["point_gan", "vae", "dcgan"])
def test_states_without_an_average_are_stacked_without_one(name: str) -> None:
    """Meanwhile and afterwards each samples with its own weights, and shares their memory."""
    runs, averaged = replicas(SETUPS[name], averaged=False), replicas(SETUPS[name])
    options: dict[str, Any] = {"steps": STEPS, "every": EVERY, "precision": "fp32", "course": Stacked}
    for _ in train(runs, **options):
        for run in runs:
            assert all(one.is_set_to(two) for one, two in shared(run))
    for _ in train(averaged, **options):
        pass
    for one, two in zip(runs, averaged, strict=True):
        assert same(contents(one), contents(two))
        assert all(mine.is_set_to(theirs) for mine, theirs in shared(one))
    with pytest.raises(ValueError, match="whether it has a moving average is False and True"):
        Stack([replicas(SETUPS[name], averaged=kept)[0].state for kept in (False, True)])


def shared(run: Replica) -> list[tuple[Tensor, Tensor]]:
    return list(zip(run.state.average.parameters(), run.state.system.parameters(), strict=True))


def test_an_interruption_ends_it_after_a_whole_step_of_all() -> None:
    runs, asked = replicas(SETUPS["point_gan"]), iter([False] * 6 + [True] * 9)
    options: dict[str, Any] = {"steps": STEPS, "every": EVERY, "decay": DECAY, "precision": "fp32"}
    assert list(train(runs, **options, course=Stacked, interrupted=lambda: next(asked))) == []
    assert len({run.state.step for run in runs}) == 1 and 0 < runs[0].state.step < EVERY
    straight = replicas(SETUPS["point_gan"])
    for one, two, a, b in zip(straight, runs, finish(Stacked, straight), finish(Stacked, runs), strict=True):
        assert same(contents(one, a), contents(two, b))


def test_what_is_not_alike_is_not_stacked() -> None:
    kind, options, data, count = SETUPS["point_gan"]
    first = replicas(SETUPS["point_gan"])[0].state

    def other(**changes: Any) -> TrainingState:
        return replicas((kind, options | changes, data, count))[0].state

    later = other()
    later.step = 3
    for state, said in (
        (other(loss="hinge"), "loss is nonsaturating and hinge"),
        (other(n_critic=3), "n_critic is 2 and 3"),
        (replicas(SETUPS["vae"])[0].state, "the system is .*PointGAN and .*VAE"),
        (later, "the step is 0 and 3"),
        (copy.copy(first), "share"),
    ):
        with pytest.raises(ValueError, match=said):
            Stack([first, state])
    with pytest.raises(ValueError, match="no state"):
        Stack([])
    Stack([first, other(beta1=0.9)])
