"""The loop, on a small system made for the purpose: what it records, where it stops, and what it never does."""

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from aigc_lab import noise
from aigc_lab.config import Strict
from aigc_lab.data.shared.batches import Batches
from aigc_lab.noise import Draw, Noise
from aigc_lab.samples import Points
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.base import Loss, OptimizerConfig, Phase, System
from aigc_lab.systems.point_gan import PointGAN
from aigc_lab.training.averages import average_of
from aigc_lab.training.checkpoint import restore_state, save_state
from aigc_lab.training.course import Course, Gradients, turns
from aigc_lab.training.loop import train_one
from aigc_lab.training.optimizers import build_optimizer, trained
from aigc_lab.training.plain import Plain
from aigc_lab.training.recorder import Diverged, Recorder
from aigc_lab.training.stacked import Stacked
from aigc_lab.training.state import Progress, TrainingState

SHAPE = Shape(Modality.POINTS, (2,))
DATA = Points(torch.randn(40, 2, generator=torch.Generator().manual_seed(0)))
BATCH = 6


class Pair(System):
    """Two networks in one container, each with a phase; it remembers what its losses were called with.

    `spoil(phase, call, total)` may damage a loss.
    """

    modality = Modality.POINTS
    uncapturable = "it counts its calls"

    class Config(Strict):
        repeat: int = 1
        second: bool = True
        max_norm: float | None = None

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        maker = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2))
        self.parts = nn.ModuleDict(
            {"judge": nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)), "maker": maker}
        )
        self.totals: dict[str, list[float]] = {"judge": [], "maker": []}
        self.norms: dict[str, list[float]] = {"judge": [], "maker": []}
        self.calls: list[tuple[str, int, Tensor, Tensor]] = []
        self.watch = True
        self.spoil: Callable[[str, int, Tensor], Tensor] = lambda phase, call, total: total

    def phases(self, batch_size: int) -> list[Phase]:
        draws = {"latents": Draw((batch_size, 3))}
        how = OptimizerConfig(1e-2, max_norm=self.config.max_norm)
        judge = Phase("judge", self._judge, [self.parts["judge"]], how, draws, repeat=self.config.repeat)
        maker = Phase("maker", self._maker, [self.parts["maker"]], how, draws)
        return [judge, maker] if self.config.second else [judge]

    def _judge(self, batch: Any, noise: Noise, step: int) -> Loss:
        made = self.parts["maker"](noise["latents"]).detach()
        real, fake = self.parts["judge"](batch.values), self.parts["judge"](made)
        clean = (real - 1).square().mean() + fake.square().mean()
        call = len(self.totals["judge"])
        total = self._watched("judge", batch, noise, step, clean)
        return Loss(total, {"twice": self.spoil("twice", call, 2 * clean)}, {"real": real.mean()})

    def _maker(self, batch: Any, noise: Noise, step: int) -> Loss:
        fake = self.parts["judge"](self.parts["maker"](noise["latents"]))
        return Loss(self._watched("maker", batch, noise, step, (fake - 1).square().mean()))

    def _watched(self, phase: str, batch: Any, noise: Noise, step: int, total: Tensor) -> Tensor:
        total = self.spoil(phase, len(self.totals[phase]), total)
        self.totals[phase].append(math.nan)
        if self.watch:
            gradients = torch.autograd.grad(total, list(self.parts[phase].parameters()), retain_graph=True)
            norm = torch.cat([gradient.flatten() for gradient in gradients]).double().square().sum().sqrt()
            self.norms[phase].append(norm.item())
            self.totals[phase][-1] = total.item()
            self.calls.append((phase, step, batch.values.clone(), noise["latents"].clone()))
        return total

    def samplers(self) -> list[nn.Module]:
        return [self.parts["maker"]]

    def latents(self, count: int) -> Draw:
        return Draw((count, 3))

    def sample(self, latents: Tensor, *, labels: Tensor | None = None) -> Points:
        return Points(self.parts["maker"](latents).float())


