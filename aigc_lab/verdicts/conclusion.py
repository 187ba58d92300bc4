"""Collapse verdict from what was measured: the rules, in their order, and their words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from aigc_lab.host import notebook
from aigc_lab.verdicts import wording
from aigc_lab.verdicts.states import MISSING, PRESENT, UNDECIDED

_ALPHA = 0.05
# Missing mass that still counts as none; that separates PARTIAL from SEVERE; and that is TOTAL.
NOTHING, SEVERE_ABOVE, TOTAL_ABOVE = 0.02, 0.25, 0.9
# Precision and coverage, beside real samples', below both of which samples that vary are blurred: nothing is then
# missing for certain. Classes that are gone are no such sign: what is left is sharp, or covered, or narrow.
_SHARP, _COVERED, VARIED = 0.65, 0.35, 0.5
# Share of the usual accuracy that real samples must keep under the shift of all generated ones.
_STILL = 0.9
# Least number of clusters for NONE: fewer are too coarse to show that nothing is missing.
_FINE = 8


class Collapse(StrEnum):
    """Severity of a collapse, from NONE to TOTAL, or why there is none to report."""

    NONE = "NONE"
    PARTIAL = "PARTIAL"
    SEVERE = "SEVERE"
    TOTAL = "TOTAL"
    INCONCLUSIVE = "INCONCLUSIVE"
    UNMEASURABLE = "UNMEASURABLE"
    POSTERIOR = "POSTERIOR-COLLAPSED"


#: that something is missing
FOUND = frozenset({Collapse.PARTIAL, Collapse.SEVERE, Collapse.TOTAL})


@dataclass(frozen=True)
class CollapseVerdict:
    """Verdict on a collapse, its reason in a sentence, and the numbers behind it as plain data.

    `missing_low`, `missing_seen` and `missing_high` are shares of the real mass: proved to be missing, in bins with
    less than a quarter of their share, and not proved to be there. `diversity`, `coverage` and `precision` are ratios
    to as many real samples', as is `phrases` for text. `duplicates` is the share of samples that are copies of others,
    beyond real samples' own. `null` holds medians and low quantiles of real samples. `accuracy` is the share of real
    samples that the features sort into their classes, leaving each out, None without known classes. `accuracy_shifted`
    is that share for real pictures made as blurred and coloured as all generated ones, given if something seems to be
    missing. `asked` says of each class that a conditional system was asked for what it drew (`verdicts.asked`), None of
    other samples.
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
    null: dict[str, float] | None = None
    accuracy: float | None = None
    accuracy_shifted: float | None = None
    asked: list[dict[str, Any]] | None = None

    def __repr__(self) -> str:
        """One line, without the bins and the signature."""
        return f"CollapseVerdict({self.verdict}: {self.reason}; n {self.n})"

    def _repr_html_(self) -> str:
        return notebook.lines(wording.of_collapse(self.as_dict()), self.signature)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return vars(self) | {"verdict": str(self.verdict)}


def needed(bins: int, share: float | None = None) -> int:
    """Number of samples that can tell a missing bin from a present one, among `bins` equal bins, or for a bin of
    `share`.
    """
    return math.ceil(8 * math.log(bins / _ALPHA) / (1 / bins if share is None else share))


class Covered(NamedTuple):
    """Coverage by the samples that look real over that of as many real ones, and the 0.5 % quantile of real samples'
    own ratio.
    """

    ratio: float
    least: float


class Shift(NamedTuple):
    """Real samples with the shift of all generated ones: the `accuracy` with which they are sorted into their bins, the
    `usual` one without shift, whether enough of each bin are `recalled` [K], and their diversity over that of unshifted
    ones, in each bin [K] and in all.
    """

    accuracy: float
    usual: float
    recalled: list[bool]
    diversities: list[float | None]
    diversity: float | None

    @property
    def hides(self) -> bool:
        """Whether the shift lowers the accuracy of real samples below 90 % of the usual one."""
        return self.accuracy < _STILL * self.usual


