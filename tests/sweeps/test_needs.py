"""What no memory holds is refused before it is taken, with the key and with what would fit."""

import time
from pathlib import Path
from typing import Any

import pytest

from aigc_lab.config import Strict
from aigc_lab.errors import UsageError
from aigc_lab.executors.base import Place
from aigc_lab.experiment import experiment, space
from aigc_lab.experiment.checks import check_experiment
from aigc_lab.sweeps import estimate, needs
from aigc_lab.training.captured import SETTLED

FREE = 10**9
HERE = [Place("cpu", 1)]


def made(**sections: Any) -> experiment.Experiment:
    whole: dict[str, Any] = {
        "name": "mine",
        "data": {"name": "ring", "points": 2000},
        "system": {"name": "point_gan", "hidden": 16},
        "training": {"steps": 20, "batch_size": 32, "log_every": 10, "evaluate_every": 20},
        "evaluation": {"name": "points", "samples": 400},
        "objective": {"minimize": "rkl"},
    }
    for name, keys in sections.items():
        whole[name] = whole[name] | keys
    found = experiment.load_experiment(whole, data_dir=Path())
    check_experiment(found)
    return found


@pytest.fixture(autouse=True)
def _free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "free_memory", lambda device="cpu": FREE)


def refusal(found: experiment.Experiment, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        needs.check_memory(found, HERE, **options)
    return str(caught.value)


def test_what_fits_is_let_through() -> None:
    needs.check_memory(made(), HERE)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"data": {"points": 10**8}},
            "data.points: 100,000,000 take about 4.8 GB of memory, and 1.0 GB are free; 20,",
        ),
        (
            {"system": {"hidden": 60_000, "generator_layers": 3}},
            "system.hidden: 60,000: a run of point_gan takes",
        ),
        ({"training": {"batch_size": 2**20}}, "training.batch_size: 1,048,576: a run of point_gan takes about"),
        ({"system": {"hidden": {"int": [16, 60_000]}, "generator_layers": 3}}, "system.hidden: 60,000: a run of"),
    ],
)
def test_what_does_not_fit_is_named_with_what_would(sections: dict[str, Any], said: str) -> None:
    message = refusal(made(**sections))
    assert said in message
    assert message.endswith("would fit")


def test_what_would_fit_does(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(made(training={"batch_size": 2**20}))
    largest = int(message.split("; ")[-1].split()[0].replace(",", ""))
    assert 1000 < largest < 2**20
    needs.check_memory(made(training={"batch_size": largest}), HERE)


def test_workers_share_what_is_free() -> None:
    found = made(system={"hidden": 4000})
    needs.check_memory(found, HERE)
    with pytest.raises(UsageError, match=r"system\.hidden: 4,000: .* 200.0 MB are free for it"):
        needs.check_memory(found, HERE * 5)
    assert "200.0 MB are free for it" in refusal(found, together=5)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("training", "batch_size", 99_999_999_999),
        ("training", "steps", 10**13),
        ("training", "threads", 10**6),
        ("system", "hidden", 10**6),
        ("system", "generator_layers", 10**6),
        ("system", "lr", 1e31),
        ("data", "points", 10**10),
        ("data", "modes", 10**8),
        ("evaluation", "samples", 10**12),
        ("system", "latent_size", 2**63),
        ("training", "steps", 10**99),
    ],
)
def test_types_say_what_a_number_may_be(section: str, key: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"({section}\.)?{key}: "):
        check_experiment(made(**{section: {key: value}}))


def test_a_curve_has_an_end() -> None:
    with pytest.raises(UsageError, match="set training.log_every to 10,000 or more"):
        made(training={"steps": 10**11, "log_every": 1, "evaluate_every": 100})


SYSTEM = '''
import numpy as np
import torch
from aigc_lab.systems.point_gan import PointGAN as Base

class Mine(Base):
    """Wide as one likes."""
    class Config(Base.Config):
        wide: int = 1
        how: str = "torch"

    def __init__(self, config, shape):
        super().__init__(config, shape)
        size = (config.wide, config.wide)
        self.wide = torch.nn.Parameter(torch.zeros(size) if config.how == "torch" else torch.tensor(np.zeros(size)))
'''


