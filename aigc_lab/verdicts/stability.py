"""The stability verdict of a run: what the history of one score says of its training.

The first rule that holds is the verdict:

| verdict | when |
|---|---|
| DIVERGED | a loss, gradient, parameter or score was not finite |
| WITHHELD | fewer than 10 evaluations |
| NEVER-LEARNED | the best is not below half of the baseline, a trivial sampler's score |
| REGRESSED | the median of the last 3 evaluations is at least 1.35 × the best |
| OSCILLATING | around its trend, the last half has a standard deviation above 10 % |
| STABLE | none of these |

The online alarm, for pruning: two evaluations in a row above 1.35 × the best before them.

**Scales.** Positive lower-is-better values far above zero (beyond five standard errors; where those are unknown, a
hundredth of the baseline) are compared as ratios, and the 10 % are of the logarithm. Values near or below zero, or of
which more is better, are compared as (x − best)/(baseline − best). 1.35 × the best is then a loss of 35 % of the best's
own size, but of a tenth of what was gained over the baseline at least, and of 35 % of it at most; the 10 % are of the
gain. Without a baseline the gain is counted from the worst of the first three evaluations, sets no upper bound, and is
taken for at least the best's own size; whether the run learned at all is then unknown, and never a verdict.

**Noise.** A difference counts beyond 3 standard errors. Where none are given, the noise is estimated from second
differences, of the last half and of the evaluations between the first and the last that were nearly as good as the
best, and the smaller estimate counts: a wrecked tail swings by more than its noise, a steep descent bends. Second
differences are robust to trends and jumps, but blind to what comes and goes slowly. Where values are compared as ratios
the estimate is one too, and counts at the size of the best: at the size of a wrecked value, it would excuse the wreck.
Fast oscillation looks the same as noise, so none of it is explained away by an estimate.

**What calibration changed** (`evaluation/calibrate.py stability` prints the definitions' words beside these rules):

- The best of n noisy values is too good by about Φ⁻¹((n − 3/8)/(n + 1/4)) standard errors (Blom 1958). The 3 standard
  errors are counted from where the best would be without that luck: the winner's curse made regressions of noise.
- REGRESSED looks for the best before the last two evaluations, as the alarm does: in a run that still improves fast,
  the median of the last three is the last but one, and 1.35 × the last.
- The trend is the monotone sequence that fits best, and no line: a late learner's curve is bent, and what a line
  leaves of it looked like oscillation.
- The evaluation farthest from the trend is left out, so that none decides alone, as in the other rules; and what the
  standard errors explain is subtracted.
- DIVERGED comes before WITHHELD: what diverges early is stopped early, and would never be counted.
- Where neither the best nor the gain exceeds 15 standard errors, a difference counts beyond 15: there is nothing to
  lose yet, and correlated noise passes for a loss. Without errors and baseline, of values that lie around zero from the
  first evaluation on, nothing tells what is large, and swings are no verdict. Ratios whose noise is estimated are left
  out of this: 1.35 times is a loss of any positive score, learned or not. (With it, and the noise taken from the tail,
  a published run that ended at 3.34 times its best was STABLE; of 17 such runs 6 were, and 6 raised no alarm.)
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from aigc_lab.host import notebook
from aigc_lab.verdicts import wording

_VERSION = 3  # of the rules
FEWEST = 10
# How many times the best a value must be to have regressed, and by how many standard errors; the least part of the gain
# that counts near zero; the standard deviation around the trend above which a run oscillates.
FACTOR = 1.35
SIGMAS = 3.0
LEAST_LOSS = 0.1
SWING = 0.1

# Far above zero: in standard errors; without any, as a part of the baseline.
_FAR = 5.0
_NEAR = 0.01
# The standard error of the median of three normal values of standard error 1.
_MEDIAN_OF_3 = 0.6698
# The noise is estimated from half of the history, within these bounds, and from so many second differences at least.
_TAIL = (10, 50)
_BENDS = 4
# Evaluations that are compared with the best of those before them.
_LATEST = 2
# Standard errors that the best or the gain must be worth, else a difference must.
_RISEN = 15.0
# How much farther values reach to one side of zero than to the other if they do not just lie around it.
_LOPSIDED = 3.0

Scale = Literal["log", "normalised"]
Better = Literal["lower", "higher"]
Array = npt.NDArray[np.float64]


class Stability(StrEnum):
    WITHHELD = "WITHHELD"
    DIVERGED = "DIVERGED"
    NEVER_LEARNED = "NEVER-LEARNED"
    REGRESSED = "REGRESSED"
    OSCILLATING = "OSCILLATING"
    STABLE = "STABLE"


class Point(NamedTuple):
    step: float
    value: float


class Finding(NamedTuple):
    """Fact that a verdict rests on; step and value are None if it concerns no single evaluation."""

    what: str
    step: float | None = None
    value: float | None = None


@dataclass(frozen=True)
class StabilityVerdict:
    """Verdict on the stability of a run.

    `best` is the best measured value, `last` the median of the last three at the last step. `alarm_step` is the step of
    the first alarm, even if it passed. `n` counts the evaluations. `signature` holds the version of the rules, the
    baseline and the floor: verdicts of different signatures are not compared.
    """

    verdict: Stability
    reason: str
    alarm_step: float | None
    best: Point | None
    last: Point | None
    evidence: tuple[Finding, ...]
    scale: Scale
    n: int
    signature: str = ""

    def __repr__(self) -> str:
        """One line, without the evidence and the signature."""
        return f"StabilityVerdict({self.verdict}: {self.reason}; n {self.n})"

    def _repr_html_(self) -> str:
        return notebook.lines(wording.of_stability(self.as_dict()), self.signature)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "StabilityVerdict":
        """Verdict from the data of `as_dict`."""
        best, last = (data[name] and Point(**data[name]) for name in ("best", "last"))
        evidence = tuple(Finding(**each) for each in data["evidence"])
        kind = Stability(data["verdict"])
        signature = data.get("signature", "")
        return cls(kind, data["reason"], data["alarm_step"], best, last, evidence, data["scale"], data["n"], signature)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for strict JSON."""
        return {
            "verdict": str(self.verdict),
            "reason": self.reason,
            "alarm_step": self.alarm_step,
            "best": self.best and self.best._asdict(),
            "last": self.last and self.last._asdict(),
            "n": self.n,
            "scale": self.scale,
            "evidence": [finding._asdict() for finding in self.evidence],
            "signature": self.signature,
        }


