"""Text GANs beside maximum likelihood at the same diversity and the same budget: who is compared, and what is said."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median
from typing import TYPE_CHECKING, Any

from aigc_lab.display.wording import counted, duration
from aigc_lab.registry.columns import BATCH
from aigc_lab.registry.roles import counted_role
from aigc_lab.registry.states import RunState
from aigc_lab.registry.temperature_curves import CurveRun, temperature_curves
from aigc_lab.statistics.planes import PLANES, SCORES, TITLES, UNITS
from aigc_lab.statistics.wording import number
from aigc_lab.verdicts.beside_likelihood import (
    LEVEL,
    Answer,
    Beside,
    OnPlane,
    is_measured,
    judge,
    standard_error,
)

if TYPE_CHECKING:
    from aigc_lab.registry.ranking import Comparison
    from aigc_lab.registry.store import Registry

#: name of the tag that a run of a text GAN has in MLflow
TAG = "beside_likelihood"
TITLE = "Beside maximum likelihood"
QUESTION = "better than maximum likelihood at the same diversity"
EXPLANATION = (
    "A text GAN's point at temperature 1 beside the curve that maximum likelihood has over temperatures, at the same "
    "diversity (Caccia et al. 2020): BLEU-4 at the same Self-BLEU-4, and the forward language model's score at the "
    f"same reverse one. Intervals hold together for both with {LEVEL:.0%}: they cover the sentences drawn of both "
    "models, and over several seeds their spread. A gain above 0 is better (of the language model, so many nats a word "
    "less). Yes where one plane says yes and the other not no; no likewise."
)
# Budgets that differ by more are not the same: what had more updates may be better by them.
_ALIKE = 1.25


@dataclass(frozen=True)
class Contest:
    """One run of a text GAN, or all seeds of its trial, beside the seeds of one trial of maximum likelihood. Without
    one, `why` says what lacks.
    """

    runs: tuple[CurveRun, ...]
    others: tuple[CurveRun, ...] = ()
    beside: Beside | None = None
    why: str = ""

    @property
    def answer(self) -> Answer:
        return Answer.CANNOT_TELL if self.beside is None or self.why else self.beside.answer

    @property
    def name(self) -> str:
        return _name(self.runs)

    @property
    def point(self) -> dict[str, float]:
        """The scores of one run at temperature 1, and the standard error of each as `<name>_error`."""
        own = next(point for point in self.runs[0].curve["points"] if point["temperature"] == 1)
        return {name: own[name] for name in SCORES} | {
            f"{name}_error": standard_error(own["without"][name]) for name in SCORES
        }

    @property
    def sentence(self) -> str:
        """The answer with the differences, their intervals and both budgets."""
        said = f"{self.name}, {QUESTION}: {self.answer}"
        if self.beside is None:
            return f"{said}. {self.why[0].upper()}{self.why[1:]}."
        planes = "; ".join(map(on_plane_text, self.beside.planes))
        budgets = f"{_budget(self.runs)}, beside {_budget(self.others)} of {_name(self.others)}"
        return f"{said}{f' ({self.why})' if self.why else ''}. Gain: {planes}. {budgets}."

    def as_dict(self) -> dict[str, Any]:
        """Plain data for `compare --json`."""
        planes = [] if self.beside is None else [_plane_dict(each) for each in self.beside.planes]
        return {
            "runs": [run.run for run in self.runs],
            "answer": str(self.answer),
            "why": self.why,
            "n": self.runs[0].curve["n"],
            "planes": planes,
            **_budget_dict(self.runs),
            "likelihood": {"runs": [run.run for run in self.others], **_budget_dict(self.others)}
            if self.others
            else None,
        }


def on_plane_text(each: OnPlane) -> str:
    """`BLEU-4 -0.012 [-0.05, 0.03] at Self-BLEU-4 0.31`: the gain over maximum likelihood."""
    quality, unit = TITLES[each.plane.quality], f" {UNITS.get(each.plane.quality, '')}".rstrip()
    told = f"{quality} {number(each.better_by)} [{number(each.low)}, {number(each.high)}]{unit} at "
    return f"{told}{TITLES[each.plane.diversity]} {number(each.diversity)}{f' ({each.why})' if each.why else ''}"


def answer_cells(contest: Contest) -> dict[str, str]:
    """Cells of a table by their headings: the answer, both planes, both budgets."""
    assert contest.beside is not None
    cells = {"run": contest.name, "better": str(contest.answer)}
    for each in contest.beside.planes:
        quality, diversity = TITLES[each.plane.quality], TITLES[each.plane.diversity]
        cells[diversity] = number(each.diversity)
        cells[quality] = number(each.quality)
        cells[f"gain in {quality}"] = f"{number(each.better_by)} [{number(each.low)}, {number(each.high)}]"
        cells[f"by {quality}"] = f"{each.answer}{f': {each.why}' if each.why else ''}"
    cells["budget"] = _budget(contest.runs)
    cells["beside"] = f"{_name(contest.others)}, {_budget(contest.others)}"
    return cells


def contests(registry: "Registry", sweeps: Sequence[str]) -> list[Contest]:
    """What can be said of the text GANs of these sweeps: each run, and after the runs of a trial all its seeds together
    where there are several. Each is set beside a trial of its own sweep. Empty without a text GAN.
    """
    curves = temperature_curves(registry, list(dict.fromkeys(sweeps)))
    told: list[Contest] = []
    for _, of_sweep in groupby(curves, key=lambda run: run.sweep):
        trials = [_counted(list(of_trial)) for _, of_trial in groupby(of_sweep, key=lambda run: run.trial)]
        likelihood = [runs for runs in trials if runs[0].trained_by == "likelihood"]
        for runs in trials:
            if runs[0].trained_by == "critic":
                told += [_contest([run], likelihood) for run in runs]
                told += [_contest(runs, likelihood)] if len(runs) > 1 else []
    return told


def run_contests(registry: "Registry", sweep: str) -> list[Contest]:
    """The contests of single runs. The other side may have ended after the run, so that no run can tell of itself."""
    return [each for each in contests(registry, [sweep]) if len(each.runs) == 1]


def run_tags(registry: "Registry", sweep: str) -> dict[str, dict[str, str]]:
    """MLflow's tag of each run of a text GAN, its sentence, by the id of the run."""
    return {each.runs[0].run: {TAG: each.sentence} for each in run_contests(registry, sweep)}


