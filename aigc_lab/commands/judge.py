"""What `aigc-lab judge` does: histories of other programs, samples, and the seeds of a sweep, judged without torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from aigc_lab.config import Better
from aigc_lab.errors import UsageError
from aigc_lab.text.tokenizer import Tokenizer
from aigc_lab.verdicts import history_files
from aigc_lab.verdicts.seeds import across_seeds, steps_to_best
from aigc_lab.verdicts.stability import Finding, StabilityVerdict, judge


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


def seeds_of(sweep_name: str, home: Path | None) -> list[dict[str, Any]]:
    """Statistics over the seeds of each configuration of a sweep, as plain data: `across_seeds` of the runs that ended
    by themselves, with `trial`, `system`, `config`, the `objective`, the median of the `steps` to 1.1 times the best,
    and the number of `pruned` runs, whose failures nobody saw. Of a `confirmed` configuration only fresh seeds count:
    it was chosen by the others, which flatter it.
    """
    from aigc_lab.host.settings import Settings
    from aigc_lab.registry.home import open_registry
    from aigc_lab.registry.roles import counted_role, is_fresh
    from aigc_lab.registry.runs import list_runs
    from aigc_lab.registry.states import RunState
    from aigc_lab.registry.sweeps import final_scores, list_trials, objective_histories, show_sweep
    from aigc_lab.registry.verdicts import last_verdicts, verdicts_by_run

    settings = Settings.load(home)
    with open_registry(settings) as registry:
        sweep = show_sweep(registry, sweep_name)
        name = sweep["id"]
        verdicts, histories = verdicts_by_run(registry, name), objective_histories(registry, name)
        verdicts_by_kind = last_verdicts(registry, name)
        finals = {each: final_scores(registry, name, sweep["objective"], each) for each in ("last", "selected")}
        trials, runs = list_trials(registry, name), list_runs(registry, name)
    rows = []
    for trial in trials:
        every = [run for run in runs if run["trial"] == trial["trial"]]
        role = counted_role((run["role"], run["state"]) for run in every)
        mine = [run for run in every if run["role"] == role]
        ended = [run["run"] for run in mine if run["state"] in (RunState.FINISHED, RunState.DIVERGED)]
        histories_told: list[Mapping[str, Any]] = []
        for run in ended:
            histories_told += [each for each in verdicts.get(run, []) if each["kind"] == "stability"][-1:]
        stories = [StabilityVerdict.of(each | each["evidence"]) for each in histories_told]
        collapses = [verdicts_by_kind[run]["collapse"] for run in ended if "collapse" in verdicts_by_kind.get(run, {})]
        values = {kind: [scores[run] for run in ended if run in scores] for kind, scores in finals.items()}
        steps = [_steps_to_best(histories.get(run, []), sweep["better"]) for run in ended]
        rows.append(
            {
                **{key: trial[key] for key in ("sweep", "trial", "system", "config")},
                "objective": sweep["objective"],
                **across_seeds(stories, collapses, **values),
                "runs": len(ended),
                "confirmed": is_fresh(role),
                "steps": median(reached) if (reached := [each for each in steps if each is not None]) else None,
                "pruned": sum(run["state"] == RunState.PRUNED for run in mine),
            }
        )
    return rows


def _steps_to_best(history: list[dict[str, Any]], better: Better) -> float | None:
    """The first step within a tenth of the best value; None for a best that is not above zero."""
    values = [math.nan if each["value"] is None else each["value"] for each in history]
    try:
        return steps_to_best([each["step"] for each in history], values, better=better)
    except ValueError:
        return None


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
