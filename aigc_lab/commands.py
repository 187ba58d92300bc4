"""What `aigc-lab sweep` and `aigc-lab train` do, from their words to their last line."""

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.text import Text

from aigc_lab import experiment as experiments
from aigc_lab import tables
from aigc_lab.display import SweepDisplay
from aigc_lab.errors import Failure, UsageError
from aigc_lab.experiment import Experiment
from aigc_lab.registry import queries
from aigc_lab.registry.states import State
from aigc_lab.search import total_trials
from aigc_lab.settings import Settings, masked
from aigc_lab.sweeps import check_stores, estimate, open_lab, run_single, run_sweep

Change = tuple[str, str, str]


def sweep(
    wanted: str, changes: list[Change], *, device: str, dry_run: bool, json: bool, home: Path | None
) -> list[dict[str, Any]]:
    """Runs the sweep with progress on standard error, and returns the rows of its comparison.

    The table goes to standard output, or with `json` to standard error too.
    """
    console = tables.console(stderr=True)
    settings, experiment, device = _prepare(wanted, changes, device, home)
    experiment.check_data()
    if not dry_run:
        check_stores(settings)
    cost = estimate(experiment, device, total_trials(experiment))
    console.print(Text(f"{experiment.name}: {cost}"), soft_wrap=True)
    if dry_run:
        return []
    with _terminable(), SweepDisplay(console, experiment.file.training.steps, cost.seconds) as display:
        lab = open_lab(experiment, settings, device, display.say)
        sweep_id = run_sweep(experiment, lab, display)
    with lab.registry as registry:
        comparison = queries.compare(registry, sweep_id)
        runs = queries.runs(registry, sweep_id)
        result = tables.console(stderr=json)
        if not display.ended:
            console.print(f"All {len(runs)} runs were done before; --trials N asks for more.")
        result.print(tables.compare_table(comparison), crop=False)
        for line in _next_steps(queries.best_run(registry, sweep_id), sweep_id, settings, home):
            result.print(Text(line), soft_wrap=True)
    if runs and all(run["state"] == State.FAILED for run in runs):
        raise Failure(f"all {len(runs)} runs of {sweep_id} failed; 'aigc-lab show {runs[0]['run']}' says why")
    return comparison.rows


def train(wanted: str, changes: list[Change], *, seed: int, device: str, home: Path | None) -> dict[str, Any]:
    """Does one run with progress on standard error, and returns what `show` knows of it."""
    console = tables.console(stderr=True)
    settings, experiment, device = _prepare(wanted, changes, device, home)
    if experiment.holes:
        names = ", ".join(hole.name for hole in experiment.holes)
        raise UsageError(
            f"{experiment.document.file}: train takes one configuration, and {names} "
            f"{'is' if len(experiment.holes) == 1 else 'are'} still open; decide with --set, or use aigc-lab sweep"
        )
    experiment.check_data()
    check_stores(settings)
    with _terminable(), SweepDisplay(console, experiment.file.training.steps) as display:
        lab = open_lab(experiment, settings, device, display.say)
        run = run_single(experiment, lab, display, seed)
    with lab.registry as registry:
        row = queries.show(registry, run)
    if not display.ended:
        console.print(f"{run} was done before; --seed N trains another.")
    if row["state"] == State.FAILED:
        raise Failure(f"run {run} failed: {row['reason']}")
    return row


def _prepare(wanted: str, changes: list[Change], device: str, home: Path | None) -> tuple[Settings, Experiment, str]:
    settings = Settings.load(home)
    experiment = experiments.load(wanted, changes, data_dir=settings.data_dir, weights_dir=settings.weights_dir)
    experiment.check()
    return settings, experiment, _device(device)


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(wanted).type
    except RuntimeError:
        raise UsageError(f"--device {wanted}: there is no such device; use cpu, cuda, cuda:0, … or auto") from None
    if kind not in ("cpu", "cuda"):
        raise UsageError(f"--device {wanted}: use cpu, cuda, cuda:0, … or auto")
    if kind == "cuda":
        count = torch.cuda.device_count()
        if (torch.device(wanted).index or 0) >= count:
            raise UsageError(f"--device {wanted}: this machine has {count} CUDA devices; use --device cpu or auto")
    return wanted


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the work as Ctrl-C does: the run is marked KILLED, here and in MLflow."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        print("what has ended is stored; the same command goes on from there", file=sys.stderr)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _next_steps(best: dict[str, Any] | None, sweep_id: str, settings: Settings, home: Path | None) -> list[str]:
    """Commands as they must be typed here: with the home that was named, through uv if this one came through it."""
    run = "uv run " if "UV_RUN_RECURSION_DEPTH" in os.environ else ""
    option = f" --home {shlex.quote(str(home))}" if home and Settings.load().home != settings.home else ""
    lines = [f"Samples of the best run: {_short(best['samples'])}"] if best else []
    lines += ["Next:"]
    lines += [f"  {run}aigc-lab show {best['run']}{option}"] if best else []
    lines += [f"  {run}aigc-lab compare {sweep_id}{option}"]
    if settings.tracking_uri.startswith("http"):
        return [*lines, f"  open {masked(settings.tracking_uri)} (experiment {sweep_id})"]
    return [*lines, f"  {run}mlflow ui --backend-store-uri {shlex.quote(masked(settings.tracking_uri))}"]


def _short(path: str) -> str:
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else path
