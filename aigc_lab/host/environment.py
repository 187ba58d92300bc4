"""What a result depends on beside its configuration: versions, machine, threads, and the state of the code."""

import os
import platform
import socket
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from aigc_lab import __version__
from aigc_lab.errors import UsageError
from aigc_lab.host import processes

_PACKAGES = ("torch", "torchvision", "numpy", "optuna", "mlflow")


@cache
def versions() -> dict[str, str]:
    """Of Python, of this package and of the libraries that a result depends on, without importing them."""
    found = {"python": platform.python_version(), "aigc-lab": __version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def code() -> dict[str, Any]:
    """The commit of the checkout that the package runs from, and whether files differ from it; empty for a wheel."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {}
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return {"git_commit": commit, "git_dirty": bool(_git(root, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {}


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def cores() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def omp_threads() -> int | None:
    """The number in `OMP_NUM_THREADS`, of several the first (that of the outermost loops); None where it holds none."""
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(said) if said.isdecimal() and int(said) > 0 else None


def threads() -> int:
    """CPU threads of a process to which nobody has given a number: `OMP_NUM_THREADS`, one for each core at most."""
    return min(omp_threads() or cores(), cores())


def settle(wanted: int | None) -> None:
    """Fixes what the bits of a result depend on: the number of CPU threads, and the choice of cuDNN's algorithms."""
    import torch

    torch.set_num_threads(wanted or threads())
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def device(wanted: str, option: str = "--device") -> str:
    """The device that an option of the command line means. Raises `UsageError` for one that this machine has not."""
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(wanted).type
    except RuntimeError:
        raise UsageError(f"{option} {wanted}: there is no such device; use cpu, cuda, cuda:0, … or auto") from None
    if kind not in ("cpu", "cuda"):
        raise UsageError(f"{option} {wanted}: use cpu, cuda, cuda:0, … or auto")
    if kind == "cuda":
        count = torch.cuda.device_count()
        if (torch.device(wanted).index or 0) >= count:
            raise UsageError(f"{option} {wanted}: this machine has {count} CUDA devices; use {option} cpu or auto")
    return wanted


def describe(device: str) -> dict[str, Any]:
    """All of it, as plain data."""
    import torch

    killed = processes.oom_kills()
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "threads": torch.get_num_threads(),
        "versions": versions(),
        **({} if killed is None else {"oom_kills": killed}),
        **code(),
    }