@dataclass(frozen=True)
class Measured:
    """Measurements that the rules read.

    `rows` are the bins, `together` the bounds of the mass of all missing ones, `unclear` the bins that the vectors do
    not separate. `realistic` counts the samples of n that look real, `pool` the real ones. `withheld` is the reason why
    NONE cannot be concluded, "" if it can.
    """

    rows: list[dict[str, Any]]
    together: tuple[float, float]
    noun: tuple[str, str]
    unclear: list[str]
    n: int
    realistic: int
    pool: int
    fidelity: float
    coverage: float
    duplicates: float
    withheld: str = ""
    shift: Shift | None = None

    @property
    def named(self) -> float:
        """Mass of the bins that are each proved to be missing."""
        return float(sum(row["real"] for row in self.rows if row["state"] == MISSING))

    @property
    def low(self) -> float:
        return max(self.named, self.together[0])

    @property
    def seen(self) -> float:
        return float(sum(row["real"] for row in self.rows if row["generated"] < row["threshold"]))

    @property
    def high(self) -> float:
        return min(float(sum(row["real"] for row in self.rows if row["state"] != PRESENT)), self.together[1])

    @property
    def with_diversity(self) -> list[dict[str, Any]]:
        """Bins with enough samples to measure their diversity."""
        return [row for row in self.rows if row["diversity"] is not None]

    @property
    def diversity(self) -> float | None:
        weight = sum(row["real"] for row in self.with_diversity)
        return float(sum(row["real"] * row["diversity"] for row in self.with_diversity) / weight) if weight else None

    @property
    def narrow(self) -> list[dict[str, Any]]:
        return [row for row in self.with_diversity if row["diversity_high"] < 0.5 * _varied(row)]

    @property
    def empty(self) -> bool:
        """Whether next to nothing is there: bins are missing, or hold one thing over and over."""
        # A score is 1 at least, so that where real ones score 5 no ratio is below 0.1: what is above the least counts.
        flat = [
            row
            for row in self.with_diversity
            if row["diversity_high"] - row["diversity_least"] < 0.1 * (_varied(row) - row["diversity_least"])
        ]
        # Bins with too few realistic samples cannot be decided.
        decidable = sum(row["real"] for row in self.rows if row["state"] == MISSING or row["diversity"] is not None)
        nothing = sum(row["real"] for row in self.rows if row["state"] == MISSING or row in flat)
        return self.low > TOTAL_ABOVE or (nothing > TOTAL_ABOVE * decidable and decidable > 0.5)

    @property
    def covered(self) -> float:
        """Coverage of the mass that is not proved to be missing."""
        return self.coverage / max(1 - self.low, 1e-9)

    @property
    def blurred(self) -> bool:
        # Known modes part the plane itself, and blur moves nothing from one to another.
        return (
            self.noun[0] != "mode"
            and self.fidelity < _SHARP
            and self.covered < _COVERED
            and self.diversity is not None
            and self.diversity > VARIED
        )

    @property
    def shifted(self) -> bool:
        """Whether real samples with the same shift are not sorted into their bins either, so that bins that seem empty
        may be there. Few samples repeated are no shift: they vary less than real samples with it.
        """
        if self.shift is None or not self.shift.hides:
            return False
        both = [(row["real"], row["diversity"], _varied(row)) for row in self.with_diversity]
        alone, with_it = (sum(row[0] * row[at] for row in both) for at in (1, 2))
        return not both or alone > VARIED * with_it

    def listed(self, names: Sequence[str]) -> str:
        shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        return f"{self.noun[len(names) != 1]} {shown}"


