"""Who does runs: in this process, in processes of this machine, on other machines."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from aigc_lab.config import Strict
from aigc_lab.experiment.experiment import Experiment
from aigc_lab.host.settings import Settings
from aigc_lab.runs.job import Job, RunOutcome, Watcher
from aigc_lab.runs.resources import Resources


@dataclass(frozen=True)
class Place:
    """A slot for one run at a time: its device, and the number of CPU threads that the run may use."""

    device: str
    threads: int


def _unheard(slots: int) -> None: ...


class Executor(ABC):
    """Does the runs of a checked experiment, one at each of its `places`. A context: leaving it ends whatever it
    started, whatever happened.

    It is made before the stores and the judge are ready, so that what starts slowly may start at once; `say` takes a
    line about what happens. `open` follows, and then `run`. A file of this folder, or a user's, defines one subclass;
    `--executor` names it. Who does the runs changes nothing of what they are: a sweep goes on with another executor.

    An executor with a `Config` of its own has options: `--executor-option key=value`, or `execution.options` of the
    experiment. It is made with them as fifth argument, and they stand in `self.config`.

    >>> from aigc_lab.runs.run import execute
    >>> class Here(Executor):
    ...     def run(self, job: Job, watcher: Watcher) -> RunOutcome:
    ...         return execute([job], self._resources, [watcher])[0]
    ...
    ...     def stop(self) -> None:
    ...         ...  # a signal has reached this process itself
    >>> Here.slots
    1
    """

    #: its options; none unless a subclass says so
    Config: ClassVar[type[Strict]] = Strict
    #: how many runs it can do at once; with more than one, `run` is called from as many threads
    slots: int = 1
    #: whether `slots` may change while runs are done: `run` is then called from threads with one slot, too, and
    #: `changed_slots` takes each new number
    grows: bool = False
    #: whether runs are done on other machines: the cores and the memory of this one say nothing about them
    elsewhere: bool = False
    #: whether several runs can be trained as one program (`Resources.replicas`): `run` is then called from as many
    #: threads as its `slots` say, and `slots` counts them all
    stacks: bool = False
    #: whether it starts who does the runs; without, `aigc-lab worker` has to join the sweep
    starts_workers: bool = True

    def __init__(
        self,
        experiment: Experiment,
        places: Sequence[Place],
        settings: Settings,
        say: Callable[[str], None],
        config: Any = None,
    ) -> None:
        self._experiment, self._places, self._settings, self._say = experiment, places, settings, say
        self.changed_slots: Callable[[int], None] = _unheard
        self.config: Any = self.Config() if config is None else config

    @classmethod  # noqa: B027 -- most can work anywhere
    def check_here(cls, config: Any) -> None:
        """Raises `UsageError` where it cannot work on this machine, or with these options, whatever the experiment: it
        is asked before anything takes time. `config` is None where it has no options.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def open(self, resources: Resources, spool: Path) -> None:
        """Takes what this process shares with its runs, and the folder in which runs spool what MLflow is to show.
        Returns when runs can be done. Raises `UsageError` and `Failure` when they cannot.
        """
        self._resources, self._spool = resources, spool

    @abstractmethod
    def run(self, job: Job, watcher: Watcher) -> RunOutcome:
        """Does a run to its end and has it recorded, whatever ends it: a run that fails of itself has the outcome
        FAILED and a reason. Waits for a free slot.

        Raises `UsageError` and `Failure` for what the next run would meet too, and `KeyboardInterrupt` when `stop` was
        called or the user interrupted it.
        """

    def together(self, jobs: Sequence[Job], watchers: Sequence[Watcher]) -> list[RunOutcome]:
        """Does runs of one shape, trained together where that is possible, and after one another where it is not."""
        return [self.run(job, watcher) for job, watcher in zip(jobs, watchers, strict=True)]

    @abstractmethod
    def stop(self) -> None:
        """Interrupts what is being done: those runs are recorded as KILLED. Harmless when nothing is."""

    def kill(self) -> None:  # noqa: B027 -- who starts nothing has nothing to end
        """Ends at once what it started, and waits for nothing. Nothing was, unless a subclass says so."""