def compared(registry: "Registry", comparison: "Comparison") -> list[Contest]:
    """The contests of the trials that a comparison shows; none of one that pools trials."""
    if comparison.by != "trial":
        return []
    shown = {(row["sweep"], row["trial"]) for row in comparison.rows}
    sweeps, trials = sorted({sweep for sweep, _ in shown}), sorted({trial for _, trial in shown})
    # Of a hundred thousand runs those that are shown say whether the others have to be looked at.
    few = temperature_curves(registry, sweeps, trials) if len(trials) <= BATCH else None
    if few is not None and all(run.trained_by != "critic" for run in few):
        return []
    found = contests(registry, sweeps)
    return [each for each in found if (each.runs[0].sweep, each.runs[0].trial) in shown]


def add_contests(registry: "Registry", comparison: "Comparison") -> None:
    """Sets `beside_likelihood` of the rows of text GANs: their contests as plain data."""
    for each in compared(registry, comparison):
        of = each.runs[0].sweep, each.runs[0].trial
        row = next(row for row in comparison.rows if (row["sweep"], row["trial"]) == of)
        row.setdefault("beside_likelihood", []).append(each.as_dict())


def summary(found: Sequence[Contest]) -> list[str]:
    """One sentence with the answers of all runs, by system; none without a text GAN."""
    of_system: dict[str, Counter[Answer]] = {}
    for each in found:
        if len(each.runs) == 1:
            of_system.setdefault(each.runs[0].system, Counter())[each.answer] += 1
    if not of_system:
        return []
    told = (f"{system} {_counts(counts)}" for system, counts in sorted(of_system.items()))
    return [f"{QUESTION[0].upper()}{QUESTION[1:]}: {'; '.join(told)}."]


