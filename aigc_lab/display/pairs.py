"""A against B as text: the answers of `registry.pairs` as rows of a table, and what its columns mean."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from aigc_lab.display.rows_table import Column
from aigc_lab.display.wording import Row, assignments, titles, value_text
from aigc_lab.registry.pairs import Pair
from aigc_lab.statistics.rank_test import FEWEST, LEVEL
from aigc_lab.statistics.superiority import MOST_SEEDS, POWER
from aigc_lab.statistics.wording import number, probability

TITLE = "A against B"

# Columns move to the lines below in this order until the first line fits.
_MORE, _P = range(1, 3)

_WIDEST = 24  # characters of what differs between configurations


def shown(pairs: Sequence[Pair]) -> list[Pair]:
    """Those that a table is made of: none where every row has one seed."""
    return [pair for pair in pairs if min(pair.beside.n, pair.beside.m) > 1]


def columns(pairs: Sequence[Pair]) -> list[Column]:
    """The columns of a table whose rows are `Pair.as_dict`."""
    name = namer(pairs)
    tested = any(pair.p is not None for pair in pairs)
    open_pairs = any(not pair.told for pair in pairs)
    unit = pairs[0].unit
    return [
        Column("A", lambda row: name(row["first"])),
        Column("B", lambda row: name(row["second"])),
        Column("P(A better)", _chance),
        *([Column("p", lambda row: probability(row["p_adjusted"]), yields=_P)] if tested else []),
        Column("A is", lambda row: row["first_is"]),
        *([Column(f"more {unit}s", more, yields=_MORE)] if open_pairs else []),
    ]


def namer(pairs: Sequence[Pair]) -> Callable[[Row], str]:
    """How a row of the pairs is called: `0 ns_gan` by trial and system, of one system `0 lr=0.001` by trial and what
    differs in the configuration, with the sweep before them where there are several; of several trials what they have
    in common, `lr=0.001`.
    """
    rows = {(row["sweep"], row["trial"]): row for pair in pairs for row in (pair.first, pair.second)}
    several = len({row["sweep"] for row in rows.values()}) > 1
    names = dict(zip(rows, _differing(list(rows.values())), strict=True))

    def name(row: Row) -> str:
        if "by" in row:
            return assignments({row["by"]: row["by_value"]})
        called = names[row["sweep"], row["trial"]]
        return " ".join(filter(None, (row["sweep"] if several else "", str(row["trial"]), called)))

    return name


def _differing(rows: Sequence[Row]) -> list[str]:
    """What each row is called beside its trial: its system, with what tells its variants apart; where all are of one
    system the parameters that tell most of them apart, as many as there is room for.
    """
    systems = [str(row["system"]) for row in rows]
    if any("by" in row for row in rows):
        return systems
    if len(set(systems)) > 1:
        rooms = [len(system) + 1 + _WIDEST for system in systems]
        return [_cut(title, room) for title, room in zip(titles(rows), rooms, strict=True)]
    keys = list(dict.fromkeys(key for row in rows for key in row["config"]))
    texts = {key: [_parameter(key, row) for row in rows] for key in keys}
    keys = sorted((key for key in keys if len(set(texts[key])) > 1), key=lambda key: -len(set(texts[key])))
    if not keys:
        return systems
    names = texts[keys[0]]
    for key in keys[1:]:
        longer = [f"{name} {text}" for name, text in zip(names, texts[key], strict=True)]
        if len(set(longer)) > len(set(names)) and max(map(len, longer)) <= _WIDEST:
            names = longer
    return [_cut(name, _WIDEST) for name in names]


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"


def _parameter(key: str, row: Row) -> str:
    """`lr=0.000531`; a row that lacks the parameter says `lr not set`."""
    short = key.rpartition(".")[2]
    if key not in row["config"]:
        return f"{short} not set"
    value = row["config"][key]
    return f"{short}={number(value) if isinstance(value, float) else value_text(value)}"


def _chance(row: Row) -> str:
    return f"{row['probability']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def more(row: Row) -> str:
    """`6 each`, or where that is too many `> 100 each`; "" for a pair that is told."""
    if row["first_is"] != "cannot tell":
        return ""
    return f"{row['more'] or f'> {MOST_SEEDS}'} each"


def explanations(pairs: Sequence[Pair]) -> list[str]:
    """What the columns mean."""
    lines = [f"P(A better): that a {pairs[0].unit} of A is better than one of B, with its 95 % interval"]
    tested = [pair for pair in pairs if pair.p is not None]
    if tested:
        lines.append(f"p: {basis(tested)}; below {LEVEL:g} A is better or worse")
    if len(tested) < len(pairs):
        lines.append(f"fewer than {FEWEST} {pairs[0].unit}s tell nothing")
    if any(not pair.told for pair in pairs):
        power = f"{POWER:.0%}".replace("%", " %")
        lines.append(f"more {pairs[0].unit}s: about so many would tell, in {power} of cases, if P is right")
    return lines


class Written(NamedTuple):
    """A table of pairs as texts, with the lines below it."""

    headings: list[str]
    rows: list[list[str]]
    caption: list[str]


def written(pairs: Sequence[Pair]) -> Written | None:
    """None for no pair."""
    if not pairs:
        return None
    each_column = columns(pairs)
    rows = [[each.whole(pair.as_dict()) for each in each_column] for pair in pairs]
    return Written([each.heading for each in each_column], rows, explanations(pairs))


def basis(pairs: Sequence[Pair]) -> str:
    """`exact rank test of 6 and 5 seeds, Holm's correction for 6 pairs`, of a pair or of several of one group."""
    first, sizes = pairs[0], sorted({size for pair in pairs for size in (pair.beside.n, pair.beside.m)})
    values = f"{sizes[0]} to {sizes[-1]} {first.unit}s" if len(sizes) > 1 else f"{sizes[0]} {first.unit}s each"
    if len(pairs) == 1:
        values = f"{first.beside.n} and {first.beside.m} {first.unit}s"
    holm = f", Holm's correction for {first.comparisons} pairs" if first.comparisons > 1 else ""
    looks = f", times {first.looks} looks" if first.looks > 1 else ""
    return f"exact rank test of {values}{holm}{looks}"


def sentence(pairs: Sequence[Pair]) -> str:
    """`0 ns_gan better than 1 lsgan (p = 0.013), 1 lsgan and 2 vae not told apart (…)`, for a caption; "" for none."""
    if not pairs:
        return ""
    name, parts = namer(pairs), []
    for pair in pairs:
        first, second = name(pair.first), name(pair.second)
        p = (
            f"too few {pair.unit}s"
            if pair.p is None
            else f"p {probability(pair.p)}"
            if pair.p < 1e-4
            else f"p = {pair.p:.2g}"
        )
        verb = f"{pair.answer} than" if pair.told else "and"
        parts.append(f"{first} {verb} {second}{'' if pair.told else ' not told apart'} ({p})")
    tested = [pair for pair in pairs if pair.p is not None]
    return ", ".join(parts) + (f"; {basis(tested)}" if tested else "")
