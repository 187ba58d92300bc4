"""Lengths of time as people and Slurm write them: minutes, `H:MM:SS`, or `D-HH:MM:SS`."""

import re

_CLOCK = re.compile(r"(?:(?P<days>\d{1,3})-)?(?P<hours>\d{1,3}):(?P<minutes>[0-5]\d):(?P<seconds>[0-5]\d)")
# More is a typo; a year has fewer.
_MOST_MINUTES = 366 * 24 * 60


def seconds_of(text: str | int) -> int:
    """Seconds of a length of time, one at least. Raises `ValueError` with a sentence for what is none.

    >>> seconds_of(90), seconds_of("1:30:00"), seconds_of("2-00:00:00")
    (5400, 5400, 172800)
    """
    seconds = _seconds(str(text).strip())
    if seconds is None:
        raise ValueError(f"{text!r:.40} is no length of time; write minutes, like 90, or H:MM:SS, like 1:30:00")
    if not 0 < seconds <= 60 * _MOST_MINUTES:
        raise ValueError(f"{text!r:.40}: a length of time is a second at least, and a year at most")
    return seconds


def _seconds(text: str) -> int | None:
    if re.fullmatch(r"[0-9]{1,9}", text):
        return 60 * int(text)
    clock = _CLOCK.fullmatch(text)
    if clock is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in clock.group("days", "hours", "minutes", "seconds"))
    return ((24 * days + hours) * 60 + minutes) * 60 + seconds


def clock(seconds: int) -> str:
    """`H:MM:SS`, as Slurm takes it.

    >>> clock(5400), clock(172800)
    ('1:30:00', '48:00:00')
    """
    minutes, rest = divmod(seconds, 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
