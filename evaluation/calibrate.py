"""How often the verdicts are wrong: simulated cases of which the truth is known.

    python evaluation/calibrate.py stability              # half a minute
    python evaluation/calibrate.py stability --n 400      # quick
    python evaluation/calibrate.py collapse               # ten minutes; MNIST and captions if they are there
    python evaluation/calibrate.py collapse --data stacked --others 10    # an hour: 10,000 samples of 1,000 modes
    python evaluation/calibrate.py collapse --data digits ring --n 300
    python evaluation/calibrate.py intervals              # two minutes

Prints how often each truth gets each verdict: of stability by the definitions' words and by the rules as they are, and
what the online alarm raises falsely and misses; and how often the intervals hold what they are of. Exits with 1 when
sound cases are misjudged more often, or injected faults found less often, than is promised.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from aigc_lab import plugins
from aigc_lab.data.base import Dataset
from aigc_lab.extractor_files import find
from aigc_lab.neighbours import assign
from aigc_lab.noise import generator
from aigc_lab.samples import Images, Points, Samples, Text
from aigc_lab.settings import Settings
from aigc_lab.text.vocabulary import SPECIAL
from aigc_lab.verdicts.bins import Bins
from aigc_lab.verdicts.collapse import Beside, Judge
from aigc_lab.verdicts.conclusion import Collapse, needed
from aigc_lab.verdicts.missing import MISSING, PRESENT, decide, least_missing, most_missing
from aigc_lab.verdicts.seeds import kaplan_meier, seed_spread, wilson
from aigc_lab.verdicts.sentences import Sentences, of_splits
from aigc_lab.verdicts.stability import FACTOR, FEWEST, SIGMAS, SWING, Stability, StabilityVerdict, first_alarm, judge

Array = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Bound:
    """What is promised of a share, and what came of it."""

    what: str
    share: float
    least: float = 0.0
    most: float = 1.0

    @property
    def kept(self) -> bool:
        return self.least <= self.share <= self.most

    def __str__(self) -> str:
        promise = f"≥ {self.least:.0%}" if self.least else f"≤ {self.most:.0%}"
        return f"{self.what:66} {self.share:7.2%}  {promise:>6}{'' if self.kept else '   NOT KEPT'}"


# ---- stability: histories of which the truth is known


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


# ---- stability: the definitions' words


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


# ---- stability: the tables


def share(flags: Sequence[bool]) -> float:
    return sum(flags) / max(len(flags), 1)


def stability(count: int, seed: int) -> list[Bound]:
    """The tables of the stability verdict, and what is promised of it."""
    random = np.random.default_rng(seed)
    bounds = confusion({truth: list(histories(truth, count, random)) for truth in CURVES})
    return bounds + alarms(count, random) + sizes(count // 4, random)


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


# ---- collapse: real samples, and what is done to them

NARROW = ("1 bin gone", "1 bin narrow")
FOUND = {Collapse.PARTIAL, Collapse.SEVERE, Collapse.TOTAL}
SHOWN = [each for each in Collapse if each is not Collapse.POSTERIOR]
# What is judged at a time, by dataset; the others as `MANY`.
ENOUGH = {"digits": 400, "ring": 500, "grid": 1500, "captions": 1000, "stacked": 10_000}
MANY = 1500
SCORED: tuple[Literal["reference"], Literal["holdout"]] = ("reference", "holdout")
CAPTIONS = "text/coco_train.txt"
Case = Callable[[torch.Generator], Tensor]


@dataclass(frozen=True)
class Bench:
    """Real vectors [m, d] that nothing was judged by, their bins [m], the same ones blurred at several levels, and
    vectors of noise. Of text the last number of each is how strange it is.
    """

    name: str
    judge: Judge
    n: int
    real: Tensor
    of: Tensor
    blurred: dict[str, Tensor]
    noise: Tensor
    strange: bool = False

    def said(self, made: Tensor) -> Collapse:
        if not self.strange:
            return self.judge.judge(made).verdict
        alike = torch.unique(made, dim=0, return_inverse=True)[1]
        return self.judge.judge(made[:, :-1], Beside(made[:, -1], alike)).verdict

    @property
    def bins(self) -> int:
        return len(self.judge.bins.names)

    def draw(self, source: torch.Generator, kept: Tensor | None = None, vectors: Tensor | None = None) -> Tensor:
        """N real vectors without replacement, of those that are `kept` [m]; or the same ones of other `vectors`."""
        places = torch.arange(len(self.real)) if kept is None else kept.nonzero().flatten()
        chosen = places[torch.randperm(len(places), generator=source)[: self.n]]
        return (self.real if vectors is None else vectors)[chosen]

    @property
    def usual(self) -> Tensor:
        """Which vectors are not strange by themselves [m]: of what is, near copies cannot be told from noise."""
        return self.real[:, -1] <= 1 if self.strange else torch.ones(len(self.real), dtype=torch.bool)

    def some(self, source: torch.Generator, count: int) -> Tensor:
        """Which vectors are in `count` of the bins [m]."""
        return torch.isin(self.of, torch.randperm(self.bins, generator=source)[:count])

    def again(self, source: torch.Generator, vectors: Tensor, *, near: bool = False) -> Tensor:
        """N copies, or near copies, of these."""
        made = vectors[torch.randint(len(vectors), (self.n,), generator=source)]
        width = 1e-3 * float(self.real.std(0).mean()) if near else 0.0
        return made + width * torch.randn(made.shape, generator=source, dtype=made.dtype)

    def few(self, source: torch.Generator, count: int) -> Tensor:
        """Near copies of `count` vectors of each bin, of the half of it around its mean."""
        some = []
        for bin_ in range(self.bins):
            members = self.real[self.of == bin_]
            inner = (members - members.mean(0)).norm(dim=1).argsort()[: max(count, len(members) // 2)]
            some.append(members[inner[torch.randperm(len(inner), generator=source)[:count]]])
        return self.again(source, torch.cat(some), near=True)

    def _of(self, source: torch.Generator, bin_: int, count: int) -> Tensor:
        members = (self.of == bin_).nonzero().flatten()
        return self.real[members[torch.randperm(len(members), generator=source)[:count]]]

    def narrow(self, source: torch.Generator, count: int) -> Tensor:
        """As it is, but in `count` bins one vector stands for all."""
        vectors = self.real.clone()
        for bin_ in torch.randperm(self.bins, generator=source)[:count].tolist():
            one = self._of(source, bin_, 1)
            vectors[self.of == bin_] = self.again(source, one, near=True)[:1] + 1e-3 * (vectors[self.of == bin_] - one)
        return self.draw(source, vectors=vectors)

    def mixed(self, source: torch.Generator, share: float, kept: Tensor | None = None) -> Tensor:
        """Noise in the place of a share of the vectors."""
        count = round(share * self.n)
        far = self.noise[torch.randperm(len(self.noise), generator=source)[:count]]
        return torch.cat([self.draw(source, kept)[: self.n - count], far])

    def thin(self, source: torch.Generator, count: int, share: float) -> Tensor:
        """Of `count` bins only a share of the vectors."""
        stays = torch.rand(len(self.real), generator=source) < share
        return self.draw(source, ~self.some(source, count) | stays)

    def cases(self) -> dict[str, Case]:
        """Truth -> what makes a set of it."""
        third, half = max(1, self.bins // 3), self.bins // 2
        most = self.bins - 1
        return {
            "honest": self.draw,
            "1 bin gone": lambda g: self.draw(g, ~self.some(g, 1)),
            f"{third} bins gone": lambda g: self.draw(g, ~self.some(g, third)),
            f"{half} bins gone": lambda g: self.draw(g, ~self.some(g, half)),
            f"{most} bins gone": lambda g: self.again(g, self.draw(g, ~self.some(g, most)), near=True),
            f"{third} bins at 10 %": lambda g: self.thin(g, third, 0.1),
            f"{third} bins at 25 %": lambda g: self.thin(g, third, 0.25),
            f"{third} bins at 50 %": lambda g: self.thin(g, third, 0.5),
            "each twice": lambda g: self.draw(g)[: self.n // 2].repeat(2, 1),
            "one": lambda g: self.again(g, self.draw(g)[:1]),
            "near one": lambda g: self.again(g, self.draw(g, self.usual)[:1], near=True),
            "near 1 a bin": lambda g: self.few(g, 1),
            "near 3 a bin": lambda g: self.few(g, 3),
            "1 bin narrow": lambda g: self.narrow(g, 1),
            "half noise": lambda g: self.mixed(g, 0.5),
            f"half noise, {half} bins gone": lambda g: self.mixed(g, 0.5, ~self.some(g, half)),
            "noise": lambda g: self.noise[torch.randperm(len(self.noise), generator=g)[: self.n]],
        } | {name: partial(self.draw, vectors=vectors) for name, vectors in self.blurred.items()}


def bench(name: str, settings: Settings) -> Bench:
    """Of the training split, judged as a run on the dataset is."""
    n = ENOUGH.get(name, MANY)
    options = {"path": CAPTIONS} if name == "captions" else {}
    kind = plugins.find(Dataset, {"captions": "lines", "stacked": "stacked_mnist"}.get(name, name))  # type: ignore[type-abstract]
    dataset = kind(kind.Config(**options), settings.data_dir)
    source = generator("bench", name)
    vectors_of = _vectors(dataset, settings)
    splits = [_part(dataset.load(split), min(2 * n, 13_000), source) for split in SCORED]
    train = _part(dataset.load("train"), min(8 * n, 30_000), source)
    apart = vectors_of(_part(dataset.load("train"), 5000, source))
    read = vectors_of
    if isinstance(train, Text):
        # What a language model has read is not strange to it: it is given one half, and the other is what is judged.
        learned, train = train.take(slice(len(train) // 2)), train.take(slice(len(train) // 2, None))
        corpora = [each.corpus for each in (*splits, learned) if isinstance(each, Text)]
        read = partial(_with_strangeness, vectors_of, of_splits(corpora[:2], corpora[2]))
    pool, real = torch.cat([vectors_of(split) for split in splits]), read(train)
    labels = [split.labels for split in splits if split.labels is not None]
    if dataset.modes is not None:
        bins = Bins.of_centres(pool, dataset.modes.centres)
        of = assign(real, dataset.modes.centres)
    elif labels and train.labels is not None:
        bins, of = Bins.of_labels(torch.cat(labels)), train.labels
    else:
        bins = Bins.of_clusters(pool, n, apart)
        assert bins.centres is not None
        of = assign(vectors_of(train), bins.centres)
    blurred = {what: read(samples) for what, samples in _blurred(train, dataset, source)}
    strange = isinstance(train, Text)
    return Bench(name, Judge(pool, bins, name), n, real, of, blurred, read(_noise(train, source)), strange)


def _with_strangeness(vectors_of: Callable[[Samples], Tensor], sentences: Sentences, samples: Samples) -> Tensor:
    assert isinstance(samples, Text)
    strange = torch.from_numpy(sentences.strangeness(samples.corpus))
    return torch.cat([vectors_of(samples).double(), strange[:, None]], 1)


def _part(samples: Samples, count: int, source: torch.Generator) -> Samples:
    return samples.take(torch.randperm(len(samples), generator=source)[:count])


def _vectors(dataset: Dataset, settings: Settings) -> Callable[[Samples], Tensor]:
    if dataset.modes is not None:
        return lambda samples: samples.canonical().values
    name = {"stacked_mnist": "stacked_digits"}.get(dataset.name, "classifier")
    extractor = find("sentences" if isinstance(dataset.load("train"), Text) else name).prepare(
        dataset, cache=settings.shared_cache, weights=settings.weights, device="cpu", say=print
    )
    return lambda samples: extractor.extract(samples).vectors


def _blurred(samples: Samples, dataset: Dataset, source: torch.Generator) -> Iterator[tuple[str, Samples]]:
    """The same samples, of which every mode is there, at several levels of what is no longer right."""
    if isinstance(samples, Points):
        assert dataset.modes is not None
        for factor in (1.2, 1.5, 2.0, 3.0):
            width = dataset.modes.sigma * (factor**2 - 1) ** 0.5
            yield (
                f"σ × {factor}",
                Points(samples.values + width * torch.randn(samples.values.shape, generator=source), samples.labels),
            )
    elif isinstance(samples, Images):
        pixels = samples.unit()
        for sigma in (0.5, 0.7, 0.9, 1.2):
            yield f"blur of {sigma} pixels", Images(_smooth(pixels, sigma))
        for sigma in (0.05, 0.1, 0.2, 0.4):
            noisy = pixels + sigma * torch.randn(pixels.shape, generator=source)
            yield f"pixels' noise of {sigma}", Images(noisy.clamp(0, 1))
    else:
        assert isinstance(samples, Text)
        for share in (0.05, 0.1, 0.2):
            other = _words(samples, source)
            wrong = (torch.rand(samples.values.shape, generator=source) < share) & (samples.values >= len(SPECIAL))
            yield (
                f"{share:.0%} of words wrong",
                Text(torch.where(wrong, other, samples.values), vocabulary=samples.vocabulary),
            )


def _smooth(pixels: Tensor, sigma: float) -> Tensor:
    """A Gaussian filter over each channel."""
    away = torch.arange(-4.0, 5.0)
    line = torch.exp(-away.square() / (2 * sigma**2))
    line, channels = line / line.sum(), pixels.shape[1]
    wide = F.pad(pixels, (4, 4, 4, 4), mode="reflect")
    rows = F.conv2d(wide, line.expand(channels, 1, 1, 9), groups=channels)
    return F.conv2d(rows, line[:, None].expand(channels, 1, 9, 1), groups=channels).clamp(0, 1)


def _words(samples: Text, source: torch.Generator) -> Tensor:
    """Words drawn by how often they occur, as many as there are places [N, L]."""
    known = samples.values[samples.values >= len(SPECIAL)]
    return known[torch.randint(len(known), samples.values.shape, generator=source)]


def _noise(samples: Samples, source: torch.Generator) -> Samples:
    """Uniform over thrice the range of points, over all pictures, or over all words."""
    if isinstance(samples, Points):
        reach = 3 * samples.values.abs().max()
        return Points((2 * torch.rand(samples.values.shape, generator=source) - 1) * reach)
    if isinstance(samples, Images):
        return Images(torch.rand(samples.unit().shape, generator=source))
    assert isinstance(samples, Text)
    drawn = torch.randint(len(SPECIAL), len(samples.vocabulary), samples.values.shape, generator=source)
    return Text(torch.where(samples.values >= len(SPECIAL), drawn, samples.values), vocabulary=samples.vocabulary)


# ---- collapse: the tables


def collapse(count: int, others: int, seed: int, names: Sequence[str] = ()) -> list[Bound]:
    """How often each truth gets each verdict, by dataset, and what is promised of it. `count` sets are honest, and of
    each other truth there are as many as said.
    """
    settings = Settings.load()
    files = {"mnist": settings.data_dir / "MNIST", "captions": settings.data_dir / CAPTIONS}
    there = [name for name in ("digits", "ring", "grid", *files) if name not in files or files[name].exists()]
    bounds = []
    for name in names or there:
        bounds += table(bench(name, settings), count, others, seed)
    return bounds


def table(bench: Bench, count: int, others: int, seed: int) -> list[Bound]:
    """The confusions of one dataset."""
    decides = needed(bench.bins)
    powerful = bench.n >= decides
    print(
        f"{bench.name}: {bench.n} samples, pool {len(bench.judge.pool)}, {bench.bins} bins ({decides} samples decide)"
    )
    print(f"{'truth, % of which are':32}" + "".join(f"{name:>14}" for name in SHOWN))
    said: dict[str, Counter[Collapse]] = {}
    for number, (truth, make) in enumerate(bench.cases().items()):
        source = generator("calibrate", bench.name, number, seed)
        sets = count if truth == "honest" else others
        said[truth] = Counter(bench.said(make(source)) for _ in range(sets))
        row = "".join(f"{100 * said[truth][each] / sets:14.1f}" for each in SHOWN)
        print(f"{truth:32}{row}", flush=True)
    print()

    def among(truths: Sequence[str], verdicts: set[Collapse]) -> float:
        sets = [said[truth] for truth in truths]
        return sum(each[verdict] for each in sets for verdict in verdicts) / sum(each.total() for each in sets)

    grave = {Collapse.SEVERE, Collapse.TOTAL}
    half = bench.bins // 2
    bounds = [
        Bound(f"{bench.name}, honest: PARTIAL or worse", among(["honest"], FOUND), most=0.01),
        Bound(f"{bench.name}, blurred: PARTIAL or worse", among([*bench.blurred], FOUND), most=0.01),
        Bound(f"{bench.name}, half noise: PARTIAL or worse", among(["half noise"], FOUND), most=0.01),
        Bound(f"{bench.name}, noise: UNMEASURABLE", among(["noise"], {Collapse.UNMEASURABLE}), least=0.99),
        Bound(f"{bench.name}, one: TOTAL", among(["one", "near one"], {Collapse.TOTAL}), least=0.99),
    ]
    if bench.n >= 20 * bench.bins:  # ten in a bin that look real, at the least: of fewer nothing is said
        each = among(["near 1 a bin"], {Collapse.TOTAL})
        bounds.append(Bound(f"{bench.name}, near 1 a bin: TOTAL", each, least=0.99))
    third = max(1, bench.bins // 3)
    wanting = [f"{third} bins gone", f"{half} bins gone", f"{third} bins at 10 %", "each twice", "near 3 a bin"]
    bounds.append(Bound(f"{bench.name}, something wanting: NONE", among(wanting, {Collapse.NONE}), most=0.01))
    bounds.append(Bound(f"{bench.name}, 1 bin gone, 1 narrow: NONE", among(NARROW, {Collapse.NONE}), most=0.02))
    if powerful:
        lacking = [f"{half} bins gone", f"{bench.bins - 1} bins gone"]
        bounds.append(Bound(f"{bench.name}, half and more gone: SEVERE or TOTAL", among(lacking, grave), least=0.99))
    return bounds


# ---- intervals: how often they hold


def intervals(count: int, seed: int) -> list[Bound]:
    """How often each interval that a verdict shows holds what it is of, in `count` simulated cases."""
    random = np.random.default_rng(seed)
    bounds = [*_of_masses(count, random), *_of_bins(count // 10, seed), *_of_phrases(count // 10, random)]
    return bounds + _of_seeds(count, random)


def _holds(what: str, held: Sequence[bool], least: float = 0.95) -> Bound:
    """At least so often, but for three standard errors of a simulation of this size."""
    print(f"{what:80} {share(held):7.2%} of {len(held):,}")
    return Bound(what, share(held), least=least - 3 * (least * (1 - least) / len(held)) ** 0.5)


def _of_masses(count: int, random: np.random.Generator) -> Iterator[Bound]:
    """Of counts: a third of the bins, chosen at random, has none or a fifth of its share, or a half, or all of it."""
    for bins, n in ((10, 400), (100, 1500), (1000, 10_000)):
        each, family, together = [], [], []
        for _ in range(count // 2):
            p = random.dirichlet(np.full(bins, 5.0))
            q = np.where(random.uniform(size=bins) < random.choice([0.0, 0.3]), random.choice([0, 0.2, 0.5]) * p, p)
            q /= q.sum()
            hits = random.multinomial(n, q).tolist()
            quarter = (p / 4).tolist()
            rows: list[dict[str, Any]] = [
                {"real": part, "threshold": bar} for part, bar in zip(p.tolist(), quarter, strict=True)
            ]
            decide(rows, hits, n)
            held = [row["low"] <= chance <= row["high"] for row, chance in zip(rows, q.tolist(), strict=True)]
            each.append(held[0])
            family.append(all(held))
            missing, absent = float(p[q < p / 4].sum()), float(p[q <= p / 4].sum())
            low, high = least_missing(hits, n, p.tolist(), quarter), most_missing(hits, n, p.tolist(), quarter)
            together.append(
                max(low, sum(row["real"] for row in rows if row["state"] == MISSING)) <= missing + 1e-12
                and absent <= min(high, sum(row["real"] for row in rows if row["state"] != PRESENT)) + 1e-12
            )
        yield _holds(f"{bins} bins, {n} samples: the share of one bin", each)
        yield _holds(f"{bins} bins, {n} samples: the shares of all bins", family)
        yield _holds(f"{bins} bins, {n} samples: the mass that is missing", together)


def _of_bins(count: int, seed: int) -> Iterator[Bound]:
    """Of samples of the ring and of digits: the mass that is missing, and diversity, all bins at once."""
    for name in ("ring", "digits"):
        data = bench(name, Settings.load())
        source = generator("intervals", name, seed)
        masses, varied = [], []
        for number in range(count):
            gone = torch.randperm(data.bins, generator=source)[: (0, 1, data.bins // 2)[number % 3]]
            found = data.judge.judge(data.draw(source, ~torch.isin(data.of, gone)))
            truth = sum(row["real"] for place, row in enumerate(found.bins) if place in gone.tolist())
            masses.append(found.missing_low <= truth + 1e-12 <= found.missing_high + 2e-12)
            known = [row for row in found.bins if row["diversity"] is not None]
            varied.append(all(row["diversity_low"] <= 1 <= row["diversity_high"] for row in known))
        yield _holds(f"{name}, {data.n} samples, some bins gone: the mass that is missing", masses)
        yield _holds(f"{name}, {data.n} samples, some bins gone: diversity of all bins", varied)


def _of_phrases(count: int, random: np.random.Generator) -> Iterator[Bound]:
    """Of captions, where they are there."""
    settings = Settings.load()
    if not (settings.data_dir / CAPTIONS).exists():
        return
    kind = plugins.find(Dataset, "lines")  # type: ignore[type-abstract]
    dataset = kind(kind.Config(path=CAPTIONS), settings.data_dir)
    reference, holdout, train = (dataset.load(split) for split in (*SCORED, "train"))
    assert isinstance(reference, Text) and isinstance(holdout, Text) and isinstance(train, Text)
    sentences, corpus = of_splits([reference.corpus, holdout.corpus], train.corpus), train.corpus
    held = []
    for _ in range(count):
        _, low, high = sentences.variety(corpus.take(random.permutation(len(corpus))[:1000]))
        held.append(low <= 1 <= high)
    yield _holds("1,000 captions: variety of phrases", held)


def _of_seeds(count: int, random: np.random.Generator) -> list[Bound]:
    """Of runs: how likely one goes wrong, when, and how much seeds matter."""
    bounds = []
    for seeds in (5, 10, 35):
        chances = random.uniform(0, 1, size=count)
        wrong = random.binomial(seeds, chances)
        held = [
            low <= chance <= high for chance, k in zip(chances, wrong, strict=True) for low, high in [wilson(k, seeds)]
        ]
        # Wilson's interval is of 95 % on the mean over the chances, and not for each.
        bounds.append(_holds(f"{seeds} seeds: how likely a run goes wrong", held, least=0.94))
        spreads = [seed_spread(random.normal(size=seeds)) for _ in range(count)]
        bounds.append(_holds(f"{seeds} seeds: the spread of a score", [each.low <= 1 <= each.high for each in spreads]))
    for seeds in (10, 35):
        held = []
        for _ in range(count):
            fails, watched = random.exponential(1.0, size=seeds), random.uniform(0.5, 2.0, size=seeds)
            curve = kaplan_meier(np.minimum(fails, watched), fails <= watched)
            before = int(np.searchsorted(curve.times, 0.5, side="right"))
            low, high = (curve.low[before - 1], curve.high[before - 1]) if before else (0.0, 1.0)
            held.append(bool(low <= np.exp(-0.5) <= high))
        bounds.append(_holds(f"{seeds} seeds: the share that has not failed at a time", held, least=0.93))
    return bounds


# ---- the program

SECTIONS = ("stability", "collapse", "intervals")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--n", type=int, help="cases of each truth (default: 2000), or honest sets (default: 300)")
    parser.add_argument("--others", type=int, help="sets of each truth that is not honest (default: a tenth of --n)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", nargs="+", default=[], help="digits, ring, grid, mnist, captions, stacked, …")
    given = parser.parse_args(arguments)
    if given.section == "stability":
        bounds = stability(given.n or 2000, given.seed)
    elif given.section == "intervals":
        bounds = intervals(given.n or 2000, given.seed)
    else:
        count = given.n or 300
        bounds = collapse(count, given.others or max(count // 10, 10), given.seed, given.data)
    print("\n".join(map(str, bounds)))
    print(f"{sum(bound.kept for bound in bounds)} of {len(bounds)} promises kept")
    return 0 if all(bound.kept for bound in bounds) else 1


if __name__ == "__main__":
    sys.exit(main())
