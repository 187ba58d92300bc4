"""What is said of a collapse, from what was measured of it: the rules, in their order, and their words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from aigc_lab.verdicts.missing import MISSING, PRESENT, UNDECIDED

_ALPHA = 0.05
# What may be missing where nothing is; what is PARTIAL below, and SEVERE above.
NOTHING, SEVERE_ABOVE, _ALL = 0.02, 0.25, 0.9
# Precision and coverage, beside real samples', below both of which samples that vary are blurred: nothing is then
# missing for certain. Classes that are gone are no such sign: what is left is sharp, or covered, or narrow.
_SHARP, _COVERED, VARIED = 0.65, 0.35, 0.5
# Of real samples so many of those that the features sort right must still be, with the shift of all generated ones.
_STILL = 0.9
# Fewer clusters are too coarse a measure of what is there.
_FINE = 8


class Collapse(StrEnum):
    """From nothing is missing to everything is; or that it cannot be said."""

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
    """The verdict, why in a sentence, and the numbers behind it as plain data.

    `missing_low`, `missing_seen` and `missing_high` are shares of the real mass: proved to be missing, in bins with
    less than a quarter of their share, and not proved to be there. `diversity`, `coverage` and `precision` are ratios
    to as many real samples', and so is what text says of its `phrases`; `duplicates` is the share of samples that are
    copies of others, beyond real samples' own; `null` is what real samples have, in medians and low quantiles.
    `accuracy` is the share of real samples that the features sort into their classes, each by the others alone, None
    where no classes are known; `accuracy_shifted` is the share of real pictures, made to look as blurred and coloured
    as all generated ones, that is sorted into the bins, where something seems to be missing.
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

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON."""
        return vars(self) | {"verdict": str(self.verdict)}


def needed(bins: int, share: float | None = None) -> int:
    """How many samples can tell a missing bin from one that is there: of so many equal ones, or one of this share."""
    return math.ceil(8 * math.log(bins / _ALPHA) / (1 / bins if share is None else share))


class Covered(NamedTuple):
    """Coverage by the samples that look real, beside as many real ones', and the least of what these have beside it."""

    ratio: float
    least: float


class Shift(NamedTuple):
    """Real samples with the shift that all generated ones have: the share that is sorted into their bins, and that of
    the same ones as they are; of which bins enough are; and how much they vary in each and all together, beside real
    ones as they are.
    """

    accuracy: float
    usual: float
    recalled: list[bool]
    diversities: list[float | None]
    diversity: float | None

    @property
    def hides(self) -> bool:
        """Whether fewer real samples are sorted into their bins with the shift than without."""
        return self.accuracy < _STILL * self.usual


@dataclass(frozen=True)
class Measured:
    """What the rules read. `rows` are the bins, `together` the bounds of the mass of all missing ones, `unclear` those
    that the vectors do not tell from others; `kept` counts those of n samples that look real, `pool` the real ones;
    `withheld` says why NONE cannot be said, if so.
    """

    rows: list[dict[str, Any]]
    together: tuple[float, float]
    noun: tuple[str, str]
    unclear: list[str]
    n: int
    kept: int
    pool: int
    fidelity: float
    coverage: float
    duplicates: float
    withheld: str = ""
    shift: Shift | None = None

    @property
    def named(self) -> float:
        """The mass of the bins that are missing, each by itself."""
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
    def known(self) -> list[dict[str, Any]]:
        """The bins with samples enough to tell how much they vary."""
        return [row for row in self.rows if row["diversity"] is not None]

    @property
    def diversity(self) -> float | None:
        weight = sum(row["real"] for row in self.known)
        return float(sum(row["real"] * row["diversity"] for row in self.known) / weight) if weight else None

    @property
    def narrow(self) -> list[dict[str, Any]]:
        return [row for row in self.known if row["diversity_high"] < 0.5 * _varied(row)]

    @property
    def empty(self) -> bool:
        """Whether next to nothing is there: in bins that are missing, or where one thing is over and over."""
        # A score is 1 at least, so that where real ones score 5 no ratio is below 0.1: what is above the least counts.
        flat = [
            row
            for row in self.known
            if row["diversity_high"] - row["diversity_least"] < 0.1 * (_varied(row) - row["diversity_least"])
        ]
        # Of bins with too few samples that look real nothing is known.
        told = sum(row["real"] for row in self.rows if row["state"] == MISSING or row["diversity"] is not None)
        nothing = sum(row["real"] for row in self.rows if row["state"] == MISSING or row in flat)
        return self.low > _ALL or (nothing > _ALL * told and told > 0.5)

    @property
    def covered(self) -> float:
        """Coverage of what is there."""
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
        """Whether real samples with the same shift are not sorted either: bins that seem to be empty may be there. Few
        samples over and over are no shift of all, and vary less than real ones with it do.
        """
        if self.shift is None or not self.shift.hides:
            return False
        both = [(row["real"], row["diversity"], _varied(row)) for row in self.known]
        alone, with_it = (sum(row[0] * row[at] for row in both) for at in (1, 2))
        return not both or alone > VARIED * with_it

    def listed(self, names: Sequence[str]) -> str:
        shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        return f"{self.noun[len(names) != 1]} {shown}"


