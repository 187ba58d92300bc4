"""Histories of which the truth is known, and how the stability verdict and its alarm judge them."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from aigc_lab.host import content
from aigc_lab.verdicts.stability import FACTOR, FEWEST, SIGMAS, SWING, Stability, StabilityVerdict, first_alarm, judge
from calibration.bounds import Bound, share

Array = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Kind:
    """A score: what untrained, trained and real samples get, and the size below which its noise shrinks no further."""

    name: str
    better: Literal["lower", "higher"]
    baseline: float
    level: float
    floor: float | None = None
    least: float = 0.0

    @property
    def ratio(self) -> bool:
        """Whether a factor is the measure of what is worse, and not a share of the gain."""
        return self.better == "lower" and self.level > self.least

    @property
    def perfect(self) -> bool:
        """Whether the trained level is as good as zero."""
        return 0 <= self.level < self.least


KINDS = (
    Kind("fd", "lower", 300.0, 10.0),
    Kind("kid, around zero", "lower", 0.3, 0.0, least=0.01),
    Kind("reverse kl, near zero", "lower", 2.0, 0.003, least=0.02),
    Kind("minus log density, below zero", "lower", 0.0, -100.0, floor=-120.0, least=20.0),
    Kind("precision", "higher", 0.2, 0.8, floor=0.95),
    Kind("inception score", "higher", 1.5, 8.0, floor=9.5),
)


@dataclass(frozen=True)
class History:
    truth: str
    kind: Kind
    steps: Array
    values: Array
    errors: Array | None
    baseline: float | None
    onset: int = 0

    def judged(self) -> StabilityVerdict:
        floor = None if self.baseline is None else self.kind.floor
        run, better = (self.steps, self.values, self.errors), self.kind.better
        return judge(*run, baseline=self.baseline, better=better, floor=floor)

    def alarm(self, factor: float) -> float | None:
        run, better = (self.steps, self.values, self.errors), self.kind.better
        return first_alarm(*run, baseline=self.baseline, better=better, factor=factor)


# What is left, at each of n evaluations, of the way from the baseline to the trained level.


def settling(n: int, random: np.random.Generator) -> Array:
    return np.exp(-np.arange(n) / random.uniform(n / 25, n / 8))


def slowly(n: int, random: np.random.Generator) -> Array:
    left: Array = (1.0 + np.arange(n)) ** -random.uniform(0.8, 1.5)
    return left


def flat(n: int, random: np.random.Generator) -> Array:
    """Trained before the first evaluation."""
    return np.zeros(n)


def late(n: int, random: np.random.Generator) -> Array:
    """Nothing happens at first, and then all of it within a few evaluations."""
    left: Array = 1 / (1 + np.exp((np.arange(n) - n * random.uniform(0.3, 0.75)) / random.uniform(0.4, 2.0)))
    return left


def never(n: int, random: np.random.Generator) -> Array:
    least = random.uniform(0.65, 1.0)
    return least + (1 - least) * settling(n, random)


Curve = Callable[[int, np.random.Generator], Array]
SOUND: dict[str, Curve] = {"converged": settling, "flat": flat, "slow": slowly, "late": late, "spike": settling}
FAULTS: dict[str, Curve] = {"diverge": settling, "never": never, "regress": settling, "oscillate": settling}
CURVES = SOUND | FAULTS

# The size of what is injected: a score that regresses, the crest of a wave, a spike of one evaluation. As a multiple of
# the trained level where ratios count, else as a share of the gain.
SIZES = {"regress": (2.0, 0.65), "oscillate": (1.5, 0.4), "spike": (3.0, 1.0)}


def noise(n: int, random: np.random.Generator) -> Array:
    """A stationary first-order process of variance 1, white or not; in three of ten histories its shocks have tails."""
    rho = random.choice([0.0, 0.5, 0.8])
    shocks = random.normal(size=n) if random.uniform() < 0.7 else random.standard_t(4, size=n) / np.sqrt(2)
    for i in range(1, n):
        shocks[i] = rho * shocks[i - 1] + np.sqrt(1 - rho**2) * shocks[i]
    return shocks


def wave(n: int, random: np.random.Generator) -> Array:
    """A sine, or a square wave of the same variance, with a period of 2.5 to 8 evaluations."""
    sine = np.sin(2 * np.pi * (np.arange(n) / random.uniform(2.5, 8) + random.uniform()))
    return sine if random.uniform() < 0.5 else np.sign(sine) / np.sqrt(2)


def history(
    truth: str,
    random: np.random.Generator,
    kind: Kind,
    *,
    told: bool,
    known: bool,
    size: tuple[float, float] | None = None,
) -> History:
    """A run of 20 to 50 evaluations, with standard errors or without, with a known baseline or without.

    Training fluctuates by 1 to 5 % of the value. With standard errors told it does so by 3 % at most, and measurement
    adds up to 15 % in sound runs, 5 % in others.
    """
    n = int(random.integers(20, 51))
    gain = kind.baseline - kind.level
    clean = kind.level + gain * CURVES[truth](n, random)
    onset = int(random.integers(n // 2, n - 4))
    if truth in SIZES:
        shape = {
            "regress": np.clip((np.arange(n) - onset + 1) / random.integers(1, 4), 0, 1),
            # What is perfect is no wave's middle.
            "oscillate": (wave(n, random) + kind.perfect) * (np.arange(n) >= n // 2 - 2),
            "spike": 1.0 * (np.arange(n) == random.integers(n // 2, n)),
        }[truth]
        factor, share = size or SIZES[truth]
        clean = clean * factor**shape if kind.ratio else clean + share * gain * shape
    scale = np.maximum(np.abs(clean), kind.least)
    values = clean + scale * random.uniform(0.01, 0.03 if told else 0.05) * noise(n, random)
    errors = None
    if told:
        most = 0.15 if truth in SOUND else 0.05
        errors = scale * random.uniform(0.05 if kind.least else 0.005, most) * random.uniform(0.8, 1.25, size=n)
        values = values + errors * random.normal(size=n)
    steps = np.cumsum(random.integers(1, 3, size=n)) * 1000.0
    if truth == "diverge":
        onset = int(random.integers(2, n - 4))
        values = values + gain * (2.0 ** np.clip(np.arange(n) - onset, 0, None) - 1)
        n = onset + int(random.integers(1, 4))  # a run that diverged is stopped
        values[n - 1] = random.choice([np.nan, np.inf])
    # Without any of them, nothing tells whether 0.003 is little.
    known = known or truth == "never" or (truth == "flat" and kind.perfect and not told)
    baseline = kind.baseline if known else None
    return History(truth, kind, steps[:n], values[:n], None if errors is None else errors[:n], baseline, onset)


def histories(
    truth: str, count: int, random: np.random.Generator, size: tuple[float, float] | None = None
) -> Iterator[History]:
    """Kinds of scores, standard errors and baselines in turn."""
    for place in range(count):
        told, known = (place // (len(KINDS) * each) % 2 == 0 for each in (1, 2))
        yield history(truth, random, KINDS[place % len(KINDS)], told=told, known=known, size=size)


# ---- published histories

FID = KINDS[0]


class Published(NamedTuple):
    """A published history of FID, parted into its course and the noise around it, both of the logarithm."""

    steps: Array
    course: Array
    noise: Array
    regressed: bool


def published_histories() -> list[Published]:
    golden = json.loads((content.folder("evaluation") / "golden" / "fid_histories.json").read_text("utf-8"))
    found = []
    for name, run in golden["runs"].items():
        last = {step: fid for step, fid in zip(run["thousands of steps"], run["fid"], strict=True)}
        y = np.log([last[step] for step in sorted(last)])
        # A median of five; of fewer at the ends, where a steep descent would be taken for noise.
        sides = np.minimum(2, np.minimum(np.arange(len(y)), np.arange(len(y))[::-1]))
        course = np.array([np.median(y[at - side : at + side + 1]) for at, side in enumerate(sides)])
        found.append(Published(np.array(sorted(last)), course, y - course, name in golden["regressed"]))
    return found


def resampled(run: Published, random: np.random.Generator, most: float) -> History:
    """Its course with its own noise in another order, in pieces of five evaluations, which keeps what hangs together,
    and at once to `most` times its size; of long histories every second or third evaluation, or a piece.
    """
    n = len(run.course)
    starts = random.integers(n, size=n // 5 + 1)
    places = (starts[:, None] + np.arange(5)).ravel()[:n] % n
    y = run.course + random.uniform(1, most) * run.noise[places]
    every = int(random.integers(1, min(3, n // 20) + 1))
    return History("published", FID, run.steps[::every], np.exp(y[::every]), None, None)


def published(count: int, random: np.random.Generator) -> list[Bound]:
    """Published histories with noise of once to twice its size: how many sound ones are called unsound, and how many of
    those that ended at 1.5 times their best and more are found, with the alarm before 70 % of the training.
    """
    runs, bounds = published_histories(), []
    for regressed, word in ((False, "sound"), (True, "regressed")):
        mine = [run for run in runs if run.regressed == regressed]
        for most in (1.0, 2.0):
            cases = [resampled(mine[place % len(mine)], random, most) for place in range(count)]
            judged = [case.judged() for case in cases]
            early = [
                verdict.alarm_step is not None and verdict.alarm_step < 0.7 * case.steps[-1]
                for verdict, case in zip(judged, cases, strict=True)
            ]
            said = Counter(str(verdict.verdict) for verdict in judged)
            shares = ", ".join(f"{verdict} {times / count:.1%}" for verdict, times in said.most_common())
            title = f"published, {word}, noise × {most:g}"
            print(f"{title:40}{shares}; alarm {share([each.alarm_step is not None for each in judged]):.1%}")
            unsound = share([verdict.verdict is not Stability.STABLE for verdict in judged])
            if regressed:
                bounds += [Bound(f"{title}: not STABLE", unsound, least=0.97)]
                bounds += [Bound(f"{title}: alarm before 70 % of the training", share(early), least=0.9)]
            else:
                raised = share([verdict.alarm_step is not None for verdict in judged])
                bounds += [
                    Bound(f"{title}: not STABLE", unsound, most=0.01),
                    Bound(f"{title}: alarm", raised, most=0.02),
                ]
    print()
    return bounds


# ---- the definitions' words


class Words:
    """A history by the definitions taken literally: the best value as it is, a line for the trend, the standard error
    of each difference and no noise where none is told, the first evaluation for a baseline that is not known.
    """

    def __init__(self, run: History) -> None:
        self.run = run
        self.sign = 1.0 if run.kind.better == "lower" else -1.0
        finite = np.isfinite(run.values)
        self.steps, self.x = run.steps[finite], self.sign * run.values[finite]
        self.s = np.zeros_like(self.x) if run.errors is None else run.errors[finite]
        self.baseline = float(self.x[0]) if run.baseline is None else self.sign * run.baseline
        near = 5 * self.s if run.errors is not None else abs(self.baseline) / 100
        self.ratios = self.sign > 0 and bool((self.x > near).all())

    def worse(self, value: float, error: float, at: int, factor: float) -> bool:
        excess, unit = value - self.x[at], self.x[at] if self.ratios else max(self.baseline - self.x[at], 0.0)
        return bool(excess > SIGMAS * np.hypot(error, self.s[at]) and excess >= (factor - 1) * unit)

    def alarm(self, factor: float = FACTOR) -> float | None:
        for i in range(2, len(self.x)):
            at = int(self.x[: i - 1].argmin())
            if all(self.worse(self.x[j], self.s[j], at, factor) for j in (i - 1, i)):
                return float(self.steps[i])
        return None

    def verdict(self) -> Stability:
        x, at = self.x, int(self.x.argmin())
        if len(self.run.values) < FEWEST:
            return Stability.WITHHELD
        if len(x) < len(self.run.values):
            return Stability.DIVERGED
        floor = self.run.kind.floor
        ideal = 0.0 if floor is None else self.sign * floor
        if self.run.baseline is not None and x[at] - ideal >= (self.baseline - ideal) / 2:
            return Stability.NEVER_LEARNED
        if self.worse(float(np.median(x[-3:])), 0.67 * float(np.sqrt(np.mean(self.s[-3:] ** 2))), at, FACTOR):
            return Stability.REGRESSED
        y, place = x[len(x) // 2 :], np.arange(len(x) - len(x) // 2)
        y = np.log(y) if self.ratios else y / max(self.baseline - x[at], 1e-12)
        swing = np.std(y - np.polyval(np.polyfit(place, y, 1), place), ddof=2)
        return Stability.OSCILLATING if swing > SWING else Stability.STABLE


# ---- the tables


def stability(count: int, seed: int) -> list[Bound]:
    """The tables of the stability verdict, and what is promised of it."""
    random = np.random.default_rng(seed)
    bounds = confusion({truth: list(histories(truth, count, random)) for truth in CURVES})
    return bounds + published(count, random) + alarms(count, random) + sizes(count // 4, random)


def confusion(runs: dict[str, list[History]]) -> list[Bound]:
    """Of each truth, how often it gets each verdict and an alarm."""
    names = [*Stability, "alarm"]
    print(f"{'truth, % of which are':26}" + "".join(f"{name:>15}" for name in names))
    bounds = []
    cells: dict[str, list[StabilityVerdict]] = {}
    for truth, cases in runs.items():
        judged = [run.judged() for run in cases]
        for run, verdict in zip(cases, judged, strict=True):
            if truth in SOUND:
                cells.setdefault(f"{run.kind.name}, errors {'un' * (run.errors is None)}told", []).append(verdict)
        words = [Words(run) for run in cases]
        rows = {
            f"{truth}, by the words": ([each.verdict() for each in words], [each.alarm() for each in words]),
            f"{truth}": ([each.verdict for each in judged], [each.alarm_step for each in judged]),
        }
        for row, (verdicts, raised) in rows.items():
            counted = Counter(verdicts)
            shares = [counted[each] / len(cases) for each in Stability] + [share([step is not None for step in raised])]
            print(f"{row:26}" + "".join(f"{100 * each:15.1f}" for each in shares))
        bounds += promised(truth, judged)
    print()
    worst = max(cells, key=lambda name: misjudged(cells[name]))
    return [*bounds, Bound(f"all sound ones of the worst kind ({worst})"[:66], misjudged(cells[worst]), most=0.02)]


def misjudged(sound: list[StabilityVerdict]) -> float:
    return share([each.verdict is not Stability.STABLE or each.alarm_step is not None for each in sound])


def promised(truth: str, judged: list[StabilityVerdict]) -> list[Bound]:
    unsound = share([each.verdict is not Stability.STABLE for each in judged])
    raised = share([each.alarm_step is not None for each in judged])
    if truth in SOUND:
        return [Bound(f"{truth}: not STABLE", unsound, most=0.02), Bound(f"{truth}: alarm", raised, most=0.02)]
    named = {"diverge": Stability.DIVERGED, "never": Stability.NEVER_LEARNED}.get(truth)
    if named is not None:
        return [Bound(f"{truth}: {named}", share([each.verdict is named for each in judged]), least=0.98)]
    found = [Bound(f"{truth} ({sized(SIZES[truth])}): not STABLE", unsound, least=0.97)]
    return found + ([Bound(f"{truth}: alarm", raised, least=0.97)] if truth == "regress" else [])


def sized(size: tuple[float, float]) -> str:
    return f"×{size[0]:g}, or {size[1]:.0%} of the gain"


def alarms(count: int, random: np.random.Generator) -> list[Bound]:
    """The alarm at several factors: false ones against found ones, and how many evaluations after the onset."""
    sound = [run for truth in SOUND for run in histories(truth, count // 8, random)]
    injected = {
        size: list(histories("regress", count // 8, random, size))
        for size in ((1.5, 0.35), SIZES["regress"], (3.0, 0.9))
    }
    print(f"{'alarm at × best':26}{'false %':>15}" + "".join(f"{sized(size):>30}" for size in injected))
    for factor in (1.1, 1.2, FACTOR, 1.5, 2.0):
        for row, raised in (
            (f"{factor}, by the words", lambda run, f=factor: Words(run).alarm(f)),
            (f"{factor}", lambda run, f=factor: run.alarm(f)),
        ):
            false = share([raised(run) is not None for run in sound])
            print(f"{row:26}{100 * false:15.1f}" + "".join(f"{found(runs, raised):>30}" for runs in injected.values()))
    print()
    return []


def found(runs: list[History], raised: Callable[[History], float | None]) -> str:
    """How many are found at their onset or later, and the median of how much later."""
    delays = [int((run.steps <= step).sum()) - 1 - run.onset for run in runs if (step := raised(run)) is not None]
    late_enough = [float(delay) for delay in delays if delay >= 0]
    return f"{100 * len(late_enough) / len(runs):.1f} %, after {np.median(late_enough or [np.nan]):.0f}"


def sizes(count: int, random: np.random.Generator) -> list[Bound]:
    """How often faults of several sizes are found."""
    ladder = {
        "regress": [(1.35, 0.2), (1.5, 0.35), (2.0, 0.65), (3.0, 0.9)],
        "oscillate": [(1.15, 0.15), (1.25, 0.25), (1.5, 0.4), (2.0, 0.6)],
    }
    for truth, each in ladder.items():
        for size in each:
            runs = list(histories(truth, count, random, size))
            hit = share([run.judged().verdict is not Stability.STABLE for run in runs])
            by_words = share([Words(run).verdict() is not Stability.STABLE for run in runs])
            print(f"{truth} ({sized(size)})".ljust(50) + f"found {hit:6.1%}, by the words {by_words:6.1%}")
    print()
    return []