def judge(
    steps: Iterable[Any],
    values: Iterable[Any],
    errors: Iterable[Any] | None = None,
    *,
    baseline: float | None = None,
    better: Better = "lower",
    floor: float | None = None,
    diverged_at: tuple[float, str] | None = None,
) -> StabilityVerdict:
    """Verdict on a history of one score, by the rules above.

    `errors` are standard errors; None or NaN if unknown. `baseline` is a trivial sampler's score, `floor` that of real
    samples (0 if lower is better): half of the baseline is half of the way from it to the floor. `diverged_at` reports
    a loss, gradient or parameter that was not finite: (step, what). Evaluations need no equal spacing; they come in the
    order in which they were made, or all in reverse. If a step goes back, training was resumed there: evaluations made
    before, at that step or a later one, are void. A value of None was not measured; NaN and ±inf diverged.

    Raises `ValueError` naming the value for different lengths, a value that is no number, a step, baseline or floor
    that is not finite, and a negative standard error.

    >>> steps = range(1000, 13000, 1000)
    >>> learned = [60.0, 40.0, 30.0, 25.0, 22.0, 20.0, 19.0, 18.5, 18.2, 18.1, 18.0, 18.0]
    >>> judge(steps, learned, baseline=120.0).verdict.value
    'STABLE'
    >>> lost = judge(steps, [*learned[:8], 40.0, 45.0, 44.0, 46.0], baseline=120.0)
    >>> lost.verdict.value, lost.alarm_step
    ('REGRESSED', 10000)
    """
    run, notes = _run(steps, values, errors, baseline, better)
    ideal = 0.0 if better == "lower" else None
    if floor is not None:
        ideal = run.sign * _finite("floor", floor)
    finite = np.isfinite(run.x)
    breaks = [
        Finding(f"the score is {run.sign * run.x[i]}", _as_integer(run.steps[i])) for i in np.flatnonzero(~finite)[:1]
    ]
    if diverged_at is not None:
        breaks.append(Finding(diverged_at[1], _as_integer(_finite("diverged_at", diverged_at[0]))))
    with np.errstate(all="ignore"):  # of numbers near the largest there are, inf and NaN compare as they should
        alarm = _first_alarm(run, FACTOR)
        whole = _History(run.where(finite))
        verdict, reason = _verdict(whole, len(run.x), breaks, ideal)
        if verdict is Stability.STABLE and alarm is not None:
            reason += f"; the alarm of step {_text(alarm)} has passed"
        if run.unvalued and verdict is not Stability.DIVERGED:
            reason += f"; the last {run.unvalued} evaluations have no value: it diverged if that was NaN"
        evidence = (*breaks, *whole.findings(ideal), *notes)
    alarm = min((step for step in (alarm, *(each.step for each in breaks)) if step is not None), default=None)
    against = {"baseline": baseline, "floor": floor}
    beside = [f"{name}:{value:.6g}" for name, value in against.items() if value is not None]
    signed = "|".join(["stability", f"better:{better}", *beside, f"v:{_VERSION}"])
    return StabilityVerdict(verdict, reason, alarm, whole.best, whole.last, evidence, whole.scale, len(run.x), signed)