def fresh(**config: Any) -> tuple[TrainingState, Pair]:
    state = TrainingState.fresh(Pair, Pair.Config(**config), SHAPE, seed=0, batch_size=BATCH, device="cpu")
    assert isinstance(state.system, Pair)
    return state, state.system


def run(
    state: TrainingState, steps: int, *, every: int = 1, decay: float = 0.0, precision: Any = "fp32"
) -> Iterator[Progress]:
    return train_one(state, Batches(DATA, BATCH, 0), seed=0, steps=steps, every=every, decay=decay, precision=precision)


@pytest.mark.parametrize("repeat", [1, 3])
def test_scalars_are_means_over_the_interval(repeat: int) -> None:
    state, system = fresh(repeat=repeat)
    curve = list(run(state, 10, every=4))
    assert [progress.step for progress in curve] == [4, 8, 10]
    for progress, (first, last) in zip(curve, [(0, 4), (4, 8), (8, 10)], strict=True):
        scalars = progress.scalars
        judge, maker = system.totals["judge"][first * repeat : last * repeat], system.totals["maker"][first:last]
        assert scalars["loss/judge/total"] == pytest.approx(sum(judge) / len(judge), rel=1e-6)
        assert scalars["loss/judge/twice"] == pytest.approx(2 * sum(judge) / len(judge), rel=1e-6)
        assert scalars["loss/maker/total"] == pytest.approx(sum(maker) / len(maker), rel=1e-6)
        # The norm of a phase's whole gradient in the last step: the root mean square over its repeats.
        for phase, times in (("judge", repeat), ("maker", 1)):
            expected = (
                torch.tensor(system.norms[phase][(last - 1) * times : last * times]).square().mean().sqrt().item()
            )
            assert scalars[f"dynamics/grad_norm/{phase}"] == pytest.approx(expected, rel=1e-5)
        assert set(scalars) == {
            "loss/judge/total",
            "loss/judge/twice",
            "loss/maker/total",
            "dynamics/real",
            "dynamics/grad_norm/judge",
            "dynamics/grad_norm/maker",
        }
        assert progress.seconds > 0 and progress.samples_per_second > 0


