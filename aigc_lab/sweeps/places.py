"""The places at which the runs of a sweep are done: devices, and shares of the CPU's cores."""

import torch

from aigc_lab.errors import UsageError
from aigc_lab.executors.base import Place
from aigc_lab.experiment.experiment import Experiment
from aigc_lab.host import environment, torchrun
from aigc_lab.sweeps.budget import most_runs
from aigc_lab.sweeps.needs import most_at_once
from aigc_lab.training.process_group import check_devices

# Seconds of training below which a sweep has one worker: others would hardly have imported torch when it is done.
_SHORT = 30.0


def assign_places(
    device: str,
    workers: int | None,
    trials_per_gpu: int | None,
    at_most: int | None = None,
    *,
    per_gpu_key: str = "--trials-per-gpu",
) -> list[Place]:
    """One place for each worker, `at_most` so many: `trials_per_gpu` on each GPU, or equal shares of the CPU's cores.

    `per_gpu_key` is how messages call `trials_per_gpu`. Raises `UsageError` for options that contradict each other or
    the devices of this machine.
    """
    devices = device_names(device)
    on_gpus = devices[0].startswith("cuda")
    if trials_per_gpu is not None and not on_gpus:
        raise UsageError(f"{per_gpu_key} needs CUDA devices, and there is none here; use --workers N on a CPU")
    if trials_per_gpu is not None and workers is not None:
        raise UsageError("--workers and --trials-per-gpu say the same in two ways; give one of them")
    count = workers or (len(devices) * (trials_per_gpu or 1) if on_gpus else 1)
    count = min(count, at_most or count)
    threads = max(1, environment.cores() // count)
    return [Place(devices[index % len(devices)], threads) for index in range(count)]


def places_of_parts(experiment: Experiment, places: list[Place], *, chosen: bool) -> list[Place]:
    """The places of runs that take `training.devices` each: one where these are GPUs, or torchrun's processes.

    Raises `UsageError` for devices that are not there, and for several such places that the user has `chosen`.
    """
    count = experiment.file.training.devices
    check_devices(count, places[0].device)
    if count == 1 or len(places) == 1 or (places[0].device == "cpu" and torchrun.size() is None):
        return places
    if chosen:
        raise UsageError(
            f"training.devices is {count}, so one run takes {count} devices, and {len(places)} workers would share "
            "them: use --workers 1"
        )
    return places[:1]


def choose_places(experiment: Experiment, seconds: float, measured: int | None = None) -> tuple[list[Place], str]:
    """Places on the CPU for a sweep of `seconds` of training whose user named no number of workers, and why so many.

    Every run gets the threads that it would have alone, so that its result does not depend on the number: there is one
    worker for each `training.threads` of the cores, or for as many as were `measured` to be best; fewer where there are
    fewer runs or too little memory.
    """
    cores, training = environment.cores(), experiment.file.training
    # Each of the processes that train a run takes its threads.
    threads = (measured or training.threads or max(environment.threads() // training.devices, 1)) * training.devices
    threads = min(threads, cores)
    most = {
        f"one for each {f'{threads} cores' if threads > 1 else 'core'} of {cores}": cores // threads,
        "one for each run": most_runs(experiment),
        "as many as memory holds": most_at_once(experiment),
        "for so little training others would start for longer than they would save": _long_enough(seconds, cores),
    }
    count = min(most.values())
    why = next(reason for reason, number in most.items() if number == count)
    if count == 1 and threads == cores:
        why = f"each run takes all {cores} cores" if cores > 1 else ""
    return [Place("cpu", measured or max(1, cores // count))] * count, why


def _long_enough(seconds: float, cores: int) -> int:
    return cores if seconds > _SHORT else 1


def describe_places(places: list[Place], experiment: Experiment, why: str = "") -> str:
    """A sentence on the workers, their devices and their CPU threads, and `why` they were chosen."""
    threads, asked = places[0].threads, experiment.file.training.threads or environment.threads()
    names = ", ".join(dict.fromkeys(place.device for place in places))
    count, used = len(places), min(threads, asked)
    text = f"{count} worker{'s' * (count > 1)} on {names}, {used} CPU thread{'s' * (used > 1)}{' each' * (count > 1)}"
    if len(places) > environment.cores():
        text += f", which share {environment.cores()} cores"
    if experiment.file.training.threads and asked > threads:
        text += f" (training.threads asks for {asked}: the same seed gives other bits than alone)"
    return f"{text}: {why} (--workers N takes another number)" if why else text


def describe_threads(experiment: Experiment) -> str | None:
    """A sentence on OMP_NUM_THREADS where it differs from the threads of a run: whether it is used. None otherwise."""
    variable, asked = environment.omp_threads(), experiment.file.training.threads
    if variable is None or variable == (asked or environment.cores()) or experiment.file.execution.threads is not None:
        return None
    if asked is not None:
        return f"OMP_NUM_THREADS={variable} is not used: training.threads is {asked}"
    used = environment.threads()
    return f"{used} CPU thread{'s' * (used > 1)} for a run, as OMP_NUM_THREADS={variable} says"


def device_names(option: str) -> list[str]:
    """The devices of `--devices`: `auto` means every CUDA device, or the CPU where there is none."""
    if option == "auto":
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"]
    devices = list(dict.fromkeys(environment.device(name.strip(), "--devices") for name in option.split(",")))
    if "cpu" in devices and len(devices) > 1:
        raise UsageError(f"--devices {option}: name the CPU, or GPUs, and not both")
    return devices
