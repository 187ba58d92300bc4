"""Checks of this machine for `aigc-lab doctor`: Python, libraries, cores and GPUs."""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from aigc_lab.host import environment

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Check:
    """The result of one check. `remedy` is empty where nothing needs to be done."""

    name: str
    state: State
    found: str
    remedy: str = ""


def versions() -> Iterator[Check]:
    """Python, and whether the libraries are those that are asked for."""
    yield Check("python", "ok", f"{sys.version.split()[0]} in {sys.prefix}")
    unmet, count = _unmet()
    libraries = ", ".join(f"{name} {of}" for name, of in environment.versions().items() if name != "python")
    if unmet:
        yield Check(
            "libraries", "problem", "; ".join(unmet), "install what is asked for: uv sync, or pip install -U aigc-lab"
        )
    else:
        yield Check("libraries", "ok", f"{libraries}; all {count} requirements are met")


def _unmet() -> tuple[list[str], int]:
    """The requirements of the package that this environment does not meet, as sentences, and the number of all."""
    from packaging.requirements import Requirement

    every = [Requirement(text) for text in requires("aigc-lab") or ()]
    needed = [each for each in every if each.marker is None or each.marker.evaluate({"extra": ""})]
    unmet = []
    for each in needed:
        try:
            installed = version(each.name)
        except PackageNotFoundError:
            unmet.append(f"{each.name} is not installed, {each} is needed")
            continue
        if not each.specifier.contains(installed, prereleases=True):
            unmet.append(f"{each.name} {installed} is installed, {each} is needed")
    return unmet, len(needed)


def devices() -> Iterator[Check]:
    """The CPU's cores and threads, and each GPU."""
    cores, threads = environment.cores(), os.environ.get("OMP_NUM_THREADS")
    if threads is None:
        yield Check("cpu", "ok", f"{cores} cores; OMP_NUM_THREADS is not set: a training takes them all")
    elif (said := environment.omp_threads()) is not None and said <= cores:
        yield Check("cpu", "ok", f"{cores} cores; a training takes {said} of them: OMP_NUM_THREADS={threads}")
    else:
        remedy = "unset OMP_NUM_THREADS; training.threads in an experiment says how many a run takes"
        finding = f"{cores} cores, and OMP_NUM_THREADS={threads}: a training takes {environment.threads()}"
        yield Check("cpu", "warning", finding, remedy)

    import torch

    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        if torch.version.cuda and Path("/proc/driver/nvidia").exists():
            remedy = "the driver may be older than this CUDA needs; nvidia-smi shows it"
            yield Check("cuda", "warning", f"{built}; it cannot use this machine's GPU", remedy)
        else:
            yield Check("cuda", "ok", f"no device ({built}): trainings use the CPU")
        return
    for index in range(torch.cuda.device_count()):
        free, total = (size / 1024**3 for size in torch.cuda.mem_get_info(index))
        name = torch.cuda.get_device_name(index)
        yield Check(
            f"cuda:{index}", "ok", f"{name}, {free:.1f} of {total:.1f} GiB free{_driver()}; CUDA {torch.version.cuda}"
        )


def _driver() -> str:
    with suppress(OSError, IndexError):
        line = Path("/proc/driver/nvidia/version").read_text("utf-8").partition("\n")[0]
        return f", driver {line.split('Module')[1].split()[0]}"
    return ""
