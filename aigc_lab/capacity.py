"""What this machine has left: memory and disk, asked before much of either is taken."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def free_memory() -> int | None:
    """Bytes that this process can still take without swapping: the machine's, or what is left of its control group's
    limit. None where the system does not tell.
    """
    found = [left for left in (_of_machine(), _of_group()) if left is not None]
    return min(found) if found else None


def _of_machine() -> int | None:
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with suppress(OSError, ValueError):  # macOS knows how much there is, and not how much is free
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _of_group() -> int | None:
    """What a container may still take (control groups, version 2 and 1)."""
    root = Path("/sys/fs/cgroup")
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):  # "max" is no number: there is no limit
            return max(0, int((root / limit).read_text("ascii")) - int((root / used).read_text("ascii")))
    return None


def free_disk(place: Path) -> int:
    """Bytes that may be written where `place` will lie. Raises `OSError` when nobody can say."""
    return shutil.disk_usage(_existing(place)).free


def free_files(place: Path) -> int | None:
    """How many files may be made where `place` will lie; None on a file system that sets no limit."""
    status = os.statvfs(_existing(place))
    return status.f_favail if status.f_files else None


def _existing(place: Path) -> Path:
    place = place.absolute()
    return next(folder for folder in (place, *place.parents) if folder.is_dir())


def spelled(count: int) -> str:
    """A number of bytes for people: 1.2 GB. Exact numbers of any length are taken."""
    power = 0
    while count >= 1000 ** (power + 1) and power < len(_UNITS) - 1:
        power += 1
    if power == 0:
        return f"{count} bytes"
    tenths = count * 10 // 1000**power
    return f"{tenths // 10:,}.{tenths % 10} {_UNITS[power]}"
