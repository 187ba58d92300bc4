"""Opening a sweep: the stores, the judge, the writer and the workers, and closing them whatever happened."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

from aigc_lab import interruption, outage, ownership, search, supervision, trust
from aigc_lab.archive import deletion
from aigc_lab.errors import UsageError
from aigc_lab.executors.base import Executor, Place
from aigc_lab.executors.inline import Inline
from aigc_lab.executors.local import Local
from aigc_lab.experiment import Experiment
from aigc_lab.lab import Lab, open_lab
from aigc_lab.reconciling import reconcile
from aigc_lab.registry import queries
from aigc_lab.registry.store import Registry
from aigc_lab.settings import Settings
from aigc_lab.tracking import address, writer
from aigc_lab.tracking.spool import SpoolTracker

# So many seconds of an interrupted sweep's last ten belong to MLflow; what it does not take in them waits on the disk.
_FAREWELL = 3.0


@dataclass(frozen=True)
class Opened:
    """A sweep that can be run: its id, what this process shares with its runs, who does them, and whether somebody has
    asked that no further run be begun.
    """

    sweep: str
    lab: Lab
    executor: Executor
    finishing: threading.Event


def check_stores(settings: Settings, sweep: str) -> str | None:
    """Raises `UsageError` for a home or a store that cannot be used; makes them where there are none.

    MLflow's address must answer before a sweep begins, or a typo would show hours later. One that has begun goes on
    without it, and what is to be said of that is returned: its runs spool what they show.
    """
    settings.prepare()
    note = None
    # All that exists is looked at before anything is made.
    try:
        address.check(settings.tracking_uri)
    except address.Unreachable as error:
        if not _has_begun(settings, sweep):
            raise
        note = f"{error}; the sweep goes on, and what it shows waits in {writer.spool_folder(settings, sweep)}"
    search.check(settings.optuna_url, create=False)
    with Registry.open(settings.registry_url, home=settings.home) as registry:
        ownership.refuse(registry, settings, sweep)
    search.check(settings.optuna_url)
    return note


def _has_begun(settings: Settings, sweep: str) -> bool:
    try:
        with Registry.open(settings.registry_url, home=settings.home, create=False) as registry:
            return any(row["sweep"] == sweep for row in queries.sweeps(registry))
    except UsageError:  # there is no registry, or none that could know it
        return False


def _trust(experiment: Experiment, settings: Settings, say: Callable[[str], None]) -> None:
    """The code that it names has been named by the user, or was allowed: later commands of this home run it too."""
    try:
        trust.remember(settings.home, experiment.code)
    except UsageError as error:  # of a home that another user has opened to this one, say
        say(f"{error}; commands that need {', '.join(sorted(experiment.code.values()))} will ask for --trust-code")


@contextmanager
def opened(
    experiment: Experiment,
    settings: Settings,
    places: Sequence[Place],
    say: Callable[[str], None],
    command: Literal["sweep", "train"] = "sweep",
) -> Iterator[Opened]:
    """A checked experiment's sweep, ready to run: nobody else works on it, what was lost has been reconciled, its
    writer and its workers have started and the judge is prepared. At the end all that the runs showed has been
    delivered to MLflow, or it is said what was not.
    """
    objective = experiment.file.objective
    sweep = experiment.sweep
    spool, first = writer.spool_folder(settings, sweep), places[0]
    with ExitStack() as stack:
        stack.enter_context(supervision.alone(settings, sweep))
        deletion.refuse_unfinished(settings, sweep)
        registry = stack.enter_context(Registry.open(settings.registry_url, home=settings.home))
        ownership.refuse(registry, settings, sweep)
        registry.sweep(
            experiment.name,
            experiment.digest,
            experiment.document.data,
            objective.score,
            objective.better,
            source=experiment.document.file,
            command=command,
        )
        ownership.claim(registry, settings, sweep)
        _trust(experiment, settings, say)
        for finding in reconcile(registry, settings, mine=sweep):
            say(str(finding))
        finishing = stack.enter_context(supervision.supervised(registry, sweep))
        tracker = SpoolTracker(spool)
        shipping = writer.Writer(settings, sweep)
        shipping.start()
        try:
            if len(places) > 1:
                workers = stack.enter_context(Local(experiment, list(places), settings.home, say))
                stack.enter_context(interruption.last_act(workers.kill))
            lab = open_lab(experiment, settings, tracker, first.device, say, first.threads)
            stack.enter_context(lab.registry)
            executor: Executor = Inline(lab)
            if len(places) > 1:
                workers.open(lab, spool)
                executor = workers
            with executor:
                yield Opened(sweep, lab, executor, finishing)
        finally:
            told = shipping.finish(_FAREWELL if interruption.wanted() or outage.given_up() else None)
            if told:
                say(told)
