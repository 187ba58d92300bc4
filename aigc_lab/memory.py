"""How much memory there is to take, and how amounts of it are written."""

import os
from contextlib import suppress
from pathlib import Path


def available(device: str = "cpu") -> int:
    """Bytes that a process may still take: of the GPU, or of the host, where a container's limit may be the closer."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return min(_host(), *_containers())


def written(count: float) -> str:
    """`24 GB`, `350 MB`."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.3g} {unit}" if count < 1000 * size else f"{count / size:,.0f} {unit}"
    return f"{count / 1e3:.3g} KB"


def _host() -> int:
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _containers() -> list[int]:
    """What the control groups of a container leave; none where there is no limit."""
    found = [2**63]
    for limit, usage in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        # `max` is no number. What is used counts cached files too, which give way: half of the limit is left at least.
        with suppress(OSError, ValueError):
            most, used = (int(Path(path).read_text("ascii")) for path in (limit, usage))
            found.append(max(most - used, most // 2))
    return found
