"""`aigc-lab sweep`, `train` and `resume`: from the options to the last line that is printed."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from aigc_lab.commands.beside_likelihood import tag_runs
from aigc_lab.commands.explain import explained
from aigc_lab.display import ranking, terminal
from aigc_lab.display.beside_likelihood import add_contests
from aigc_lab.display.progress import SweepDisplay
from aigc_lab.display.selection import passed_over_lines
from aigc_lab.display.terminal import Text
from aigc_lab.errors import Failure, UsageError
from aigc_lab.executors.base import Place
from aigc_lab.experiment.checks import check_data, check_experiment
from aigc_lab.experiment.experiment import Experiment, Source, load_experiment
from aigc_lab.experiment.sections import AUTO
from aigc_lab.experiment.stored import stored_experiment
from aigc_lab.host import content, outage, shared_files, signals
from aigc_lab.host.outage import StoreAway
from aigc_lab.host.settings import Settings, as_typed, masked
from aigc_lab.registry.best import best_run
from aigc_lab.registry.comparison import compare_trials
from aigc_lab.registry.home import open_registry
from aigc_lab.registry.run_lifecycle import RESULTS
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import run_outcomes, show_sweep
from aigc_lab.sweeps import needs, supervision
from aigc_lab.sweeps.budget import describe_confirmation, most_runs
from aigc_lab.sweeps.estimate import Estimate, estimate
from aigc_lab.sweeps.execution import Asked, Chosen, PerGpu, Replicas, choose
from aigc_lab.sweeps.feature_choice import chosen_features
from aigc_lab.sweeps.fitting import fitted
from aigc_lab.sweeps.gpu_sharing import share_gpus
from aigc_lab.sweeps.places import (
    assign_places,
    choose_places,
    describe_places,
    describe_threads,
    device_names,
    places_of_parts,
)
from aigc_lab.sweeps.rehearsal import rehearse
from aigc_lab.sweeps.scheduler import run_seeds, run_sweep
from aigc_lab.sweeps.session import opened, stores
from aigc_lab.sweeps.stacking import Stacks, choose_stacks
from aigc_lab.sweeps.steering import check_steering, search_notes
from aigc_lab.sweeps.thread_choice import threaded

Change = tuple[str, str, str]


def sweep_experiment(
    source: Source,
    changes: list[Change],
    *,
    device: str | None = None,
    workers: int | None = None,
    trials_per_gpu: PerGpu = None,
    retry_failed: bool = False,
    dry_run: bool = False,
    table: bool = True,
    json: bool = False,
    home: Path | None = None,
    executor: str | None = None,
    options: Sequence[Change] = (),
    replicas: Replicas = None,
) -> list[dict[str, Any]]:
    """Runs the sweep with progress on standard error, and returns the rows of its comparison.

    The `table` goes to standard output, or with `json` to standard error too. `executor` is as
    `sweeps.execution.find_executor` takes it, with its `options`.
    """
    console = terminal.console(stderr=True)
    asked = Asked(executor, workers, device, trials_per_gpu, options, replicas)
    settings, experiment, chosen = _prepare(source, changes, asked, home)
    named: dict[content.Folder, Source] = {"experiments": source, "evaluation": experiment.protocol.name}
    for folder, name in named.items():
        if isinstance(name, str) and name in content.names(folder) and (origin := content.origin(folder, name)):
            console.print(Text(f"{name}: {origin}"), soft_wrap=True)
    return _sweep(
        experiment,
        settings,
        chosen,
        retry_failed=retry_failed,
        dry_run=dry_run,
        table=table,
        json=json,
        home=home,
    )


def _sweep(
    experiment: Experiment,
    settings: Settings,
    chosen: Chosen,
    *,
    retry_failed: bool = False,
    dry_run: bool = False,
    table: bool = True,
    json: bool = False,
    home: Path | None = None,
    registry: Registry | None = None,
) -> list[dict[str, Any]]:
    """The sweep of a checked experiment; `registry` is the home's, where it is open already."""
    console = terminal.console(stderr=True)
    said = chosen.workers is not None or chosen.trials_per_gpu is not None
    places = places_of_parts(experiment, chosen.places(most_runs(experiment)), chosen=said)
    needs.check_memory(experiment, places[:1] if chosen.kind(len(places)).elsewhere else places)
    console.print(Text(f"reading {experiment.document.data['data']['name']} …"), soft_wrap=True)
    for note in [*check_data(experiment), *search_notes(experiment)]:
        console.print(Text(note), soft_wrap=True)
    if chosen.trials_per_gpu == AUTO:
        console.print(Text(f"measuring what a run takes of {places[0].device} …"), soft_wrap=True)
        places, line = share_gpus(experiment, places, most_runs(experiment))
        console.print(Text(line), soft_wrap=True)
    chooses = chosen.workers is None and places[0].device == "cpu" and chosen.name in (None, "local")
    if dry_run:
        _announced(experiment, places, console, chooses, chosen, settings.cache)
        return []
    with _stores(experiment, settings, console, registry) as registry:
        cost, places, stacks = _announced(experiment, places, console, chooses, chosen, settings.cache)
        # A stack goes on by the clock like one run, and its runs share what it costs.
        display = SweepDisplay(console, experiment.file.training.steps, cost.seconds, cost.workers * stacks.most)
        started = opened(experiment, settings, registry, places, display.say, chosen=chosen, replicas=stacks.replicas)
        with _interruptible(experiment, display, settings, home), started as opening:
            # Some executors know only now what is free on other machines; what grows is not there yet.
            shared = cost.shared(opening.executor.slots)
            if shared.workers != cost.workers and not opening.executor.grows:
                display.say(f"{experiment.name}: {shared}")
                display.share(shared.workers)
            run_sweep(experiment, opening, display, retry_failed=retry_failed)
        comparison = compare_trials(registry, opening.sweep)
        runs, best = list_runs(registry, opening.sweep), best_run(registry, opening.sweep)
        explanation = explained(registry, comparison, settings, home)
        add_contests(registry, comparison)
        tag_runs(registry, settings, opening.sweep, lambda text: console.print(Text(text), soft_wrap=True))
    result = terminal.console(stderr=json)
    if opening.finishing.is_set():
        again = as_typed(f"aigc-lab resume {opening.sweep}", settings, home)
        console.print(Text(f"Stopped as asked, with nothing under way; {again} goes on."), soft_wrap=True)
    elif not display.ended:
        console.print(f"All {len(runs)} runs were done before; --trials N asks for more.")
    if table:
        result.print(ranking.comparison_page(comparison, explanation), crop=False)
        for line in _next_steps(best, opening.sweep, settings, home):
            if line.strip() != explanation.command:
                result.print(Text(line), soft_wrap=not line.startswith("!"))  # what is copied is not broken
    if runs and all(run["state"] == RunState.FAILED for run in runs):
        raise Failure(f"all {len(runs)} runs of {opening.sweep} failed; 'aigc-lab show {runs[0]['run']}' says why")
    return comparison.rows


