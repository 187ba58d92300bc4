"""Free memory, disk and processor time of this machine, asked before much of them is taken."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def free_memory(device: str = "cpu") -> int:
    """Bytes that a process may still allocate without swapping, on a GPU or on the host. A container's limit counts
    where it is the smaller one.
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
    """Bytes that the control groups of a container leave (versions 2 and 1)."""
    limits = [2**63]
    root = Path("/sys/fs/cgroup")
    for limit_file, usage_file in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        # `max` is no number. What is used counts cached files too, which give way: half of the limit is left at least.
        with suppress(OSError, ValueError):
            limit_bytes, used_bytes = (int((root / name).read_text("ascii")) for name in (limit_file, usage_file))
            limits.append(max(limit_bytes - used_bytes, limit_bytes // 2))
    return limits


def cpu_quota(root: Path = Path("/sys/fs/cgroup"), mine: Path = Path("/proc/self/cgroup")) -> float | None:
    """Number of CPUs that the control groups of a container let this process use (versions 2 and 1); None without a
    limit. Groups around this process's own count too, where they can be seen.
    """
    group = ""
    with suppress(OSError):  # of version 2 there is one line, 0::/path
        lines = mine.read_text("utf-8").splitlines()
        group = next((line.removeprefix("0::").strip("/") for line in lines if line.startswith("0::")), "")
    folders = [root, *(root.joinpath(*group.split("/")[:depth]) for depth in range(1, group.count("/") + 2))]
    quotas = []
    for folder in folders:
        with suppress(OSError, ValueError):  # `max` is no number
            quota, period = (folder / "cpu.max").read_text("ascii").split()
            quotas.append(int(quota) / int(period))
    with suppress(OSError, ValueError):
        quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text("ascii") for name in ("quota", "period"))
        quotas += [int(quota) / int(period)] if int(quota) > 0 else []
    return min(quotas, default=None)


def free_disk(place: Path) -> int:
    """Free bytes on the file system on which `place` will lie. Raises `OSError` when it cannot be determined."""
    return shutil.disk_usage(_existing(place)).free


def free_files(place: Path) -> int | None:
    """Number of files that may still be created where `place` will lie; None on a file system without such a limit."""
    status = os.statvfs(_existing(place))
    return status.f_favail if status.f_files else None


def _existing(place: Path) -> Path:
    place = place.absolute()
    return next(folder for folder in (place, *place.parents) if folder.is_dir())


def format_bytes(count: int) -> str:
    """Number of bytes for people, such as `1.2 GB`; exact for integers of any size."""
    power = 0
    while count >= 1000 ** (power + 1) and power < len(_UNITS) - 1:
        power += 1
    if power == 0:
        return f"{count} bytes"
    tenths = count * 10 // 1000**power
    return f"{tenths // 10:,}.{tenths % 10} {_UNITS[power]}"