@pytest.mark.parametrize(
    ("wide", "how", "said"),
    [
        (10**5, "torch", "system.wide: 100,000: a run of"),
        (2**62, "torch", "cannot be built for dataset ring (points 2): "),
        (10**8, "numpy", "cannot be built for dataset ring (points 2): "),
        (2**80, "torch", "system.wide: it holds a whole number beyond 64 bits"),
    ],
)
def test_sizes_of_a_system_of_ones_own(tmp_path: Path, wide: int, how: str, said: str) -> None:
    (tmp_path / "mine.py").write_text(SYSTEM)
    system = {"name": str(tmp_path / "mine.py"), "wide": wide, "how": how}
    with pytest.raises(UsageError) as caught:
        needs.check_memory(made(system=system), HERE)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_class_refuses_what_no_store_takes() -> None:
    class Theirs(Strict):
        plain: int = 0
        many: tuple[Any, ...] = ()

    for given in ({"plain": 2**63}, {"many": ({"a": [-(2**63) - 1]},)}, {"many": ({2**64: 1},)}):
        with pytest.raises(ValueError, match="beyond 64 bits"):
            Theirs.model_validate(given)
    assert Theirs.model_validate({"plain": 2**63 - 1, "many": (True, -(2**63))}).plain == 2**63 - 1


@pytest.mark.parametrize(
    ("hole", "said"),
    [
        ({"int": [1, 10**99]}, "it holds a whole number beyond 64 bits"),
        ({"uniform": [0, 10**99]}, "it holds a whole number beyond 64 bits"),
        ({"uniform": [-1e308, 1e308]}, "is wider than any number"),
        ({"choice": list(range(1001))}, "a choice of 1,001 options; 1,000 are tried at most"),
    ],
)
def test_a_hole_is_no_wider_than_numbers_are(hole: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        made(system={"hidden": hole})


def test_a_grid_is_counted_and_not_laid_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "_POINTS", 1000)
    document = experiment.load_experiment(
        {"name": "mine", "system": {"hidden": {"int": [1, 2**62]}}}, data_dir=Path()
    ).document
    with pytest.raises(UsageError, match="the grid has more than 1,000 points; use tpe or random"):
        space.grid(document)


def test_timing_is_of_the_first_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []

    def counted(state: Any, batches: Any, plan: Any, until: int) -> Any:
        steps.append(until)
        state.step = until
        return iter(())

    monkeypatch.setattr(estimate, "_steps", counted)
    estimate.estimate(made(), HERE)
    assert steps == [1, 2, 3, 13, SETTLED + 1]


LONG = {"a step of seconds": (7.0, 2), "long steps": (0.6, 2), "steps of which a program would save little": (0.3, 13)}


@pytest.mark.parametrize(("seconds", "taken"), LONG.values(), ids=LONG)
def test_timing_stops_at_a_step_that_is_long(monkeypatch: pytest.MonkeyPatch, seconds: float, taken: int) -> None:
    done = held_up(monkeypatch, seconds, {})
    (ms,) = estimate.estimate(made(), HERE).step_ms.values()
    assert ms == pytest.approx(1000 * seconds) and len(done) == taken


@pytest.mark.parametrize("held", [1.0, 6.0])
@pytest.mark.parametrize("step", [0, 1, 2, 5, 30])
def test_one_step_that_is_held_up_makes_no_sweep_long(monkeypatch: pytest.MonkeyPatch, step: int, held: float) -> None:
    """Steps of 2 ms, of which one is held up for a second: a sweep of 40 steps is not one of 40 s for that."""
    done = held_up(monkeypatch, 0.002, {step: held})
    (ms,) = estimate.estimate(made(), HERE).step_ms.values()
    assert 1.99 < ms < 4 and len(done) > 30


