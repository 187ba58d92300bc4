"""What the processes of a sweep tell each other: its own and its workers'."""

from typing import Literal

from pydantic import JsonValue

from aigc_lab.host.channel import Message, Number
from aigc_lab.registry.records import Role
from aigc_lab.registry.states import RunState

# ---- to a worker


class Opening(Message):
    """The first: what the runs of a sweep share, and this worker's place. `digest` is the experiment's."""

    home: str
    spool: str
    name: str
    file: str
    data: dict[str, JsonValue]
    digest: str
    device: str
    threads: int


class Work(Message):
    """A run to be done; `values` fill the experiment's holes by their names."""

    run: str
    sweep: str
    trial: int
    seed: int
    role: Role
    values: dict[str, JsonValue]


class Answer(Message):
    """The answer to `Scored`: whether the run is to be stopped as PRUNED."""

    stop: bool


# ---- from a worker


class Said(Message):
    """A line for the user, before it is ready."""

    text: str


class Ready(Message):
    """It waits for work."""


class Progressed(Message):
    """The fields of `training.state.Progress`."""

    step: int
    scalars: dict[str, Number]
    seconds: Number
    samples_per_second: Number


class Scored(Message):
    """The objective on the reference split. It waits for a `Answer`."""

    step: int
    value: Number


class Ended(Message):
    """The fields of `runs.job.Outcome`: the run is recorded, and the next may come."""

    state: RunState
    value: Number | None
    reason: str | None


class Broken(Message):
    """What the next run would meet too; its process ends."""

    error: Literal["UsageError", "StoreAway", "Failure"]
    text: str


class Interrupted(Message):
    """It was told to end, has stored its run, and does."""