def conclude(found: Measured, cover: Callable[[], Covered]) -> tuple[Collapse, str, float]:
    """The verdict, why, and the mass that is proved to be missing. `cover` is asked where nothing else stands against
    NONE.
    """
    inside = "" if found.diversity is None else f"; diversity within bins {found.diversity:.2f} of real"
    if found.duplicates > 0.05:
        inside += f"; {found.duplicates:.0%} of the samples are copies of others"
    # A bound is not rounded to what it does not say.
    least = math.floor(100 * found.low)
    lacking = f"at least {least}% of the real mass is missing ({found.seen:.0%} seen): {_missing(found)}{inside}"
    if found.shifted:
        return Collapse.INCONCLUSIVE, _hidden(found), 0.0
    if found.empty:
        over = f"one thing over and over in every bin{inside}"
        if found.low > NOTHING:
            over = lacking if found.low > _ALL else f"{lacking}; one thing over and over in the others"
        return Collapse.TOTAL, over, found.low
    if found.blurred and (found.low > NOTHING or found.narrow):
        # What is blurred moves from bin to bin in the features: those that are empty may be there all the same.
        reason = (
            f"too blurred to tell what is missing from what is not recognised: {found.fidelity:.2f} times as many "
            f"samples look real as of real ones, and the bins they are in are covered {found.covered:.2f} times{inside}"
        )
        _reopen(found)
        return Collapse.INCONCLUSIVE, reason, 0.0
    if found.low > NOTHING:
        return Collapse.SEVERE if found.low > SEVERE_ABOVE else Collapse.PARTIAL, lacking, found.low
    if found.narrow:
        worst = min(row["diversity_high"] for row in found.narrow)
        names = [row["name"] for row in found.narrow]
        copies = f"; {found.duplicates:.0%} of the samples are copies of others" if found.duplicates > 0.05 else ""
        reason = f"{found.listed(names)} {_vary(names)} at most {worst:.2f} times as much as real samples{copies}"
        return Collapse.PARTIAL, reason, found.low
    against = (
        found.withheld
        or _open(found)
        or _repeated(found)
        or _vague(found)
        or _coarse(found)
        or _uncovered(found, cover())
    )
    if against is not None:
        return Collapse.INCONCLUSIVE, against, found.low
    # Samples that are like no real ones are no collapse: what is there beside them is what is judged.
    rest = 1 - found.fidelity
    unlike = f"; {rest:.0%} of the samples do not look real and are not counted" if rest > 0.1 else ""
    return Collapse.NONE, f"{_there(found)}, as varied as real samples, and covered{unlike}", found.low


def _hidden(found: Measured) -> str:
    """That a shift of all samples is in the way."""
    assert found.shift is not None
    seem = [row["name"] for row in found.rows if row["generated"] < row["threshold"]]
    _reopen(found)
    shift = "a shift of all samples (blur, compression, noise, contrast or colour)"
    if found.noun[0] == "cluster":
        shift += ", or classes that are gone, which these features do not tell from it,"
    reason = (
        f"{shift} is in the way: real ones with the same shift are sorted into their {found.noun[1]} in "
        f"{found.shift.accuracy:.0%}, and as they are in {found.shift.usual:.0%}"
    )
    return f"{reason}, so that {found.listed(seem)} may be there all the same" if seem else reason


def _reopen(found: Measured) -> None:
    for row in found.rows:
        row["state"] = UNDECIDED if row["state"] == MISSING else row["state"]


def _varied(row: Mapping[str, Any]) -> float:
    """How much real samples vary in a bin with the shift of the generated ones, beside those without it."""
    found: float | None = row.get("diversity_shifted")
    return 1.0 if found is None else found


def _missing(found: Measured) -> str:
    names = [row["name"] for row in found.rows if row["state"] == MISSING]
    unnamed = f"{found.noun[1]} that {found.kept:,} samples do not tell one by one"
    if found.low <= found.named:
        return found.listed(names)
    return f"{found.listed(names)}, and other {unnamed}" if names else unnamed


def round_up(count: float) -> int:
    """To two digits: of what is estimated."""
    unit: int = 10 ** max(math.floor(math.log10(max(count, 1))) - 1, 0)
    return math.ceil(count / unit) * unit


