"""`aigc-lab report`: the page of a sweep with real samples of its dataset."""

from pathlib import Path

from aigc_lab.errors import UsageError
from aigc_lab.host.settings import Settings, nameable
from aigc_lab.registry.runs import list_runs
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import show_sweep
from aigc_lab.web.real_samples import real_samples
from aigc_lab.web.report import Report, render_report


def sweep_report(registry: Registry, sweep: str, settings: Settings, *, trials: int, real: bool) -> Report:
    """The report of a sweep, with pictures and curves of its first `trials`, and with real samples beside them if
    `real`. Raises `UsageError` for an unknown sweep.
    """
    row = show_sweep(registry, sweep)
    shown = None
    if real and trials:
        signatures = {score["signature"] for run in list_runs(registry, row["id"]) for score in run["scores"]}
        shown = real_samples(row, signatures, settings)
    return render_report(registry, row["id"], detailed=trials, real=shown)


def refuse_folder(folder: Path) -> None:
    """Raises `UsageError` for a folder of `--files` that is not new: nothing of a user's is replaced."""
    nameable(folder, "--files")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--files {folder}: it is a file; name a new folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"--files {folder}: there are files in it already; name a new folder")
    if not folder.absolute().parent.is_dir():
        raise UsageError(f"--files {folder}: there is no folder {folder.parent}; create it or name another")
