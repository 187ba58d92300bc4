"""Has a generator collapsed? A verdict with its evidence, from the features of generated and of real samples.

Everything is compared with a null: what real samples look like against other real samples, over seeded splits of a
pool of them. What decides is the mass of the bins (classes, known modes, or clusters) that is missing, with exact
bounds, and the diversity inside the bins. Precision and coverage fall with blur too, so that they may withhold NONE or
a measurement, and never say that something is missing.

Vectors are sorted first, so that the order in which samples come changes nothing.

Calibration (evaluation/calibrate.py) made three rules other than one would write them at first:
- Diversity is the Vendi score of a Gaussian kernel a quarter as wide as real members lie apart, and not of cosines:
  inside a class all cosines are near 1. With half of that width one sample a class was PARTIAL, and a fifth of the
  spread unseen; so narrow, the score counts what differs.
- A bin whose samples no longer look real is not missing while there are samples near it. Without that rule, noise of
  0.2 on digits was PARTIAL in 38 of 40 sets, with it in 1.
- Coverage withholds NONE below 0.9 of what real samples have at worst (their 0.5 % quantile), for it varies at small n.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aigc_lab import noise
from aigc_lab.neighbours import apart, assign, distances, k_means, nearest, nearest_others
from aigc_lab.statistics import clopper_pearson
from aigc_lab.verdicts.missing import BINS, MISSING, PRESENT, UNDECIDED, decide, least_missing, most_missing

K = 5  # neighbours that a ball reaches to
SPLITS = 200
_LISTED = 60  # neighbours of each vector that are known: of real halves, enough to find the fifth
_FIRST = 24  # of them, in which the fifth nearly always is
_USUAL = 0.975  # of real samples are no stranger than what counts as real
_PARTS = 20  # splits in which generated samples are compared with what is left of the pool
_ALPHA = 0.05
# Sizes at which the diversity inside a bin is compared: the null of each is computed once.
_SIZES = (10, 14, 20, 28, 40, 56, 80, 112, 160)
_DRAWS = 40  # null draws of a diversity
_BINS = 100  # clusters, at most
_REAL = 0.2  # precision beside real samples', below which nothing can be measured
# Precision and coverage, beside real samples', below both of which samples that vary are blurred: nothing is then
# missing for certain. Classes that are gone are no such sign: what is left is sharp, or covered, or narrow.
_SHARP, _COVERED, _VARIED = 0.65, 0.35, 0.5


class Collapse(StrEnum):
    """From nothing is missing to everything is; or that it cannot be said."""

    NONE = "NONE"
    PARTIAL = "PARTIAL"
    SEVERE = "SEVERE"
    TOTAL = "TOTAL"
    INCONCLUSIVE = "INCONCLUSIVE"
    UNMEASURABLE = "UNMEASURABLE"
    POSTERIOR = "POSTERIOR-COLLAPSED"


@dataclass(frozen=True)
class CollapseVerdict:
    """The verdict, why in a sentence, and the numbers behind it as plain data.

    `missing_low`, `missing_seen` and `missing_high` are shares of the real mass: proved to be missing, in bins with
    less than a quarter of their share, and not proved to be there. `diversity`, `coverage` and `precision` are ratios
    to as many real samples', and so is what text says of its `phrases`; `duplicates` is a share of the samples.
    """

    verdict: Collapse
    reason: str
    n: int
    missing_low: float
    missing_seen: float
    missing_high: float
    diversity: float | None
    coverage: float | None
    precision: float
    duplicates: float
    bins: list[dict[str, Any]]
    signature: str
    phrases: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON."""
        return vars(self) | {"verdict": str(self.verdict)}


