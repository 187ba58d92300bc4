"""Collapse verdict with its evidence, from features of generated and of real samples.

Everything is compared with a null: what real samples look like against other real samples, over seeded splits of a
pool of them. What decides is the mass of the bins (classes, known modes, or clusters) that is missing, with exact
bounds, and the diversity inside the bins. Precision and coverage fall with blur too, so that they may withhold NONE or
a measurement, and never say that something is missing.

Vectors are sorted first, so that the order in which samples come changes nothing.

Calibration (evaluation/calibrate.py) made rules other than one would write them at first:
- Diversity is the Vendi score of a Gaussian kernel a quarter as wide as real members lie apart, and not of cosines:
  inside a class all cosines are near 1. With half of that width one sample a class was PARTIAL, and a fifth of the
  spread unseen; so narrow, the score counts what differs. Its interval knows that the null's draws share real samples:
  without, all bins' intervals held in 58 % of sets of digits, and with it in 95.
- A bin whose samples no longer look real is not missing while there are samples near it. Without that rule, noise of
  0.2 on digits was PARTIAL in 38 of 40 sets, with it in 1.
- Classes are counted as the vectors tell them, among generated samples and real ones alike: compared with the labels'
  own shares, honest samples of classes that overlap were SEVERE or TOTAL.
- Coverage withholds NONE below 0.9 of what real samples have at worst (their 0.5 % quantile), for it varies at small
  n; of as many as look real, so that half noise is no gap.
- Features may take blurred pictures for other classes: of ten classes that are all there, blur of one pixel was SEVERE,
  and by colours' clusters of an untrained network paler pictures were. Real pictures that were made to look alike show
  whether the features still sort them, and which bins they then leave empty too; they are compared bin by bin, so that
  classes that are gone are no blur.
- Blurred pictures are taken for those of the plainest class: weighted as their bins say, real ones were made hardly
  blurred, and by lite0's clusters blur of 3 pixels was PARTIAL. Where generated pictures have less detail than the real
  ones of any bin, no bins say how much blur there is; and frequencies are those of cosines, for a Fourier transform has
  jumps at the pictures' edges that stay after blur, and hid it along the axes.
- Of some hundred pictures the power is known roughly, and what was more by chance was added to real ones as noise. On a
  flat ground it turned one form into another, which hid that two of four were gone: only power beyond 4 standard errors
  is noise.
- Classes are bins only if the features sort three of four real samples into theirs, and clusters of pictures are never
  NONE: by an untrained network all were there without five of ten classes, and by one that sorts 70 % without one of
  them, in a quarter of the sets. In other clusters coverage must be what real samples have at worst.
- Of unlabelled samples fewer than 8 clusters prove nothing: one of ten modes gone was NONE in 27 of 30 sets of 200.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aigc_lab import noise
from aigc_lab.statistics.diversity import scale_of, vendi
from aigc_lab.statistics.intervals import clopper_pearson
from aigc_lab.statistics.neighbours import apart, assign, distances, nearest, nearest_others
from aigc_lab.verdicts.bins import Bins, order_of, predicted_bins, voted
from aigc_lab.verdicts.conclusion import FOUND, VARIED, Collapse, CollapseVerdict, Covered, Measured, Shift, conclude
from aigc_lab.verdicts.missing import BINS, decide, least_missing, most_missing
from aigc_lab.verdicts.states import MISSING, UNDECIDED

_VERSION = 7  # of the rules: what one says is not compared with what another does
K = 5  # neighbours that a ball reaches to
SPLITS = 200
_LISTED = 60  # neighbours of each vector that are known: of real halves, enough to find the fifth
_FIRST = 24  # of them, in which the fifth nearly always is
_USUAL = 0.975  # of real samples are no stranger than what counts as real
_PARTS = 20  # splits in which generated samples are compared with what is left of the pool
_KEPT = 3  # numbers of samples whose splits are kept
_ALPHA = 0.05
# Sizes at which the diversity inside a bin is compared: the null of each is computed once.
_SIZES = (10, 14, 20, 28, 40, 56, 80, 112, 160)
_DRAWS = 40  # null draws of a diversity
_LEAST = 20  # samples, of which anything is said
_REAL = 0.2  # precision beside real samples', below which nothing can be measured
# Real samples of a bin, as shifted as all generated ones, of which so many less are sorted into it do not show that it
# is there.
_RECALLED = 0.75


class Null(NamedTuple):
    """Statistics of n real samples against the rest of the pool: medians, and the 0.5 % quantile of coverage."""

    precision: float
    coverage: float
    coverage_low: float
    duplicates: float


class Beside(NamedTuple):
    """Facts about generated samples beside their vectors.

    `alike` [n] is a number that equal samples share, since vectors of copies may differ by rounding. `strangeness` [n]
    measures how unlike real samples each is, by other evidence; 2.5 % of real ones are above 1. `shifted`, for
    pictures, makes real ones that look as all generated ones do: it takes weights and bins [m] of the pool's samples
    and returns vectors [s, d] with their places in the pool [s], all in the order in which the pool was given.
    """

    alike: Tensor
    strangeness: Tensor | None = None
    shifted: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None


@dataclass
class Judge:
    """Judge of generated vectors by a pool of real ones.

    `pool` [m, d] are samples of the reference and of the holdout, none of which was trained on: at least twice as many
    as are judged at a time. `signature` identifies the features. `alike` [m] is a number that equal samples share; by
    default equal vectors share one. Raises `ValueError` for fewer than 40 real samples, bins of another number, NaN or
    infinity.
    """

    pool: Tensor
    bins: Bins
    signature: str
    splits: int = SPLITS
    nulls: dict[str, Any] = field(default_factory=dict)
    listed: Tensor | None = None
    alike: Tensor | None = None
    _scales: dict[str | None, float] = field(default_factory=dict, init=False, repr=False)
    _balls_of: dict[int, tuple[list[Tensor], Tensor]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.pool) < 4 * K + 20:
            raise ValueError(f"a pool of {len(self.pool)} real samples is too small: at least {4 * K + 20} are needed")
        if len(self.bins.of) != len(self.pool):
            raise ValueError(f"the bins of {len(self.bins.of)} real samples are given, and there are {len(self.pool)}")
        if not self.pool.isfinite().all():
            bad = int((~self.pool.isfinite()).any(1).sum())
            raise ValueError(f"{bad} of {len(self.pool)} real samples hold NaN or infinity")
        # Splits are by place: sorted, the order in which real samples come changes nothing either.
        pool = self.pool.double()
        self._places = order_of(torch.cat([pool, self.bins.of[:, None].double()], 1))
        self.pool, self.bins = pool[self._places], replace(self.bins, of=self.bins.of[self._places])
        if self.alike is not None:
            self.alike = self.alike[self._places]

    # ---- what depends on the pool alone

    @cached_property
    def digest(self) -> str:
        """Hash of the vectors and their bins, under which nulls are cached."""
        digest = hashlib.sha256(f"{_VERSION} {K} {_LISTED} {_DRAWS} {self.bins.names}".encode())
        digest.update(self.pool.contiguous().numpy().tobytes())
        digest.update(self.bins.of.contiguous().numpy().tobytes())
        if self.alike is not None:
            digest.update(self.alike.contiguous().numpy().tobytes())
        return digest.hexdigest()[:32]

    @cached_property
    def lists(self) -> tuple[Tensor, Tensor]:
        """Distances and places [m, ≤ 60] of the other vectors nearest to each, nearest first, from which those of every
        split are taken.
        """
        if self.listed is not None:
            return apart(self.pool, self.pool, self.listed), self.listed
        return nearest_others(self.pool, torch.arange(len(self.pool)), min(_LISTED, len(self.pool) - 1))

    @cached_property
    def shares(self) -> Tensor:
        """Share p_k of each bin in the pool [K]."""
        return torch.bincount(self.bins.of, minlength=len(self.bins.names)).double() / len(self.pool)

    @cached_property
    def strays(self) -> Tensor:
        """Share ε_k that all other bins would give each bin if it were empty [K], from misclassified real vectors. It
        is 0 for known centres, which partition the space.
        """
        count = len(self.bins.names)
        if self.bins.centres is not None:
            return torch.zeros(count, dtype=torch.float64)
        predicted = self._predictions[0]
        away = torch.bincount(predicted[predicted != self.bins.of], minlength=count).double() / len(self.pool)
        return away / (1 - self.shares).clamp_min(1e-9)

    @cached_property
    def expected(self) -> Tensor:
        """Share r_k of real vectors that is classified into each bin, rightly or not [K]."""
        if self.bins.centres is not None:
            return self.shares
        return torch.bincount(self._predictions[0], minlength=len(self.bins.names)).double() / len(self.pool)

    @cached_property
    def recognised(self) -> Tensor:
        """Share of the real vectors of each bin that is classified into it [K]; 1 for known centres."""
        if self.bins.centres is not None:
            return torch.ones(len(self.bins.names), dtype=torch.float64)
        right = self.bins.of[self._predictions[0] == self.bins.of]
        sizes, hits = (torch.bincount(each, minlength=len(self.bins.names)).double() for each in (self.bins.of, right))
        return hits / sizes.clamp_min(1)

    @property
    def thresholds(self) -> Tensor:
        """Share below which a bin is missing [K]: a quarter of the expected share, beyond the strays."""
        return self.strays + (self.expected - self.strays) / 4

    @property
    def clear(self) -> Tensor:
        """Which bins the vectors separate from the others [K]: the correctly classified share is at least half of the
        bin's. Bins of labels that the vectors do not separate would seem missing, or present.
        """
        return self.expected - self.strays >= self.shares / 2

    @cached_property
    def accuracy(self) -> float | None:
        """Leave-one-out accuracy of real vectors in [0, 1]; for bins with centres that of `bins.accuracy`, which may be
        None.
        """
        if self.bins.centres is not None:
            return self.bins.accuracy
        return float((self._predictions[0] == self.bins.of).double().mean())

    @cached_property
    def _predictions(self) -> tuple[Tensor, Tensor | None]:
        return predicted_bins(self.pool, self.bins.of, len(self.bins.names), self.lists[1][:, :K])

    def _reach(self, outside: Tensor) -> Tensor:
        """Radius of the ball of each vector `outside` the judged part, to the K-th of the others outside; −1 for those
        inside [m].
        """
        reach = self._reach_of(outside, slice(_FIRST), slice(None))
        # If the first columns hold fewer than K from outside, the whole list is searched.
        short = (reach == torch.inf).nonzero().flatten()
        reach[short] = self._reach_of(outside, slice(None), short).minimum(self.lists[0][short, -1])
        return reach.where(outside, -1.0)

    def _reach_of(self, outside: Tensor, columns: slice, rows: Tensor | slice) -> Tensor:
        """Radii by some columns of the lists; infinity where these hold fewer than K."""
        away, index = self.lists[0][rows, columns], self.lists[1][rows, columns]
        place = (outside[index].cumsum(1, dtype=torch.int8) < K).sum(1, keepdim=True)
        few, place = place >= away.shape[1], place.clamp_max(away.shape[1] - 1)
        return away.gather(1, place).masked_fill(few, torch.inf).squeeze(1)

    def _parts(self, n: int, count: int) -> list[Tensor]:
        """Masks [m] of the pool without n random samples, one for each split."""
        masks = []
        for split in range(count):
            order = torch.randperm(len(self.pool), generator=noise.generator("null", n, split))
            mask = torch.ones(len(self.pool), dtype=torch.bool)
            mask[order[:n]] = False
            masks.append(mask)
        return masks

    def _balls(self, n: int) -> tuple[list[Tensor], Tensor]:
        """Masks [m] of the pool without n random samples, one for each part, and the radii of the balls of the others
        [parts, m]. Those of the sizes used last are kept: every evaluation of a run judges as many samples.
        """
        if n not in self._balls_of:
            parts = self._parts(n, _PARTS)
            while len(self._balls_of) >= _KEPT:
                self._balls_of.pop(next(iter(self._balls_of)))
            self._balls_of[n] = parts, torch.stack([self._reach(outside) for outside in parts])
        self._balls_of[n] = self._balls_of.pop(n)  # the newest comes last
        return self._balls_of[n]

    def null(self, n: int) -> Null:
        """Statistics of n real samples against the rest of the pool, over the splits."""
        key = f"manifold {n} {self.splits}"
        if key not in self.nulls:
            parts = self._parts(n, self.splits)
            reaches = torch.stack([self._reach(outside) for outside in parts])
            # Vectors in a ball are in the list of its centre.
            away, index = self.lists
            rows, place = ((away < reaches.amax(0)[:, None]) | (away == 0)).nonzero(as_tuple=True)
            pairs = _Pairs(away[rows, place], index[rows, place], rows)
            alike = torch.unique(self.pool, dim=0, return_inverse=True)[1] if self.alike is None else self.alike
            statistics = []
            for reach, outside in zip(reaches, parts, strict=True):
                row, centre = pairs.within(reach)
                judged = ~outside[row]
                precision = _marked(row[judged], len(self.pool))[~outside].double().mean()
                coverage = _marked(centre[judged], len(self.pool))[outside].double().mean()
                statistics.append(
                    torch.stack([precision, coverage, torch.tensor(_duplicates(alike[~outside])).double()])
                )
            middle, low = torch.stack(statistics).median(0).values, torch.stack(statistics).quantile(0.005, dim=0)
            self.nulls[key] = [*middle[:2].tolist(), low[1].item(), middle[2].item()]
        return Null(*self.nulls[key])

    def _diversity_null(self, name: str | None, members: Tensor, scale: float, size: int) -> tuple[float, float]:
        """Mean and standard deviation of the log diversity of `size` real members of a bin."""
        key = f"diversity {size}" + ("" if name is None else f" in {name}")
        if key not in self.nulls:
            source = noise.generator("diversity", name or "", size)
            picks = torch.stack([torch.randperm(len(members), generator=source)[:size] for _ in range(_DRAWS)])
            logs = vendi(members[picks], scale).log()
            self.nulls[key] = [logs.mean().item(), logs.std().item()]
        mean, spread = self.nulls[key]
        return mean, spread

    def examples(self, name: str, count: int) -> Tensor:
        """Places, in the pool as it was given, of the real samples nearest to their bin's mean [≤ count]: examples of a
        missing bin.
        """
        members = (self.bins.of == self.bins.names.index(name)).nonzero().flatten()
        vectors = self.pool[members]
        away = (vectors - vectors.mean(0)).square().sum(1)
        return self._places[members[away.argsort(stable=True)[:count]]]

    # ---- the verdict

    def judge(self, generated: Tensor, beside: Beside | None = None) -> CollapseVerdict:
        """Verdict on generated vectors [n, d]. If n is more than half of the pool, a seeded choice of that size is
        judged.

        By `beside`, samples stranger than 1 do not look real, whatever their vector, and samples stranger than 2 not
        nearly.

        Raises `ValueError` for fewer than 20 vectors, for other dimensions, and for NaN or infinity.
        """
        vectors, strange, alike = self._accepted(generated, beside)
        n, manifold = len(vectors), self._fidelity(vectors, strange)
        null, realistic = manifold.null, vectors[manifold.good]
        fidelity = manifold.precision / max(null.precision, 1e-9)
        # Copies that real samples have too are none of a generator's.
        duplicates = (_duplicates(alike) - null.duplicates) / (1 - null.duplicates) if null.duplicates < 1 else 0.0
        verdict = self._unmeasurable(n, manifold, fidelity, max(duplicates, 0.0))
        measured = None

        @cache
        def of() -> Tensor:
            return self.bins_of(vectors)

        if fidelity >= _REAL and len(realistic) >= _LEAST:
            counted = self._counted(vectors, manifold, of())
            measured = self._measured(counted, manifold, fidelity, verdict.duplicates)
            verdict = replace(
                verdict,
                missing_low=measured.low,
                missing_seen=measured.seen,
                missing_high=measured.high,
                diversity=measured.diversity,
                coverage=measured.coverage,
                bins=measured.rows,
            )

        @cache
        def shift() -> Shift | None:
            shifted = None if beside is None else beside.shifted
            return None if shifted is None else self._shift(of(), shifted)

        one = self._one_thing(vectors, strange, duplicates, fidelity, shift)
        if one is not None:
            return replace(verdict, verdict=Collapse.TOTAL, reason=f"one thing over and over: {one}")
        if fidelity < _REAL:
            return verdict
        if measured is None:
            return replace(verdict, verdict=Collapse.INCONCLUSIVE, reason=_too_few(len(realistic), n))

        def covered() -> Covered:
            return self._covered(realistic, manifold, fidelity)

        kind, reason, low = conclude(measured, covered)
        # A bin is not missing if real samples with the same shift are not recognised in it either.
        if kind in FOUND and (alike_real := shift()) is not None:
            measured = self._measured(counted, manifold, fidelity, verdict.duplicates, alike_real)
            kind, reason, low = conclude(measured, covered)
            verdict = replace(
                verdict,
                missing_seen=measured.seen,
                missing_high=measured.high,
                bins=measured.rows,
                accuracy_shifted=alike_real.accuracy,
            )
        notes = [self.bins.note] * bool(self.bins.note)
        if len(generated) > n:
            notes.append(f"{n:,} of {len(generated):,} samples are judged, half as many as there are real ones")
        return replace(verdict, verdict=kind, reason="; ".join([reason, *notes]), missing_low=low)

    def _unmeasurable(self, n: int, manifold: _Fidelity, fidelity: float, duplicates: float) -> CollapseVerdict:
        """The verdict as long as no bin has been measured: the mass of all of them may be missing."""
        rules = f"n:{n}|pool:{len(self.pool)}|bins:{len(self.bins.names)}|splits:{self.splits}|v:{_VERSION}"
        return CollapseVerdict(
            verdict=Collapse.UNMEASURABLE,
            reason=f"{manifold.precision:.0%} of the samples look real, and {manifold.null.precision:.0%} of real ones "
            "do: what is missing among the others cannot be told",
            n=n,
            missing_low=0.0,
            missing_seen=0.0,
            missing_high=1.0,
            diversity=None,
            coverage=None,
            precision=fidelity,
            duplicates=duplicates,
            bins=[],
            signature=f"{self.signature}|{rules}",
            null=manifold.null._asdict(),
            accuracy=self.accuracy,
        )

    def _one_thing(
        self,
        vectors: Tensor,
        strange: Tensor | None,
        duplicates: float,
        fidelity: float,
        shift: Callable[[], Shift | None],
    ) -> str | None:
        """How the samples repeat one thing, in words; None if they do not.

        Samples that do not look real may lie close together in the features, as noise does: they count as one thing
        only if they are copies, or as narrow as copies. If most are strange (by a language model), nearness in the
        features means nothing. Nor are samples one thing if real ones with the same `shift` lie as close together, or
        are not sorted into their bins.
        """
        if duplicates > 0.9:
            return f"{duplicates:.0%} of the samples are copies of others"
        everything = self.diversity(None, vectors, self.pool, len(self.bins.names))
        if everything is None or (strange is not None and (strange > 1).double().mean() > 0.5):
            return None
        narrow = everything.least + 0.02
        if everything.high >= (0.1 if fidelity >= _REAL else narrow):
            return None
        real = shift()
        if real is not None:
            if real.diversity is not None and everything.value > VARIED * real.diversity:
                return None
            # Features that do not sort real samples with this shift do not say how much the others vary.
            if real.hides and everything.high >= narrow:
                return None
        return f"samples vary at most {everything.high:.2f} times as much as real ones"

    def _covered(self, realistic: Tensor, manifold: _Fidelity, fidelity: float) -> Covered:
        """Coverage by the samples that look real. If these are much fewer than were generated, it is compared with
        equally few real samples, of sizes a tenth apart, so that not every size needs a null.
        """
        if fidelity <= 0.9:
            count = max(_LEAST, math.floor(1.1 ** math.floor(math.log(len(realistic), 1.1))))
            source = noise.generator("covered", len(realistic))
            manifold = self._fidelity(realistic[torch.randperm(len(realistic), generator=source)[:count]], None)
        usual = max(manifold.null.coverage, 1e-9)
        return Covered(manifold.coverage / usual, min(1.0, manifold.null.coverage_low / usual))

    def _accepted(self, generated: Tensor, beside: Beside | None) -> tuple[Tensor, Tensor | None, Tensor]:
        """Validated vectors, strangeness and copy numbers, in an order that does not depend on that of the samples."""
        vectors = generated.double()
        if vectors.ndim != 2 or vectors.shape[1] != self.pool.shape[1]:
            raise ValueError(f"generated vectors are {list(vectors.shape)}, and real ones [m, {self.pool.shape[1]}]")
        if not vectors.isfinite().all():
            bad = int((~vectors.isfinite()).any(1).sum())
            raise ValueError(f"{bad} of {len(vectors)} samples hold NaN or infinity")
        if len(vectors) < _LEAST:
            raise ValueError(f"{len(vectors)} samples say nothing of a collapse: give at least {_LEAST}")
        facts = [] if beside is None else [beside.alike, beside.strangeness]
        columns = [each[:, None].double() for each in facts if each is not None]
        order = order_of(torch.cat([vectors, *columns], 1))
        most = len(self.pool) // 2
        if len(order) > most:
            some = torch.randperm(len(order), generator=noise.generator("judged", len(order)))[:most]
            order = order[some.sort().values]
        if beside is None:
            return vectors[order], None, torch.unique(vectors[order], dim=0, return_inverse=True)[1]
        strange = None if beside.strangeness is None else beside.strangeness.double()[order]
        return vectors[order], strange, beside.alike[order]

    def _fidelity(self, vectors: Tensor, strange: Tensor | None) -> _Fidelity:
        """Manifold statistics of the samples, against the rest of the pool over some splits; nearness against all of
        the pool.
        """
        n, null = len(vectors), self.null(len(vectors))
        parts, reaches = self._balls(n)
        farthest, wide = reaches.amax(0), 2 * self.lists[0][:, K - 1]
        # Largest squared distance that rounding leaves between copies.
        rounding = 1e-9 * (self.pool - self.pool.mean(0)).square().sum(1).mean()
        blocks, near = [], torch.zeros(n, dtype=torch.bool)
        for rows, squared in distances(vectors, self.pool):
            near[rows] = (squared < wide.square()).any(1)
            # Few pairs are nearer than any ball reaches: those alone are looked at for each part.
            row, centre = (squared < farthest.square() * (1 + 1e-9) + rounding).nonzero(as_tuple=True)
            away = apart(vectors[rows][row], self.pool, centre[:, None]).squeeze(1)
            blocks.append(_Pairs(away, row + rows.start, centre))
        pairs = _Pairs(*(torch.cat(each) for each in zip(*blocks, strict=True)))
        if strange is not None:
            near &= strange <= 2
            pairs = _Pairs(*(each[strange[pairs.row] <= 1] for each in pairs))
            null = null._replace(precision=null.precision * _USUAL)
        votes, covered = torch.zeros(n), []
        for reach, outside in zip(reaches, parts, strict=True):
            row, centre = pairs.within(reach)
            votes += _marked(row, n)
            covered.append(_marked(centre, len(self.pool))[outside].double().mean())
        good = votes > len(parts) / 2
        precision, coverage = (votes.mean() / len(parts)).item(), torch.stack(covered).mean().item()
        return _Fidelity(precision, coverage, good, near | good, null)

    def _shift(self, bins_of_generated: Tensor, shifted: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Shift:
        """How the features sort real samples with the shift of all generated ones. Real samples are weighted so that
        their bins are as frequent as the generated ones' [n], because missing classes are no shift.
        """
        count = len(self.bins.names)
        predicted = self.bins.of if self.bins.centres is not None else self._predictions[0]
        hits, real = (torch.bincount(each, minlength=count).double() for each in (bins_of_generated, predicted))
        weights, bins = torch.empty(len(predicted), dtype=torch.float64), torch.empty_like(predicted)
        weights[self._places], bins[self._places] = (hits / real.clamp_min(1))[predicted], self.bins.of
        vectors, places = shifted(weights, bins)
        order = torch.empty_like(self._places)
        order[self._places] = torch.arange(len(order))
        vectors, rows = vectors.double(), order[places]
        of, now, before = self.bins.of[rows], self.bins_of(vectors), predicted[rows]
        sizes = torch.bincount(of, minlength=count).double()
        right_now, right_before = (torch.bincount(of[each == of], minlength=count).double() for each in (now, before))
        every, varied = self.diversity(None, vectors, self.pool, count), []
        for bin_, name in enumerate(self.bins.names):
            diversity = self.diversity(name, vectors[now == bin_], self.pool[self.bins.of == bin_], count)
            varied.append(None if diversity is None else min(diversity.value, 1.0))
        return Shift(
            accuracy=float((right_now.sum() / sizes.sum()).item()),
            usual=float((right_before.sum() / sizes.sum()).item()),
            recalled=(right_now >= _RECALLED * right_before).tolist(),
            diversities=varied,
            diversity=None if every is None else every.value,
        )

    def _counted(self, vectors: Tensor, manifold: _Fidelity, of: Tensor) -> _Counted:
        """What is counted of vectors [n, d] in the bins `of` [n]."""
        realistic, bins = vectors[manifold.good], of[manifold.good]
        count = len(self.bins.names)
        diversities = [
            self.diversity(name, realistic[bins == bin_], self.pool[self.bins.of == bin_], count)
            for bin_, name in enumerate(self.bins.names)
        ]
        hits, near = (torch.bincount(each, minlength=count).tolist() for each in (bins, of[manifold.near]))
        return _Counted(len(vectors), hits, near, diversities)

    def _measured(
        self, counted: _Counted, manifold: _Fidelity, fidelity: float, duplicates: float, shift: Shift | None = None
    ) -> Measured:
        rows, together = self._rows(counted, shift)
        unclear = [name for name, clear in zip(self.bins.names, self.clear.tolist(), strict=True) if not clear]
        return Measured(
            rows=rows,
            together=together,
            noun=self.bins.noun,
            unclear=unclear,
            n=counted.n,
            realistic=sum(counted.hits),
            pool=len(self.pool),
            fidelity=fidelity,
            coverage=manifold.coverage / max(manifold.null.coverage, 1e-9),
            duplicates=duplicates,
            withheld=self.bins.withheld,
            shift=shift,
        )

    def _rows(self, counted: _Counted, shift: Shift | None = None) -> tuple[list[dict[str, Any]], tuple[float, float]]:
        """Rows of the bins (real share, generated share with bounds, state, diversity), and bounds of the mass of all
        missing bins together.

        Blur affects bins unequally: a bin whose samples do not look real is not missing while there are samples near
        it, that is in balls twice as wide. Nor is a bin into which real samples with the `shift` of all generated ones
        are not sorted.
        """
        count, hits, around = len(self.bins.names), counted.hits, counted.near
        n, nearly = sum(hits), sum(around)
        shares, thresholds = self.shares.tolist(), self.thresholds.tolist()
        rows: list[dict[str, Any]] = []
        for bin_, (name, diversity) in enumerate(zip(self.bins.names, counted.diversities, strict=True)):
            rows.append(
                {
                    "name": name,
                    "real": shares[bin_],
                    "generated": hits[bin_] / n,
                    "threshold": thresholds[bin_],
                    "diversity": diversity and diversity.value,
                    "diversity_low": diversity and diversity.low,
                    "diversity_high": diversity and diversity.high,
                    "diversity_alone": diversity and diversity.alone,
                    "diversity_least": diversity and diversity.least,
                }
            )
        decide(rows, hits, n)
        clear: list[bool] = self.clear.tolist()
        if shift is not None:
            clear = [both for both in map(all, zip(clear, shift.recalled, strict=True))]
            for row, varied in zip(rows, shift.diversities, strict=True):
                row["diversity_shifted"] = varied
        for row, hit, sure in zip(rows, around, clear, strict=True):
            if row["state"] == MISSING:
                _, high = clopper_pearson(hit, nearly, BINS / count)
                row["state"] = MISSING if high < row["threshold"] else UNDECIDED
            row["state"] = row["state"] if sure else UNDECIDED
        mass = [share if sure else 0.0 for share, sure in zip(shares, clear, strict=True)]
        most = most_missing(hits, n, mass, thresholds) + sum(shares) - sum(mass)
        return rows, (least_missing(around, nearly, mass, thresholds), most)

    def bins_of(self, vectors: Tensor) -> Tensor:
        """Bin that each vector is classified into [n]."""
        if self.bins.centres is not None:
            return assign(vectors, self.bins.centres)
        means = self._predictions[1]
        if means is not None:
            return assign(vectors, means)
        return voted(self.bins.of[nearest(vectors, self.pool, K)[1]])

    def diversity(self, name: str | None, generated: Tensor, real: Tensor, bins: int) -> _Diversity | None:
        """Vendi score of the generated members of a bin (or of all samples) over that of as many real ones; None if
        there are too few.
        """
        sizes = [size for size in _SIZES if size <= min(len(generated), len(real) // 2)]
        if not sizes:
            return None
        size = sizes[-1]
        if name not in self._scales:
            self._scales[name] = scale_of(real)
        scale = self._scales[name]
        mean, spread = self._diversity_null(name, real, scale, size)
        # Draws without replacement of so many of all differ less than samples of their own would, by this; and all real
        # members are a sample too, whose error all draws share.
        taken = size / len(real)
        spread /= math.sqrt(1 - taken)
        # Parts that share nothing say how uncertain the value is; of one part, the null's spread does.
        order = torch.randperm(len(generated), generator=noise.generator("part", len(generated)))
        parts = order[: len(generated) // size * size].reshape(-1, size)[:10]
        logs = vendi(generated[parts], scale).log() - mean
        error = max(logs.std().item() if len(parts) > 1 else 0.0, spread) / math.sqrt(len(parts))
        error = math.hypot(error, spread * math.sqrt(taken))
        middle, margin = logs.mean().item(), _normal(1 - _ALPHA / (2 * bins)) * error
        alone = middle - _normal(1 - _ALPHA / 2) * error
        return _Diversity(*map(math.exp, (middle, middle - margin, middle + margin, alone, -mean)))


# ---- pieces


class _Diversity(NamedTuple):
    """Ratio to the diversity of real samples: the value, bounds at 95 % over all bins, the lower bound of the bin
    alone, and the ratio of one thing repeated.
    """

    value: float
    low: float
    high: float
    alone: float
    least: float


class _Fidelity(NamedTuple):
    """Precision and coverage, which samples look real [n] and are near real ones [n], and the null at this n."""

    precision: float
    coverage: float
    good: Tensor
    near: Tensor
    null: Null


class _Counted(NamedTuple):
    """What is counted of n generated samples: in each bin those that look real and those near real ones [K], and the
    diversity of the former.
    """

    n: int
    hits: list[int]
    near: list[int]
    diversities: list[_Diversity | None]


class _Pairs(NamedTuple):
    """Pairs of a sample and a real vector: distance [p], place of the sample [p], place of the real vector [p]."""

    away: Tensor
    row: Tensor
    centre: Tensor

    def within(self, reach: Tensor) -> tuple[Tensor, Tensor]:
        """Samples and real vectors of the pairs within the balls of radius `reach` [m]. A copy of a real vector is in
        its ball, even if that has radius 0 because real vectors are copies of each other.
        """
        reached = reach[self.centre]
        hit = (self.away < reached) | ((self.away == 0) & (reached >= 0))
        return self.row[hit], self.centre[hit]


def alike(samples: Sequence[str | bytes]) -> Tensor:
    """Number of each sample [n] that equal samples share; it does not depend on their order."""
    numbers = {sample: number for number, sample in enumerate(sorted(set(samples)))}
    return torch.tensor([numbers[sample] for sample in samples])


def _too_few(realistic: int, n: int) -> str:
    """Reason of INCONCLUSIVE if fewer than 20 of n samples look real."""
    reason = f"{realistic} samples that look real say nothing of a collapse: {_LEAST} at least are needed"
    return reason + (f", which about {math.ceil(_LEAST * n / realistic):,} samples would hold" if realistic else "")


def _duplicates(alike: Tensor) -> float:
    """Share of samples that are copies of others, by their numbers [n]."""
    return 1 - len(torch.unique(alike)) / len(alike)


def _marked(places: Tensor, count: int) -> Tensor:
    """Mask [count] of the given places."""
    marks = torch.zeros(count, dtype=torch.bool)
    marks[places] = True
    return marks


def _normal(quantile: float) -> float:
    return float(torch.special.ndtri(torch.tensor(quantile, dtype=torch.float64)))