def conclude(measured: Measured, cover: Callable[[], Covered]) -> tuple[Collapse, str, float]:
    """Verdict, reason, and mass proved to be missing. `cover` is only called if nothing else speaks against NONE."""
    inside = "" if measured.diversity is None else f"; diversity within bins {measured.diversity:.2f} of real"
    if measured.duplicates > 0.05:
        inside += f"; {measured.duplicates:.0%} of the samples are copies of others"
    # A bound is not rounded to what it does not say.
    least = math.floor(100 * measured.low)
    lacking = f"at least {least}% of the real mass is missing ({measured.seen:.0%} seen): {_missing(measured)}{inside}"
    if measured.shifted:
        return Collapse.INCONCLUSIVE, _hidden(measured), 0.0
    if measured.empty:
        over = f"one thing over and over in every bin{inside}"
        if measured.low > NOTHING:
            over = lacking if measured.low > TOTAL_ABOVE else f"{lacking}; one thing over and over in the others"
        return Collapse.TOTAL, over, measured.low
    if measured.blurred and (measured.low > NOTHING or measured.narrow):
        # Blur moves samples from bin to bin in the features, so bins that seem empty may be there.
        reason = (
            f"too blurred to tell what is missing from what is not recognised: {measured.fidelity:.2f} times as many "
            "samples look real as of real ones, and the bins they are in are covered "
            f"{measured.covered:.2f} times{inside}"
        )
        _reopen(measured)
        return Collapse.INCONCLUSIVE, reason, 0.0
    if measured.low > NOTHING:
        return Collapse.SEVERE if measured.low > SEVERE_ABOVE else Collapse.PARTIAL, lacking, measured.low
    if measured.narrow:
        worst = min(row["diversity_high"] for row in measured.narrow)
        names = [row["name"] for row in measured.narrow]
        copies = (
            f"; {measured.duplicates:.0%} of the samples are copies of others" if measured.duplicates > 0.05 else ""
        )
        reason = f"{measured.listed(names)} {_vary(names)} at most {worst:.2f} times as much as real samples{copies}"
        return Collapse.PARTIAL, reason, measured.low
    against = (
        measured.withheld
        or _open(measured)
        or _repeated(measured)
        or _vague(measured)
        or _coarse(measured)
        or _uncovered(measured, cover())
    )
    if against is not None:
        return Collapse.INCONCLUSIVE, against, measured.low
    # Samples that are like no real ones are no collapse: what is there beside them is what is judged.
    rest = 1 - measured.fidelity
    unlike = f"; {rest:.0%} of the samples do not look real and are not counted" if rest > 0.1 else ""
    return Collapse.NONE, f"{_there(measured)}, as varied as real samples, and covered{unlike}", measured.low


def _hidden(measured: Measured) -> str:
    """Reason of INCONCLUSIVE if a shift of all samples hides what is missing."""
    assert measured.shift is not None
    seem = [row["name"] for row in measured.rows if row["generated"] < row["threshold"]]
    _reopen(measured)
    shift = "a shift of all samples (blur, compression, noise, contrast or colour)"
    if measured.noun[0] == "cluster":
        shift += ", or classes that are gone, which these features do not tell from it,"
    reason = (
        f"{shift} is in the way: real ones with the same shift are sorted into their {measured.noun[1]} in "
        f"{measured.shift.accuracy:.0%}, and as they are in {measured.shift.usual:.0%}"
    )
    return f"{reason}, so that {measured.listed(seem)} may be there all the same" if seem else reason


def _reopen(measured: Measured) -> None:
    for row in measured.rows:
        row["state"] = UNDECIDED if row["state"] == MISSING else row["state"]


def _varied(row: Mapping[str, Any]) -> float:
    """Diversity of real samples in a bin with the shift of the generated ones, over that without it; 1 if
    not measured.
    """
    ratio: float | None = row.get("diversity_shifted")
    return 1.0 if ratio is None else ratio


def _missing(measured: Measured) -> str:
    names = [row["name"] for row in measured.rows if row["state"] == MISSING]
    unnamed = f"{measured.noun[1]} that {measured.realistic:,} samples do not tell one by one"
    if measured.low <= measured.named:
        return measured.listed(names)
    return f"{measured.listed(names)}, and other {unnamed}" if names else unnamed


def round_up(count: float) -> int:
    """Count rounded up to two digits, for estimates."""
    unit: int = 10 ** max(math.floor(math.log10(max(count, 1))) - 1, 0)
    return math.ceil(count / unit) * unit


def _samples(measured: Measured, count: int) -> str:
    """Phrase for so many samples, and for as many real ones if the pool has fewer."""
    beside = f" beside {2 * count:,} real ones (there are {measured.pool:,})" if 2 * count > measured.pool else ""
    return f"{count:,} samples that look real{beside}"


# ---- what stands against NONE: each a reason, or None


