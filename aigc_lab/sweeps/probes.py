"""A few steps of a plan, timed on this machine; what was measured lies in the home's cache, under everything that it
depends on.
"""

import hashlib
import json
import math
import os
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from aigc_lab import plugins
from aigc_lab.data.shared.batches import Batches
from aigc_lab.experiment.configuration import Configuration
from aigc_lab.host import environment
from aigc_lab.host.files import write_atomically
from aigc_lab.runs.alike import likeness
from aigc_lab.training.captured import SETTLED
from aigc_lab.training.course import Course
from aigc_lab.training.loop import train
from aigc_lab.training.state import Replica, TrainingState

Json = dict[str, Any]
T = TypeVar("T")


def remembered(folder: Path, facts: Json, measure: Callable[[], Json], read: Callable[[Json], T]) -> T:
    """What was measured under these facts, as `read` has it of plain data; measured now where that is not known."""
    path = folder / f"{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        return read(json.loads(path.read_text("utf-8"))["timing"])
    timing = measure()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(facts | {"timing": timing}, indent=2).encode())
    return read(timing)


def facts(plan: Configuration, device: str) -> Json:
    """What a timing of a plan depends on, as plain data: what is trained, and by which code, machine and versions."""
    source = plugins.source_of(plan.system_class)
    now = environment.describe(device)
    return {
        "runs": likeness(plan),
        "code": None if source is None else hashlib.sha256(source).hexdigest(),
        "shape": str(plan.dataset.shape),
        "batch": plan.training.batch_size,
        "machine": [now["device"], platform.machine(), environment.cpu_model(), os.cpu_count()],
        **{key: now[key] for key in ("versions", "git_commit", "git_dirty") if key in now},
    }


def fresh(plan: Configuration, device: str, count: int, configs: Sequence[Any] = ()) -> list[Replica]:
    """Replicas of a plan, with seeds from 0 on; `configs` take the place of the system's."""
    samples, size = plan.dataset.load("train").to(device), plan.training.batch_size
    replicas = []
    for seed in range(count):
        state = TrainingState.fresh(
            plan.system_class,
            configs[seed] if configs else plan.system_config,
            plan.dataset.shape,
            seed=seed,
            batch_size=size,
            device=device,
            channels_last=plan.training.channels_last,
            averaged=plan.training.ema > 0,
        )
        replicas.append(Replica(state, Batches(samples, size, seed), seed))
    return replicas


def rounds(plan: Configuration, replicas: Sequence[Replica], course: type[Course], every: int, count: int) -> Any:
    """The training of replicas for so many rounds of `every` steps more."""
    training = plan.training
    options: Json = {
        "decay": training.ema,
        "precision": training.precision,
        "matmul_precision": training.matmul_precision,
        "course": course,
    }
    return train(replicas, steps=replicas[0].state.step + every * count, every=every, **options)


def seconds_of_step(
    plan: Configuration,
    replicas: Sequence[Replica],
    course: type[Course],
    steps: int,
    clock: Callable[[], float],
    count: int = 3,
) -> float:
    """Seconds of a step of one replica, the least of some rounds after those in which it settles how it is computed."""
    for replica in replicas:
        replica.state.step = 0  # as each timing begins, so that rounds end at multiples of their steps
    # Of a long step next to nothing is saved as a program.
    first = math.ceil(SETTLED / steps) if steps > 3 else 1
    seconds, began = [], clock()
    for _ in rounds(plan, replicas, course, steps, first + count):
        now = clock()
        seconds.append((now - began) / steps / len(replicas))
        began = clock()
    return min(seconds[first:] or seconds)
