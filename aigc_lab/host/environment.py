"""Environment of a result: versions, machine, threads, and the state of the code."""

import os
import platform
import socket
import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from aigc_lab import __version__
from aigc_lab.errors import UsageError
from aigc_lab.host import capacity, gpus, processes

_PACKAGES = ("torch", "torchvision", "numpy", "optuna", "mlflow")


@cache
def versions() -> dict[str, str]:
    """Versions of Python, of this package and of the libraries that affect a result, without importing them."""
    installed = {"python": platform.python_version(), "aigc-lab": __version__}
    for package in _PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


@cache
def code() -> dict[str, Any]:
    """Commit of the checkout that holds the package, and whether files differ from it; empty for a wheel."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {}
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return {"git_commit": commit, "git_dirty": bool(_git(root, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {}


def _git(root: Path, *words: str) -> str:
    result = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=10)
    return result.stdout.strip()


def cores() -> int:
    """Number of CPUs that this process may use: by its affinity, and whole ones of its container's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = capacity.cpu_quota()
    return count if quota is None else max(1, min(count, int(quota)))


@cache
def cpu_model() -> str:
    """What the processor calls itself; its architecture where it cannot be asked."""
    with suppress(OSError, IndexError):
        text = Path("/proc/cpuinfo").read_text("utf-8")
        return text.split("model name", 1)[1].partition("\n")[0].partition(":")[2].strip()
    with suppress(OSError, subprocess.SubprocessError):  # macOS
        words = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    return platform.processor() or platform.machine()


def load() -> float | None:
    """Processes that ran or waited for a core in the last minute, on average; None where the system does not say."""
    with suppress(OSError, AttributeError):
        return round(os.getloadavg()[0], 2)
    return None


def omp_threads() -> int | None:
    """Positive number in `OMP_NUM_THREADS` (the first of several, for the outermost loops); None if it holds none."""
    text = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(text) if text.isdecimal() and int(text) > 0 else None


def threads() -> int:
    """Default number of CPU threads of a process: `OMP_NUM_THREADS`, but at most one for each core."""
    return min(omp_threads() or cores(), cores())


def share_of_threads(count: int) -> dict[str, str]:
    """Environment variables of a new process that is to use so many threads: libraries read them when they are
    loaded.

    >>> share_of_threads(2)["OMP_NUM_THREADS"]
    '2'
    """
    return {f"{name}_NUM_THREADS": str(count) for name in ("OMP", "OPENBLAS", "MKL")}


def settle(cpu_threads: int | None) -> None:
    """Fixes what the bits of a result depend on: the number of CPU threads, and cuDNN's choice of algorithms."""
    import torch

    torch.set_num_threads(cpu_threads or threads())
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def device(name: str, option: str = "--device") -> str:
    """Device that a command-line option names; `auto` takes CUDA where there is a GPU. Raises `UsageError` for a device
    that this machine does not have.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError:
        raise UsageError(f"{option} {name}: there is no such device; use cpu, cuda, cuda:0, … or auto") from None
    if kind not in ("cpu", "cuda"):
        raise UsageError(f"{option} {name}: use cpu, cuda, cuda:0, … or auto")
    if kind == "cuda":
        count = torch.cuda.device_count()
        if (torch.device(name).index or 0) >= count:
            raise UsageError(f"{option} {name}: this machine has {count} CUDA devices; use {option} cpu or auto")
    return name


def describe(device: str) -> dict[str, Any]:
    """The environment as plain data: host, pid, device (the model of a GPU, and as `gpu` which of the machine's it is),
    threads, versions, commit, and out-of-memory kills so far.
    """
    import torch

    killed = processes.oom_kills()
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        **({"gpu": gpus.identity(device)} if gpus.is_gpu(device) else {}),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        **({} if killed is None else {"oom_kills": killed}),
        **code(),
    }
