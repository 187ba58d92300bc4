"""Verdict on a system over seeds: probabilities of failure, time to failure and spread, each with its uncertainty.

Ten seeds are needed for a claim, five to screen; every share has an interval, because even 0 of 10 allows 28 %. Time to
failure is estimated from runs that were not pruned: a pruner stops the runs that are about to fail, and such censoring
is informative, which Kaplan and Meier assume it is not.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from aigc_lab.statistics.profiles import interquartile_mean_interval
from aigc_lab.verdicts.stability import Array, Better, StabilityVerdict

CLAIM, SCREEN = 10, 5
CONFIDENCE = 0.95

UNSTABLE = frozenset({"DIVERGED", "NEVER-LEARNED", "REGRESSED", "OSCILLATING"})
COLLAPSED = frozenset({"PARTIAL", "SEVERE", "TOTAL", "POSTERIOR-COLLAPSED"})
_SOUND = frozenset({"STABLE", "NONE"})
_UNDECIDED = frozenset({"WITHHELD", "INCONCLUSIVE", "UNMEASURABLE"})


class Strength(StrEnum):
    """Strength of evidence from a number of seeds."""

    CLAIM = "CLAIM"
    SCREEN = "SCREEN"
    TOO_FEW = "TOO-FEW"

    @classmethod
    def of(cls, seeds: int) -> "Strength":
        return cls.CLAIM if seeds >= CLAIM else cls.SCREEN if seeds >= SCREEN else cls.TOO_FEW


# ---- how likely a run goes wrong


def wilson(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927): 0 of 10 gives [0, 0.278], no trials give [0, 1]."""
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} of {trials} is no proportion")
    if trials == 0:
        return 0.0, 1.0
    z2 = _z(confidence) ** 2
    share = successes / trials
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = math.sqrt(z2 * (share * (1 - share) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    # The ends are exact: rounding would leave 1e-17 of what is 0.
    return 0.0 if successes == 0 else middle - half, 1.0 if successes == trials else middle + half


@dataclass(frozen=True)
class Chance:
    """Probability that a run goes wrong: `value` among the decided runs, None without any. The interval allows for
    either outcome of the undecided ones.
    """

    wrong: int
    decided: int
    undecided: int
    value: float | None
    low: float
    high: float
    strength: Strength

    def __str__(self) -> str:
        counted = f"{self.wrong}/{self.decided}" + (f" and {self.undecided} undecided" if self.undecided else "")
        bounds = (
            f"allows {100 * self.low:.0f} to {100 * self.high:.0f} %"
            if self.wrong
            else f"still allows {100 * self.high:.0f} %"
        )
        remark = {
            Strength.CLAIM: "",
            Strength.SCREEN: f"; a claim needs {CLAIM} seeds",
            Strength.TOO_FEW: f"; screening needs {SCREEN} seeds, a claim {CLAIM}",
        }
        return f"{counted} {bounds}{remark[self.strength]}"


def p_unstable(verdicts: Iterable[str], confidence: float = CONFIDENCE) -> Chance:
    """Probability of an unstable run: all verdicts but STABLE are wrong, WITHHELD is undecided."""
    return _chance(verdicts, UNSTABLE, confidence)


def p_collapse(verdicts: Iterable[str], confidence: float = CONFIDENCE) -> Chance:
    """Probability of a collapsed run: all verdicts but NONE are wrong, INCONCLUSIVE and UNMEASURABLE are undecided."""
    return _chance(verdicts, COLLAPSED, confidence)


def _chance(verdicts: Iterable[str], wrong: frozenset[str], confidence: float) -> Chance:
    names = [str(verdict) for verdict in verdicts]
    recognised = wrong | _UNDECIDED | _SOUND
    if strange := next((name for name in names if name not in recognised), None):
        raise ValueError(f"unknown verdict {strange!r}; there are {', '.join(sorted(recognised))}")
    bad, open_ = sum(name in wrong for name in names), sum(name in _UNDECIDED for name in names)
    decided = len(names) - open_
    low, _ = wilson(bad, len(names), confidence)
    _, high = wilson(bad + open_, len(names), confidence)
    return Chance(bad, decided, open_, bad / decided if decided else None, low, high, Strength.of(decided))


# ---- how long it goes well


@dataclass(frozen=True)
class Survival:
    """Kaplan–Meier curve, at each time at which a run failed. `errors` are Greenwood's, `low` and `high` those of the
    log(−log) interval. If no run survives, the last interval is that of the time before.
    """

    times: Array
    at_risk: npt.NDArray[np.int64]
    failures: npt.NDArray[np.int64]
    survival: Array
    errors: Array
    low: Array
    high: Array

    def at(self, time: float) -> float:
        """Share of runs that have not failed up to and including this time."""
        before = int(np.searchsorted(self.times, time, side="right"))
        return float(self.survival[before - 1]) if before else 1.0

    @property
    def median(self) -> float | None:
        """First time by which at least half of the runs have failed; None if fewer did."""
        half = np.flatnonzero(self.survival <= 0.5)
        return float(self.times[half[0]]) if len(half) else None


def kaplan_meier(times: Iterable[float], failed: Iterable[bool], confidence: float = CONFIDENCE) -> Survival:
    """Survival curve of runs watched until `times`, at which they `failed` or were censored (Kaplan & Meier 1958).

    A run that ends when another fails was still at risk. Raises `ValueError` for different lengths, no runs, and times
    that are negative or not finite.
    """
    t, d = np.array([*times], dtype=float), np.array([*failed], dtype=bool)
    if len(t) != len(d) or not len(t):
        raise ValueError(f"{len(t)} times and {len(d)} outcomes; there must be one of each for every run")
    if not (np.isfinite(t) & (t >= 0)).all():
        raise ValueError(f"a time is {t[~(np.isfinite(t) & (t >= 0))][0]}; times are finite and not negative")
    moments, failures = np.unique(t[d], return_counts=True)
    at_risk = (t[None] >= moments[:, None]).sum(1)
    survival = np.cumprod(1 - failures / at_risk)
    with np.errstate(all="ignore"):
        relative = np.cumsum(failures / (at_risk * (at_risk - failures)))
        errors = np.where(survival > 0, survival * np.sqrt(relative), 0.0)
        width = np.exp(_z(confidence) * np.sqrt(relative) / np.abs(np.log(survival)))
        low = np.where(survival > 0, survival**width, 0.0)
        high = np.where(survival > 0, survival ** (1 / width), np.nan)
    if len(high) and math.isnan(high[-1]):  # only the last can be zero
        high[-1] = high[-2] if len(high) > 1 else 1.0
    return Survival(moments, at_risk, failures, survival, errors, low, high)


def time_to_failure(verdict: StabilityVerdict) -> tuple[float, bool]:
    """Step until which a run was watched, and whether it failed there: its alarm if it failed, else its last
    evaluation.
    """
    failed = str(verdict.verdict) in UNSTABLE
    step = verdict.alarm_step if failed and verdict.alarm_step is not None else verdict.last and verdict.last.step
    if step is None:
        raise ValueError(f"a run without evaluations has no time to failure: {verdict.reason}")
    return step, failed


# ---- how much seeds matter, and how fast training is


@dataclass(frozen=True)
class Spread:
    """Standard deviation over seeds with its interval, which assumes normal values."""

    n: int
    median: float
    sd: float
    low: float
    high: float


def seed_spread(values: Iterable[float], confidence: float = CONFIDENCE) -> Spread:
    """Spread of a final score over seeds. Seeds that diverged have none, and belong to `p_unstable`.

    Raises `ValueError` for fewer than two values and for values that are not finite.
    """
    from scipy.special import gammaincinv  # the quantile of chi-square; scipy.stats takes seconds to import

    x = np.array([*values], dtype=float)
    if len(x) < 2:
        raise ValueError(f"{len(x)} values have no spread; give two seeds at the very least")
    if not np.isfinite(x).all():
        raise ValueError(f"a value is {x[~np.isfinite(x)][0]}; count seeds that diverged with p_unstable")
    sd, freedom = float(x.std(ddof=1)), len(x) - 1
    tails = (1 + confidence) / 2, (1 - confidence) / 2
    low, high = (sd * math.sqrt(freedom / (2 * float(gammaincinv(freedom / 2, tail)))) for tail in tails)
    return Spread(len(x), float(np.median(x)), sd, low, high)


def steps_to_best(
    steps: Sequence[float],
    values: Sequence[float],
    *,
    factor: float = 1.1,
    baseline: float | None = None,
    better: Better = "lower",
) -> float | None:
    """First step at which a score is within `factor` × the run's best; None without a finite score.

    For positive values that is a ratio, × best or / best. With a baseline it is (factor − 1) of the gain over it, which
    values at or below zero need. Raises `ValueError` if these have no baseline.
    """
    t, sign = np.array(steps, dtype=float), 1.0 if better == "lower" else -1.0
    x = sign * np.array(values, dtype=float)
    finite = np.isfinite(x)
    if len(t) != len(x):
        raise ValueError(f"{len(t)} steps and {len(x)} values; there must be one of each")
    if not finite.any():
        return None
    best = float(x[finite].min())
    if baseline is not None:
        bar = best + (factor - 1) * max(sign * baseline - best, 0.0)
    elif (x[finite] * sign > 0).all():
        bar = best * factor if better == "lower" else best / factor
    else:
        raise ValueError(f"the best is {sign * best} and some values are not positive; give a baseline to measure with")
    return float(t[finite & (x <= bar)].min())


def steps_or_none(history: Iterable[tuple[float, float | None]], better: Better) -> float | None:
    """`steps_to_best` of steps with values, None for one that was not finite; None too where that takes a baseline.

    >>> steps_or_none([(10, 9.0), (20, 2.1), (30, 2.0)], "lower"), steps_or_none([(10, -1.0)], "lower")
    (20.0, None)
    """
    told = list(history)
    try:
        values = [math.nan if value is None else value for _, value in told]
        return steps_to_best([step for step, _ in told], values, better=better)
    except ValueError:
        return None


# ---- together


def across_seeds(
    runs: Sequence[StabilityVerdict],
    collapses: Sequence[str] = (),
    *,
    last: Sequence[float] = (),
    selected: Sequence[float] = (),
    failed: int = 0,
    better: Better = "lower",
) -> dict[str, Any]:
    """Plain data about a system: the probabilities of failure, the time to failure, and the spread of its final scores,
    each None if it is not known. `iqm` is the interquartile mean of the last score, the `failed` seeds without one
    counted as the worst; None below ten seeds.
    """
    chances = {"unstable": p_unstable(run.verdict for run in runs) if runs else None}
    chances["collapse"] = p_collapse(collapses) if collapses else None
    watched = [time_to_failure(run) for run in runs if run.alarm_step is not None or run.last is not None]
    curve = kaplan_meier([time for time, _ in watched], [failed for _, failed in watched]) if watched else None
    spreads = {"last": last, "selected": selected}
    return {
        "seeds": len(runs) or len(collapses),
        **{name: chance and {**asdict(chance), "reason": str(chance)} for name, chance in chances.items()},
        "survival": curve and {name: np.asarray(each).tolist() for name, each in vars(curve).items()},
        "median_failure": curve and curve.median,
        **{name: asdict(seed_spread(values)) if len(values) > 1 else None for name, values in spreads.items()},
        "iqm": _iqm([*last, *[math.inf if better == "lower" else -math.inf] * failed]),
    }


def _iqm(values: Sequence[float]) -> dict[str, Any] | None:
    """The interquartile mean with its bootstrap interval; an end that failed seeds take away is None."""
    if len(values) < CLAIM or not any(map(math.isfinite, values)):
        return None
    ends = dict(zip(("value", "low", "high"), interquartile_mean_interval([values]), strict=True))
    return {"n": len(values), **{name: end if math.isfinite(end) else None for name, end in ends.items()}}


def _z(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence of {confidence} is none; it lies between 0 and 1")
    return NormalDist().inv_cdf((1 + confidence) / 2)
