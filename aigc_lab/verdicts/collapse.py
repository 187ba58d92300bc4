"""Has a generator collapsed? A verdict with its evidence, from the features of generated and of real samples.

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
from aigc_lab.statistics.intervals import clopper_pearson
from aigc_lab.statistics.neighbours import apart, assign, distances, nearest, nearest_others
from aigc_lab.verdicts.bins import Bins, order_of, told, voted
from aigc_lab.verdicts.conclusion import FOUND, VARIED, Collapse, CollapseVerdict, Covered, Measured, Shift, conclude
from aigc_lab.verdicts.diversity import scale_of, vendi
from aigc_lab.verdicts.missing import BINS, MISSING, UNDECIDED, decide, least_missing, most_missing

_VERSION = 5  # of the rules: what one says is not compared with what another does
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
_LEAST = 20  # samples, of which anything is said
_REAL = 0.2  # precision beside real samples', below which nothing can be measured
# Real samples of a bin, as shifted as all generated ones, of which so many less are sorted into it do not show that it
# is there.
_RECALLED = 0.75


class Null(NamedTuple):
    """What real samples of a number look like against the rest of the pool: medians, and low quantiles."""

    precision: float
    coverage: float
    coverage_low: float
    duplicates: float


class Beside(NamedTuple):
    """What is known of generated samples beside their vectors: a number [n] that equal samples share, for vectors of
    copies may differ by rounding; and, where there is other evidence, how unlike real ones each is [n], so that of
    real ones 2.5 % are above 1. Of pictures `shifted` makes real ones that look as all generated ones do: of weights
    [m] of the pool's samples, vectors [s, d] and the places in the pool [s] that these are of, both in the order in
    which the pool was given.
    """

    alike: Tensor
    strangeness: Tensor | None = None
    shifted: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None


@dataclass
class Judge:
    """Real vectors, known once, that generated ones are judged by. `pool` [m, d] are samples of the reference and of
    the holdout, none of which anything was trained on; at least twice as many as are judged at a time. `signature`
    says what the vectors are of. Equal samples share a number in `alike` [m]; without it, those of equal vectors do.
    """

    pool: Tensor
    bins: Bins
    signature: str
    splits: int = SPLITS
    nulls: dict[str, Any] = field(default_factory=dict)
    listed: Tensor | None = None
    alike: Tensor | None = None

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
        """Of the vectors and their bins, by whose names nulls are kept: what these depend on."""
        digest = hashlib.sha256(f"{_VERSION} {K} {_LISTED} {_DRAWS} {self.bins.names}".encode())
        digest.update(self.pool.contiguous().numpy().tobytes())
        digest.update(self.bins.of.contiguous().numpy().tobytes())
        if self.alike is not None:
            digest.update(self.alike.contiguous().numpy().tobytes())
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
    def expected(self) -> Tensor:
        """r_k: the share of real vectors that is taken for each bin's, rightly or not [K]."""
        if self.bins.centres is not None:
            return self.shares
        return torch.bincount(self._told[0], minlength=len(self.bins.names)).double() / len(self.pool)

    @property
    def thresholds(self) -> Tensor:
        """What a missing bin has less than: a quarter of what is expected, beyond what strays into it [K]."""
        return self.strays + (self.expected - self.strays) / 4

    @property
    def clear(self) -> Tensor:
        """Which bins the vectors tell from the others [K]: of what is taken for theirs, so much is their own as makes
        half of their share. Labels that the vectors know little of would else seem missing, or present.
        """
        return self.expected - self.strays >= self.shares / 2

    @cached_property
    def accuracy(self) -> float | None:
        """The share of real vectors that the others sort into their classes, where these are known."""
        if self.bins.centres is not None:
            return self.bins.accuracy
        return float((self._told[0] == self.bins.of).double().mean())

    @cached_property
    def _told(self) -> tuple[Tensor, Tensor | None]:
        return told(self.pool, self.bins.of, len(self.bins.names), self.lists[1][:, :K])

    def _reach(self, outside: Tensor) -> Tensor:
        """How far the ball of each vector that is `outside` the judged part reaches: to the K-th of the others outside;
        −1 for those inside [m].
        """
        reach = self._reach_of(outside, slice(_FIRST), slice(None))
        # Where the first of a list do not hold K from outside, all of it is looked at.
        short = (reach == torch.inf).nonzero().flatten()
        reach[short] = self._reach_of(outside, slice(None), short).minimum(self.lists[0][short, -1])
        return reach.where(outside, -1.0)

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
            rows, place = ((away < reaches.amax(0)[:, None]) | (away == 0)).nonzero(as_tuple=True)
            pairs = _Pairs(away[rows, place], index[rows, place], rows)
            alike = torch.unique(self.pool, dim=0, return_inverse=True)[1] if self.alike is None else self.alike
            found = []
            for reach, outside in zip(reaches, parts, strict=True):
                row, centre = pairs.within(reach)
                judged = ~outside[row]
                precision = _marked(row[judged], len(self.pool))[~outside].double().mean()
                coverage = _marked(centre[judged], len(self.pool))[outside].double().mean()
                found.append(torch.stack([precision, coverage, torch.tensor(_duplicates(alike[~outside])).double()]))
            middle, low = torch.stack(found).median(0).values, torch.stack(found).quantile(0.005, dim=0)
            self.nulls[key] = [*middle[:2].tolist(), low[1].item(), middle[2].item()]
        return Null(*self.nulls[key])

    def _diversity_null(self, name: str | None, members: Tensor, scale: float, size: int) -> tuple[float, float]:
        """Mean and spread of the logarithm of the diversity of `size` real members of a bin."""
        key = f"diversity {size}" + ("" if name is None else f" in {name}")
        if key not in self.nulls:
            source = noise.generator("diversity", name or "", size)
            picks = torch.stack([torch.randperm(len(members), generator=source)[:size] for _ in range(_DRAWS)])
            found = vendi(members[picks], scale).log()
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

    def judge(self, generated: Tensor, beside: Beside | None = None) -> CollapseVerdict:
        """The verdict on generated vectors [n, d]; of more than half as many as the pool holds, a seeded choice.

        Where more is known `beside`, what is stranger than 1 does not look real, whatever its vector, and what is
        stranger than 2 does not even nearly.

        Raises `ValueError` for fewer than 20, other dimensions, and vectors that are not finite.
        """
        made, strange, alike = self._accepted(generated, beside)
        n, found = len(made), self._fidelity(made, strange)
        null, kept = found.null, made[found.good]
        fidelity = found.precision / max(null.precision, 1e-9)
        # Copies that real samples have too are none of a generator's.
        duplicates = (_duplicates(alike) - null.duplicates) / (1 - null.duplicates) if null.duplicates < 1 else 0.0
        rules = f"n:{n}|pool:{len(self.pool)}|bins:{len(self.bins.names)}|splits:{self.splits}|v:{_VERSION}"
        verdict = CollapseVerdict(
            verdict=Collapse.UNMEASURABLE,
            reason=f"{found.precision:.0%} of the samples look real, and {null.precision:.0%} of real ones do: what is "
            "missing among the others cannot be told",
            n=n,
            missing_low=0.0,
            missing_seen=0.0,
            missing_high=1.0,
            diversity=None,
            coverage=None,
            precision=fidelity,
            duplicates=max(duplicates, 0.0),
            bins=[],
            signature=f"{self.signature}|{rules}",
            null=null._asdict(),
            accuracy=self.accuracy,
        )
        measured = None
        if fidelity >= _REAL and len(kept) >= _LEAST:
            measured = self._measured(made, found, fidelity, verdict.duplicates)
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
            return None if shifted is None else self._shift(made, shifted)

        one = self._one_thing(made, strange, duplicates, fidelity, shift)
        if one is not None:
            return replace(verdict, verdict=Collapse.TOTAL, reason=f"one thing over and over: {one}")
        if fidelity < _REAL:
            return verdict
        if measured is None:
            few = f"{len(kept)} samples that look real say nothing of a collapse: {_LEAST} at least are needed"
            few += f", which about {math.ceil(_LEAST * n / len(kept)):,} samples would hold" if len(kept) else ""
            return replace(verdict, verdict=Collapse.INCONCLUSIVE, reason=few)

        def covered() -> Covered:
            return self._covered(kept, found, fidelity)

        said, reason, low = conclude(measured, covered)
        # What is not recognised of real samples either, as the generated ones look, is not missing for that.
        if said in FOUND and (alike_real := shift()) is not None:
            measured = self._measured(made, found, fidelity, verdict.duplicates, alike_real)
            said, reason, low = conclude(measured, covered)
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
        return replace(verdict, verdict=said, reason="; ".join([reason, *notes]), missing_low=low)

    def _one_thing(
        self,
        made: Tensor,
        strange: Tensor | None,
        duplicates: float,
        fidelity: float,
        shift: Callable[[], Shift | None],
    ) -> str | None:
        """In which way the samples are one thing over and over; None if they are not. What does not look real may lie
        close together in the features, as noise does: it is one thing only if it is copied, or as narrow as if it were;
        and where most is strange, words that nobody knows among them, what is near in the features means nothing. Nor
        is it where real samples with the `shift` of the generated ones lie as close together, or are not told apart.
        """
        if duplicates > 0.9:
            return f"{duplicates:.0%} of the samples are copies of others"
        everything = self._diversity(None, made, self.pool, len(self.bins.names))
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

    def _covered(self, kept: Tensor, found: _Fidelity, fidelity: float) -> Covered:
        """Coverage by what looks real. Where that is much less than was generated, it is compared with fewer real
        samples; of numbers a tenth apart, so that not every one has a null of its own.
        """
        if fidelity <= 0.9:
            count = max(_LEAST, math.floor(1.1 ** math.floor(math.log(len(kept), 1.1))))
            source = noise.generator("covered", len(kept))
            found = self._fidelity(kept[torch.randperm(len(kept), generator=source)[:count]], None)
        usual = max(found.null.coverage, 1e-9)
        return Covered(found.coverage / usual, min(1.0, found.null.coverage_low / usual))

    def _accepted(self, generated: Tensor, beside: Beside | None) -> tuple[Tensor, Tensor | None, Tensor]:
        """What is judged of the samples, in an order of their own: vectors, strangeness, and which are alike."""
        made = generated.double()
        if made.ndim != 2 or made.shape[1] != self.pool.shape[1]:
            raise ValueError(f"generated vectors are {list(made.shape)}, and real ones [m, {self.pool.shape[1]}]")
        if not made.isfinite().all():
            bad = int((~made.isfinite()).any(1).sum())
            raise ValueError(f"{bad} of {len(made)} samples hold NaN or infinity")
        if len(made) < _LEAST:
            raise ValueError(f"{len(made)} samples say nothing of a collapse: give at least {_LEAST}")
        told_ = [] if beside is None else [beside.alike, beside.strangeness]
        known = [each[:, None].double() for each in told_ if each is not None]
        order = order_of(torch.cat([made, *known], 1))
        most = len(self.pool) // 2
        if len(order) > most:
            some = torch.randperm(len(order), generator=noise.generator("judged", len(order)))[:most]
            order = order[some.sort().values]
        if beside is None:
            return made[order], None, torch.unique(made[order], dim=0, return_inverse=True)[1]
        strange = None if beside.strangeness is None else beside.strangeness.double()[order]
        return made[order], strange, beside.alike[order]

    def _fidelity(self, made: Tensor, strange: Tensor | None) -> _Fidelity:
        """How the samples lie among what is left of the pool over some splits; which are near real ones is of all of
        the pool.
        """
        n, null = len(made), self.null(len(made))
        parts = self._parts(n, _PARTS)
        reaches = torch.stack([self._reach(outside) for outside in parts])
        farthest, wide = reaches.amax(0), 2 * self.lists[0][:, K - 1]
        # So much may be between copies.
        rounding = 1e-9 * (self.pool - self.pool.mean(0)).square().sum(1).mean()
        found, near = [], torch.zeros(n, dtype=torch.bool)
        for rows, squared in distances(made, self.pool):
            near[rows] = (squared < wide.square()).any(1)
            # Few pairs are nearer than any ball reaches: those alone are looked at for each part.
            row, centre = (squared < farthest.square() * (1 + 1e-9) + rounding).nonzero(as_tuple=True)
            away = apart(made[rows][row], self.pool, centre[:, None]).squeeze(1)
            found.append(_Pairs(away, row + rows.start, centre))
        pairs = _Pairs(*(torch.cat(each) for each in zip(*found, strict=True)))
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

    def _shift(self, made: Tensor, shifted: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Shift:
        """How the features sort real samples that look as all generated ones do. Of the real ones those are looked at
        that are sorted as the generated ones are, for what these show is no shift.
        """
        count = len(self.bins.names)
        said = self.bins.of if self.bins.centres is not None else self._told[0]
        hits, real = (torch.bincount(each, minlength=count).double() for each in (self._bins_of(made), said))
        weights = torch.empty(len(said), dtype=torch.float64)
        weights[self._places] = (hits / real.clamp_min(1))[said]
        vectors, places = shifted(weights)
        order = torch.empty_like(self._places)
        order[self._places] = torch.arange(len(order))
        vectors, rows = vectors.double(), order[places]
        of, now, before = self.bins.of[rows], self._bins_of(vectors), said[rows]
        sizes = torch.bincount(of, minlength=count).double()
        right_now, right_before = (torch.bincount(of[each == of], minlength=count).double() for each in (now, before))
        every, varied = self._diversity(None, vectors, self.pool, count), []
        for bin_, name in enumerate(self.bins.names):
            found = self._diversity(name, vectors[now == bin_], self.pool[self.bins.of == bin_], count)
            varied.append(None if found is None else min(found.value, 1.0))
        return Shift(
            accuracy=float((right_now.sum() / sizes.sum()).item()),
            usual=float((right_before.sum() / sizes.sum()).item()),
            recalled=(right_now >= _RECALLED * right_before).tolist(),
            diversities=varied,
            diversity=None if every is None else every.value,
        )

    def _measured(
        self, made: Tensor, found: _Fidelity, fidelity: float, duplicates: float, shift: Shift | None = None
    ) -> Measured:
        of = self._bins_of(made)
        rows, together = self._rows(made[found.good], of[found.good], of[found.near], shift)
        unclear = [name for name, clear in zip(self.bins.names, self.clear.tolist(), strict=True) if not clear]
        return Measured(
            rows=rows,
            together=together,
            noun=self.bins.noun,
            unclear=unclear,
            n=len(made),
            kept=int(found.good.sum()),
            pool=len(self.pool),
            fidelity=fidelity,
            coverage=found.coverage / max(found.null.coverage, 1e-9),
            duplicates=duplicates,
            withheld=self.bins.withheld,
            shift=shift,
        )

    def _rows(
        self, kept: Tensor, of: Tensor, near: Tensor, shift: Shift | None = None
    ) -> tuple[list[dict[str, Any]], tuple[float, float]]:
        """Each bin: its real share, its generated one with bounds, its state, its diversity; of samples that look real
        [n, d] and their bins [n], and of the bins of those `near` real ones. And the bounds of the mass of all missing
        bins together.

        Blur does not fall on all bins alike: one whose samples no longer look real is not missing while samples are
        near it, which look real in balls twice as wide. Nor is one into which real samples are not sorted either that
        have the `shift` of all generated ones.
        """
        count, n = len(self.bins.names), len(kept)
        hits: list[int] = torch.bincount(of, minlength=count).tolist()
        around: list[int] = torch.bincount(near, minlength=count).tolist()
        shares, thresholds = self.shares.tolist(), self.thresholds.tolist()
        rows: list[dict[str, Any]] = []
        for bin_, name in enumerate(self.bins.names):
            found = self._diversity(name, kept[of == bin_], self.pool[self.bins.of == bin_], count)
            rows.append(
                {
                    "name": name,
                    "real": shares[bin_],
                    "generated": hits[bin_] / n,
                    "threshold": thresholds[bin_],
                    "diversity": found and found.value,
                    "diversity_low": found and found.low,
                    "diversity_high": found and found.high,
                    "diversity_alone": found and found.alone,
                    "diversity_least": found and found.least,
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
                _, high = clopper_pearson(hit, len(near), BINS / count)
                row["state"] = MISSING if high < row["threshold"] else UNDECIDED
            row["state"] = row["state"] if sure else UNDECIDED
        mass = [share if sure else 0.0 for share, sure in zip(shares, clear, strict=True)]
        most = most_missing(hits, n, mass, thresholds) + sum(shares) - sum(mass)
        return rows, (least_missing(around, len(near), mass, thresholds), most)

    def _bins_of(self, vectors: Tensor) -> Tensor:
        if self.bins.centres is not None:
            return assign(vectors, self.bins.centres)
        means = self._told[1]
        if means is not None:
            return assign(vectors, means)
        return voted(self.bins.of[nearest(vectors, self.pool, K)[1]])

    def _diversity(self, name: str | None, made: Tensor, real: Tensor, bins: int) -> _Diversity | None:
        """The Vendi score of the generated members of a bin, or of all samples, over that of as many real ones; None
        where there are too few.
        """
        sizes = [size for size in _SIZES if size <= min(len(made), len(real) // 2)]
        if not sizes:
            return None
        size = sizes[-1]
        scale = scale_of(real)
        mean, spread = self._diversity_null(name, real, scale, size)
        # Draws without replacement of so many of all differ less than samples of their own would, by this; and all real
        # members are a sample too, whose error all draws share.
        taken = size / len(real)
        spread /= math.sqrt(1 - taken)
        # Parts that share nothing say how uncertain the value is; of one part, the null's spread does.
        order = torch.randperm(len(made), generator=noise.generator("part", len(made)))
        parts = order[: len(made) // size * size].reshape(-1, size)[:10]
        logs = vendi(made[parts], scale).log() - mean
        error = max(logs.std().item() if len(parts) > 1 else 0.0, spread) / math.sqrt(len(parts))
        error = math.hypot(error, spread * math.sqrt(taken))
        middle, margin = logs.mean().item(), _normal(1 - _ALPHA / (2 * bins)) * error
        alone = middle - _normal(1 - _ALPHA / 2) * error
        return _Diversity(*map(math.exp, (middle, middle - margin, middle + margin, alone, -mean)))


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


class _Fidelity(NamedTuple):
    """Precision and coverage, the samples that look real [n] and those near real ones [n], and the null of so many."""

    precision: float
    coverage: float
    good: Tensor
    near: Tensor
    null: Null


class _Pairs(NamedTuple):
    """How far samples are from real vectors: distance, place of the sample, place of the real vector [p]."""

    away: Tensor
    row: Tensor
    centre: Tensor

    def within(self, reach: Tensor) -> tuple[Tensor, Tensor]:
        """Sample and real vector of those that are in its ball, which reaches so far. A copy of a real vector is in its
        ball, though that may have no width: real ones may be copies too.
        """
        reached = reach[self.centre]
        hit = (self.away < reached) | ((self.away == 0) & (reached >= 0))
        return self.row[hit], self.centre[hit]


def alike(samples: Sequence[str | bytes]) -> Tensor:
    """A number for each sample that equal ones share, whatever their order [n]."""
    numbers = {sample: number for number, sample in enumerate(sorted(set(samples)))}
    return torch.tensor([numbers[sample] for sample in samples])


def _duplicates(alike: Tensor) -> float:
    """The share of samples that are copies of others, by numbers [n] that equal ones share."""
    return 1 - len(torch.unique(alike)) / len(alike)


def _marked(places: Tensor, count: int) -> Tensor:
    """Which of `count` places are named."""
    marks = torch.zeros(count, dtype=torch.bool)
    marks[places] = True
    return marks


def _normal(quantile: float) -> float:
    return float(torch.special.ndtri(torch.tensor(quantile, dtype=torch.float64)))
