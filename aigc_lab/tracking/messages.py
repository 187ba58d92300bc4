"""Messages between a sweep and its writer."""

from aigc_lab.host.channel import Message, Number


class Deliver(Message):
    """First message to the writer: the sweep whose spool is to be delivered."""

    home: str
    sweep: str


class Finish(Message):
    """No further records follow. `patience` is in seconds, None for the writer's default."""

    patience: Number | None


class Delivered(Message):
    """Last message of the writer: the number of runs with undelivered records, and the reason."""

    waiting: int
    reason: str