def first_alarm(
    steps: Iterable[Any],
    values: Iterable[Any],
    errors: Iterable[Any] | None = None,
    *,
    baseline: float | None = None,
    better: Better = "lower",
    factor: float = FACTOR,
) -> float | None:
    """Step at which `Alarm` would have been raised on a whole history, None if it would not."""
    run, _ = _run(steps, values, errors, baseline, better)
    with np.errstate(all="ignore"):
        return _first_alarm(run, factor)


class Alarm:
    """Online alarm, fed one evaluation after the other: the same as that of `judge` on the same history.

        alarm = Alarm(baseline=300.0)
        if alarm.add(step, fd, error): ...  # prune

    A value that is not finite raises it at once. Without standard errors it needs six evaluations to estimate the
    noise. A step that is not after the last one resets the history to it, as when a run is resumed.
    """

    def __init__(self, *, baseline: float | None = None, better: Better = "lower", factor: float = FACTOR) -> None:
        self.step: float | None = None
        self._baseline, self._better, self._factor = baseline, better, factor
        self._evaluations: list[tuple[float, float, float | None]] = []

    def add(self, step: float, value: float, error: float | None = None) -> bool:
        """Whether the alarm is raised at this evaluation or was before; `step` is where."""
        if self.step is not None and self.step >= step:
            self.step = None
        self._evaluations = [*(each for each in self._evaluations if each[0] < step), (step, value, error)]
        steps, values, errors = zip(*self._evaluations, strict=True)
        run, _ = _run(steps, values, errors, self._baseline, self._better)
        with np.errstate(all="ignore"):
            if self.step is None and (not np.isfinite(run.x[-1]) or _alarming(run, len(run.x) - 1, self._factor)):
                self.step = _as_integer(step)
        return self.step is not None


# ---- a history