def _announced(
    experiment: Experiment,
    places: list[Place],
    console: Console,
    chooses: bool,
    chosen: Chosen,
    cache: Path,
) -> tuple[Estimate, list[Place], Stacks]:
    """Prints what the sweep will cost, which runs are trained as one program and how its places share the machine;
    returns the estimate, the places, which it `chooses` if the user has not, and the stacks. An executor may say that
    it does more runs at once than there are places here.
    """
    kind = chosen.kind(len(places))
    # Before the timing, which takes long where they are many.
    for held in needs.described_rollouts(experiment, places[:1] if kind.elsewhere else places):
        console.print(Text(held), soft_wrap=True)
    console.print("timing a few steps of each system …")
    line = None
    if kind.starts_workers and not kind.elsewhere:  # others take the threads that they have
        places, line = threaded(experiment, places, cache, chooses=chooses)
    if line is not None:
        console.print(Text(line), soft_wrap=True)
    together = -(-most_runs(experiment) // len(places))
    stacks = choose_stacks(experiment, places, chosen.replicas, together, cache)
    for sentence in stacks.lines:
        console.print(Text(sentence), soft_wrap=True)
    cost, why = estimate(experiment, places, stacks.gains), ""
    signals.raise_if_interrupted()
    if chooses:
        places, why = choose_places(experiment, cost.seconds, places[0].threads if line else None)
        cost, stacks = cost.shared(len(places)), stacks.capped(-(-most_runs(experiment) // len(places)))
    slots = kind.slots
    if isinstance(slots, int) and slots > len(places):
        cost = cost.shared(slots)
    console.print(Text(f"{experiment.name}: {cost}"), soft_wrap=True)
    if confirmation := describe_confirmation(experiment):
        console.print(Text(confirmation), soft_wrap=True)
    if (len(places) > 1 or why) and not kind.elsewhere:
        console.print(Text(describe_places(places, experiment, why)), soft_wrap=True)
    if line := describe_threads(experiment):
        console.print(Text(line), soft_wrap=True)
    return cost, places, stacks


def train_experiment(source: Source, changes: list[Change], *, seed: int = 0, **options: Any) -> dict[str, Any]:
    """Trains one run, as `train_seeds` trains several; returns the row that `aigc-lab show` prints of it."""
    return train_seeds(source, changes, seeds=[seed], **options)[0]


def train_seeds(
    source: Source,
    changes: list[Change],
    *,
    seeds: Sequence[int],
    device: str | None = None,
    retry_failed: bool = False,
    home: Path | None = None,
    executor: str | None = None,
    options: Sequence[Change] = (),
) -> list[dict[str, Any]]:
    """Trains one configuration with several seeds together, with progress on standard error; returns the row of each
    run that `aigc-lab show` prints. Raises `Failure` when one of the runs failed.
    """
    settings, experiment, chosen = _prepare(source, changes, Asked(executor, None, device, None, options), home)
    if experiment.holes:
        names = ", ".join(hole.name for hole in experiment.holes)
        raise UsageError(
            f"{experiment.document.file}: train takes one configuration, and {names} "
            f"{'is' if len(experiment.holes) == 1 else 'are'} still open; decide with --set, or use aigc-lab sweep"
        )
    return _train(experiment, settings, seeds, chosen, retry_failed, home)


def _train(
    experiment: Experiment,
    settings: Settings,
    seeds: Sequence[int],
    chosen: Chosen,
    retry_failed: bool,
    home: Path | None,
    registry: Registry | None = None,
) -> list[dict[str, Any]]:
    """Runs of a checked experiment without holes; `registry` is the home's, where it is open already."""
    console = terminal.console(stderr=True)
    places = places_of_parts(experiment, assign_places(chosen.devices, 1, None), chosen=False)
    places, line = threaded(experiment, places, settings.cache, chooses=False)
    if line is not None:
        console.print(Text(line), soft_wrap=True)
    needs.check_memory(experiment, places, together=len(set(seeds)) if experiment.file.training.stacked else 1)
    for note in check_data(experiment):
        console.print(Text(note), soft_wrap=True)
    for held in needs.described_rollouts(experiment, places):
        console.print(Text(held), soft_wrap=True)
    if line := describe_threads(experiment):
        console.print(Text(line), soft_wrap=True)
    display = SweepDisplay(console, experiment.file.training.steps)
    with _stores(experiment, settings, console, registry) as registry:
        with (
            _interruptible(experiment, display, settings, home),
            opened(experiment, settings, registry, places, display.say, "train", chosen=chosen) as opening,
        ):
            runs = run_seeds(experiment, opening, display, list(dict.fromkeys(seeds)), retry_failed=retry_failed)
        rows = [show_run(registry, run) for run in runs]
    if not display.ended and all(row["state"] in RESULTS for row in rows):
        was = f"{runs[0]} was" if len(runs) == 1 else f"{len(runs)} runs were"
        console.print(f"{was} done before; --seed N trains another.")
    for row in rows:
        if row["state"] == RunState.FAILED:
            raise Failure(f"run {row['run']} failed: {row['reason']}")
    return rows


def resume_sweep(
    name: str,
    *,
    device: str | None = None,
    workers: int | None = None,
    trials_per_gpu: PerGpu = None,
    retry_failed: bool = False,
    standby: bool = False,
    table: bool = True,
    json: bool = False,
    home: Path | None = None,
    executor: str | None = None,
    options: Sequence[Change] = (),
    replicas: Replicas = None,
) -> list[dict[str, Any]]:
    """Goes on with a stored sweep, or with the stored runs of a `train`; returns the rows of its comparison. In
    `standby` it waits until the process that runs it is lost.
    """
    asked = Asked(executor, workers, device, trials_per_gpu, options, replicas)
    asked.check()
    settings = Settings.load(home)
    with open_registry(settings, connected=True) as registry:
        row = show_sweep(registry, name)
        if standby and not supervision.wait_for_turn(registry, row["id"], _say):
            return compare_trials(registry, row["id"]).rows
        seeds = [run["seed"] for run in run_outcomes(registry, row["id"]) if run["state"] not in RESULTS]
        experiment, chosen = _stored(row, settings, asked)
        given: dict[str, Any] = {"retry_failed": retry_failed, "home": home, "registry": registry}
        if row["command"] != "train":
            return _sweep(experiment, settings, chosen, table=table, json=json, **given)
        if not seeds:
            done = f"All runs of {row['id']} were done before; aigc-lab train begins others."
            terminal.console(stderr=True).print(done)
        else:
            _train(experiment, settings, seeds, chosen, **given)
        comparison = compare_trials(registry, row["id"])
        told = explained(registry, comparison, settings, home)
    if table:
        terminal.console(stderr=json).print(ranking.comparison_page(comparison, told), crop=False)
    return comparison.rows


def _say(text: str) -> None:
    terminal.console(stderr=True).print(Text(text), soft_wrap=True)


@contextmanager
def _stores(
    experiment: Experiment, settings: Settings, console: Console, registry: Registry | None
) -> Iterator[Registry]:
    with stores(settings, experiment.sweep, registry) as (registry, note):
        if note is not None:
            console.print(Text(note), soft_wrap=True)
        yield registry


def _stored(row: dict[str, Any], settings: Settings, asked: Asked) -> tuple[Experiment, Chosen]:
    """The checked experiment of a stored sweep, and how it is executed. Raises `UsageError` if its protocol, data or
    code has changed since.
    """
    experiment = stored_experiment(row, settings)
    chosen = choose(experiment, asked)
    try:
        _checked(experiment, device_names(chosen.devices)[0])
    except UsageError as error:
        checkpoints = settings.checkpoints / row["id"]
        code = sorted([*checkpoints.glob("*/*/*.py"), *checkpoints.glob("code/*.py")])
        # What a key names lies there under that key too: penalty.mine.py.
        code = [path for path in code if f"{path.stem.rpartition('.')[2]}.py" in str(error)] or code
        if not code or "no such file" not in str(error):
            raise
        raise UsageError(f"{error}; the code of its runs came along: copy {code[0]} there") from None
    if experiment.digest != row["digest"]:
        raise UsageError(
            f"{row['id']}: its protocol, its data or a file that it names has changed since it began, and it would be "
            f"another sweep; change it back, or begin that with aigc-lab {row['command'] or 'sweep'} {row['name']}"
        )
    return experiment, chosen


def _prepare(
    source: Source, changes: list[Change], asked: Asked, home: Path | None
) -> tuple[Settings, Experiment, Chosen]:
    asked.check()
    settings = Settings.load(home)
    shared_files.of(settings)  # the classifier that judges may have been trained in another home
    experiment = load_experiment(source, changes, data_dir=settings.data_dir, weights=settings.weights)
    chosen = choose(experiment, asked)
    device = device_names(chosen.devices)[0]
    if experiment.protocol.fewer or experiment.protocol.features is not None:
        console = terminal.console(stderr=True)

        def say(text: str) -> None:
            console.print(Text(text), soft_wrap=True)

        _rehearsed(experiment, device)
        experiment, choice = chosen_features(experiment, settings.cache, device, say)
        experiment, notes = fitted(experiment)
        for note in choice + notes:
            say(note)
    _checked(experiment, device)
    return settings, experiment, chosen


def _checked(experiment: Experiment, device: str) -> None:
    _rehearsed(experiment, device)
    check_experiment(experiment)
    check_steering(experiment)


def _rehearsed(experiment: Experiment, device: str) -> None:
    """Tries a user's code in a process of its own before it is loaded here."""
    console = terminal.console(stderr=True)
    rehearse(experiment, device, lambda text: console.print(Text(text), soft_wrap=True))


@contextmanager
def _interruptible(
    experiment: Experiment, display: SweepDisplay, settings: Settings, home: Path | None
) -> Iterator[None]:
    """Shows the display within the block; names the command that goes on when the work is interrupted or a store stays
    away.
    """
    again = as_typed(f"aigc-lab resume {experiment.sweep}", settings, home)
    try:
        with display, signals.handled(exits=False), signals.announced_to(display.say), outage.reported_to(display.say):
            try:
                yield
            except StoreAway as error:
                signals.raise_if_interrupted()  # it was not waited for any longer
                raise Failure(f"{error}; where the runs were is stored: when it is back, {again} goes on") from None
    except KeyboardInterrupt:
        print(f"where the runs were is stored; {again} goes on from there", file=sys.stderr)
        raise


def _next_steps(best: dict[str, Any] | None, sweep_id: str, settings: Settings, home: Path | None) -> list[str]:
    """The lines below the table: the samples of the best run, doubts about it, and the next commands."""
    lines = [f"Samples of the best run: {_short(best['samples'])}"] if best and best["samples"] else []
    if best:
        lines += [f"! {line[0].upper()}{line[1:]}" for line in passed_over_lines(best["selection"].as_json())]
    marks = ", ".join(best["marks"]) if best else ""
    lines += [f"! The best trial is marked: {marks}; look at its samples before its score is believed"] if marks else []
    lines += ["Next:"]
    commands = [f"show {best['run']}"] if best else []
    commands += [f"compare {sweep_id}"] + ([f"promote {sweep_id}"] if best and best["selection"].sound else [])
    lines += [f"  {as_typed(f'aigc-lab {command}', settings, home)}" for command in commands]
    if settings.tracking_uri.startswith("http"):
        return [*lines, f"  open {masked(settings.tracking_uri)} (experiment {sweep_id})"]
    return [*lines, "  " + as_typed("aigc-lab ui", settings, home)]


def _short(path: str) -> str:
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else path
