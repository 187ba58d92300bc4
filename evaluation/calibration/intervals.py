"""How often the intervals that verdicts show hold what they are of."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from aigc_lab import plugins
from aigc_lab.data.base import Dataset
from aigc_lab.host.settings import Settings
from aigc_lab.noise import generator
from aigc_lab.samples import Text
from aigc_lab.verdicts.missing import decide, least_missing, most_missing
from aigc_lab.verdicts.seeds import kaplan_meier, seed_spread, wilson
from aigc_lab.verdicts.sentences import of_splits
from aigc_lab.verdicts.states import MISSING, PRESENT
from calibration.bounds import Bound, share
from calibration.collapse import CAPTIONS, SCORED, bench


def intervals(count: int, seed: int) -> list[Bound]:
    """How often each interval that a verdict shows holds what it is of, in `count` simulated cases."""
    random = np.random.default_rng(seed)
    bounds = [*of_masses(count, random), *of_bins(count // 10, seed), *of_phrases(count // 10, random)]
    return bounds + of_seeds(count, random)


def _holds(what: str, held: Sequence[bool], least: float = 0.95) -> Bound:
    """At least so often, but for three standard errors of a simulation of this size."""
    print(f"{what:80} {share(held):7.2%} of {len(held):,}")
    return Bound(what, share(held), least=least - 3 * (least * (1 - least) / len(held)) ** 0.5)


def of_masses(count: int, random: np.random.Generator) -> Iterator[Bound]:
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


def of_bins(count: int, seed: int) -> Iterator[Bound]:
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


def of_phrases(count: int, random: np.random.Generator) -> Iterator[Bound]:
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


def of_seeds(count: int, random: np.random.Generator) -> list[Bound]:
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
