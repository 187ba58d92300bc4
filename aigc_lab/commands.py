"""What `aigc-lab sweep` and `aigc-lab train` do, from their words to their last line."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.text import Text

from aigc_lab import content, environment, tables
from aigc_lab import experiment as experiments
from aigc_lab.display import SweepDisplay
from aigc_lab.errors import Failure, UsageError
from aigc_lab.estimate import estimate
from aigc_lab.executors.base import Place
from aigc_lab.experiment import Experiment, Source
from aigc_lab.opening import check_stores, opened
from aigc_lab.registry import queries
from aigc_lab.registry.states import State
from aigc_lab.registry.store import Registry
from aigc_lab.search import most_runs
from aigc_lab.settings import Settings, as_typed, masked
from aigc_lab.sweeps import run_single, run_sweep

Change = tuple[str, str, str]


def sweep(
    wanted: Source,
    changes: list[Change],
    *,
    device: str = "auto",
    workers: int | None = None,
    trials_per_gpu: int | None = None,
    dry_run: bool = False,
    table: bool = True,
    json: bool = False,
    home: Path | None = None,
) -> list[dict[str, Any]]:
    """Runs the sweep with progress on standard error, and returns the rows of its comparison.

    The `table` goes to standard output, or with `json` to standard error too.
    """
    console = tables.console(stderr=True)
    _devices(device)
    settings, experiment = _prepare(wanted, changes, home)
    places = _places(device, workers, trials_per_gpu, at_most=most_runs(experiment))
    for note in experiment.check_data():
        console.print(Text(note), soft_wrap=True)
    if not dry_run:
        check_stores(settings)
    cost = estimate(experiment, places)
    named: dict[content.Folder, Source] = {"experiments": wanted, "evaluation": experiment.protocol.name}
    for folder, name in named.items():
        if isinstance(name, str) and name in content.names(folder) and (origin := content.origin(folder, name)):
            console.print(Text(f"{name}: {origin}"), soft_wrap=True)
    console.print(Text(f"{experiment.name}: {cost}"), soft_wrap=True)
    if len(places) > 1:
        console.print(Text(_shared(places, experiment)), soft_wrap=True)
    if dry_run:
        return []
    display = SweepDisplay(console, experiment.file.training.steps, cost.seconds, len(places))
    with _terminable(), display, opened(experiment, settings, places, display.say) as opening:
        run_sweep(experiment, opening, display)
    with Registry.open(settings.registry_url, home=settings.home) as registry:
        comparison = queries.compare(registry, opening.sweep)
        runs = queries.runs(registry, opening.sweep)
        result = tables.console(stderr=json)
        if not display.ended:
            console.print(f"All {len(runs)} runs were done before; --trials N asks for more.")
        if table:
            result.print(tables.compare_table(comparison), crop=False)
            for line in _next_steps(queries.best_run(registry, opening.sweep), opening.sweep, settings, home):
                result.print(Text(line), soft_wrap=True)
    if runs and all(run["state"] == State.FAILED for run in runs):
        raise Failure(f"all {len(runs)} runs of {opening.sweep} failed; 'aigc-lab show {runs[0]['run']}' says why")
    return comparison.rows


def train(
    wanted: Source, changes: list[Change], *, seed: int = 0, device: str = "auto", home: Path | None = None
) -> dict[str, Any]:
    """Does one run with progress on standard error, and returns what `show` knows of it."""
    console = tables.console(stderr=True)
    places = _places(device, 1, None)
    settings, experiment = _prepare(wanted, changes, home)
    if experiment.holes:
        names = ", ".join(hole.name for hole in experiment.holes)
        raise UsageError(
            f"{experiment.document.file}: train takes one configuration, and {names} "
            f"{'is' if len(experiment.holes) == 1 else 'are'} still open; decide with --set, or use aigc-lab sweep"
        )
    for note in experiment.check_data():
        console.print(Text(note), soft_wrap=True)
    check_stores(settings)
    display = SweepDisplay(console, experiment.file.training.steps)
    with _terminable(), display, opened(experiment, settings, places, display.say) as opening:
        run = run_single(experiment, opening, display, seed)
    with Registry.open(settings.registry_url, home=settings.home) as registry:
        row = queries.show(registry, run)
    if not display.ended:
        console.print(f"{run} was done before; --seed N trains another.")
    if row["state"] == State.FAILED:
        raise Failure(f"run {run} failed: {row['reason']}")
    return row


def _prepare(wanted: Source, changes: list[Change], home: Path | None) -> tuple[Settings, Experiment]:
    settings = Settings.load(home)
    experiment = experiments.load(wanted, changes, data_dir=settings.data_dir, weights_dir=settings.weights_dir)
    experiment.check()
    return settings, experiment


def _places(device: str, workers: int | None, trials_per_gpu: int | None, at_most: int | None = None) -> list[Place]:
    """Where runs are done, one place a worker: so many a GPU, or shares of the CPU's cores."""
    devices = _devices(device)
    on_gpus = devices[0].startswith("cuda")
    if trials_per_gpu is not None and not on_gpus:
        raise UsageError("--trials-per-gpu needs CUDA devices, and there is none here; use --workers N on a CPU")
    if trials_per_gpu is not None and workers is not None:
        raise UsageError("--workers and --trials-per-gpu say the same in two ways; give one of them")
    count = workers or (len(devices) * (trials_per_gpu or 1) if on_gpus else 1)
    count = min(count, at_most or count)
    threads = max(1, environment.cores() // count)
    return [Place(devices[index % len(devices)], threads) for index in range(count)]


def _shared(places: list[Place], experiment: Experiment) -> str:
    threads = places[0].threads
    wanted = experiment.file.training.threads or threads
    names = ", ".join(dict.fromkeys(place.device for place in places))
    text = f"{len(places)} workers on {names}, {min(threads, wanted)} CPU thread{'s' * (min(threads, wanted) > 1)} each"
    if len(places) > environment.cores():
        text += f", which share {environment.cores()} cores"
    if wanted > threads:
        text += f" (training.threads asks for {wanted}: the same seed gives other bits than alone)"
    return text


def _devices(wanted: str) -> list[str]:
    """The devices of `--devices`: `auto` is every CUDA device, or the CPU."""
    if wanted == "auto":
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"]
    devices = list(dict.fromkeys(environment.device(name.strip(), "--devices") for name in wanted.split(",")))
    if "cpu" in devices and len(devices) > 1:
        raise UsageError(f"--devices {wanted}: name the CPU, or GPUs, and not both")
    return devices


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the work as Ctrl-C does: the run is marked KILLED, here and in MLflow."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # called from somebody's own thread, whose process decides about its signals
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        print("what has ended is stored; the same command goes on from there", file=sys.stderr)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _next_steps(best: dict[str, Any] | None, sweep_id: str, settings: Settings, home: Path | None) -> list[str]:
    """What there is to look at, and the commands that go on from here."""
    lines = [f"Samples of the best run: {_short(best['samples'])}"] if best and best["samples"] else []
    lines += ["Next:"]
    commands = [f"show {best['run']}"] if best else []
    commands += [f"compare {sweep_id}"] + ([f"promote {sweep_id}"] if best else [])
    lines += [f"  {as_typed(f'aigc-lab {command}', settings, home)}" for command in commands]
    if settings.tracking_uri.startswith("http"):
        return [*lines, f"  open {masked(settings.tracking_uri)} (experiment {sweep_id})"]
    return [*lines, "  " + as_typed("aigc-lab ui", settings, home)]


def _short(path: str) -> str:
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else path
