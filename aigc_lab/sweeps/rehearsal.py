"""An experiment that names a user's files, tried before anything is begun: they are loaded, its systems are built and
train their first steps, all in a process of its own (`confined`). What ships is not tried.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from aigc_lab import plugins
from aigc_lab.data.shared.batches import Batches
from aigc_lab.errors import UsageError
from aigc_lab.experiment.checks import check_data, check_experiment
from aigc_lab.experiment.configuration import Configuration
from aigc_lab.experiment.experiment import Experiment
from aigc_lab.experiment.yaml_file import Document
from aigc_lab.host import confined, environment, names
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.training.loop import train_one
from aigc_lab.training.recorder import Diverged
from aigc_lab.training.state import TrainingState

_STEPS = 2
#: so many samples are drawn after them
SAMPLES = 4


def rehearse(experiment: Experiment, device: str, say: Callable[[str], None]) -> None:
    """Once for each content of the experiment and of its files. Raises `UsageError` for a file that does not return or
    that ends its process, naming its line; what else is wrong with an experiment is said by its own checks.
    """
    own = experiment.own_files
    if not own or not confined.seconds():
        return
    sources = [path.read_bytes() for path in own]
    for path, source in zip(own, sources, strict=True):
        if experiment.allowed is not None:  # what nobody has trusted is not tried either
            experiment.allowed(path, source)
    passed = confined.content_key(sources, experiment.recipe, experiment.protocol.model_dump(mode="json"), device)
    if confined.has_passed(passed):
        return
    say(f"{', '.join(path.name for path in own)}: tried in a process of its own first, once for each content …")
    weights = experiment.weights
    given: dict[str, Any] = {
        "name": experiment.name,
        "file": experiment.path,
        "data": experiment.document.data,
        "data_dir": str(experiment.data_dir),
        "weights": [weights.folder and str(weights.folder), weights.allow_unverified],
        "device": device,
    }
    files, doing = [str(path) for path in own], "it was loaded and built"
    # What a GPU's driver reserves is no memory that is taken.
    task = confined.call(f"{__name__}:perform", given, files=files, doing=doing, bounded=device == "cpu")
    if not any("refused" in message for message in task):
        for name in (passed, *(confined.content_key([source]) for source in sources)):
            confined.remember_pass(name)


def perform(
    send: Any, name: str, file: str, data: dict[str, Any], data_dir: str, weights: tuple[str | None, bool], device: str
) -> None:
    """The rehearsal itself, in the process of its own."""
    folder, unverified = weights
    policy = WeightsPolicy(Path(folder) if folder else None, allow_unverified=unverified)
    experiment = Experiment(name, Document(file, data), Path(data_dir), policy)
    try:
        check_experiment(experiment)
        plugins.refuse_threads(str(experiment.own_files[0]))
        dataset = experiment.dataset
        # What ships may have to be downloaded.
        send(phase="its data were loaded", limit="work" if plugins.source_of(type(dataset)) else "unlimited")
        check_data(experiment)
    except UsageError as error:
        if isinstance(error, plugins.LeftRunning):
            raise
        send(refused=str(error))  # whoever asked says it better: it knows the lines of the experiment's file
        return
    environment.settle(experiment.file.training.threads)
    for system in experiment.systems:
        for plan in _plans(experiment, system):
            send(phase=f"{plan.system} trained its first steps", limit="work")
            state = train_first_steps(plan, device)
            send(phase=f"{plan.system} said what it is", limit="work")
            _refuse_names(plan, state.system.summary())
            send(phase=f"{plan.system} was sampled", limit="work")
            state.average.generate(SAMPLES, "rehearsal")


def _plans(experiment: Experiment, system: str) -> Iterator[Configuration]:
    """What is to be trained for two steps: the system, if it is a user's, and with each user's file that one of its
    keys names.
    """
    values: dict[str, Any] = {"system": system} | experiment.defaults(system)
    keyed = [hole for hole in experiment.holes if hole.path[-1] in plugins.KEYS and hole.kind == "choice"]
    mine = [hole for hole in keyed if dict(hole.given).get("system", system) == system]
    files = [{hole.name: name} for hole in mine for name in hole.labels if plugins.is_file(str(name))]
    for chosen in ({}, *files):
        picked = values | chosen
        plan = experiment.resolve(lambda hole, picked=picked: picked.get(hole.name, hole.ends()[0]))  # type: ignore[misc]
        if plugins.source_of(plan.system_class) is not None or plan.named_files:
            yield plan


def train_first_steps(plan: Configuration, device: str, steps: int = _STEPS) -> TrainingState:
    """A configuration after its first steps. Raises `UsageError` for curves that no store would take."""
    training = plan.training
    state = TrainingState.fresh(
        plan.system_class,
        plan.system_config,
        plan.dataset.shape,
        seed=0,
        batch_size=training.batch_size,
        device=device,
        channels_last=training.channels_last,
        averaged=training.ema > 0,
    )
    batches = Batches(plan.dataset.load("train").to(device), training.batch_size, seed=0)
    with suppress(Diverged):  # that is told when it is a run
        for progress in train_one(
            state,
            batches,
            steps=steps,
            every=steps,
            seed=0,
            decay=training.ema,
            precision=training.precision,
            matmul_precision=training.matmul_precision,
        ):
            _refuse_names(plan, progress.scalars)
    return state


def _refuse_names(plan: Configuration, scalars: Iterable[str]) -> None:
    """Raises `UsageError` for curves that no store would take at the end of a training."""
    try:
        names.refuse_curves((), scalars)
    except ValueError as error:
        raise UsageError(f"{plan.system}: {error}") from None
