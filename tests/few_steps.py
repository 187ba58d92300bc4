"""A few steps of training, for tests that look at every one of them."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from aigc_lab.data.shared.batches import Batches
from aigc_lab.training.captured import as_ever
from aigc_lab.training.checkpoint import restore_state, save_state
from aigc_lab.training.course import Course
from aigc_lab.training.loop import train
from aigc_lab.training.plain import Plain
from aigc_lab.training.state import Progress, Replica, TrainingState


def trained(
    data: Any, *states: TrainingState, until: int | None = None, course: type[Course] = Plain
) -> list[list[dict[str, float]]]:
    """The scalars of every step of each, which are trained to 9 steps, or interrupted at the step `until`."""
    curves: dict[int, list[dict[str, float]]] = {id(state): [] for state in states}
    for ends in train(
        [Replica(state, Batches(data.load("train"), 4, 0), 0) for state in states],
        steps=9,
        every=1,
        decay=0.5,
        precision="fp32",
        course=course,
        interrupted=lambda: states[0].step == until,
    ):
        for replica, progress in ends:
            assert isinstance(progress, Progress)
            curves[id(replica.state)].append(dict(progress.scalars))
    return list(curves.values())


def assert_resumes(
    data: Any, straight: TrainingState, first: TrainingState, other: TrainingState, at: int, file: Path
) -> None:
    """Asserts that a run that is killed at step `at`, and goes on as `other` from what was saved, comes to the same
    bits and logs the same scalars as one that is not.
    """
    (curve,), (begun,) = trained(data, straight), trained(data, first, until=at)
    save_state(first, file)
    restore_state(other, file)
    (rest,) = trained(data, other)
    assert other.step == 9 and len(rest) == 9 - at
    assert [*begun, *rest] == curve
    for one, two in ((straight.system, other.system), (straight.average, other.average)):
        ours, theirs = one.state_dict(), two.state_dict()
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def assert_programs(plain: Replica, other: Replica, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asserts that a run whose steps are repeated as programs comes to the bits of one that computes each of them."""
    with as_ever():
        for _ in train([plain], steps=steps, every=steps, decay=0.9, precision="fp32"):
            pass
    monkeypatch.setattr(time, "thread_time", lambda: 0.0)  # of two ways the program is kept
    monkeypatch.setattr(time, "perf_counter", lambda: 0.0)
    (course,) = Plain.of([other], 0.9, "fp32")
    course.resume()
    while course.at < steps:
        course.step(steps)
    assert course._programs.reason is None and course._programs.repeated > steps / 2
    for part in ("system", "average"):
        ours, theirs = (getattr(run.state, part).state_dict() for run in (other, plain))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
