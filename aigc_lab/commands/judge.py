"""What `aigc-lab judge` does: histories of other programs, samples, and the seeds of a sweep, judged without torch."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from aigc_lab.config import Better
from aigc_lab.errors import UsageError
from aigc_lab.statistics.budget import share_within
from aigc_lab.text.tokenizer import Tokenizer
from aigc_lab.verdicts import history_files
from aigc_lab.verdicts.seeds import across_seeds, steps_or_none, wilson
from aigc_lab.verdicts.stability import Finding, StabilityVerdict, judge

if TYPE_CHECKING:
    from aigc_lab.registry.seed_runs import SeedGroup
    from aigc_lab.registry.store import Registry


def stability_of_file(
    path: Path,
    value: str,
    step: str = "step",
    se: str | None = None,
    baseline: float | None = None,
    better: Better = "lower",
    *,
    floor: float | None = None,
    diverged_at: float | None = None,
    where: Sequence[str] = (),
    nan: history_files.Nan | None = None,
) -> dict[str, Any]:
    """The stability verdict on a column of a file, as plain data: `judge`'s, on the columns `step`, `value` and `se` of
    the rows that `where` chooses (`column=value`). `read_history` says which files are read, and what `nan` does.
    `diverged_at` is a step at which a loss, gradient or parameter was not finite.

    Raises `UsageError` naming file, line, column and value for a file that cannot be read.
    """
    rows, notes = history_files.read_history(path, value, step, se, where, nan)
    try:
        verdict = judge(
            [row.step for row in rows],
            [row.value for row in rows],
            None if se is None else [row.error for row in rows],
            baseline=baseline,
            better=better,
            floor=floor,
            diverged_at=None if diverged_at is None else (diverged_at, "a loss, gradient or parameter was not finite"),
        )
    except ValueError as error:
        raise UsageError(f"--{str(error).replace('_', '-')}") from None
    return replace(verdict, evidence=(*verdict.evidence, *map(Finding, notes))).as_dict()


def collapse_of(
    generated: str,
    reference: str,
    labels: Path | None,
    *,
    device: str,
    home: Path | None,
    tokenizer: Tokenizer | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The collapse verdict on folders, arrays, datasets, runs or files of sentences, as plain data. Vectors of
    sentences are made of the reference's words. `labels` is a file with a class for each reference sample.
    """
    from aigc_lab.commands.given import collapse

    classes = None if labels is None else _labels(labels)
    return collapse(generated, reference, classes, tokenizer=tokenizer, device=device, home=home, **options).as_dict()


def seeds_of(sweeps: str | Sequence[str], home: Path | None, *, by: str = "trial") -> list[dict[str, Any]]:
    """`seed_statistics` of the sweeps of a home."""
    from aigc_lab.host.settings import Settings
    from aigc_lab.registry.home import open_registry

    with open_registry(Settings.load(home)) as registry:
        return seed_statistics(registry, [sweeps] if isinstance(sweeps, str) else sweeps, by)


def seed_statistics(registry: "Registry", sweeps: Sequence[str], by: str = "trial") -> list[dict[str, Any]]:
    """Statistics over the seeds of each trial, system or value of a parameter (`by`), as plain data: `across_seeds` of
    the runs that ended by themselves, with what they share (`sweep`, `trial`, `system`, `config`), the `objective` and
    its `signature`, the number of `trials`, the median of the `steps` to 1.1 times the best, and the number of `pruned`
    runs, whose failures nobody saw. Of a `confirmed` trial only fresh seeds count: it was chosen by the others, which
    flatter it. `within` counts the trials of a row whose median is within 1.2 times the best, among those that a random
    search drew; None by trial and for other samplers, whose trials are no sample of anything.

    Raises `UsageError` for an unknown sweep and for a parameter that no run has.
    """
    from aigc_lab.registry.seed_runs import group_runs, read_seed_runs

    runs = read_seed_runs(registry, sweeps)
    medians, drawn = _medians(group_runs(runs)), {(run.sweep, run.trial) for run in runs if run.drawn}
    rows = []
    for group in group_runs(runs, by):
        ended = group.ended
        told = [StabilityVerdict.of(run.stability | run.stability["evidence"]) for run in ended if run.stability]
        last, selected = (
            [value for run in ended if (value := getattr(run, kind)) is not None] for kind in ("last", "selected")
        )
        steps = [steps_or_none([(each["step"], each["value"]) for each in run.history], group.better) for run in ended]
        statistics = across_seeds(
            told,
            [run.collapse for run in ended if run.collapse],
            last=last,
            selected=selected,
            failed=sum(run.last is None for run in ended),
            better=group.better,
        )
        rows.append(
            {
                **{key: getattr(group, key) for key in ("sweep", "trial", "system", "config")},
                **{key: getattr(group, key) for key in ("sweeps", "trials", "objective", "better", "signature")},
                **statistics,
                "runs": len(ended),
                "confirmed": group.confirmed,
                "steps": median(reached) if (reached := [each for each in steps if each is not None]) else None,
                "pruned": group.pruned,
                "within": None if by == "trial" else _within(group, medians, drawn),
            }
        )
    return rows


def _medians(trials: "Sequence[SeedGroup]") -> dict[tuple[Any, ...], float]:
    """Median of the last score of each trial, a seed without one as the worst, by sweep, trial and signature."""
    medians = {}
    for group in trials:
        worst = math.inf if group.better == "lower" else -math.inf
        values = [worst if run.last is None else run.last for run in group.ended]
        if values:
            medians[group.sweep, group.trial, group.signature] = median(values)
    return medians


def _within(
    group: "SeedGroup", medians: Mapping[tuple[Any, ...], float], drawn: Collection[tuple[str, int]]
) -> dict[str, Any] | None:
    """How many of the drawn trials of a group are within 1.2 times the best of all trials of the signature, with the
    interval of their share; None without any and for scores of which there is no multiple. Trials that were confirmed
    are drawn too: the fresh seeds, of which their median is, were not chosen by.
    """
    alike = {key: value for key, value in medians.items() if key[2] == group.signature}
    mine = {(run.sweep, run.trial) for run in group.runs}.intersection(drawn)
    finite = [value for value in alike.values() if math.isfinite(value)]
    if not finite or not mine:
        return None
    best = min(finite) if group.better == "lower" else max(finite)
    try:
        within, of = share_within([alike[key] for key in alike if key[:2] in mine], better=group.better, best=best)
    except ValueError:
        return None
    low, high = wilson(within, of)
    return {"within": within, "of": of, "low": low, "high": high}


def _labels(path: Path) -> list[int] | list[str]:
    """The classes in a file: an array `.npy`, or text with one a line, which may be names."""
    if path.suffix == ".npy":
        import numpy as np

        try:
            classes = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UsageError(f"--labels {path}: cannot be read as an array ({error})") from None
        if classes.ndim != 1 or classes.dtype.kind not in "iu":
            raise UsageError(
                f"--labels {path}: is {list(classes.shape)} {classes.dtype}, not one whole number a sample"
            )
        return [int(each) for each in classes]
    from aigc_lab.text.sentence_files import read_lines

    lines, blank = read_lines(path, "--labels")
    if blank:
        raise UsageError(
            f"--labels {path}: {blank} lines are blank; write a class on each, in the order of the reference"
        )
    return lines
