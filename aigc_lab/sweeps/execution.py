"""How the runs of a sweep are executed: as the command line says, and where it says nothing, as the experiment's
`execution:` says. None of it changes what a sweep is: it goes on with another executor, on other devices.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from aigc_lab import plugins
from aigc_lab.errors import UsageError
from aigc_lab.executors.base import Executor, Place
from aigc_lab.experiment.experiment import Experiment
from aigc_lab.experiment.sections import AUTO, OFF, Execution
from aigc_lab.experiment.validation import validated
from aigc_lab.experiment.yaml_file import KeyPath, dotted, parse
from aigc_lab.host.settings import Settings
from aigc_lab.sweeps.places import assign_places, device_names

PerGpu = int | Literal["auto"] | None
Replicas = int | Literal["auto", "off"] | None


@dataclass(frozen=True)
class Asked:
    """What a command line says of how runs are executed; None where it says nothing. `options` of the executor are
    triples of key, YAML text, and the words to quote in messages.
    """

    executor: str | None = None
    workers: int | None = None
    devices: str | None = None
    trials_per_gpu: PerGpu = None
    options: Sequence[tuple[str, str, str]] = ()
    replicas: Replicas = None

    def check(self) -> None:
        """Raises `UsageError` for an executor that does not exist, before anything is read."""
        find_executor(self.executor)


@dataclass(frozen=True)
class Chosen:
    """How runs are executed: what `choose` returns."""

    #: the name of the executor; None where the number of places decides
    name: str | None = None
    #: its options, checked; None without an executor that has any
    config: Any = None
    devices: str = "auto"
    workers: int | None = None
    trials_per_gpu: PerGpu = None
    #: how messages call `trials_per_gpu`: by the option, or by its place in the file
    per_gpu_key: str = "--trials-per-gpu"
    #: how many alike runs are trained as one program
    replicas: int | Literal["auto", "off"] = OFF
    _kind: type[Executor] | None = field(default=None, repr=False)

    def kind(self, places: int = 1, *, stacks: bool = False) -> type[Executor]:
        """The class of the executor for so many places, by default one that `stacks` where runs are trained as one
        program.
        """
        return self._kind or find_executor(self.name, places, stacks=stacks)

    def places(self, at_most: int) -> list[Place]:
        """The places of a sweep, as `assign_places` gives them; one a GPU where `trials_per_gpu` is to be measured."""
        shared = 1 if self.trials_per_gpu == AUTO else self.trials_per_gpu
        return assign_places(self.devices, self.workers, shared, at_most, per_gpu_key=self.per_gpu_key)

    def executor(
        self,
        experiment: Experiment,
        places: Sequence[Place],
        settings: Settings,
        say: Callable[[str], None],
        *,
        stacks: bool = False,
    ) -> Executor:
        """A new executor. Only one that has options is given them, so that others need not know of any."""
        kind = self.kind(len(places), stacks=stacks)
        options = () if self.config is None else (self.config,)
        return kind(experiment, places, settings, say, *options)


def find_executor(name: str | None, places: int = 1, *, stacks: bool = False) -> type[Executor]:
    """Who does the runs: by the name of an executor that ships or of an installed package (entry point group
    `aigc_lab.executors`), or by the path of a user's file; by default `inline` for one place, else `local`, which also
    `stacks` runs.

    Raises `UsageError` for an unknown one, with the nearest names, and for a file that is missing or defines none.
    """
    chosen = name or ("local" if places > 1 or stacks else "inline")
    return plugins.find(Executor, chosen)  # type: ignore[type-abstract]


def choose(experiment: Experiment, asked: Asked) -> Chosen:
    """What the command line asks for, completed by the experiment's `execution:`. One number of workers replaces the
    other, and the options of another executor are left out. Raises `UsageError` for values that are not possible here,
    and for an executor that cannot work here.
    """
    section, document = experiment.file.execution, experiment.document
    name, kind, config = choose_executor(experiment, asked)
    if kind is not None:
        kind.check_here(config)
    workers, per_gpu, key = asked.workers, asked.trials_per_gpu, "--trials-per-gpu"
    if workers is None and per_gpu is None:
        workers = section.workers
        if asked.devices != "cpu":
            per_gpu = section.trials_per_gpu
            key = f"{document.where(('execution', 'trials_per_gpu'))}: execution.trials_per_gpu"
    return Chosen(
        name=name,
        config=config,
        devices=_devices(experiment, asked, section),
        workers=workers,
        trials_per_gpu=per_gpu,
        per_gpu_key=key,
        replicas=_replicas(experiment, asked, name, kind),
        _kind=kind,
    )


def _replicas(
    experiment: Experiment, asked: Asked, name: str | None, kind: type[Executor] | None
) -> int | Literal["auto", "off"]:
    section = experiment.file.execution.replicas
    chosen = asked.replicas or section or OFF
    if chosen == AUTO and kind is not None and (kind.elsewhere or not kind.stacks):
        return OFF  # what is measured here says nothing about other machines
    if kind is None or kind.stacks or chosen in (OFF, 1):
        return chosen
    message = f"executor {name} trains each run by itself; leave it out, or use --executor local"
    if asked.replicas is None:
        experiment.document.fail(("execution", "replicas"), message)
    raise UsageError(f"--replicas {chosen}: {message}")


def choose_executor(experiment: Experiment, asked: Asked) -> tuple[str | None, type[Executor] | None, Any]:
    """Name and class of the executor, None where the number of places decides; and its checked options, None where it
    has none. Raises `UsageError` for an unknown executor, and for options that it does not have.
    """
    section, name, kind = experiment.file.execution, asked.executor, None
    if name is not None:
        kind = find_executor(name)
    elif section.executor is not None:
        name = section.executor
        kind = experiment.executor(Executor, name)  # type: ignore[type-abstract]
    return name, kind, _options(experiment, kind, name, asked)


def _devices(experiment: Experiment, asked: Asked, section: Execution) -> str:
    if asked.devices is not None or section.devices is None:
        return asked.devices or "auto"
    try:
        device_names(section.devices)
    except UsageError as error:
        experiment.document.fail(("execution", "devices"), str(error).removeprefix("--devices "))
    return section.devices


def _options(experiment: Experiment, kind: type[Executor] | None, name: str | None, asked: Asked) -> Any:
    section = experiment.file.execution
    values = dict(section.options) if asked.executor in (None, section.executor) else {}
    words = {key: option for key, _, option in asked.options}
    values |= {key: parse(text, option) for key, text, option in asked.options}
    if kind is None:
        for option in words.values():
            raise UsageError(f"{option}: is an option of an executor; name it with --executor")
        return None

    def fail(at: KeyPath, message: str) -> NoReturn:
        key = str(at[0]) if at else ""
        if key and key not in values:
            raise UsageError(
                f"executor {name}: {key}: it needs a value; give --executor-option {key}=…, or set "
                f"execution.options.{key}"
            )
        if not kind.Config.model_fields:
            message = f"executor {name} takes no options; leave it out"
        if key in words:
            raise UsageError(f"{words[key]}: {dotted(at)}: {message}")
        experiment.document.fail(("execution", "options", *at), message)

    config = validated(kind.Config, values, fail)
    return config if kind.Config.model_fields else None
