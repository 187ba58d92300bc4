"""Steps as programs: the same bits as without, and what becomes no program."""

import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aigc_lab.config import Strict
from aigc_lab.data.shared.batches import Batches
from aigc_lab.noise import Draw, Noise
from aigc_lab.samples import Points
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.base import Decay, Loss, OptimizerConfig, Phase, System, scheduled
from aigc_lab.systems.point_gan import PointGAN
from aigc_lab.training import captured
from aigc_lab.training.captured import SETTLED, Programs, WatchedStep, as_ever
from aigc_lab.training.course import Course, Given
from aigc_lab.training.plain import Plain
from aigc_lab.training.program import Piece, Program
from aigc_lab.training.stacked import Stacked
from aigc_lab.training.state import Replica, TrainingState

BATCH = 8
SHAPE = Shape(Modality.POINTS, (2,))
DATA = Points(torch.randn(40, 2, generator=torch.Generator().manual_seed(0)))
STEPS = 2 * SETTLED


class Shift(System):
    """Moves points by what it learns; a subclass says what else happens in a step."""

    modality = Modality.POINTS

    class Config(Strict):
        lr: float = 0.05
        decay: bool = False
        rule: str = "adam"

    def __init__(self, config: Any, shape: Shape) -> None:
        super().__init__(config, shape)
        self.net = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2))
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(()))
        self.count = 0

    def phases(self, batch_size: int) -> list[Phase]:
        decay = Decay(STEPS, 0.001, 0.9) if self.config.decay else None
        how = OptimizerConfig(self.config.lr, rule=self.config.rule, decay=decay, max_norm=1.0)
        return [Phase("fit", self.loss, [self.net], how, {"z": Draw((batch_size, 2))}, after=self.after)]

    def loss(self, batch: Any, noise: Noise, step: int) -> Loss:
        off = (self.net(noise["z"]) - batch.values).square().mean()
        return Loss(off + self.extra(off, step), dynamics={"seen": self.seen + 0})

    def extra(self, off: Tensor, step: int) -> Any:
        return 0

    def after(self, step: int) -> None:
        self.seen.add_(1)

    def samplers(self) -> list[nn.Module]:
        return [self.net]

    def latents(self, count: int) -> Draw:
        return Draw((count, 2))

    def sample(self, latents: Tensor, *, labels: Tensor | None = None) -> Points:
        return Points(self.net(latents))


def course_of(
    kind: type[System],
    how: type[Course] = Plain,
    count: int = 1,
    precision: Any = "fp32",
    device: str = "cpu",
    **options: Any,
) -> Any:
    replicas = []
    for number in range(count):
        config = kind.Config(**options)
        state = TrainingState.fresh(kind, config, SHAPE, seed=number, batch_size=BATCH, device=device)
        replicas.append(Replica(state, Batches(DATA.to(device), BATCH, number), number))
    (course,) = how.of(replicas, 0.9, precision)
    course.resume()
    return course