def _samples(found: Measured, count: int) -> str:
    """So many samples; and as many real ones as they are judged beside, where these are fewer."""
    beside = f" beside {2 * count:,} real ones (there are {found.pool:,})" if 2 * count > found.pool else ""
    return f"{count:,} samples that look real{beside}"


# ---- what stands against NONE: each a reason, or None


def _open(found: Measured) -> str | None:
    """That not every bin is proved to be there."""
    if found.high <= NOTHING:
        return None
    open_ = [row for row in found.rows if row["state"] != PRESENT and row["real"] > 0]
    names = [row["name"] for row in open_]
    wanted = needed(len(found.rows), min(row["real"] for row in open_))
    if found.unclear:
        why = f"by these features {found.listed(found.unclear)} cannot be told from the others"
    elif found.kept < wanted:
        of = f" of {found.n:,}" if found.fidelity < 0.9 else ""
        why = f"{_samples(found, wanted)} would decide, and {found.kept:,}{of} do"
    elif found.shift is not None and any(row["high"] < row["threshold"] for row in open_):
        why = (
            "real samples with the shift of all generated ones (blur, compression, colour) are not sorted there either"
        )
    elif any(row["high"] < row["threshold"] for row in open_):
        why = "what is near them does not look real"
    else:
        why = "they hold more than nothing and less than their share"
    if found.high < sum(row["real"] for row in open_) - 1e-9:
        return f"up to {found.high:.0%} of the real mass may be missing, and which {found.noun[1]} is not known: {why}"
    return f"{found.listed(names)} cannot be said to be there ({found.high:.0%} of the mass): {why}"


def _repeated(found: Measured) -> str | None:
    if found.duplicates <= 0.05:
        return None
    return f"{_there(found)}, and {found.duplicates:.0%} of the samples are copies of others"


def _vague(found: Measured) -> str | None:
    """That bins are not proved to vary. That all do is proved where each does for itself."""
    unsure = [row for row in found.rows if row["diversity"] is None or row["diversity_alone"] < 0.5]
    vague = [row for row in unsure if row["real"] > 0]
    if sum(row["real"] for row in vague) <= NOTHING:
        return None
    near = [row for row in vague if row["diversity"] is not None and abs(math.log(row["diversity"] / 0.5)) < 0.1]
    names = [row["name"] for row in near or vague]
    wanted = max(_told_by(row, found.kept) for row in vague)
    if near:
        known = [row["diversity"] for row in near]
        nearest = min(known, key=lambda value: abs(value - 0.5))
        half = f"about half as much as real samples do ({nearest:.2f} times)"
        return f"{found.listed(names)} {_vary(names)} {half}, too near it to say whether less"
    say = f"to say whether {found.listed(names)} {_vary(names)} as real samples do"
    return f"it would take {_samples(found, wanted)} {say}, and {found.kept:,} do"


def _told_by(row: Mapping[str, Any], kept: int) -> int:
    """About how many samples tell whether a bin varies half as much as real ones at least: diversity is compared from
    ten members on, which twenty expected ones nearly always are; and its error falls with the root of their number.
    """
    if row["diversity"] is None:
        share: float = row["real"]
        return math.ceil(20 / share)
    value: float = row["diversity"]
    error = math.log(value / row["diversity_alone"] if value > 0.5 else row["diversity_high"] / value)
    return round_up(kept * (error / max(abs(math.log(value / 0.5)), 0.01)) ** 2)


def _coarse(found: Measured) -> str | None:
    if found.noun[0] != "cluster" or len(found.rows) >= _FINE:
        return None
    return (
        f"all of {len(found.rows)} clusters are there, and so few are too coarse to say that nothing is missing: "
        f"{_samples(found, needed(2 * _FINE))} would tell more of them, and {found.kept:,} do"
    )


def _uncovered(found: Measured, covered: Covered) -> str | None:
    """That coverage is below what real samples have at worst, for it varies at small n."""
    # Clusters do not show what is missing within them: there all must be covered as real samples are at worst.
    if covered.ratio >= (1.0 if found.noun[0] == "cluster" else 0.9) * covered.least:
        return None
    return f"{_there(found)}, and coverage is {covered.ratio:.2f} of real samples': blur, or gaps within the bins"


def _there(found: Measured) -> str:
    """What is said where so little may be missing that it is no collapse."""
    if found.high <= 1e-9:
        return "every bin is there"
    return f"all but at most {math.ceil(1000 * found.high) / 10:g}% of the real mass is there"


def _vary(names: Sequence[str]) -> str:
    return "varies" if len(names) == 1 else "vary"