def _open(measured: Measured) -> str | None:
    """Reason that not every bin is proved to be there."""
    if measured.high <= NOTHING:
        return None
    open_ = [row for row in measured.rows if row["state"] != PRESENT and row["real"] > 0]
    names = [row["name"] for row in open_]
    enough = needed(len(measured.rows), min(row["real"] for row in open_))
    if measured.unclear:
        why = f"by these features {measured.listed(measured.unclear)} cannot be told from the others"
    elif measured.realistic < enough:
        of = f" of {measured.n:,}" if measured.fidelity < 0.9 else ""
        why = f"{_samples(measured, enough)} would decide, and {measured.realistic:,}{of} do"
    elif measured.shift is not None and any(row["high"] < row["threshold"] for row in open_):
        why = (
            "real samples with the shift of all generated ones (blur, compression, colour) are not sorted there either"
        )
    elif any(row["high"] < row["threshold"] for row in open_):
        why = "what is near them does not look real"
    else:
        one = len(names) == 1
        why = f"{'it holds' if one else 'they hold'} more than nothing and less than {'its' if one else 'their'} share"
    if measured.high < sum(row["real"] for row in open_) - 1e-9:
        noun = measured.noun[1]
        return f"up to {measured.high:.0%} of the real mass may be missing, and which {noun} is not known: {why}"
    return f"{measured.listed(names)} cannot be said to be there ({measured.high:.0%} of the mass): {why}"


def _repeated(measured: Measured) -> str | None:
    if measured.duplicates <= 0.05:
        return None
    return f"{_there(measured)}, and {measured.duplicates:.0%} of the samples are copies of others"


def _vague(measured: Measured) -> str | None:
    """Reason that bins are not proved to vary. All are proved to vary if each is by itself."""
    unsure = [row for row in measured.rows if row["diversity"] is None or row["diversity_alone"] < 0.5]
    vague = [row for row in unsure if row["real"] > 0]
    if sum(row["real"] for row in vague) <= NOTHING:
        return None
    near = [row for row in vague if row["diversity"] is not None and abs(math.log(row["diversity"] / 0.5)) < 0.1]
    names = [row["name"] for row in near or vague]
    enough = max(_deciding_count(row, measured.realistic) for row in vague)
    if near:
        ratios = [row["diversity"] for row in near]
        nearest = min(ratios, key=lambda value: abs(value - 0.5))
        half = f"about half as much as real samples do ({nearest:.2f} times)"
        return f"{measured.listed(names)} {_vary(names)} {half}, too near it to say whether less"
    say = f"to say whether {measured.listed(names)} {_vary(names)} as real samples do"
    return f"it would take {_samples(measured, enough)} {say}, and {measured.realistic:,} do"


def _deciding_count(row: Mapping[str, Any], realistic: int) -> int:
    """Approximate number of samples that decide whether a bin varies at least half as much as real ones.

    Diversity is compared from ten members on, which a bin with twenty expected ones nearly always has; its error falls
    with the root of their number.
    """
    if row["diversity"] is None:
        share: float = row["real"]
        return math.ceil(20 / share)
    value: float = row["diversity"]
    error = math.log(value / row["diversity_alone"] if value > 0.5 else row["diversity_high"] / value)
    return round_up(realistic * (error / max(abs(math.log(value / 0.5)), 0.01)) ** 2)


def _coarse(measured: Measured) -> str | None:
    if measured.noun[0] != "cluster" or len(measured.rows) >= _FINE:
        return None
    return (
        f"all of {len(measured.rows)} clusters are there, and so few are too coarse to say that nothing is missing: "
        f"{_samples(measured, needed(2 * _FINE))} would tell more of them, and {measured.realistic:,} do"
    )


def _uncovered(measured: Measured, covered: Covered) -> str | None:
    """Reason that coverage is below the low quantile of real samples, since it varies at small n."""
    # Clusters do not show what is missing within them: there all must be covered as real samples are at worst.
    if covered.ratio >= (1.0 if measured.noun[0] == "cluster" else 0.9) * covered.least:
        return None
    return f"{_there(measured)}, and coverage is {covered.ratio:.2f} of real samples': blur, or gaps within the bins"


def _there(measured: Measured) -> str:
    """Phrase for bins of which so little may be missing that it is no collapse."""
    if measured.high <= 1e-9:
        return "every bin is there"
    return f"all but at most {math.ceil(1000 * measured.high) / 10:g}% of the real mass is there"


def _vary(names: Sequence[str]) -> str:
    return "varies" if len(names) == 1 else "vary"