@dataclass(frozen=True)
class Bins:
    """What the mass is counted in: `names` [K], and the bin of each of the pool's vectors [m]. With `centres` [K, d] a
    vector is in the bin whose centre is nearest, without in that which real vectors near it are of.
    """

    names: tuple[str, ...]
    of: Tensor
    centres: Tensor | None = None
    noun: tuple[str, str] = ("cluster", "clusters")

    @classmethod
    def of_labels(cls, labels: Tensor, names: Sequence[str] | None = None) -> Bins:
        """The classes that occur. `names` are those of all classes."""
        present, of = torch.unique(labels, return_inverse=True)
        called = [str(int(each)) if names is None else names[int(each)] for each in present]
        return cls(tuple(called), of, noun=("class", "classes"))

    @classmethod
    def of_centres(cls, pool: Tensor, centres: Tensor, noun: tuple[str, str] = ("mode", "modes")) -> Bins:
        """Known modes."""
        names = tuple(str(number) for number in range(len(centres)))
        return cls(names, assign(pool, centres), centres.float(), noun)

    @classmethod
    def of_clusters(cls, pool: Tensor, n: int, apart: Tensor | None = None) -> Bins:
        """K-means clusters of other real vectors than the pool's where these are known, as many as n samples can decide
        about: n ≥ 8·K·ln(K / 0.05), from 2 to 100. One with less than half of what equal ones would have is given up,
        and its vectors go to the others.
        """
        count = next(k for k in range(_BINS, 1, -1) if k == 2 or n >= needed(k))
        centres = k_means(pool if apart is None else apart, count)
        while True:
            sizes = torch.bincount(assign(pool, centres), minlength=len(centres))
            smallest = int(sizes.argmin())
            if len(centres) == 2 or n * int(sizes[smallest]) / len(pool) >= needed(len(centres)) / len(centres) / 2:
                return cls.of_centres(pool, centres, ("cluster", "clusters"))
            centres = torch.cat([centres[:smallest], centres[smallest + 1 :]])


def needed(bins: int) -> int:
    """How many samples can tell a missing bin from one that is there, of so many equal ones."""
    return math.ceil(8 * bins * math.log(bins / _ALPHA))


@dataclass(frozen=True)
class Null:
    """What real samples of a number look like against the rest of the pool: medians, and low quantiles."""

    precision: float
    coverage: float
    coverage_low: float


