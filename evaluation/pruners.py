"""Replays pruners over the recorded histories of a sweep: the training that each would have saved, and what it would
have cost.

    python evaluation/pruners.py HOME SWEEP [PRUNER …]

Every run of the sweep is taken for a trial, in the order in which runs were recorded, and is stopped where the pruner
says so; others see of it what it had shown by then, within a system. The best configuration is kept if one of its runs
ends unstopped and the run with the best value over all is not stopped. Histories hold the objective with its standard
errors, and the collapse verdicts.
"""

import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import NamedTuple

from aigc_lab import plugins
from aigc_lab.config import Better
from aigc_lab.host.settings import Settings
from aigc_lab.pruners.base import Curve, Pruner
from aigc_lab.registry.find import find_sweep
from aigc_lab.registry.home import open_registry
from aigc_lab.registry.sweeps import list_trials, objective_histories, run_outcomes, show_sweep
from aigc_lab.registry.verdicts import verdicts_by_run
from aigc_lab.statistics.intervals import error_of


class Recorded(NamedTuple):
    """One run: its trial, its system, and its whole curve."""

    run: str
    trial: int
    system: str
    curve: Curve

    @property
    def value(self) -> float:
        return self.curve.values[max(self.curve.values)]


class Replayed(NamedTuple):
    """Steps trained of all, runs stopped, those of them whose final collapse verdict is SEVERE or TOTAL, and what is
    kept of the best.
    """

    trained: int
    stopped: int
    collapsed: int
    best_run: bool
    best_trial: bool


def recorded(home: Path, name: str) -> tuple[list[Recorded], Better, int]:
    """The finished runs of a sweep in their order, which way is better, and the steps of a run."""
    with open_registry(Settings.load(home)) as registry:
        sweep = find_sweep(registry, name)
        row = show_sweep(registry, sweep)
        histories, verdicts = objective_histories(registry, sweep), verdicts_by_run(registry, sweep)
        systems = {trial["trial"]: trial["system"] for trial in list_trials(registry, sweep)}
        outcomes = run_outcomes(registry, sweep)
    runs = []
    # Seed by seed, as a search goes through its trials.
    for number, outcome in enumerate(sorted(outcomes, key=lambda each: (each["seed"], each["trial"]))):
        history = histories.get(outcome["run"], [])
        if outcome["state"] != "FINISHED" or not history:
            continue
        values = {each["step"]: float("nan") if each["value"] is None else each["value"] for each in history}
        errors = {each["step"]: error_of(each["low"], each["high"]) for each in history}
        of_run = verdicts.get(outcome["run"], [])
        collapse = {each["step"]: each["verdict"] for each in of_run if each["kind"] == "collapse"}
        curve = Curve(values, True, errors, collapse, number)
        runs.append(Recorded(outcome["run"], outcome["trial"], systems[outcome["trial"]], curve))
    return runs, row["better"], row["experiment"]["training"]["steps"]


def upto(curve: Curve, step: int, *, finished: bool = False) -> Curve:
    """What a run had shown at a step."""
    parts = ({at: each for at, each in of.items() if at <= step} for of in (curve.values, curve.errors, curve.verdicts))
    values, errors, verdicts = parts
    return Curve(values, finished, errors, verdicts, curve.number)  # type: ignore[arg-type]


def replay(runs: list[Recorded], kind: type[Pruner], better: Better, steps: int) -> Replayed:
    shown: dict[str, list[Curve]] = defaultdict(list)
    stopped: dict[str, int] = {}
    for run in runs:
        last = max(run.curve.values)
        for step in sorted(run.curve.values):
            if step < last and kind(steps).stops(upto(run.curve, step), shown[run.system], better):
                stopped[run.run] = step
                break
        end = stopped.get(run.run, last)
        shown[run.system].append(upto(run.curve, end, finished=run.run not in stopped))
    sign = 1 if better == "lower" else -1
    of_trial: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        of_trial[run.trial].append(sign * run.value)
    winner = min(of_trial, key=lambda trial: median(of_trial[trial]))
    best = min(runs, key=lambda run: sign * run.value)
    collapsed = [run for run in runs if run.curve.verdicts.get(max(run.curve.values)) in ("SEVERE", "TOTAL")]
    return Replayed(
        trained=sum(stopped.get(run.run, max(run.curve.values)) for run in runs),
        stopped=len(stopped),
        collapsed=sum(run.run in stopped for run in collapsed),
        best_run=best.run not in stopped,
        best_trial=any(run.trial == winner and run.run not in stopped for run in runs),
    )


def main(home: str, sweep: str, *names: str) -> None:
    runs, better, steps = recorded(Path(home), sweep)
    whole = sum(max(run.curve.values) for run in runs)
    gone = sum(run.curve.verdicts.get(max(run.curve.values)) in ("SEVERE", "TOTAL") for run in runs)
    print(f"{sweep}: {len(runs)} runs, {whole:,} steps; {gone} end SEVERE or TOTAL")
    print(f"{'pruner':10} {'stopped':>8} {'of collapsed':>13} {'steps saved':>12}  best run, best configuration")
    for name in names or ("none", "median", "hyperband", "alarm", "collapse"):
        kind = plugins.find(Pruner, name)  # type: ignore[type-abstract]
        told = replay(runs, kind, better, steps)
        kept = ", ".join("kept" if each else "stopped" for each in (told.best_run, told.best_trial))
        share = f"{1 - told.trained / whole:.0%}"
        print(f"{name:10} {told.stopped:>8} {f'{told.collapsed} of {gone}':>13} {share:>12}  {kept}")


if __name__ == "__main__":
    main(*sys.argv[1:])
