"""The session of a sweep: its stores, judge, writer and workers are opened together, and closed on any error."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from aigc_lab import plugins
from aigc_lab.errors import UsageError
from aigc_lab.executors.base import Executor, Place
from aigc_lab.experiment import code_files
from aigc_lab.experiment.experiment import Experiment
from aigc_lab.host import outage, shared_files, signals, trust
from aigc_lab.host.settings import Settings
from aigc_lab.registry.home import open_registry
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import list_sweeps
from aigc_lab.runs.resources import Resources, open_resources
from aigc_lab.sweeps import optuna_storage, ownership, supervision, unfinished_deletion
from aigc_lab.sweeps.execution import Chosen
from aigc_lab.sweeps.reconcile import reconcile
from aigc_lab.tracking import address, writer
from aigc_lab.tracking.spool import SpoolTracker

# So many seconds of an interrupted sweep's last ten belong to MLflow; what it does not take in them waits on the disk.
_FAREWELL = 3.0


@dataclass(frozen=True)
class Opened:
    """An open sweep: its id, the resources its runs share, its executor, and the event after which no run is begun."""

    sweep: str
    resources: Resources
    executor: Executor
    finishing: threading.Event


@contextmanager
def stores(settings: Settings, sweep: str, registry: Registry | None = None) -> Iterator[tuple[Registry, str | None]]:
    """The registry of a command that runs a sweep, open until its end, once the home and all its stores are found
    usable; stores that do not exist are made. A `registry` that is open already is used.

    MLflow must answer before a sweep begins, or a mistyped address would show hours later. A sweep that has begun goes
    on without MLflow, and its runs spool; a sentence about that is returned too. Raises `UsageError` for a home or a
    store that cannot be used.
    """
    shared_files.check(settings)
    settings.prepare()
    note = None
    with ExitStack() as stack:
        # All that exists is looked at before anything is made.
        try:
            address.check_address(settings.tracking_uri)
        except address.Unreachable as error:
            if registry is None:
                with suppress(UsageError):  # there is none; or none that can be used, which is said when it is opened
                    registry = stack.enter_context(open_registry(settings, connected=True))
            if registry is None or all(row["sweep"] != sweep for row in list_sweeps(registry)):
                raise
            note = f"{error}; the sweep goes on, and what it shows waits in {writer.spool_folder(settings, sweep)}"
        optuna_storage.check_storage(settings.optuna_url, create=False)
        if registry is None:
            registry = stack.enter_context(open_registry(settings, create=True, connected=True))
        ownership.refuse(registry, settings, sweep)
        optuna_storage.check_storage(settings.optuna_url)
        yield registry, note


def _trust(experiment: Experiment, settings: Settings, say: Callable[[str], None]) -> None:
    """Trusts the code that the experiment names, which the user named or allowed: later commands run it too."""
    try:
        trust.remember(settings.home, experiment.code)
    except UsageError as error:  # of a home that another user has opened to this one, say
        say(f"{error}; commands that need {', '.join(sorted(experiment.code.values()))} will ask for --trust-code")


def _keep_code(experiment: Experiment, settings: Settings, say: Callable[[str], None]) -> None:
    """Copies the files of code that the experiment names into the sweep's folder, for exports."""
    named = dict(zip(experiment.own_names, experiment.own_files, strict=True))
    copies = code_files.folder(settings, experiment.sweep)
    try:
        code_files.keep(named, copies)
        shared_files.publish(*shared_files.files_below(copies))
    except OSError as error:
        say(f"{copies}: cannot be written ({error.strerror}); an export of this sweep will lack the code that it names")


def _claim(
    experiment: Experiment,
    settings: Settings,
    registry: Registry,
    say: Callable[[str], None],
    command: Literal["sweep", "train"],
) -> None:
    """Records the sweep as one of this home, with the code that it names. Raises `UsageError` for another home's."""
    ownership.refuse(registry, settings, experiment.sweep)
    objective = experiment.file.objective
    registry.sweep(
        experiment.name,
        experiment.digest,
        experiment.document.data,
        objective.score,
        objective.better,
        source=experiment.document.file,
        command=command,
    )
    ownership.claim(registry, settings, experiment.sweep)
    _trust(experiment, settings, say)
    _keep_code(experiment, settings, say)


def _check_slots(executor: Executor, places: int, say: Callable[[str], None]) -> None:
    """Says so where an executor does fewer runs at once than were asked for. Raises `UsageError` for no number."""
    name, slots = plugins.name_of(type(executor)), executor.slots
    if type(slots) is not int or slots < 1:
        raise UsageError(f"executor {name}: its slots are {slots!r:.40}; give how many runs it does at once, 1 or more")
    if slots < places and not executor.grows:
        say(f"executor {name} does {slots} run{'s' * (slots > 1)} at once, and not {places}")


@contextmanager
def opened(
    experiment: Experiment,
    settings: Settings,
    registry: Registry,
    places: Sequence[Place],
    say: Callable[[str], None],
    command: Literal["sweep", "train"] = "sweep",
    *,
    chosen: Chosen | None = None,
    replicas: Mapping[str, int] | None = None,
) -> Iterator[Opened]:
    """Opens the sweep of a checked experiment: locked against others and reconciled, its writer and workers started,
    its judge prepared. At the end everything is delivered to MLflow, or a message says what was not.

    `chosen` says who does the runs, and `replicas` how many of each system as one program; neither is a part of what
    the sweep is: others may go on with it.
    """
    chosen, replicas = chosen or Chosen(), replicas or {}
    sweep = experiment.sweep
    spool, first = writer.spool_folder(settings, sweep), places[0]
    with ExitStack() as stack:
        stack.enter_context(supervision.alone(settings, sweep))
        unfinished_deletion.refuse_unfinished(settings, sweep)
        _claim(experiment, settings, registry, say, command)
        for finding in reconcile(registry, settings, mine=sweep):
            say(str(finding))
        finishing = stack.enter_context(supervision.supervised(registry, sweep))
        registry.withdraw(sweep)  # what a process that died has offered: it is offered again when its turn comes
        tracker = SpoolTracker(spool)
        shipping = writer.Writer(settings, sweep)
        shipping.start()
        try:
            executor = chosen.executor(experiment, places, settings, say, stacks=bool(replicas))
            with executor as work, signals.last_act(work.kill):
                resources = open_resources(
                    experiment, settings, registry, tracker, first.device, say, first.threads, replicas
                )
                work.open(resources, spool)
                _check_slots(work, len(places), say)
                yield Opened(sweep, resources, work, finishing)
        finally:
            note = shipping.finish(_FAREWELL if signals.stop_requested() or outage.given_up() else None)
            if note:
                say(note)