@dataclass
class Judge:
    """Real vectors, known once, that generated ones are judged by. `pool` [m, d] are samples of the reference and of
    the holdout, none of which anything was trained on; at least twice as many as are judged at a time. `signature`
    says what the vectors are of.
    """

    pool: Tensor
    bins: Bins
    signature: str
    splits: int = SPLITS
    nulls: dict[str, Any] = field(default_factory=dict)
    listed: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.pool) < 4 * K + 20:
            raise ValueError(f"a pool of {len(self.pool)} real samples is too small: at least {4 * K + 20} are needed")
        # Splits are by place: sorted, the order in which real samples come changes nothing either.
        pool = self.pool.double()
        self._places = _order(torch.cat([pool, self.bins.of[:, None].double()], 1))
        self.pool, self.bins = pool[self._places], replace(self.bins, of=self.bins.of[self._places])

    # ---- what depends on the pool alone

    @cached_property
    def digest(self) -> str:
        """Of the vectors and their bins: what `nulls` depend on."""
        digest = hashlib.sha256(self.pool.contiguous().numpy().tobytes())
        digest.update(self.bins.of.contiguous().numpy().tobytes())
        return digest.hexdigest()[:32]

    @cached_property
    def lists(self) -> tuple[Tensor, Tensor]:
        """Distances and places [m, ≤ 60] of the other vectors that are nearest to each, nearest first: those of all
        splits are in them.
        """
        if self.listed is not None:
            return apart(self.pool, self.pool, self.listed), self.listed
        return nearest_others(self.pool, torch.arange(len(self.pool)), min(_LISTED, len(self.pool) - 1))

    @cached_property
    def shares(self) -> Tensor:
        """p_k: the share of each bin in the pool [K]."""
        return torch.bincount(self.bins.of, minlength=len(self.bins.names)).double() / len(self.pool)

    @cached_property
    def strays(self) -> Tensor:
        """ε_k: the share that all other bins would give each bin if it were empty [K], by how real vectors are taken
        for members of other bins than theirs. Known centres part the plane: nothing strays.
        """
        count = len(self.bins.names)
        if self.bins.centres is not None:
            return torch.zeros(count, dtype=torch.float64)
        said = self._told[0]
        away = torch.bincount(said[said != self.bins.of], minlength=count).double() / len(self.pool)
        return away / (1 - self.shares).clamp_min(1e-9)

    @cached_property
    def clear(self) -> Tensor:
        """Which bins the vectors tell from the others [K]: half of their members at least are known as theirs, and no
        more stray into them than half as many. Labels that the vectors know nothing of would else all seem missing.
        """
        if self.bins.centres is not None:
            return torch.ones(len(self.bins.names), dtype=torch.bool)
        of, count = self.bins.of, len(self.bins.names)
        right = torch.bincount(of[self._told[0] == of], minlength=count) / torch.bincount(of, minlength=count)
        return (right >= 0.5) & (self.strays <= self.shares / 2)

    @cached_property
    def _told(self) -> tuple[Tensor, Tensor | None]:
        """The bin that each real vector is taken for by the others [m]: that of most of its neighbours, or that with
        the nearest mean, whichever is right more often; and the means [K, d], if it is these. Neighbours tell bins of
        any form; of few vectors in each of many bins means tell more.
        """
        of, count = self.bins.of, len(self.bins.names)
        voted = _voted(of[self.lists[1][:, :K]])
        sizes = torch.bincount(of, minlength=count).double()
        means = torch.zeros(count, self.pool.shape[1], dtype=torch.float64).index_add_(0, of, self.pool)
        means = (means / sizes[:, None].clamp_min(1)).masked_fill(sizes[:, None] == 0, torch.inf)
        own = (self.pool - means[of]).norm(dim=1) * sizes[of] / (sizes[of] - 1)  # without itself; one alone is far
        nearest_ = torch.empty_like(of)
        for rows, squared in distances(self.pool, means):
            squared[torch.arange(len(squared)), of[rows]] = own[rows].square()
            nearest_[rows] = squared.argmin(1)
        if (nearest_ == of).sum() > (voted == of).sum():
            return nearest_, means
        return voted, None

    def _reach(self, outside: Tensor) -> Tensor:
        """How far the ball of each vector that is `outside` the judged part reaches: to the K-th of the others outside;
        0 for those inside [m].
        """
        reach = self._reach_of(outside, slice(_FIRST), slice(None))
        # Where the first of a list do not hold K from outside, all of it is looked at.
        short = (reach == torch.inf).nonzero().flatten()
        reach[short] = self._reach_of(outside, slice(None), short).minimum(self.lists[0][short, -1])
        return reach.where(outside, 0.0)

    def _reach_of(self, outside: Tensor, columns: slice, rows: Tensor | slice) -> Tensor:
        """The same by some of the lists' columns; infinity where these are too few."""
        away, index = self.lists[0][rows, columns], self.lists[1][rows, columns]
        place = (outside[index].cumsum(1, dtype=torch.int8) < K).sum(1, keepdim=True)
        few, place = place >= away.shape[1], place.clamp_max(away.shape[1] - 1)
        return away.gather(1, place).masked_fill(few, torch.inf).squeeze(1)

    def _parts(self, n: int, count: int) -> list[Tensor]:
        """Masks of the pool: what is left of it when n are taken out."""
        masks = []
        for split in range(count):
            order = torch.randperm(len(self.pool), generator=noise.generator("null", n, split))
            mask = torch.ones(len(self.pool), dtype=torch.bool)
            mask[order[:n]] = False
            masks.append(mask)
        return masks

    def null(self, n: int) -> Null:
        """Precision and coverage of n real samples against the rest, over the splits."""
        key = f"manifold {n} {self.splits}"
        if key not in self.nulls:
            parts = self._parts(n, self.splits)
            reaches = torch.stack([self._reach(outside) for outside in parts])
            # What is in a ball is in its centre's list.
            away, index = self.lists
            rows, place = (away < reaches.amax(0)[:, None]).nonzero(as_tuple=True)
            pairs = _Pairs(away[rows, place], index[rows, place], rows)
            precision, coverage = [], []
            for reach, outside in zip(reaches, parts, strict=True):
                row, centre = pairs.within(reach)
                judged = ~outside[row]
                precision.append(_marked(row[judged], len(self.pool))[~outside].double().mean())
                coverage.append(_marked(centre[judged], len(self.pool))[outside].double().mean())
            both = torch.stack(precision), torch.stack(coverage)
            self.nulls[key] = [both[0].median().item(), both[1].median().item(), both[1].quantile(0.005).item()]
        return Null(*self.nulls[key])

    def _diversity_null(self, name: str | None, members: Tensor, scale: float, size: int) -> tuple[float, float]:
        """Mean and spread of the logarithm of the diversity of `size` real members of a bin."""
        key = f"diversity {size}" + ("" if name is None else f" in {name}")
        if key not in self.nulls:
            source = noise.generator("diversity", name or "", size)
            picks = torch.stack([torch.randperm(len(members), generator=source)[:size] for _ in range(_DRAWS)])
            found = _vendi(members[picks], scale).log()
            self.nulls[key] = [found.mean().item(), found.std().item()]
        mean, spread = self.nulls[key]
        return mean, spread

    def examples(self, name: str, count: int) -> Tensor:
        """The places, in the pool as it was given, of the real samples that are most like their bin's mean [≤ count]:
        what is missing.
        """
        members = (self.bins.of == self.bins.names.index(name)).nonzero().flatten()
        vectors = self.pool[members]
        away = (vectors - vectors.mean(0)).square().sum(1)
        return self._places[members[away.argsort(stable=True)[:count]]]

    # ---- the verdict

    def judge(self, generated: Tensor, strangeness: Tensor | None = None) -> CollapseVerdict:
        """The verdict on generated vectors [n, d]; of more than half as many as the pool holds, a seeded choice.

        `strangeness` [n] is what else is known of how unlike real samples each is: of real ones 2.5 % are above 1, and
        what is does not look real, whatever its vector; what is above 2 does not even nearly.

        Raises `ValueError` for fewer than 20, other dimensions, and vectors that are not finite.
        """
        made, strange = self._accepted(generated, strangeness)
        n = len(made)
        precision, good, near, coverage, null = self._fidelity(made, strange)
        duplicates = 1 - len(torch.unique(made, dim=0)) / n
        everything = self._diversity(None, made, self.pool, len(self.bins.names))
        fidelity = precision / max(null.precision, 1e-9)
        kept = made[good]
        # What does not look real may lie close together in the features, as noise does: it is one thing only if copied.
        least = 0.1 if everything is None or fidelity >= _REAL else everything.least + 0.02
        if duplicates > 0.9 or (everything is not None and everything.high < least):
            share = f"{duplicates:.0%} of the samples are copies of others" if duplicates > 0.5 else _narrow(everything)
            return self._said(Collapse.TOTAL, f"one thing over and over: {share}", n, fidelity, duplicates)
        if fidelity < _REAL or len(kept) < 20:
            reason = (
                f"{precision:.0%} of the samples look real, and {null.precision:.0%} of real ones do: what is not like "
                "real samples cannot be counted among them"
            )
            return self._said(Collapse.UNMEASURABLE, reason, n, fidelity, duplicates)
        of = self._bins_of(made)
        rows, together = self._rows(kept, of[good], of[near])
        return self._concluded(rows, together, kept, n, fidelity, coverage / null.coverage, null, duplicates)

    def _accepted(self, generated: Tensor, strangeness: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What is judged of the samples, in an order of their own."""
        made = generated.double()
        if made.ndim != 2 or made.shape[1] != self.pool.shape[1]:
            raise ValueError(f"generated vectors are {list(made.shape)}, and real ones [m, {self.pool.shape[1]}]")
        if not made.isfinite().all():
            bad = int((~made.isfinite()).any(1).sum())
            raise ValueError(f"{bad} of {len(made)} samples hold NaN or infinity")
        if len(made) < 20:
            raise ValueError(f"{len(made)} samples say nothing of a collapse: give at least 20")
        strange = made.new_zeros(len(made)) if strangeness is None else strangeness.double()
        order = _order(torch.cat([made, strange[:, None]], 1))
        most = len(self.pool) // 2
        if len(order) > most:
            some = torch.randperm(len(order), generator=noise.generator("judged", len(order)))[:most]
            order = order[some.sort().values]
        return made[order], None if strangeness is None else strange[order]

    def _fidelity(self, made: Tensor, strange: Tensor | None) -> tuple[float, Tensor, Tensor, float, Null]:
        """Precision, which samples look real [n] and coverage, against what is left of the pool over some splits; and
        which look real in balls twice as wide, of all of the pool.
        """
        n, null = len(made), self.null(len(made))
        parts = self._parts(n, _PARTS)
        reaches = torch.stack([self._reach(outside) for outside in parts])
        farthest, wide = reaches.amax(0), 2 * self.lists[0][:, K - 1]
        found, near = [], torch.zeros(n, dtype=torch.bool)
        for rows, squared in distances(made, self.pool):
            near[rows] = (squared < wide.square()).any(1)
            # Few pairs are nearer than any ball reaches: those alone are looked at for each part.
            row, centre = (squared < farthest.square() * (1 + 1e-9)).nonzero(as_tuple=True)
            away = apart(made[rows][row], self.pool, centre[:, None]).squeeze(1)
            found.append(_Pairs(away, row + rows.start, centre))
        pairs = _Pairs(*(torch.cat(each) for each in zip(*found, strict=True)))
        if strange is not None:
            near &= strange <= 2
            pairs = _Pairs(*(each[strange[pairs.row] <= 1] for each in pairs))
            null = replace(null, precision=null.precision * _USUAL)
        votes, covered = torch.zeros(n), []
        for reach, outside in zip(reaches, parts, strict=True):
            row, centre = pairs.within(reach)
            votes += _marked(row, n)
            covered.append(_marked(centre, len(self.pool))[outside].double().mean())
        good = votes > len(parts) / 2
        return (votes.mean() / len(parts)).item(), good, near | good, torch.stack(covered).mean().item(), null

    def _rows(self, kept: Tensor, of: Tensor, near: Tensor) -> tuple[list[dict[str, Any]], tuple[float, float]]:
        """Each bin: its real share, its generated one with Holm-adjusted bounds, its state, its diversity; of samples
        that look real [n, d] and their bins [n], and of the bins of those `near` real ones. And the bounds of the mass
        of all missing bins together.

        Blur does not fall on all bins alike: one whose samples no longer look real is not missing while samples are
        near it, which look real in balls twice as wide.
        """
        count, n = len(self.bins.names), len(kept)
        hits = torch.bincount(of, minlength=count).tolist()
        around: list[int] = torch.bincount(near, minlength=count).tolist()
        shares, strays = self.shares.tolist(), self.strays.tolist()
        rows: list[dict[str, Any]] = []
        for bin_, name in enumerate(self.bins.names):
            found = self._diversity(name, kept[of == bin_], self.pool[self.bins.of == bin_], count)
            rows.append(
                {
                    "name": name,
                    "real": shares[bin_],
                    "generated": hits[bin_] / n,
                    "strays": strays[bin_],
                    "diversity": found and found.value,
                    "diversity_low": found and found.low,
                    "diversity_high": found and found.high,
                    "diversity_alone": found and found.alone,
                    "diversity_least": found and found.least,
                }
            )
        decide(rows, hits, n)
        for row, hit in zip(rows, around, strict=True):
            if row["state"] == MISSING:
                _, high = clopper_pearson(hit, len(near), BINS / count)
                row["state"] = MISSING if high < row["real"] / 4 + row["strays"] else UNDECIDED
        for row, clear in zip(rows, self.clear.tolist(), strict=True):
            row["state"] = row["state"] if clear else UNDECIDED
        told = [share if clear else 0.0 for share, clear in zip(shares, self.clear.tolist(), strict=True)]
        most = most_missing(hits, n, told, strays) + sum(shares) - sum(told)
        return rows, (least_missing(around, len(near), told, strays), most)

    def _bins_of(self, vectors: Tensor) -> Tensor:
        if self.bins.centres is not None:
            return assign(vectors, self.bins.centres)
        means = self._told[1]
        return (
            _voted(self.bins.of[nearest(vectors, self.pool, K)[1]]) if means is None else assign(vectors, means.float())
        )

    def _diversity(self, name: str | None, made: Tensor, real: Tensor, bins: int) -> _Diversity | None:
        """The Vendi score of the generated members of a bin, or of all samples, over that of as many real ones; None
        where there are too few.
        """
        sizes = [size for size in _SIZES if size <= min(len(made), len(real) // 2)]
        if not sizes:
            return None
        size = sizes[-1]
        scale = _scale(real)
        mean, spread = self._diversity_null(name, real, scale, size)
        # Draws without replacement of so many of all differ less than samples of their own would, by this; and all real
        # members are a sample too, whose error all draws share.
        taken = size / len(real)
        spread /= math.sqrt(1 - taken)
        # Parts that share nothing say how uncertain the value is; of one part, the null's spread does.
        order = torch.randperm(len(made), generator=noise.generator("part", len(made)))
        parts = order[: len(made) // size * size].reshape(-1, size)[:10]
        logs = _vendi(made[parts], scale).log() - mean
        error = max(logs.std().item() if len(parts) > 1 else 0.0, spread) / math.sqrt(len(parts))
        error = math.hypot(error, spread * math.sqrt(taken))
        middle, margin = logs.mean().item(), _normal(1 - _ALPHA / (2 * bins)) * error
        alone = middle - _normal(1 - _ALPHA / 2) * error
        return _Diversity(*map(math.exp, (middle, middle - margin, middle + margin, alone, -mean)))

    def _concluded(
        self,
        rows: list[dict[str, Any]],
        together: tuple[float, float],
        kept: Tensor,
        n: int,
        fidelity: float,
        coverage: float,
        null: Null,
        duplicates: float,
    ) -> CollapseVerdict:
        named = sum(row["real"] for row in rows if row["state"] == MISSING)
        low = max(named, together[0])
        high = min(sum(row["real"] for row in rows if row["state"] != PRESENT), together[1])
        seen = sum(row["real"] for row in rows if row["generated"] < row["real"] / 4 + row["strays"])
        known = [row for row in rows if row["diversity"] is not None]
        weight = sum(row["real"] for row in known)
        diversity = sum(row["real"] * row["diversity"] for row in known) / weight if known else None
        narrow = [row for row in known if row["diversity_high"] < 0.5]
        # A score is 1 at least, so that where real ones score 5 no ratio is below 0.1: what is above the least counts.
        flat = [
            row for row in known if row["diversity_high"] - row["diversity_least"] < 0.1 * (1 - row["diversity_least"])
        ]
        nothing = sum(row["real"] for row in rows if row["state"] == MISSING or row in flat)
        # Of bins with too few samples that look real nothing is known.
        told = sum(row["real"] for row in rows if row["state"] == MISSING or row["diversity"] is not None)
        there = coverage / max(1 - low, 1e-9)
        # Known modes part the plane itself, and blur moves nothing from one to another.
        blurred = (
            self.bins.noun[0] != "mode"
            and fidelity < _SHARP
            and there < _COVERED
            and diversity is not None
            and diversity > _VARIED
        )
        names = self._listed([row["name"] for row in rows if row["state"] == MISSING]) if named else ""
        if low > named:
            unnamed = f"{self.bins.noun[1]} that {len(kept):,} samples do not tell one by one"
            names = f"{names}, and other {unnamed}" if named else unnamed
        mass = f"at least {low:.0%} of the real mass is missing ({seen:.0%} seen): {names}"
        inside = "" if diversity is None else f"; diversity within bins {diversity:.2f} of real"
        if low > 0.9 or (nothing > 0.9 * told and told > 0.5):
            verdict, reason = Collapse.TOTAL, mass if low > 0.9 else f"one thing over and over in every bin{inside}"
        elif blurred and (low > 0.02 or narrow):
            # What is blurred moves from bin to bin in the features: those that are empty may be there all the same.
            verdict = Collapse.INCONCLUSIVE
            reason = (
                f"too blurred to tell what is missing from what is not recognised: {fidelity:.2f} times as many "
                f"samples look real as of real ones, and the bins they are in are covered {there:.2f} times{inside}"
            )
            for row in rows:
                row["state"] = UNDECIDED if row["state"] == MISSING else row["state"]
            low = 0.0
        elif low > 0.25:
            verdict, reason = Collapse.SEVERE, mass + inside
        elif low > 0.02:
            verdict, reason = Collapse.PARTIAL, mass + inside
        elif narrow:
            worst = min(narrow, key=lambda row: row["diversity_high"])
            verdict = Collapse.PARTIAL
            most = f"{_vary(narrow)} at most {worst['diversity_high']:.2f} times as much as real samples"
            reason = f"{self._listed([row['name'] for row in narrow])} {most}"
        else:
            verdict, reason = self._equivalent(rows, kept, high, fidelity, coverage, null, duplicates)
        numbers = (low, seen, high)
        return self._said(verdict, reason, n, fidelity, duplicates, numbers, diversity, coverage, rows)

    def _equivalent(
        self,
        rows: list[dict[str, Any]],
        kept: Tensor,
        high: float,
        fidelity: float,
        coverage: float,
        null: Null,
        duplicates: float,
    ) -> tuple[Collapse, str]:
        """NONE where it is proved that nothing is missing; else what stands in the way of saying so."""
        unproved = [row["name"] for row in rows if row["state"] != PRESENT]
        floor = min(1.0, null.coverage_low / null.coverage)
        if high > 0.02:
            wanted = needed(len(rows))
            why = (
                f"{wanted:,} samples of this quality would decide, and {len(kept):,} are there"
                if len(kept) < wanted
                else "they hold more than nothing and less than their share"
            )
            whole = sum(row["real"] for row in rows if row["state"] != PRESENT)
            alike = [name for name, clear in zip(self.bins.names, self.clear.tolist(), strict=True) if not clear]
            if alike:
                why = f"by these features {self._listed(alike)} cannot be told from the others"
            open_ = f"{self._listed(unproved)} cannot be said to be there ({high:.0%} of the mass)"
            if high < whole - 1e-9:
                open_ = f"up to {high:.0%} of the real mass may be missing, and which {self.bins.noun[1]} is not known"
            return Collapse.INCONCLUSIVE, f"{open_}: {why}"
        if duplicates > 0.05:
            told = f"every bin is there, and {duplicates:.0%} of the samples are copies of others"
            return Collapse.INCONCLUSIVE, told
        # That all bins vary is proved where each is for itself.
        vague = [row["name"] for row in rows if row["diversity"] is None or row["diversity_alone"] < 0.5]
        if vague:
            return (
                Collapse.INCONCLUSIVE,
                f"whether {self._listed(vague)} {_vary(vague)} as real samples do needs more samples to say",
            )
        if coverage < 0.9 * floor:
            return (
                Collapse.INCONCLUSIVE,
                f"every bin is there, and coverage is {coverage:.2f} of real samples': blur, or gaps within the bins",
            )
        # Samples that are like no real ones are no collapse: what is there beside them is what is judged.
        unlike = "" if fidelity > 0.9 else f"; {1 - fidelity:.0%} of the samples do not look real and are not counted"
        return Collapse.NONE, f"every bin is there, as varied as real samples, and covered{unlike}"

    def _listed(self, names: Sequence[str]) -> str:
        shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        return f"{self.bins.noun[len(names) != 1]} {shown}"

    def _said(
        self,
        verdict: Collapse,
        reason: str,
        n: int,
        fidelity: float,
        duplicates: float,
        missing: tuple[float, float, float] = (0.0, 0.0, 1.0),
        diversity: float | None = None,
        coverage: float | None = None,
        rows: list[dict[str, Any]] | None = None,
    ) -> CollapseVerdict:
        if verdict == Collapse.TOTAL and rows is None:
            missing = (0.9, 1.0, 1.0)
        signature = f"{self.signature}|n:{n}|pool:{len(self.pool)}|bins:{len(self.bins.names)}|splits:{self.splits}|v:2"
        return CollapseVerdict(
            verdict, reason, n, *missing, diversity, coverage, fidelity, duplicates, rows or [], signature
        )


# ---- pieces


class _Diversity(NamedTuple):
    """A ratio to real samples' with bounds of a 95 % family over the bins; the lower one that the bin has by itself;
    and the ratio that one thing over and over would have.
    """

    value: float
    low: float
    high: float
    alone: float
    least: float


class _Pairs(NamedTuple):
    """How far samples are from real vectors: distance, place of the sample, place of the real vector [p]."""

    away: Tensor
    row: Tensor
    centre: Tensor

    def within(self, reach: Tensor) -> tuple[Tensor, Tensor]:
        """Sample and real vector of those that are in its ball, which reaches so far."""
        hit = self.away < reach[self.centre]
        return self.row[hit], self.centre[hit]


def _vary(bins: Sequence[object]) -> str:
    return "varies" if len(bins) == 1 else "vary"


def _marked(places: Tensor, count: int) -> Tensor:
    """Which of `count` places are named."""
    marks = torch.zeros(count, dtype=torch.bool)
    marks[places] = True
    return marks


def _voted(bins: Tensor) -> Tensor:
    """The most frequent bin of each row [n, k], nearest neighbours first; of two as frequent the nearer."""
    weights = 1 - 0.01 * torch.arange(bins.shape[1], dtype=torch.float64)
    votes = ((bins[:, :, None] == bins[:, None]) * weights).sum(2)
    most: Tensor = bins.gather(1, votes.argmax(1, keepdim=True)).squeeze(1)
    return most


def _scale(real: Tensor) -> float:
    """The width of the kernel: a quarter of the mean squared distance of two real members."""
    centred = real - real.mean(0)
    return max(0.25 * 2 * centred.square().sum(1).mean().item(), 1e-12)


def _vendi(members: Tensor, scale: float) -> Tensor:
    """The Vendi score [B] (Friedman & Dieng 2023) of sets [B, s, d] with the kernel exp(−‖x−y‖²/scale)."""
    lengths = members.square().sum(2)
    squared = lengths[:, :, None] + lengths[:, None] - 2 * members @ members.transpose(1, 2)
    values = torch.linalg.eigvalsh((-squared.clamp_min(0) / scale).exp() / members.shape[1]).clamp_min(0)
    scores: Tensor = (-torch.special.xlogy(values, values).sum(1)).exp()
    return scores


def _normal(quantile: float) -> float:
    return float(torch.special.ndtri(torch.tensor(quantile, dtype=torch.float64)))


def _order(vectors: Tensor) -> Tensor:
    """An order of the rows that is theirs alone, whatever the order in which they come."""
    import numpy as np

    return torch.from_numpy(np.lexsort(vectors.T.flip(0).numpy()))


def _narrow(diversity: _Diversity | None) -> str:
    assert diversity is not None
    return f"samples vary at most {diversity.high:.2f} times as much as real ones"