def test_one_phase_of_adam_is_written_by_hand() -> None:
    """Three steps of Adam as Kingma & Ba write it, on the gradients of the phase."""
    state, system = fresh(second=False)
    system.watch = False
    mirror = copy.deepcopy(system)
    for _ in run(state, 3):
        pass
    batches, weights = Batches(DATA, BATCH, 0), list(mirror.parts["judge"].parameters())
    phase = mirror.phases(BATCH)[0]
    m, v = ([torch.zeros_like(w) for w in weights] for _ in range(2))
    for step in range(3):
        draws = {"latents": noise.draw(Draw((BATCH, 3)), 0, step, "judge", 0, "latents")}
        gradients = torch.autograd.grad(phase.loss(batches[step], draws, step).total, weights)
        for index, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
            m[index] = 0.9 * m[index] + 0.1 * gradient
            v[index] = 0.999 * v[index] + 0.001 * gradient**2
            up, down = m[index] / (1 - 0.9 ** (step + 1)), v[index] / (1 - 0.999 ** (step + 1))
            weight.data -= 1e-2 * up / (down.sqrt() + 1e-8)
    for ours, theirs in zip(system.parts["judge"].parameters(), weights, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("course", [Plain, Stacked])
@pytest.mark.parametrize("max_norm", [None, 0.05])
def test_a_step_is_what_one_writes_by_hand(
    course: type[Course], max_norm: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two networks in turn, three updates of one for one of the other, clipped gradients, a moving average: in torch's
    own words, from the same batches and noise; in double precision, as Adam divides by gradients that are almost 0.
    """
    single = noise.draw
    monkeypatch.setattr(noise, "draw", lambda *key, **options: single(*key, **options).double())
    state, system = fresh(repeat=3, max_norm=max_norm)
    system.double(), state.average.double()
    system.watch = False
    mirror, batches = copy.deepcopy(system), Batches(Points(DATA.values.double()), BATCH, 0)
    options: dict[str, Any] = {"steps": 8, "every": 3, "decay": 0.8, "precision": "fp32", "course": course}
    list(train_one(state, batches, seed=0, **options))

    average = copy.deepcopy(mirror.parts["maker"])
    optimizers = {name: torch.optim.Adam(part.parameters(), lr=1e-2) for name, part in mirror.parts.items()}
    norms: list[float] = []
    for step in range(8):
        for phase, repeats in zip(mirror.phases(BATCH), (3, 1), strict=True):
            for repeat in range(repeats):
                draws = {"latents": noise.draw(Draw((BATCH, 3)), 0, step, phase.name, repeat, "latents")}
                mirror.zero_grad()
                phase.loss(batches[3 * step + repeat], draws, step).total.backward()  # type: ignore[no-untyped-call]
                gradients = [w.grad for w in mirror.parts[phase.name].parameters() if w.grad is not None]
                norms.append(torch.cat([gradient.flatten() for gradient in gradients]).norm().item())
                if max_norm is not None:  # by hand: torch's own adds 1e-6 to the norm
                    torch._foreach_mul_(gradients, min(1.0, max_norm / norms[-1]))
                optimizers[phase.name].step()
        decay = min(0.8, (1 + step) / (10 + step))
        for old, new in zip(average.parameters(), mirror.parts["maker"].parameters(), strict=True):
            old.data = decay * old.data + (1 - decay) * new.data
    assert min(norms) > 0.05, "each gradient is clipped"
    for ours, theirs in ((system.parts, mirror.parts), (state.average.samplers()[0], average)):
        for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-10)


class Shared(Plain):
    """A course of a file's own: a batch is shared by two workers, whose gradients are averaged."""

    def _differentiate(self, number: int, repeat: int, step: int) -> tuple[Loss, Gradients]:
        given = self._given[number, repeat]
        batch, draws = given.batch, given.draws
        parts = []
        for rows in (slice(0, BATCH // 2), slice(BATCH // 2, BATCH)):
            loss = self._phases[number].loss(batch.take(rows), {k: v[rows] for k, v in draws.items()}, step)
            parts.append((loss, torch.autograd.grad(loss.total, self._parameters[number])))
        losses, gradients = zip(*parts, strict=True)
        total = torch.stack([loss.total for loss in losses]).mean()
        return Loss(total), tuple(torch.stack(pair).mean(0) for pair in zip(*gradients, strict=True))


def test_another_way_to_take_a_step_is_another_course() -> None:
    """The loop is told its class, and knows no more of it."""

    def state() -> TrainingState:
        config = PointGAN.Config(hidden=8, latent_size=2, n_critic=2)
        return TrainingState.fresh(PointGAN, config, SHAPE, seed=0, batch_size=BATCH, device="cpu")

    shared, plain, untrained = state(), state(), state()
    totals = []
    for each, course in ((shared, Shared), (plain, Plain)):
        options: dict[str, Any] = {"steps": 10, "every": 4, "decay": 0.9, "precision": "fp32", "course": course}
        ends = list(train_one(each, Batches(DATA, BATCH, 0), seed=0, **options))
        assert [end.step for end in ends] == [4, 8, 10]
        totals.append([end.scalars["loss/critic/total"] for end in ends])
    assert totals[0] == pytest.approx(totals[1], rel=1e-5)
    for part in ("system", "average"):
        for one, two in zip(getattr(shared, part).parameters(), getattr(plain, part).parameters(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    weights = zip(plain.system.parameters(), untrained.system.parameters(), strict=True)
    assert max((one - two).abs().max() for one, two in weights) > 1e-3


@pytest.mark.parametrize("at", [0, 4, 6])
@pytest.mark.parametrize("phase", ["judge", "maker"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_found_and_named(at: int, phase: str, value: float) -> None:
    state, system = fresh()
    system.watch = False
    system.spoil = lambda name, call, total: total + value if (name, call) == (phase, at) else total
    with pytest.raises(Diverged) as caught:
        list(run(state, 9, every=5))
    assert (caught.value.step, caught.value.tensor) == (at + 1, f"loss/{phase}/total")
    assert str(at + 1) in str(caught.value) and phase in str(caught.value)


def test_a_part_is_named_before_the_sum_that_it_spoils() -> None:
    state, system = fresh()
    system.watch = False
    system.spoil = lambda name, call, total: total * math.nan if name in ("judge", "twice") and call == 3 else total
    with pytest.raises(Diverged) as caught:
        list(run(state, 9, every=5))
    assert (caught.value.step, caught.value.tensor) == (4, "loss/judge/twice")


def spoiled_gradient(system: Pair, name: str, at: int, value: float) -> None:
    """Spoils one entry of the gradient of a weight in its phase's call `at`, while the loss is still finite."""
    weight = dict(system.named_parameters())[name]
    phase = name.split(".")[1]

    def spoil(now: str, call: int, total: Tensor) -> Tensor:
        if (now, call) != (phase, at):
            return total
        harmless = weight.view_as(weight)

        def poison(gradient: Tensor) -> Tensor:
            gradient = gradient.clone()
            gradient.view(-1)[0] = value
            return gradient

        harmless.register_hook(poison)  # type: ignore[no-untyped-call]
        return total + 0 * harmless.sum()

    system.watch = False
    system.spoil = spoil


@pytest.mark.parametrize("at", [0, 3, 5])
@pytest.mark.parametrize("name", ["parts.judge.2.weight", "parts.maker.1.bias"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_is_found_and_named(at: int, name: str, value: float) -> None:
    """By itself in the last step of an interval; in another by the first loss that reads the weight that it moved."""
    state, system = fresh()
    spoiled_gradient(system, name, at, value)
    with pytest.raises(Diverged) as caught:
        list(run(state, 9, every=4))
    if at == 3:
        assert (caught.value.step, caught.value.tensor) == (4, f"gradient of {name}")
    elif "judge" in name:  # the maker is next
        assert (caught.value.step, caught.value.tensor) == (at + 1, "loss/maker/total")
    else:
        assert (caught.value.step, caught.value.tensor) == (at + 2, "loss/judge/twice")


@pytest.mark.parametrize(("value", "left"), [(math.nan, "idle"), (1e30, "exp_avg_sq of idle")])
def test_a_gradient_of_which_no_loss_tells_is_found_at_the_end_of_its_interval(value: float, left: str) -> None:
    """No loss reads the entry; a square that overflows stops it for ever, and moves it nowhere."""
    state = TrainingState.fresh(Once, Once.Config(), SHAPE, seed=0, batch_size=BATCH, device="cpu")
    assert isinstance(state.system, Once)
    state.system.value = value
    curve = run(state, 12, every=4)
    assert next(curve).step == 4
    with pytest.raises(Diverged) as caught:
        next(curve)
    assert (caught.value.step, caught.value.tensor) == (8, left)


class Once(Pair):
    """The judge reads one of two numbers more; the gradient of the other is `value` in step 6, and 0 in any other."""

    def __init__(self, config: Pair.Config, shape: Shape) -> None:
        super().__init__(config, shape)
        self.idle = nn.Parameter(torch.zeros(2))
        self.watch, self.value = False, 0.0

    def phases(self, batch_size: int) -> list[Phase]:
        judge, maker = super().phases(batch_size)

        def loss(batch: Any, noise: Noise, step: int) -> Loss:
            harmless = self.idle.view_as(self.idle)
            if step == 5:
                harmless.register_hook(lambda gradient: torch.tensor([0.0, self.value]))  # type: ignore[no-untyped-call]
            return Loss(judge.loss(batch, noise, step).total + 0 * harmless[0])

        holder = nn.Module()
        holder.idle = self.idle
        return [judge._replace(trains=[*judge.trains, holder], loss=loss), maker]


class Idle(Pair):
    """The judge's phase trains a layer more, which no loss uses."""

    def __init__(self, config: Pair.Config, shape: Shape) -> None:
        super().__init__(config, shape)
        self.idle = nn.Linear(7, 7)
        self.watch = False

    def phases(self, batch_size: int) -> list[Phase]:
        judge, maker = super().phases(batch_size)
        return [judge._replace(trains=[*judge.trains, self.idle]), maker]


def test_a_phase_whose_loss_leaves_out_some_of_its_weights_is_refused() -> None:
    state = TrainingState.fresh(Idle, Idle.Config(), SHAPE, seed=0, batch_size=BATCH, device="cpu")
    with pytest.raises(RuntimeError, match="loss of phase judge does not depend on 2 of the 6 weights that it trains"):
        list(run(state, 1))


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999])
def test_the_moving_average_in_closed_form(decay: float) -> None:
    """a ← d·a + (1 − d)·w with d = min(decay, (1 + t)/(10 + t)), of weights and of running statistics."""
    state, system = fresh()
    expected = {key: value.double() for key, value in system.parts["maker"].state_dict().items()}
    for progress in run(state, 6, decay=decay):
        step = progress.step - 1
        d = min(decay, (1 + step) / (10 + step)) if decay else 0.0
        for key, value in system.parts["maker"].state_dict().items():
            expected[key] = d * expected[key] + (1 - d) * value.double()
            if not value.is_floating_point():
                expected[key] = value.double()
        average = state.average.samplers()[0].state_dict()
        assert average.keys() == expected.keys()
        for key in expected:
            torch.testing.assert_close(average[key].double(), expected[key], rtol=1e-5, atol=1e-7)
    if decay > 0.5:
        maker = system.parts["maker"].state_dict()["0.weight"]
        assert not torch.equal(state.average.samplers()[0].state_dict()["0.weight"], maker)


def test_without_a_moving_average_the_weights_are_not_copied() -> None:
    """The same run with and without; the copy that samples is in evaluation mode, wants no gradient, and follows."""
    one, two = (
        TrainingState.fresh(Pair, Pair.Config(), SHAPE, seed=0, batch_size=BATCH, device="cpu", averaged=averaged)
        for averaged in (True, False)
    )
    weights, others = ({n: t.data_ptr() for n, t in each.state_dict().items()} for each in (two.system, two.average))
    assert weights == others
    for kept, shared in zip(run(one, 6, every=2), run(two, 6, every=2), strict=True):
        assert kept.scalars == shared.scalars
        assert torch.equal(one.average.generate(9, "a").values, two.average.generate(9, "a").values)
    for state in (one, two):
        maker: Any = state.average.samplers()[0]
        assert not any(part.training for part in maker.modules())
        assert not any(weight.requires_grad for weight in maker.parameters())
        assert all(weight.requires_grad for weight in state.system.parameters())
    assert same_tensors(one.system, two.system) and same_tensors(one.average, two.average)
    with pytest.raises(ValueError, match="its decay is 0.9"):
        list(run(two, 8, decay=0.9))


def test_a_state_without_an_average_is_stored_without_one_and_takes_one_of_before(tmp_path: Path) -> None:
    made = [
        TrainingState.fresh(Pair, Pair.Config(), SHAPE, seed=seed, batch_size=BATCH, device="cpu", averaged=averaged)
        for seed, averaged in ((0, False), (0, False), (0, True), (1, False), (1, False))
    ]
    for state in made:
        state.system.watch = False  # type: ignore[assignment]
    straight, new, old, *resumed = made
    list(run(straight, 7, every=3))
    for state, name in ((new, "new"), (old, "old")):
        list(train_one(state, Batches(DATA, BATCH, 0), seed=0, steps=7, every=3, precision="fp32", **until(state, 4)))
        save_state(state, tmp_path / name)
    stored = {
        name: [key for key in load_file(tmp_path / name) if key.startswith("average.")] for name in ("new", "old")
    }
    assert stored["old"] and not stored["new"]
    for state, name in zip(resumed, ("new", "old"), strict=True):
        restore_state(state, tmp_path / name)
        list(run(state, 7, every=3))
        assert same_tensors(straight.system, state.system) and same_tensors(straight.average, state.average)


def until(state: TrainingState, step: int) -> dict[str, Any]:
    return {"interrupted": lambda: state.step == step}


def same_tensors(one: nn.Module, two: nn.Module) -> bool:
    first, second = one.state_dict(), two.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_a_container_of_both_is_copied_and_what_is_shared_is_not() -> None:
    _, system = fresh()
    average = average_of(system)
    assert isinstance(average, Pair)
    assert average.parts is not system.parts
    assert average.parts["judge"] is system.parts["judge"]
    assert average.parts["maker"] is not system.parts["maker"]
    assert system.parts["maker"].training and not average.parts["maker"].training


def test_a_phase_draws_the_same_whoever_trains_beside_it() -> None:
    judged = []
    for config in ({"second": True}, {"second": False}):
        state, system = fresh(**config)
        list(run(state, 4, every=2))
        judged.append([(step, latents) for phase, step, _, latents in system.calls if phase == "judge"])
    for (step, latents), (other, others) in zip(*judged, strict=True):
        assert step == other and torch.equal(latents, others)
    state, system = fresh()
    list(run(state, 4))
    draws = {tuple(latents.flatten().tolist()) for _, _, _, latents in system.calls}
    assert len(draws) == len(system.calls) == 8, "no two draws are alike"


def test_repeats_see_other_data_and_other_noise() -> None:
    state, system = fresh(repeat=3)
    list(run(state, 4, every=2))
    judge = [(values, latents) for phase, _, values, latents in system.calls if phase == "judge"]
    assert len(judge) == 12
    assert len({tuple(values.flatten().tolist()) for values, _ in judge}) == 12
    assert len({tuple(latents.flatten().tolist()) for _, latents in judge}) == 12
    # Together they go through the data: the first 40 of these 72 samples are all 40, each once.
    stream = torch.cat([values for values, _ in judge])[:40]
    assert len({tuple(row) for row in stream.tolist()}) == 40


def test_reseeded_generators_draw_the_same_bits() -> None:
    """Draws of one thread share a generator; what was drawn before, an odd number of normals too, leaves no trace."""
    for law in ("normal", "uniform", "unit"):
        for size in ((1,), (3,), (16,), (5, 7)):
            what = Draw(size, law)
            ours = noise.draw(what, 1, "a")
            source = noise.generator(1, "a")
            fresh_ones = torch.randn(size, generator=source) if law == "normal" else torch.rand(size, generator=source)
            expected = fresh_ones * 2 - 1 if law == "uniform" else fresh_ones
            assert torch.equal(ours, expected)


class Host(Tensor):
    """What has crossed to the host: reading it waits for nothing."""


class Crossings(TorchDispatchMode):
    """Counts the operations for which a device would be waited for."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name.startswith(self.WAITS):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_device_is_waited_for_once_an_interval(decay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    crossings: list[str] = []
    true = {name: getattr(Tensor, name) for name in ("cpu", "item", "tolist", "numpy", "__bool__", "__float__")}
    true["__int__"] = Tensor.__int__

    def counted(name: str) -> Callable[..., Any]:
        def method(self: Tensor, *arguments: Any, **options: Any) -> Any:
            if not isinstance(self, Host):
                crossings.append(name)
            result = true[name](self, *arguments, **options)
            return result.as_subclass(Host) if name == "cpu" else result

        return method

    for name in true:
        monkeypatch.setattr(Tensor, name, counted(name))
    waits, collect = Crossings(), Recorder.collect
    before: list[tuple[int, int]] = []

    def collected(self: Recorder, step: int) -> dict[str, float]:
        # Up to here nothing has crossed since the last interval; what follows reads the host's copy.
        before.append((len(crossings), len(waits.found)))
        result = collect(self, step)
        waits.found.clear()
        return result

    monkeypatch.setattr(Recorder, "collect", collected)
    state, system = fresh(repeat=2)
    system.watch = False
    steps = run(state, 12, every=4, decay=decay)
    with waits:
        assert [progress.step for progress in steps] == [4, 8, 12]
    assert crossings == ["cpu", "cpu", "cpu"]
    assert before == [(0, 0), (1, 0), (2, 0)]


def test_bf16_trains_and_is_finite() -> None:
    state, system = fresh()
    system.watch = False
    dtypes = set()
    next(system.parts["judge"].children()).register_forward_hook(lambda module, args, output: dtypes.add(output.dtype))
    curve = list(run(state, 20, every=10, precision="bf16"))
    assert dtypes == {torch.bfloat16}
    assert all(math.isfinite(value) for progress in curve for value in progress.scalars.values())
    assert all(parameter.dtype == torch.float32 for parameter in system.parameters())
    other, plain = fresh()
    plain.watch = False
    reference = list(run(other, 20, every=10))
    for key, value in reference[0].scalars.items():
        assert curve[0].scalars[key] == pytest.approx(value, rel=0.2, abs=0.05)


def test_it_stops_at_steps_and_goes_on_from_there() -> None:
    state, _ = fresh()
    assert [progress.step for progress in run(state, 5, every=2)] == [2, 4, 5]
    assert list(run(state, 5, every=2)) == []
    assert [progress.step for progress in run(state, 7, every=2)] == [6, 7]


# ---- updates


class Game(System):
    """min over x, max over y of x·y, by two phases; the weight of x is read through its transpose."""

    modality = Modality.POINTS

    class Config(Strict):
        joint: bool = False
        rule: Literal["adam", "rmsprop", "sgd"] = "sgd"

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        self.calls: Tensor
        self.x, self.y = nn.Linear(3, 2, bias=False), nn.Linear(3, 2, bias=False)
        self.register_buffer("calls", torch.zeros(()))

    def phases(self, batch_size: int) -> list[Phase]:
        how, joint = OptimizerConfig(0.1, rule=self.config.rule), "both" if self.config.joint else None
        return [
            Phase("x", lambda batch, noise, step: Loss(self._value()), [self.x], how, joint=joint),
            Phase("y", lambda batch, noise, step: Loss(-self._value()), [self.y], how, joint=joint, after=self._after),
        ]

    def _value(self) -> Tensor:
        # The gradient of x is this copy turned around: its numbers lie column by column.
        return (self.x.weight.t() * self.y.weight.t().contiguous()).sum()

    def _after(self, step: int) -> None:
        self.y.weight.clamp_(-0.5, 0.5)
        self.calls.add_(step)

    def samplers(self) -> list[nn.Module]:
        return [self.x]

    def latents(self, count: int) -> Draw:
        return Draw((count, 3))

    def sample(self, latents: Tensor, *, labels: Tensor | None = None) -> Points:
        return Points(self.x(latents))


@pytest.mark.parametrize("joint", [False, True])
def test_joint_phases_are_differentiated_at_the_same_point(joint: bool) -> None:
    state = TrainingState.fresh(Game, Game.Config(joint=joint), SHAPE, seed=0, batch_size=BATCH, device="cpu")
    game = state.system
    assert isinstance(game, Game)
    x, y = game.x.weight.detach().double(), game.y.weight.detach().double()
    for _ in train_one(state, Batches(DATA, BATCH, 0), seed=0, steps=5, every=5, precision="fp32"):
        pass
    for _ in range(5):
        moved = x - 0.1 * y
        y = (y + 0.1 * (x if joint else moved)).clamp(-0.5, 0.5)
        x = moved
    torch.testing.assert_close(game.x.weight.double(), x, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(game.y.weight.double(), y, rtol=1e-6, atol=1e-6)
    assert game.calls.item() == 0 + 1 + 2 + 3 + 4, "after each update, with its step"
    assert turns(state.phases) == ([[0, 1]] if joint else [[0], [1]])


@pytest.mark.parametrize("rule", ["adam", "rmsprop", "sgd"])
def test_a_gradient_in_another_order_moves_the_right_weights(rule: Any) -> None:
    """Fused Adam pairs weights and gradients by their place in memory: here every gradient comes transposed."""
    fast, plain = (
        TrainingState.fresh(Game, Game.Config(rule=rule), SHAPE, seed=0, batch_size=BATCH, device="cpu")
        for _ in range(2)
    )
    plain.optimizers = {
        phase.name: build_optimizer(phase.optimizer, trained(phase), fast=False) for phase in plain.phases
    }
    for state in (fast, plain):
        for _ in train_one(state, Batches(DATA, BATCH, 0), seed=0, steps=4, every=4, precision="fp32"):
            pass
    for ours, theirs in zip(fast.system.parameters(), plain.system.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