def _counts(counts: Counter[Answer]) -> str:
    """`no`, or of runs that do not agree `no in 2 of 3 runs, cannot tell in 1`."""
    if len(counts) == 1:
        return str(next(iter(counts)))
    shares = [f"{answer} in {counts[answer]}" for answer in Answer if counts[answer]]
    return ", ".join([f"{shares[0]} of {counts.total()} runs", *shares[1:]])


# ---- who is compared


def _counted(runs: Sequence[CurveRun]) -> list[CurveRun]:
    """The runs that the row of their trial is of: fresh seeds, once there are any."""
    role = counted_role((run.role, RunState.FINISHED.value) for run in runs)
    return [run for run in runs if run.role == role]


def _contest(runs: Sequence[CurveRun], likelihood: Sequence[Sequence[CurveRun]]) -> Contest:
    own = tuple(runs)
    if not all(is_measured(run.curve) for run in runs):
        return Contest(own, why="its curve was measured without its errors: run it again")
    if not likelihood:
        return Contest(own, why="no run of maximum likelihood in its sweep: add one, such as lstm_lm at the same steps")
    alike = [
        others
        for others in likelihood
        if all(is_measured(run.curve) and _measured_alike(run, runs[0]) and run.updates for run in others)
    ]
    if not alike:
        return Contest(
            own, why="no run of maximum likelihood was measured as it was: on the same data, with its errors"
        )
    others = min(alike, key=lambda others: (_apart(runs, others), -_worth(others), others[0].trial))
    beside = judge([run.curve for run in runs], [run.curve for run in others])
    return Contest(own, tuple(others), beside, _unfair(runs, others, beside.answer))


def _measured_alike(run: CurveRun, other: CurveRun) -> bool:
    return all(run.curve.get(key) == other.curve.get(key) for key in ("data", "n", "references"))


def _updates(runs: Sequence[CurveRun]) -> float:
    return median(run.updates or 0 for run in runs)


def _worth(runs: Sequence[CurveRun]) -> float:
    return -math.inf if runs[0].worth is None else runs[0].worth


def _apart(runs: Sequence[CurveRun], others: Sequence[CurveRun]) -> float:
    """How far two budgets are from each other: 0 for equal ones, the logarithm of their ratio."""
    own = _updates(runs)
    return abs(math.log(_updates(others) / own)) if own else math.inf


def _unfair(runs: Sequence[CurveRun], others: Sequence[CurveRun], answer: Answer) -> str:
    """Why budgets take the answer back: the better side had more than the other; "" where they do not."""
    own, their = _updates(runs), _updates(others)
    if (answer == Answer.YES and own > _ALIKE * their) or (answer == Answer.NO and their > _ALIKE * own):
        return f"{answer} by other budgets: train maximum likelihood for {own:.0f} steps"
    return ""


# ---- words


def _name(runs: Sequence[CurveRun]) -> str:
    """`seqgan 1.0`, or of several seeds `seqgan 1 (3 seeds)`."""
    first = runs[0]
    which = f".{first.seed}" if len(runs) == 1 else f" ({counted(len(runs), 'seed')})"
    return f"{first.system} {first.trial}{which}"


def _seconds(runs: Iterable[CurveRun]) -> float | None:
    known = [run.seconds for run in runs if run.seconds is not None]
    return median(known) if known else None


def _budget(runs: Sequence[CurveRun]) -> str:
    """`55 generator updates in 12 s`; of several seeds the medians."""
    seconds = _seconds(runs)
    return f"{_updates(runs):,.0f} generator updates{'' if seconds is None else f' in {duration(seconds)} of training'}"


def _budget_dict(runs: Sequence[CurveRun]) -> dict[str, Any]:
    return {"system": runs[0].system, "generator_updates": _updates(runs), "training_seconds": _seconds(runs)}


def _plane_dict(each: OnPlane) -> dict[str, Any]:
    return {
        "diversity": each.plane.diversity,
        "quality": each.plane.quality,
        each.plane.diversity: each.diversity,
        each.plane.quality: each.quality,
        **{key: getattr(each, key) for key in ("better_by", "low", "high", "why")},
        "confidence": 1 - (1 - LEVEL) / len(PLANES),
        "answer": str(each.answer),
    }