@dataclass(frozen=True)
class _Run:
    """History in the order of its steps, with the sign that makes less better; an unknown error is NaN."""

    steps: Array
    x: Array
    errors: Array
    baseline: float | None
    sign: float
    unvalued: int = 0  # evaluations after the last one that has a value

    def where(self, rows: Any) -> "_Run":
        return replace(self, steps=self.steps[rows], x=self.x[rows], errors=self.errors[rows])

    @property
    def start(self) -> float:
        """Value from which the gain is counted."""
        return float(self.x[:3].max()) if self.baseline is None else self.baseline

    @property
    def has_errors(self) -> bool:
        """Whether any standard error is known."""
        return bool(np.isfinite(self.errors).any())


def _run(
    steps: Iterable[Any],
    values: Iterable[Any],
    errors: Iterable[Any] | None,
    baseline: float | None,
    better: Better,
) -> tuple[_Run, list[Finding]]:
    """History in order, and findings on what was left out."""
    if better not in ("lower", "higher"):
        raise ValueError(f"better is {better!r}; it is 'lower' or 'higher'")
    sign = 1.0 if better == "lower" else -1.0
    at, x = _numbers("steps", steps), _numbers("values", values)
    s = [None] * len(x) if errors is None else _numbers("errors", errors)
    if not len(at) == len(x) == len(s):
        raise ValueError(f"{len(at)} steps, {len(x)} values and {len(s)} errors; there must be one of each")
    for place, (step, error) in enumerate(zip(at, s, strict=True)):
        if step is None or not math.isfinite(step):
            raise ValueError(f"steps[{place}] is {step}; it must be finite")
        if error is not None and error < 0:
            raise ValueError(f"errors[{place}] is {error}; a standard error is not negative")
    order, void, repeated = _sequence([step for step in at if step is not None], x)
    run = _Run(
        np.array([at[place] for place in order], dtype=float),
        sign * np.array([x[place] for place in order], dtype=float),
        np.array([s[place] for place in order], dtype=float),
        None if baseline is None else sign * _finite("baseline", baseline),
        sign,
    )
    run.errors[~np.isfinite(run.errors)] = np.nan
    behind = sum(value is None for value in x[order[-1] + 1 :]) if order else len(x)
    run = replace(run, unvalued=behind)
    missing = sum(value is None for value in x)
    notes = [Finding(f"left out: {missing} of {len(x)} evaluations, which have no value")] * bool(missing)
    notes += [Finding(f"left out: {repeated} evaluations, followed by others of the same step")] * bool(repeated)
    notes += [
        Finding(f"left out: {count} evaluations from here on, for training went back to this step", _as_integer(step))
        for step, count in void
    ]
    return run, notes


def _sequence(steps: Sequence[float], values: Sequence[float | None]) -> tuple[list[int], list[tuple[float, int]], int]:
    """Places of the valid evaluations in the order of their steps; steps to which training went back, with the number
    of evaluations that this made void; and the number of evaluations followed by another of the same step.

    Evaluations come in the order in which they were made, or all in reverse.
    """
    places = [place for place, value in enumerate(values) if value is not None]
    if len(places) > 1 and all(steps[later] < steps[earlier] for earlier, later in pairwise(places)):
        return places[::-1], [], 0
    order: list[int] = []
    void: list[tuple[float, int]] = []
    repeated = 0
    for place in places:
        at = len(order)
        while at and steps[order[at - 1]] >= steps[place]:
            at -= 1
        if len(order) - at == 1 and steps[order[at]] == steps[place]:
            repeated += 1
        elif len(order) > at:
            void.append((steps[place], len(order) - at))
        order[at:] = [place]
    return order, void, repeated


def _numbers(what: str, values: Iterable[Any]) -> list[float | None]:
    numbers: list[float | None] = []
    for place, each in enumerate(values):
        try:
            numbers.append(None if each is None else float(each))
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{what}[{place}] is {each!r}, which is no number") from None
    return numbers


