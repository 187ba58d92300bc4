"""`aigc-lab reconcile --mlflow`: sends MLflow again what it lost or never got, from the registry and the home's files.

What MLflow has stays. An interrupted command can be repeated at any point. The times of points cannot be restored, nor
scalars that the registry does not keep (samples per second).
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

from aigc_lab.archive import contents
from aigc_lab.archive.mlflow_comparison import DigestCache, RunComparison
from aigc_lab.archive.mlflow_replay import Projection, projections
from aigc_lab.display.beside_likelihood import run_tags
from aigc_lab.errors import Failure, UsageError
from aigc_lab.host import run_folders
from aigc_lab.host.settings import Settings
from aigc_lab.registry import audit
from aigc_lab.registry.find import find_sweep
from aigc_lab.registry.models import list_models
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import list_sweeps
from aigc_lab.serving import restoration
from aigc_lab.sweeps import ownership
from aigc_lab.sweeps.reconcile import Finding
from aigc_lab.sweeps.supervision import alone, refuse_supervised
from aigc_lab.tracking import backlog, writer
from aigc_lab.tracking.mlflow import MlflowTracker, RunSnapshot
from aigc_lab.tracking.mlflow_store import store_exists
from aigc_lab.tracking.view import keep_view

_MARK = {"rebuilt": "true"}


def rebuild(
    registry: Registry,
    settings: Settings,
    sweep: str | None = None,
    *,
    dry_run: bool = False,
    deep: bool = False,
    report: Callable[[str], object] = lambda doing: None,
) -> Iterator[Finding]:
    """Restores what MLflow lacks of one sweep, or of all, and then of the models that were promoted of them; yields
    each finding when it is done. With `dry_run` nothing is changed; with `deep`, files that MLflow keeps on another
    machine are fetched and read, not only measured. `report` is called with the current activity.

    Raises `UsageError` for a home that was moved or copied, and for a named sweep that is being run or belongs to
    another home; `Failure` where MLflow does not take everything: the same command goes on.
    """
    ownership.check_home(registry, settings)
    names = [find_sweep(registry, sweep)] if sweep else [row["sweep"] for row in list_sweeps(registry)]
    for each in names:
        with ExitStack() as stack:
            try:
                ownership.refuse_foreign(registry, settings, each)
                stack.enter_context(alone(settings, each))
                refuse_supervised(registry, each)
            except UsageError as error:
                if sweep:
                    raise
                yield Finding(each, None, f"{error}: it is left alone")
                continue
            yield from _Sweep(registry, settings, each, dry_run, report, deep=deep).rebuild()


class _Sweep:
    """A sweep that nobody runs, held by this process."""

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        sweep: str,
        dry_run: bool,
        report: Callable[[str], object],
        *,
        deep: bool,
    ) -> None:
        self._registry, self._settings, self._sweep = registry, settings, sweep
        self._dry_run, self._report, self._deep = dry_run, report, deep
        self._tracker = MlflowTracker(settings.tracking_uri, settings.artifacts)

    def rebuild(self) -> Iterator[Finding]:
        waits = backlog.sweep_backlog(writer.spool_folder(self._settings, self._sweep)).records
        if self._dry_run:
            if waits:
                yield Finding(self._sweep, None, f"{waits} records wait for MLflow; they are delivered first")
            yield from self._runs()
            yield from self._models()
            return
        try:
            with writer.shipping(self._settings, self._sweep, wait=False, registry=self._registry) as shipper:
                if not store_exists(self._settings.tracking_uri) or waits:
                    left, reason, _ = writer.attempt(shipper)
                    if left:
                        raise Failure(f"{self._sweep}: what waits for MLflow is not delivered: {reason}")
                if waits:
                    yield Finding(self._sweep, None, f"{waits} records waited for MLflow; it has them now")
                self._tracker.restore(self._sweep)
                yield from self._runs()
                yield from self._models()
        except BlockingIOError:
            raise UsageError(f"{self._sweep} is being delivered to MLflow by another process; wait for it") from None

    def _runs(self) -> Iterator[Finding]:
        ended = {run.run: run for run in audit.results(self._registry, self._sweep) if run.state.ended}
        if not ended:
            return
        chains = {name: run.chain for name, run in ended.items()}
        rows, tags = contents.rows(self._registry, self._sweep), run_tags(self._registry, self._sweep)
        run_folders.fetch_results(self._settings, self._sweep)
        score = f"score/{rows['sweep'][0]['objective']}"
        comparison = RunComparison(self._tracker, DigestCache(), deep=self._deep)
        shown = self._tracker.runs_by_key(self._sweep) if store_exists(self._settings.tracking_uri) else {}
        experiment = None if self._dry_run else self._tracker.experiment(self._sweep)
        for number, projection in enumerate(projections(self._settings, rows, chains, tags), 1):
            self._report(f"{self._sweep}: run {number} of {len(ended)}")
            if projection.run not in ended:
                continue
            here = shown.get(projection.key, [])
            compared = comparison.of(ended[projection.run], projection, here, score)
            if not compared.differs:
                yield from self._tags(projection, here[0])
                continue
            if compared.many or compared.gaps is None:
                yield Finding(
                    self._sweep, projection.run, f"{compared.differs[0]}: delete the others in MLflow's pages"
                )
                continue
            gone = sorted(place for place in compared.gaps.files if not projection.has_file(place))
            if experiment is not None:
                lacks = compared.gaps
                if here:
                    lacks = lacks.with_history(self._tracker.steps(here[0]), self._tracker.ends(here[0], lacks.values))
                left, run = projection.show(self._tracker, experiment, _MARK, lacks)
                if left:
                    raise Failure(
                        f"{projection.run}: MLflow did not take {left} pieces of it; the same command goes on"
                    )
                self._registry.set_mlflow_run(projection.run, run)
            lost = f"; but not {gone[0]}, which is missing or damaged here too" if gone else ""
            said = f"{'; '.join(compared.differs)}: {self._done}{lost}"
            yield Finding(self._sweep, projection.run, said, lost=bool(gone))
        if experiment is not None:
            self._registry.set_mlflow_experiment(self._sweep, experiment)
            keep_view(self._tracker, self._registry, self._sweep, experiment)

    def _tags(self, projection: Projection, snapshot: RunSnapshot) -> Iterator[Finding]:
        """Tags that a run of an earlier version lacks in MLflow, where nothing else is amiss."""
        lacking = projection.lacking_tags(snapshot.tags)
        if lacking:
            if not self._dry_run:
                self._tracker.amend(snapshot.run_id, lacking)
            names = f"tag{'s' * (len(lacking) > 1)} {', '.join(sorted(lacking))}"
            yield Finding(self._sweep, projection.run, f"MLflow lacks its {names}: {self._done}")

    def _models(self) -> Iterator[Finding]:
        rows = [row for row in list_models(self._registry) if row["sweep"] == self._sweep]
        if not rows or not store_exists(self._settings.tracking_uri):
            return
        for row, lacks in restoration.missing_versions(rows, self._settings):
            name = f"{row['model']} {row['version']}"
            self._report(f"model {name}")
            try:
                if not self._dry_run:
                    restoration.restore(self._registry, row, self._settings)
                yield Finding(self._sweep, row["run"], f"model {name}: MLflow lacks {lacks}: {self._done}")
            except (UsageError, Failure) as error:
                yield Finding(
                    self._sweep, row["run"], f"model {name}: MLflow lacks {lacks}, and still does: {error}", lost=True
                )

        for row in restoration.describe(rows, self._settings, dry_run=self._dry_run):
            name = f"{row['model']} {row['version']}"
            yield Finding(self._sweep, row["run"], f"model {name}: MLflow lacks its description: {self._done}")

    @property
    def _done(self) -> str:
        return "it would be shown again" if self._dry_run else "shown again"
