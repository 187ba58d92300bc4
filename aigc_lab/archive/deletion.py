"""Deletion of a sweep, or of one run, from every store: `aigc-lab delete`.

The order keeps every row's file in place as long as the row: a note of the deletion, the rows (in one transaction,
which refuses promoted runs), MLflow, Optuna's study, the files, and the note. A kill before the rows are deleted loses
nothing; after it, the note lets the same command finish.
"""

import json
import shutil
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from sqlalchemy import func, select

from aigc_lab.archive import contents, optuna_study
from aigc_lab.errors import UsageError
from aigc_lab.host import shared_files
from aigc_lab.host.files import locked, write_atomically
from aigc_lab.host.settings import Settings, as_typed
from aigc_lab.registry.find import find_run, find_sweep
from aigc_lab.registry.home import open_registry
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import list_sweeps
from aigc_lab.registry.tables import Promotion, Run
from aigc_lab.sweeps import ownership
from aigc_lab.sweeps.unfinished_deletion import Doomed, unfinished_deletions
from aigc_lab.tracking import address
from aigc_lab.tracking.deletion import remove_experiment, remove_run


def delete(
    reference: str, settings: Settings, say: Callable[[str], None], sure: Callable[[str], bool] | None, *, dry_run: bool
) -> None:
    """Describes what will be deleted and, once it is `sure` (None: nobody can be asked), deletes it.

    Raises `UsageError` for promoted runs, for runs in progress, and without a confirmation.
    """
    with open_registry(settings) as registry, ExitStack() as stack:
        doomed = _find(registry, settings, reference)
        ownership.refuse(registry, settings, doomed.sweep)
        _refuse_promoted(registry, doomed)
        address.check_address(settings.tracking_uri)
        if not dry_run:
            stack.enter_context(contents.exclusive(settings, doomed.sweep, registry))
        say(_described(registry, settings, doomed))
        if dry_run:
            return
        if sure is None:
            raise UsageError(f"nothing was deleted: there is nobody to ask; say --yes to delete {doomed.name}")
        if not sure(f"Delete {doomed.name} for good?"):
            say("nothing was deleted")
            return
        _carry_out(registry, settings, doomed)
    say(f"deleted {doomed.name}")
    if doomed.run is not None:
        again = as_typed(f"aigc-lab sweep {doomed.sweep.rpartition('-')[0]}", settings, settings.home)
        say(f"The sweep stays, and does this run again when it goes on: {again}")


def _find(registry: Registry, settings: Settings, reference: str) -> Doomed:
    """Sweep by id or name, run by id, or the remains of an interrupted deletion of either."""
    notes = [
        note
        for note in unfinished_deletions(settings)
        if reference == note.name or (note.run is None and reference == note.sweep.rpartition("-")[0])
    ]
    if notes and not any(row["sweep"] == reference for row in list_sweeps(registry)):
        return notes[0]  # a name means the newest sweep, and that may be another by now
    try:
        if _is_run(reference):
            run = find_run(registry, reference)
            return Doomed(run.rsplit(".", 2)[0], run)
        return Doomed(find_sweep(registry, reference), None)
    except UsageError:
        if notes:
            return notes[0]
        raise


def _is_run(reference: str) -> bool:
    sweep, *place = reference.rsplit(".", 2)
    return bool(sweep) and len(place) == 2 and all(part.isdecimal() for part in place)


def _refuse_promoted(registry: Registry, doomed: Doomed) -> None:
    """Raises `UsageError` for runs with a promoted model: its record points at them."""
    with registry.read() as connection:
        promotions = connection.execute(
            select(Promotion.c.model, Promotion.c.version, Promotion.c.run_id)
            .join(Run, Run.c.id == Promotion.c.run_id)
            .where(Run.c.sweep_id == doomed.sweep if doomed.run is None else Run.c.id == doomed.run)
            .order_by(Promotion.c.model, Promotion.c.version)
        ).all()
    if promotions:
        listed = ", ".join(f"{model} {version} (run {run})" for model, version, run in promotions[:3])
        more = f" and {len(promotions) - 3} more" if len(promotions) > 3 else ""
        raise UsageError(f"{doomed.name} is not deleted: it is promoted as {listed}{more}")


def _described(registry: Registry, settings: Settings, doomed: Doomed) -> str:
    """Summary such as `points-01234567: 6 runs, 42 files, 1.3 MB, …`. MLflow's files count where
    they lie in the home.
    """
    with registry.read() as connection:
        of = Run.c.sweep_id == doomed.sweep if doomed.run is None else Run.c.id == doomed.run
        runs = connection.scalar(select(func.count()).select_from(Run).where(of)) or 0
    places = contents.folders(settings, doomed.sweep, doomed.run)
    if doomed.run is None:
        places.append(_mlflow_folder(settings, doomed.sweep))
    files = [file.lstat().st_size for place in places for file in _files(place)]
    stores = "the runs in MLflow" if doomed.run else "Optuna's study, the experiment in MLflow"
    size = f"{sum(files) / 1e6:.1f} MB"
    return f"{doomed.name}: {runs} run{'s' * (runs != 1)}, {len(files)} files ({size}), {stores}"


def _files(place: Path) -> Iterable[Path]:
    return (path for path in place.rglob("*") if path.is_symlink() or path.is_file())


# ---- the deletion itself; every step may be repeated


def _carry_out(registry: Registry, settings: Settings, doomed: Doomed) -> None:
    note = _note(settings, doomed)
    write_atomically(note, json.dumps(asdict(doomed)).encode())
    # A promotion copies weights and records it later: between the two it must not lose its run.
    with locked(settings.home / "locks" / "promote.lock"):
        try:
            _refuse_promoted(registry, doomed)
        except UsageError:
            note.unlink()
            raise
        with registry.write() as connection:
            contents.delete_rows(connection, doomed.sweep, doomed.run)
    places = contents.folders(settings, doomed.sweep, doomed.run)
    if doomed.run is None:
        remove_experiment(settings.tracking_uri, doomed.sweep)
        optuna_study.remove(settings.optuna_url, doomed.sweep)
        places.append(_mlflow_folder(settings, doomed.sweep))
    else:
        removed = remove_run(settings.tracking_uri, doomed.sweep, doomed.run)
        places += [_mlflow_folder(settings, doomed.sweep) / contents.component(run, "MLflow run") for run in removed]
    shared = shared_files.of(settings)
    for place in places:
        if shared is not None and place.is_relative_to(settings.home):
            shared.remove(place)
        _remove(place)
    note.unlink()
    if doomed.run is None:
        contents.lock_of(settings, doomed.sweep).unlink(missing_ok=True)


def _mlflow_folder(settings: Settings, sweep: str) -> Path:
    """MLflow's folder for the files of a sweep when it has no server (`MlflowTracker.experiment`)."""
    return settings.artifacts / "mlflow" / contents.component(sweep, "sweep")


def _remove(place: Path) -> None:
    """Deletes a folder with its content; of a link, the link."""
    if place.is_symlink():
        place.unlink()
    elif place.exists():
        shutil.rmtree(place)


# ---- notes of deletions that have begun


def _note(settings: Settings, doomed: Doomed) -> Path:
    return settings.home / "deleting" / f"{contents.component(doomed.name, 'run')}.json"