def _finite(what: str, value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{what} is {value}; it must be finite")
    return float(value)


# ---- scale, noise, and how much worse is worse


def _scale(run: _Run) -> Scale:
    x = run.x
    if run.sign < 0 or not len(x) or x.min() <= 0:
        return "normalised"
    # An error that is not known compares as false.
    far = not (x <= _FAR * run.errors).any() if run.has_errors else x.min() > _NEAR * run.start
    return "log" if far else "normalised"


def _errors(run: _Run, scale: Scale) -> Array:
    """Standard error of every value: as given, of the median size if only others are given, else estimated."""
    size = run.x if scale == "log" else np.ones_like(run.x)
    if run.has_errors:
        return np.where(np.isfinite(run.errors), run.errors, np.nanmedian(run.errors / size) * size)
    return _noise(run, scale) * size


def _noise(run: _Run, scale: Scale) -> float:
    """Standard deviation of a curve's noise (of its logarithm on that scale); infinite for too few values.

    It is the smaller of two estimates, since each may hold more than noise: of the latest half, which may be a wreck,
    and of the evaluations between the first and the last that were nearly as good as the best.
    """
    y = np.log(run.x) if scale == "log" else run.x
    least, most = _TAIL
    latest = y[-min(max(len(y) // 2, least), most) :]
    return min(_bent(latest), _bent(y[_prime(run, scale)]))


def _prime(run: _Run, scale: Scale) -> slice:
    """Evaluations between the first and the last that were near enough to the best not to have regressed from it."""
    near = np.flatnonzero(run.x <= _bar(run, scale, float(run.x.min()), FACTOR, final=False))
    return slice(int(near[0]), int(near[-1]) + 1)


def _bent(y: Array) -> float:
    """Standard deviation of white noise whose second differences have the median size of those of y; infinite for too
    few.
    """
    bends = np.abs(np.diff(y, n=2))
    return float(np.median(bends)) / (NormalDist().inv_cdf(0.75) * math.sqrt(6)) if len(bends) >= _BENDS else math.inf


def _luck(n: int) -> float:
    """Expected standard errors by which the best of n noisy values is too good (Blom 1958)."""
    return NormalDist().inv_cdf((n - 0.375) / (n + 0.25))


def _fair(x: Array, errors: Array) -> float:
    """Best value, corrected for the luck of the best of so many noisy values."""
    luck, at = _luck(len(x)), int(x.argmin())
    return float(x[at] + luck * errors[at]) if luck else float(x[at])


# Logarithm of the largest float64, about.
_MOST = 709.0


def _noisy(run: _Run, scale: Scale, errors: Array, error: Array, share: float = 1.0) -> Array:
    """Upper ends of the latest evaluations under noise alone, against the best before them; `error` is the standard
    error of what is compared, of which `share` counts.

    Estimated noise is a ratio if values are compared as ratios: taken at the size of a wrecked value, it would excuse
    the wreck. A score that has not risen out of the noise can only be compared with the noise, part of which
    correlation hides.
    """
    before = run.x[:-_LATEST]
    if scale == "log" and not run.has_errors:
        ratio = float(errors[0] / run.x[0])
        # The best was drawn from those that could have been it: a wreck's evaluations add no luck.
        rivals = before[_prime(run.where(slice(-_LATEST)), scale)]
        most = min((_luck(len(rivals)) + SIGMAS * share) * ratio, _MOST)  # beyond, whatever follows is noise
        return np.full_like(error, float(before.min()) * math.exp(most))
    fair = _fair(before, errors[:-_LATEST])
    risen = max(run.start - fair, abs(fair)) > _RISEN * error
    return fair + np.where(risen, SIGMAS, _RISEN) * share * error


def _bar(run: _Run, scale: Scale, best: float, factor: float, *, final: bool) -> float:
    """Value from which on a run has regressed from its best. Before training has ended, the gain over the baseline sets
    no upper bound, since it may be at its beginning.
    """
    own = (factor - 1) * abs(best)
    if scale == "log":
        return best + own
    gain = max(run.start - best, 0.0)
    most = (factor - 1) * gain if final and run.baseline is not None else math.inf
    return best + max(min(own, most), LEAST_LOSS * gain)


def _alarming(run: _Run, at: int, factor: float) -> bool:
    """Whether this evaluation and the one before have regressed from the best before them, by what is known at this
    step.
    """
    if at < _LATEST:
        return False
    run = run.where(slice(at + 1))
    scale = _scale(run)
    errors = _errors(run, scale)
    before, latest = np.split(run.x, [-_LATEST])
    beyond = latest > _noisy(run, scale, errors, errors[-_LATEST:])
    return bool((beyond & (latest >= _bar(run, scale, float(before.min()), factor, final=False))).all())


def _first_alarm(run: _Run, factor: float) -> float | None:
    broken = np.flatnonzero(~np.isfinite(run.x))[:1]
    sound = run.where(slice(broken[0] if len(broken) else None))
    x = sound.x
    if len(x) > _LATEST:
        best = np.minimum.accumulate(x)[:-_LATEST]
        # A necessary condition on every scale, checked for all evaluations at once: few of a sound run meet it.
        doubtful = np.minimum(x[1:-1], x[2:]) - best >= (factor - 1) * np.abs(best)
        for at in np.flatnonzero(doubtful) + _LATEST:
            if _alarming(sound, int(at), factor):
                return _as_integer(run.steps[at])
    return _as_integer(run.steps[broken[0]]) if len(broken) else None


def _from_trend(y: Array) -> Array:
    """Residuals of y from the nearest monotone sequence, falling or rising."""
    either = y - _falling(y), y + _falling(-y)
    return min(either, key=lambda residuals: float((residuals**2).sum()))


def _falling(y: Array) -> Array:
    """Non-increasing sequence nearest to y in least squares (pool adjacent violators; Ayer et al. 1955)."""
    means: list[float] = []
    sizes: list[int] = []
    for value in y.tolist():
        mean, size = value, 1
        while means and means[-1] < mean:
            mean = (mean * size + means[-1] * sizes[-1]) / (size + sizes[-1])
            size += sizes.pop()
            means.pop()
        means.append(mean)
        sizes.append(size)
    return np.repeat(means, sizes)


# ---- the rules


class _History:
    """Finite evaluations of a whole history, with the quantities that the rules compare."""

    def __init__(self, run: _Run) -> None:
        self.run = run
        self.scale: Scale = _scale(run)

    @cached_property
    def at(self) -> int:
        return int(self.run.x.argmin())

    @property
    def best(self) -> Point | None:
        run = self.run
        return Point(_as_integer(run.steps[self.at]), float(run.sign * run.x[self.at])) if len(run.x) else None

    @property
    def last(self) -> Point | None:
        run = self.run
        return Point(_as_integer(run.steps[-1]), run.sign * self.end) if len(run.x) else None

    @cached_property
    def end(self) -> float:
        """Median of the last three; of two, their mean, halved first lest their sum overflows."""
        few = np.sort(self.run.x[-3:])
        return float(few[len(few) // 2] if len(few) % 2 else few[0] / 2 + few[1] / 2)

    @cached_property
    def errors(self) -> Array:
        return _errors(self.run, self.scale)

    @cached_property
    def reached(self) -> float:
        """Best value corrected for luck; uncorrected if the noise is only estimated, since that may be oscillation."""
        return _fair(self.run.x, self.errors) if self.run.has_errors else float(self.run.x[self.at])

    @cached_property
    def before(self) -> float:
        """Best value that the last two evaluations could have fallen from."""
        return float(self.run.x[:-_LATEST].min())

    @cached_property
    def bar(self) -> float:
        """Value from which on the median of the last three has regressed: worse by the factor, and beyond noise."""
        error = np.sqrt(np.mean(self.errors[-3:] ** 2, keepdims=True))
        noisy = float(_noisy(self.run, self.scale, self.errors, error, _MEDIAN_OF_3)[0])
        return max(_bar(self.run, self.scale, self.before, FACTOR, final=True), noisy)

    @cached_property
    def unit(self) -> float:
        """Divisor of the normalised scale: the gain over the baseline, or its substitute."""
        best = float(self.run.x[self.at])
        gain = self.run.start - best
        return (gain if self.run.baseline is not None else max(gain, abs(best))) or 1.0

    def learned(self, ideal: float | None) -> bool:
        """Whether the best is more than half of the way from the baseline to the ideal, or significantly better than
        the baseline if the ideal is unknown.
        """
        baseline = self.run.baseline
        if baseline is None:
            return True
        if ideal is not None and ideal < baseline:
            return self.reached - ideal < (baseline - ideal) / 2
        return baseline - self.reached > SIGMAS * float(self.errors[self.at])

    def regressed(self) -> bool:
        """Whether the end has regressed from the best; not if the very last evaluation is the best of all."""
        return self.end >= self.bar and self.end > self.before and self.run.x[-1] > self.before

    @cached_property
    def swing(self) -> tuple[float, float, bool]:
        """Standard deviation of the last half around its trend, the part that the standard errors explain, and whether
        the rest is too much; without the evaluation farthest from the trend.
        """
        half = slice(len(self.run.x) // 2, None)
        x, errors = self.run.x[half], self.errors[half]
        y, s = (np.log(x), errors / x) if self.scale == "log" else (x / self.unit, errors / self.unit)
        inner = np.arange(len(y)) != np.abs(_from_trend(y)).argmax()
        y, s = y[inner], s[inner]
        spread = float(np.std(_from_trend(y), ddof=1))
        if self.blind:
            return spread, 0.0, False
        explained = math.sqrt(float(np.mean(s**2))) if self.run.has_errors else 0.0
        beyond = spread**2 > explained**2 * (1 + SIGMAS * math.sqrt(2 / (len(y) - 1)))
        return spread, explained, beyond and spread**2 - explained**2 > SWING**2

    @cached_property
    def blind(self) -> bool:
        """Whether nothing tells swings from noise: no errors, no baseline, and values on both sides of zero."""
        below, above = -float(self.run.x.min()), float(self.run.x.max())
        around_zero = max(below, above) < _LOPSIDED * min(below, above)
        return around_zero and not self.run.has_errors and self.run.baseline is None

    # ---- in words

    def loss(self) -> str:
        """Distance of the end from the best, in the words of the scale."""
        if self.scale == "log":
            return f"{self.end / self.run.x[self.at]:.2f} times"
        of = "the gain" if self.run.baseline is not None else "the range"
        return f"{_percent((self.end - self.run.x[self.at]) / self.unit)} of {of} worse than"

    def findings(self, ideal: float | None) -> list[Finding]:
        """Findings of the rules, in their order."""
        if self.best is None or self.last is None:
            return []
        run, sign = self.run, self.run.sign
        if len(run.x) < FEWEST:
            few = f"the median of the last {min(len(run.x), 3)}"
            return [Finding(f"the best of {len(run.x)}", *self.best), Finding(few, *self.last)]
        evidence = [Finding(self._compared()), Finding(self._noise_source())]
        if run.baseline is not None:
            evidence.append(Finding(f"the baseline is {_text(sign * run.baseline)}; {self.goal(ideal)}"))
        evidence.append(Finding(f"the best of {len(run.x)}", *self.best))
        bar = _text(sign * self.bar)
        evidence.append(Finding(f"the median of the last 3; from {bar} on it has regressed", *self.last))
        sound = np.flatnonzero(run.x < self.bar)
        since = int(sound[-1]) + 1 if len(sound) else 0
        if since < len(run.x):
            what = "beyond that since" if self.regressed() else "the last evaluations alone are beyond that, since"
            evidence.append(Finding(what, _as_integer(run.steps[since]), float(sign * run.x[since])))
        spread, explained, _ = self.swing
        of = f", of which standard errors explain {_percent(explained)}" if run.has_errors else ""
        evidence.append(Finding(f"the last half swings by {_percent(spread)} around its trend{of}"))
        return evidence

    def _compared(self) -> str:
        if self.scale == "log":
            return "compared as ratios: positive, less is better, far above zero"
        if self.run.baseline is not None:
            return "compared as (x − best)/(baseline − best)"
        return "compared with the best and with the gain since the first 3 evaluations, for want of a baseline"

    def _noise_source(self) -> str:
        if self.run.has_errors:
            lacking = int(np.isnan(self.run.errors).sum())
            return "standard errors are given" + (f", the {lacking} lacking taken for the usual" if lacking else "")
        noise = _text(float(self.errors[self.at]))
        return f"no standard errors are given; the noise of the curve itself is about {noise} at the best"

    def not_learned(self, ideal: float | None) -> str:
        """Reason that the best is no sign of learning."""
        baseline, best = self.run.baseline or 0.0, float(self.run.x[self.at])
        shown = _text(self.run.sign * baseline)
        if best >= baseline:
            return f"is no better than the baseline, {shown}"
        if ideal is not None and ideal < baseline and best - ideal < (baseline - ideal) / 2:
            return f"may be the luck of {len(self.run.x)} evaluations with such standard errors"
        return f"is too near the baseline, {shown}"

    def goal(self, ideal: float | None) -> str:
        baseline = self.run.baseline or 0.0
        if ideal is None or ideal >= baseline:
            return "learned is what is better than it beyond 3 standard errors, for want of a floor"
        return f"learned is what is better than {_text(self.run.sign * (baseline + ideal) / 2)}"


def _verdict(whole: _History, n: int, breaks: Sequence[Finding], ideal: float | None) -> tuple[Stability, str]:
    if breaks:
        first = min(breaks, key=lambda each: each.step or 0.0)
        return Stability.DIVERGED, f"{first.what} at step {_text(first.step or 0)}"
    if n < FEWEST:
        return Stability.WITHHELD, f"{n} evaluation{'' if n == 1 else 's'}, and a verdict needs {FEWEST}"
    assert whole.best is not None and whole.last is not None
    best = f"the best, {_text(whole.best.value)} at step {_text(whole.best.step)}"
    if not whole.learned(ideal):
        return Stability.NEVER_LEARNED, f"{best}, {whole.not_learned(ideal)}: {whole.goal(ideal)}"
    end = f"the last 3 evaluations (median {_text(whole.last.value)}) are {whole.loss()} {best}"
    spread, explained, too_much = whole.swing
    swing = f"the last half swings by {_percent(spread)} around its trend"
    if whole.regressed():
        return Stability.REGRESSED, f"{end}; and {swing}" if too_much else end
    if too_much:
        of = f", of which standard errors explain {_percent(explained)}" if whole.run.has_errors else ""
        return Stability.OSCILLATING, f"{swing}{of}; up to {_percent(SWING)} would be sound"
    unknown = "" if whole.run.baseline is not None else "; whether it learned cannot be told without a baseline"
    unknown += ", nor swings from noise without standard errors" if whole.blind else ""
    if whole.run.x[-1] >= whole.bar:
        value = _text(float(whole.run.sign * whole.run.x[-1]))
        unknown = f"; the last evaluation alone, {value}, is beyond what is sound{unknown}"
    return Stability.STABLE, f"{end}, and {swing}{unknown}"


def _as_integer(number: float) -> float:
    """Integer for a whole number, so that steps are printed as they were counted."""
    return int(number) if float(number).is_integer() and abs(number) < 2**53 else float(number)


def _text(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:.4g}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