def test_steps_of_which_some_are_long_are_not_timed_for_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    done = held_up(monkeypatch, 0.01, dict.fromkeys(range(1, 100, 2), 20.0))
    (ms,) = estimate.estimate(made(), HERE).step_ms.values()
    assert len(done) == 2 and ms == pytest.approx(10_010)


def test_a_long_step_that_is_held_up_is_as_long_as_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    held_up(monkeypatch, 0.6, {1: 4.0})
    (ms,) = estimate.estimate(made(), HERE).step_ms.values()
    assert ms == pytest.approx(600)


def test_a_penalty_of_some_steps_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    held_up(monkeypatch, 0.002, dict.fromkeys(range(0, 100, 5), 0.006))
    (ms,) = estimate.estimate(made(), HERE).step_ms.values()
    assert ms == pytest.approx(3.2)


def held_up(monkeypatch: pytest.MonkeyPatch, seconds: float, more: dict[int, float]) -> list[float]:
    """Steps of so many seconds, of which some take `more` besides; the seconds of those that were done."""
    clock, done = [0.0], list[float]()

    def counted(state: Any, batches: Any, plan: Any, until: int) -> Any:
        while state.step < until:
            done.append(seconds + more.get(len(done), 0.0))
            clock[0] += done[-1]
            state.step += 1
            yield

    monkeypatch.setattr(estimate, "_steps", counted)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    return done


def test_every_stretch_in_which_other_phases_run_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vq_vae whose codes are modelled from step 40 on, at 1 s a step before and 3 s from there."""
    system = {"name": "vq_vae", "codes": 8, "width": 4, "prior_start": 40}
    found = experiment.load_experiment(
        {
            "name": "mine",
            "data": {"name": "digits"},
            "system": system,
            "training": {"steps": 100, "batch_size": 32, "log_every": 10, "evaluate_every": 100},
            "evaluation": {"name": "image-small", "samples": 200},
            "objective": {"minimize": "fd_clf"},
        },
        data_dir=Path(),
    )
    clock = [0.0]

    def counted(state: Any, batches: Any, plan: Any, steps: int) -> Any:
        while state.step < steps:
            clock[0] += 1.0 if state.step < 40 else 3.0
            state.step += 1
            yield

    monkeypatch.setattr(estimate, "_steps", counted)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    (ms,) = estimate.estimate(found, HERE).step_ms.values()
    assert ms == pytest.approx(1000 * (40 * 1 + 60 * 3) / 100)


def test_the_training_that_scores_cost_is_timed_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier at half a second a step: 3 seeds, each on what was generated and on that with the training digits,
    in 2 evaluations and on the holdout, of 4 seeds on 2 workers.
    """
    found = experiment.load_experiment(
        {
            "name": "mine",
            "data": {"name": "digits"},
            "system": {"name": "cgan", "width": 8},
            "training": {"steps": 40, "batch_size": 32, "log_every": 10, "evaluate_every": 20},
            "evaluation": {"name": "image-small", "samples": 200, "metrics": [{"cas": {"steps": 100, "seeds": 3}}]},
            "objective": {"maximize": "cas_accuracy"},
            "search": {"trials": 1, "seeds": 4},
        },
        data_dir=Path(),
    )
    clock = [0.0]

    def learned(samples: Any, shape: Any, steps: int, **options: Any) -> None:
        clock[0] += 0.5 * steps

    monkeypatch.setattr(estimate, "_steps", lambda *given: iter(()))
    monkeypatch.setattr("aigc_lab.metrics.cas.fit", learned)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    cost = estimate.estimate(found, HERE * 2)
    assert cost.seconds == 0 and cost.scoring == pytest.approx(0.5 * 100 * 6 * 3 * 4 / 2)
    assert cost.shared(1).scoring == pytest.approx(2 * cost.scoring)
    assert str(cost).endswith(
        "scoring come on top: about 30.0 min to train 6 networks of 100 steps at each scoring (cas)"
    )
    assert estimate.estimate(made(), HERE).scoring == 0
