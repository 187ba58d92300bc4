"""How many runs share each GPU with `--trials-per-gpu auto`: its free memory over what one run was measured to take.

A process of its own trains the first steps of each system's most demanding configuration and draws samples of it, and
tells by how much the GPU's free memory has gone down at most: CUDA's own share of each process is in it. What scoring
takes is not; half as many runs go on where memory ends nevertheless (`executors.local`).
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from aigc_lab.config import MOST
from aigc_lab.errors import Failure, UsageError
from aigc_lab.executors.base import Place
from aigc_lab.experiment.configuration import Configuration
from aigc_lab.experiment.experiment import Experiment
from aigc_lab.experiment.yaml_file import Document
from aigc_lab.host import capacity, confined, environment, gpus
from aigc_lab.host.capacity import format_bytes
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.runs.faults import out_of_memory
from aigc_lab.sweeps import needs
from aigc_lab.sweeps.rehearsal import SAMPLES, train_first_steps
from aigc_lab.training.captured import SETTLED

# Of the free memory that is given away: allocators round up, and what others take changes.
_SHARE = 0.8


def share_gpus(experiment: Experiment, places: Sequence[Place], at_most: int) -> tuple[list[Place], str]:
    """Places on the same GPUs, as many as their memory, the host's cores and the number of runs allow; and a sentence
    with the numbers. Raises `UsageError` where not even one run fits.
    """
    devices = list(dict.fromkeys(place.device for place in places))
    free = {device: capacity.free_memory(device) for device in devices}
    taken, of = _measured(experiment, devices[0])
    fit = {device: runs_that_fit(free[device], taken) for device in devices}
    cores = environment.cores()
    most = {
        "": sum(fit.values()),
        f"{at_most} runs in all": at_most,
        f"{cores} cores": max(cores, len(devices)),
        "the host's memory": needs.most_at_once(experiment),
    }
    count = min(most.values())
    why = next(reason for reason, number in most.items() if number == count)
    order = [device for turn in range(max(fit.values())) for device in devices if turn < fit[device]]
    numbers = ", ".join(f"{fit[device]} on {device} ({format_bytes(free[device])} free)" for device in devices)
    line = f"--trials-per-gpu auto: a run takes {format_bytes(taken)} at most ({of}, measured): {numbers}"
    line += f"; {count} in all, because of {why}" if why else ""
    return [Place(device, max(1, cores // count)) for device in order[:count]], line


def runs_that_fit(free: int, taken: int) -> int:
    """How many runs that take so many bytes are begun in so many free ones; 1 at least.

    >>> runs_that_fit(80_000_000_000, 3_000_000_000), runs_that_fit(10, 100)
    (21, 1)
    """
    return max(1, int(_SHARE * free) // max(taken, 1))


def _measured(experiment: Experiment, device: str) -> tuple[int, str]:
    """Bytes of the GPU that a run takes at its peak, and of which configuration that was measured."""
    weights = experiment.weights
    given: dict[str, Any] = {
        "name": experiment.name,
        "file": experiment.path,
        "data": experiment.recipe,
        "data_dir": str(experiment.data_dir),
        "weights": [weights.folder and str(weights.folder), weights.allow_unverified],
        "device": device,
        "before": capacity.free_memory(device),
    }
    doing = "its memory was measured"
    for message in confined.call(f"{__name__}:perform", given, files=[experiment.path], doing=doing, bounded=False):
        if "taken" in message:
            return int(message["taken"]), str(message["of"])
    raise Failure(f"{experiment.name}: a run could not be measured on {device}; give --trials-per-gpu a number")


def perform(
    send: Any,
    name: str,
    file: str,
    data: dict[str, Any],
    data_dir: str,
    weights: tuple[str | None, bool],
    device: str,
    before: int,
) -> None:
    """The measurement, in the process of its own."""
    send(phase="its memory was measured", limit="unlimited")
    folder, unverified = weights
    policy = WeightsPolicy(Path(folder) if folder else None, allow_unverified=unverified)
    experiment = Experiment(name, Document(file, data), Path(data_dir), policy)
    environment.settle(experiment.file.training.threads)
    most, of = 0, ""
    for plan in demanding(experiment, device):
        title, batch = plan.title, plan.training.batch_size
        try:
            # As long as it takes to make CUDA graphs of them, which keep their memory. Whole blocks are drawn, however
            # few samples are asked for: as many at once as for a score.
            train_first_steps(plan, device, SETTLED).average.generate(SAMPLES, "memory")
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            raise UsageError(
                f"{title}: a run alone is out of memory on {device}; set training.batch_size to less than {batch}"
            ) from None
        taken = before - gpus.free(device) + gpus.released(device)
        gpus.forget(device)
        if taken > most:
            most, of = taken, f"{title}, batch {batch}"
    send(taken=most, of=of)


def demanding(experiment: Experiment, device: str) -> Iterator[Configuration]:
    """The configuration of each system that takes most, by the estimate that is made before any is built."""
    most: dict[str, tuple[int, Configuration]] = {}
    for _, plan in needs.largest_plans(experiment):
        size = 0
        with suppress(*needs.REFUSALS):  # a class of somebody else that needs real samples
            size = needs.cost(plan, MOST, device).of(plan.training.batch_size)
        if plan.system not in most or size > most[plan.system][0]:
            most[plan.system] = (size, plan)
    for _, plan in most.values():
        yield plan
