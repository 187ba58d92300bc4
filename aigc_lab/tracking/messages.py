"""What a sweep and its writer tell each other."""

from aigc_lab.host.channel import Message, Number


class Deliver(Message):
    """The first: whose spool is to be delivered."""

    home: str
    sweep: str


class Finish(Message):
    """Nothing more will come; `patience` is in seconds, None for the writer's own."""

    patience: Number | None


class Delivered(Message):
    """The last: how many runs wait on, and why."""

    waiting: int
    reason: str