def advance(course: Course, steps: int = STEPS, every: int = 5) -> list[dict[str, float]]:
    """Takes steps, and returns the first replica's scalars of each interval."""
    found = []
    for _ in range(steps):
        course.step((course.at // every + 1) * every)
        if course.at % every == 0:
            found.append(dict(course.collect()[0][1]))  # type: ignore[arg-type]
    return found


def assert_same(one: Any, two: Any) -> None:
    pairs = zip(one._changing(), two._changing(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    for ours, theirs in zip(one.replicas, two.replicas, strict=True):
        averages = zip(ours.state.average.parameters(), theirs.state.average.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in averages)


@pytest.fixture(autouse=True)
def programs_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which way is quicker is chance in steps so small: here it is the program."""
    monkeypatch.setattr(time, "thread_time", lambda: 0.0)
    monkeypatch.setattr(time, "perf_counter", lambda: 0.0)


class Scheduled(Shift):
    """A weight that goes by the step, also where it only begins to after the program is recorded."""

    def extra(self, off: Tensor, step: int) -> Any:
        return off * scheduled(step, lambda at: max(0.0, 0.1 * at - 1) ** 0.5, off.detach())


@pytest.mark.parametrize(("how", "count"), [(Plain, 1), (Stacked, 3)])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Shift, {}),
        (Scheduled, {}),
        (Scheduled, {"precision": "bf16"}),
        (Shift, {"decay": True}),
        (Shift, {"precision": "bf16"}),
        (Shift, {"rule": "rmsprop"}),
        (Shift, {"rule": "sgd", "decay": True}),
        (PointGAN, {"hidden": 8, "latent_size": 2, "n_critic": 2, "penalty": "r1"}),
        (PointGAN, {"hidden": 8, "latent_size": 2, "update": "simultaneous", "share_fakes": True}),
    ],
)
def test_a_program_has_the_bits_of_its_steps(
    kind: type[System], options: dict[str, Any], how: type[Course], count: int
) -> None:
    plain, programs = (course_of(kind, how, count, **options) for _ in range(2))
    with as_ever():
        expected = advance(plain)
    found = advance(programs)
    assert programs.reason is None and programs.repeated >= SETTLED
    assert plain.repeated == 0
    assert_same(plain, programs)
    assert found == expected and len(found) == STEPS // 5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("how", "count"), [(Plain, 1), (Stacked, 3)])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Shift, {}),
        (Scheduled, {}),
        (Shift, {"decay": True}),
        (Shift, {"rule": "rmsprop"}),
        (Shift, {"precision": "bf16"}),
    ],
)
def test_cuda_graphs_have_the_numbers_of_their_steps(
    kind: type[System], how: type[Course], count: int, options: dict[str, Any]
) -> None:
    plain, graphs = (course_of(kind, how, count, device="cuda", **options) for _ in range(2))
    with as_ever():
        expected = advance(plain)
    found = advance(graphs)
    assert graphs.reason is None and graphs.repeated >= SETTLED
    for one, two in zip(plain._changing(), graphs._changing(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    for one, two in zip(expected, found, strict=True):
        assert one == pytest.approx(two, rel=1e-4, abs=1e-6)


class Annealed(Shift):
    def extra(self, off: Tensor, step: int) -> Any:
        return off * max(0.0, 0.01 * step - 1)  # nothing in the first hundred steps


class Counting(Shift):
    def extra(self, off: Tensor, step: int) -> Any:
        self.count += 1
        return off * (self.count > 100)


class Alternating(Shift):
    def extra(self, off: Tensor, step: int) -> Any:
        self.calls = getattr(self, "calls", iter(range(100)))
        return off * 2 if next(self.calls) % 2 else off.exp()


class Rebinding(Shift):
    def extra(self, off: Tensor, step: int) -> Any:
        self.seen = self.seen + 1
        return 0


class Asking(Shift):
    def extra(self, off: Tensor, step: int) -> Any:
        return off if off.item() > 0 else -off


class Typed(Shift):
    def extra(self, off: Tensor, step: int) -> Any:
        if not isinstance(step, int):
            raise TypeError("a step is a number")
        return 0


class Wordy(Shift):
    """It has another scalar after the first step that is recorded."""

    def loss(self, batch: Any, noise: Noise, step: int) -> Loss:
        self.calls = getattr(self, "calls", iter(range(100)))
        whole = super().loss(batch, noise, step)
        return whole._replace(dynamics={f"seen{min(next(self.calls), 2)}": self.seen + 0})


class Declared(Shift):
    uncapturable = "it prints"


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Annealed, "reads the number of the step"),
        (Counting, "an attribute of a module changes"),
        (Alternating, "two steps are not the same operations"),
        (Rebinding, "an attribute of a module changes"),
        (Asking, "on the host"),
        (Typed, "it cannot be recorded: a step is a number"),
        (Wordy, "other scalars"),
        (Declared, "it prints"),
    ],
)
def test_what_is_no_program_is_computed_as_ever(kind: type[System], why: str) -> None:
    plain, programs = course_of(kind), course_of(kind)
    with as_ever():
        expected = advance(plain)
    assert advance(programs) == expected
    assert why in programs.reason and programs.repeated == 0
    assert_same(plain, programs)


RECORDED = """
import sys
from aigc_lab.benchmarks.shared import trainings
from pathlib import Path
plan = trainings.plan_of("ring", "point_gan", Path("."), batch_size=8)
from aigc_lab.training.plain import Plain
from aigc_lab.training.state import Replica
(course,) = Plain.of([Replica(trainings.state_of(plan, "cpu"), trainings.batches_of(plan, "cpu"), 0)], 0.9, "fp32")
course.resume()
for _ in range(4):
    course.step()
assert course.reason is None and course.repeated == 1, (course.reason, course.repeated)
print([name for name in ("torch._dynamo", "sympy") if name in sys.modules])
"""


def test_to_record_a_step_imports_no_compiler() -> None:
    """Torch's takes a second of the processor in every process that trains."""
    done = subprocess.run([sys.executable, "-c", RECORDED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_module_that_somebody_listens_to_is_computed_as_ever() -> None:
    """Whoever registers a hook to look at activations sees them in every step."""
    course, heard = course_of(Shift), list[int]()
    course.replicas[0].state.system.net.register_forward_hook(lambda *_: heard.append(1))
    advance(course)
    assert len(heard) == STEPS and course.reason == "a module has hooks"


def test_a_repetition_with_other_numbers_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Program.compiled

    def wrong(program: Program, *lines: int) -> Piece:
        piece = whole(program, *lines)
        return Piece(lambda *given: [piece.run(*given), piece.run(*given)][0], piece.takes, piece.gives)

    plain, programs = course_of(Shift), course_of(Shift)
    monkeypatch.setattr(Program, "compiled", wrong)
    with as_ever():
        expected = advance(plain)
    assert advance(programs) == expected
    assert programs.reason == "a repetition gives other numbers than the step"
    assert_same(plain, programs)


def test_weights_that_lie_elsewhere_get_programs_of_their_own() -> None:
    plain, programs = course_of(Shift), course_of(Shift)
    for course, context in ((plain, as_ever), (programs, None)):
        for _ in range(2):
            if context is None:
                advance(course)
            else:
                with context():
                    advance(course)
            for weight in course.replicas[0].state.system.parameters():
                weight.data = weight.data.clone()
            course.resume()
    assert programs.repeated == 0, "the programs of before are gone"
    assert_same(plain, programs)


def test_batches_of_many_shapes_are_no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "MOST_PROGRAMS", 3)
    plain, programs = course_of(Shift), course_of(Shift)
    for course in (plain, programs):

        def shorter(number: int, repeat: int, course: Any = course, whole: Any = course._given_to) -> Given:
            given, count = whole(number, repeat), 1 + course.at % BATCH
            batch = given.batch.take(slice(0, count))
            return Given(batch, batch.values, None, {"z": given.draws["z"][:count]})

        course._given_to = shorter
    with as_ever():
        expected = advance(plain, 6 * BATCH, every=100)
    assert advance(programs, 6 * BATCH, every=100) == expected
    assert len(programs._programs._slots) == 3 and programs.repeated == 3 * 2
    assert_same(plain, programs)


def test_two_inputs_that_are_one_tensor_are_another_program() -> None:
    weight = torch.zeros(3)
    programs = Programs(nn.Module(), torch.device("cpu"), lambda: [weight])
    one, two = torch.ones(3), torch.full((3,), 2.0)
    for number in range(4 * SETTLED):
        first, second = (one, one) if number % 2 else (one, two)
        rows, _ = programs.step((), [first, second], number, lambda _, a=first, b=second: (a * 10 + b, None))  # type: ignore[misc]
        assert rows.tolist() == ([11.0] * 3 if number % 2 else [12.0] * 3)
    assert programs.reason is None and programs.repeated > SETTLED


def test_programs_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIGC_LAB_PROGRAMS", "off")
    course = course_of(Shift)
    advance(course)
    assert course.repeated == 0 and "AIGC_LAB_PROGRAMS" in course.reason


def test_of_two_ways_the_quicker_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "thread_time", lambda: now[0])
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    course = course_of(Shift)
    update = course._update

    def quick(*given: Any) -> None:
        now[0] -= 1.0
        update(*given)

    course._update = quick  # which is called in steps as ever alone
    advance(course, 5 * SETTLED, every=100)
    (slot,) = course._programs._slots.values()
    assert slot.repeated == captured._TIMED and course.reason is None


@pytest.mark.parametrize(
    "read",
    [
        lambda step: step + 1,
        lambda step: 0.5 * step,
        lambda step: 1.0 / (step + 1),
        lambda step: step < 3,
        lambda step: step == 4,
        lambda step: f"{step}",
        lambda step: min(step, 7),
        lambda step: step % 2.5,
        lambda step: [0, 1, 2, 3, 4][step],
        lambda step: float(step),
        lambda step: torch.arange(5)[step],
        lambda step: {4: 1}.get(step),
        bool,
    ],
)
def test_whoever_reads_a_step_is_seen(read: Any) -> None:
    step: Any = WatchedStep(4)
    (lambda passed: passed)(step)
    assert not step.read
    found: Sequence[Any] = [read(step)]
    assert step.read and found == [read(4)]
