"""Phases that start late or stop early: what runs when, what is recorded of it, and that nothing else changes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aigc_lab.config import Strict
from aigc_lab.data.shared.batches import Batches
from aigc_lab.noise import Draw, Noise
from aigc_lab.samples import Points
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.base import Loss, OptimizerConfig, Phase, System, refuse_idle
from aigc_lab.training.checkpoint import restore_state, save_state
from aigc_lab.training.loop import train, train_one
from aigc_lab.training.plain import Plain
from aigc_lab.training.stacked import Stacked
from aigc_lab.training.state import Progress, Replica, TrainingState

SHAPE = Shape(Modality.POINTS, (2,))
DATA = Points(torch.randn(40, 2, generator=torch.Generator().manual_seed(0)))
STEPS = 9


class Two(System):
    """Two means of the data that learn apart from each other, each in steps of its own."""

    modality = Modality.POINTS

    class Config(Strict):
        starts: tuple[int, int] = (0, 0)
        stops: tuple[int | None, int | None] = (None, None)
        joint: bool = False

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        self.means = nn.ParameterList([nn.Parameter(torch.randn(2)) for _ in range(2)])
        self.register_buffer("calls", torch.zeros(2))

    def phases(self, batch_size: int) -> list[Phase]:
        return [
            Phase(
                f"p{number}",
                lambda batch, noise, step, number=number: self._loss(number, batch, noise),  # type: ignore[misc]
                [nn.ParameterList([self.means[number]])],
                OptimizerConfig(0.1),
                {"z": Draw((batch_size, 2))},
                joint="both" if self.config.joint else None,
                after=lambda step, number=number: self._after(number),  # type: ignore[misc]
                start=self.config.starts[number],
                stop=self.config.stops[number],
            )
            for number in range(2)
        ]

    def _loss(self, number: int, batch: Any, noise: Noise) -> Loss:
        away = batch.values + 0.1 * noise["z"] - self.means[number]
        return Loss(away.square().mean(), {"first": away.mean()}, {f"at{number}": self.means[number].norm()})

    def _after(self, number: int) -> None:
        self.calls.add_(torch.tensor([1.0 - number, float(number)]))  # type: ignore[operator]

    def samplers(self) -> list[nn.Module]:
        return [self]

    def latents(self, count: int) -> Draw:
        return Draw((count, 2))

    def sample(self, latents: Tensor, *, labels: Tensor | None = None) -> Points:
        return Points(self.means[0] + latents)


def fresh(seed: int = 0, **config: Any) -> TrainingState:
    return TrainingState.fresh(Two, Two.Config(**config), SHAPE, seed=seed, batch_size=6, device="cpu")


def curve(state: TrainingState, steps: int = STEPS, every: int = STEPS) -> list[Progress]:
    batches = Batches(DATA, 6, 0)
    return list(train_one(state, batches, seed=0, steps=steps, every=every, decay=0.5, precision="fp32"))


def tensors(state: TrainingState) -> Mapping[str, Tensor]:
    both = {f"{key} of {name}": value for name in ("system", "average") for key, value in _of(state, name).items()}
    return {key: value.clone() for key, value in both.items()}


def _of(state: TrainingState, name: str) -> dict[str, Tensor]:
    system: System = getattr(state, name)
    return system.state_dict()


def same(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("joint", [False, True])
def test_a_phase_runs_in_its_steps_and_the_other_does_not_notice(joint: bool) -> None:
    state, plain = fresh(starts=(0, 3), stops=(5, None), joint=joint), fresh(joint=joint)
    steps = [progress.scalars for progress in curve(state, every=1)]
    whole = [progress.scalars for progress in curve(plain, every=1)]
    assert ["loss/p0/total" in scalars for scalars in steps] == [step < 5 for step in range(STEPS)]
    assert ["loss/p1/total" in scalars for scalars in steps] == [step >= 3 for step in range(STEPS)]
    assert state.system.calls.tolist() == [5, 6]  # type: ignore[operator]
    # p0 is to the bit what it is beside a phase that runs throughout, and then rests.
    assert [s["loss/p0/total"] for s in steps[:5]] == [s["loss/p0/total"] for s in whole[:5]]
    # p1 sees in its first step the batch and noise of step 3, at weights that nothing has moved.
    alone = fresh(starts=(99, 3), joint=joint)
    assert [s["loss/p1/total"] for s in steps[3:]] == [p.scalars["loss/p1/total"] for p in curve(alone, every=1)[3:]]
    assert torch.equal(alone.system.means[0], fresh().system.means[0])  # type: ignore[index]


def test_scalars_are_means_over_the_steps_that_have_them() -> None:
    config: dict[str, Any] = {"starts": (2, 3), "stops": (7, None)}
    steps = [progress.scalars for progress in curve(fresh(**config), every=1)]
    (together,) = [progress.scalars for progress in curve(fresh(**config), every=STEPS)]
    assert steps[0] == {} and steps[1] == {}, "a step without a phase records nothing"
    assert together.keys() == steps[4].keys()
    for name, mean in together.items():
        values = [scalars[name] for scalars in steps if name in scalars]
        assert len(values) == (6 if "p1" in name or "at1" in name else 5)
        # Gradients are measured in a phase's last step.
        expected = values[-1] if "grad_norm" in name else sum(values) / len(values)
        assert mean == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("at", [1, 2, 4, 5, 8])
def test_a_resumed_run_goes_on_to_the_same_bits(at: int, tmp_path: Path) -> None:
    config: dict[str, Any] = {"starts": (0, 2), "stops": (5, None)}
    straight, first, second = (fresh(**config) for _ in range(3))
    (end,) = curve(straight)
    batches = Batches(DATA, 6, 0)
    options: dict[str, Any] = {"steps": STEPS, "every": STEPS, "decay": 0.5, "precision": "fp32"}
    list(train([Replica(first, batches, 0)], interrupted=lambda: first.step == at, **options))
    save_state(first, tmp_path / "state.safetensors")
    restore_state(second, tmp_path / "state.safetensors")
    (resumed,) = curve(second)
    assert same(tensors(second), tensors(straight)) and resumed.scalars == end.scalars


def test_rows_stored_before_phases_had_steps_are_read() -> None:
    straight, state = fresh(), fresh()
    (end,) = curve(straight)
    options: dict[str, Any] = {"steps": STEPS, "every": STEPS, "decay": 0.5, "precision": "fp32"}
    list(train([Replica(state, Batches(DATA, 6, 0), 0)], interrupted=lambda: state.step == 4, **options))
    numbers, meaning = state.recorder.dump()
    (table,) = meaning["tables"]
    assert numbers is not None
    state.recorder.load(numbers.reshape(4, -1), {"names": table["names"], "phases": table["norms"]})
    (resumed,) = curve(state)
    assert resumed.scalars == pytest.approx(end.scalars, rel=1e-6)


def test_a_value_that_is_not_finite_is_found_at_its_step() -> None:
    from aigc_lab.training.recorder import Diverged

    state = fresh(starts=(0, 3))
    options: dict[str, Any] = {"steps": STEPS, "every": STEPS, "decay": 0.5, "precision": "fp32"}
    list(train([Replica(state, Batches(DATA, 6, 0), 0)], interrupted=lambda: state.step == 6, **options))
    with torch.no_grad():
        state.system.means[1].fill_(torch.inf)  # type: ignore[index]
    with pytest.raises(Diverged, match="dynamics/at1 is not finite at step 7"):
        curve(state)


def test_a_stack_leaves_the_same_steps_out() -> None:
    config: dict[str, Any] = {"starts": (0, 3), "stops": (5, None)}
    options: dict[str, Any] = {"steps": STEPS, "every": 4, "decay": 0.5, "precision": "fp32"}
    ends: dict[type, list[Any]] = {}
    for course in (Plain, Stacked):
        replicas = [Replica(fresh(seed, **config), Batches(DATA, 6, seed), seed) for seed in (0, 1)]
        rounds = list(train(replicas, course=course, **options))
        scalars = {(progress.step, replica.seed): progress.scalars for each in rounds for replica, progress in each}  # type: ignore[union-attr]
        ends[course] = [scalars, *(tensors(replica.state) for replica in replicas)]
        assert replicas[1].state.system.calls.tolist() == [5, 6]  # type: ignore[operator]
    for one, two in zip(*ends.values(), strict=True):
        assert one.keys() == two.keys()
        for key, value in one.items():
            assert two[key] == (pytest.approx(value, rel=1e-5, abs=1e-6))


@pytest.mark.parametrize(
    ("starts", "stops", "said"),
    [
        (
            (0, 5000),
            (None, None),
            "phase p1 would never run: .* 5000 of 1000 steps; set training.steps above 5000, or let it start earlier",
        ),
        ((5000, 1000), (None, None), "phase p0 would never run: starts at 5000 of 1000 steps; .* above 5000, .*"),
        ((1000, 5000), (None, None), "phase p1 would never run: starts at 5000 of 1000 steps; .* above 5000, .*"),
        ((0, 1000), (None, None), "phase p1 would never run: starts at 1000 of 1000 steps; .* above 1000, .*"),
        ((0, 30), (None, 30), "phase p1 would never run: starts at 30, stops at 30"),
        ((5, 10), (None, None), "no phase would run at step 0 of 1000"),
        ((0, 600), (500, None), "no phase would run at step 500 of 1000"),
        ((0, 0), (999, 999), "no phase would run at step 999 of 1000"),
        ((0, 999), (999, None), None),
        ((0, 0), (None, 5000), None),
    ],
)
def test_a_phase_that_never_runs_is_refused(starts: Any, stops: Any, said: str | None) -> None:
    phases = Two(Two.Config(starts=starts, stops=stops), SHAPE).phases(6)
    if said is None:
        return refuse_idle(phases, 1000)
    with pytest.raises(ValueError, match="^" + said + "$"):
        refuse_idle(phases, 1000)
    return None


def test_a_system_without_phases_is_refused() -> None:
    with pytest.raises(ValueError, match="no phase would run at step 0 of 12"):
        refuse_idle([], 12)


def test_a_phase_may_leave_steps_out() -> None:
    first, second = Two(Two.Config(), SHAPE).phases(6)
    second = second._replace(start=2, stop=9, every=3)
    assert [step for step in range(12) if second.runs(step)] == [2, 5, 8]
    refuse_idle([first, second], 12)
    with pytest.raises(ValueError, match="no phase would run at step 4 of 12"):
        refuse_idle([first._replace(stop=4), second], 12)
