"""What this machine has left: memory and disk, asked before much of either is taken."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def free_memory(device: str = "cpu") -> int:
    """Bytes that a process may still take without swapping: of a GPU, or of the host, where a container's limit may be
    the closer one.
    """
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return min(_of_machine(), *_of_groups())


def _of_machine() -> int:
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
    # macOS knows how much there is, and not how much is free.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _of_groups() -> list[int]:
    """What the control groups of a container leave (version 2 and 1)."""
    found = [2**63]
    root = Path("/sys/fs/cgroup")
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        # `max` is no number. What is used counts cached files too, which give way: half of the limit is left at least.
        with suppress(OSError, ValueError):
            most, used = (int((root / name).read_text("ascii")) for name in (limit, usage))
            found.append(max(most - used, most // 2))
    return found


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
