"""Messages between the process of a sweep and its worker processes."""

from typing import Literal

from pydantic import JsonValue

from aigc_lab.host.channel import Message, Number
from aigc_lab.registry.records import Role
from aigc_lab.registry.states import RunState

# ---- to a worker


class Opening(Message):
    """First message: what the runs of a sweep share, and this worker's device and threads. `digest` is the
    experiment's.
    """

    home: str
    spool: str
    name: str
    file: str
    data: dict[str, JsonValue]
    digest: str
    device: str
    threads: int


class Work(Message):
    """Run to be done; `values` fill the experiment's holes by name."""

    run: str
    sweep: str
    trial: int
    seed: int
    role: Role
    values: dict[str, JsonValue]


class Answer(Message):
    """Answer to `Scored`: whether the run is to be stopped as PRUNED."""

    stop: bool


# ---- from a worker


class Said(Message):
    """Line for the user, sent before the worker is ready."""

    text: str


class Ready(Message):
    """The worker waits for work."""


class Progressed(Message):
    """Fields of `training.state.Progress`."""

    step: int
    scalars: dict[str, Number]
    seconds: Number
    samples_per_second: Number


class Scored(Message):
    """Objective on the reference split, its standard error, and the collapse verdict on the same samples. The worker
    waits for an `Answer`.
    """

    step: int
    value: Number
    error: Number
    collapse: str | None


class Ended(Message):
    """Fields of `runs.job.RunOutcome`: the run is recorded, and the worker waits for the next."""

    state: RunState
    value: Number | None
    reason: str | None


class Broken(Message):
    """Error that the next run would meet, too; the worker ends."""

    error: Literal["UsageError", "StoreAway", "Failure"]
    text: str


class Interrupted(Message):
    """The worker was told to end, has stored its run, and ends."""
