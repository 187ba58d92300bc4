"""What a ranking means, in plain sentences made from its numbers."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from aigc_lab.display import beside_likelihood
from aigc_lab.display.pairs import basis
from aigc_lab.display.races import race_sentences
from aigc_lab.display.wording import Row, pool_value, titles
from aigc_lab.registry.marks import DOUBTFUL, violate
from aigc_lab.registry.pairs import Pair, pairs_by_group, unit_of
from aigc_lab.registry.steering import steered
from aigc_lab.registry.tables import Sweep
from aigc_lab.registry.verdicts import asked_of_trials, missing_bins, partial_reasons
from aigc_lab.statistics.rank_test import LEVEL, values_lacking
from aigc_lab.statistics.superiority import MOST_SEEDS
from aigc_lab.statistics.wording import number
from aigc_lab.verdicts.asked_words import words

if TYPE_CHECKING:
    from aigc_lab.registry.columns import FinalCheckpoint
    from aigc_lab.registry.ranking import Comparison, Group
    from aigc_lab.registry.store import Registry

Missing = Mapping[tuple[str, int], Sequence[str]]
Reasons = Mapping[tuple[str, int], str]

GOING = ("RUNNING", "QUEUED")  # states of a row that may still change

MOST_TRIALS = 3  # that are named as collapsed
_MOST_BINS = 8  # whose names are listed
_MOST_ON_FRONT = 12  # trials that are named


class Commands(NamedTuple):
    """The commands that a reader may be sent to, as they have to be typed; "" for one that does not apply."""

    samples: str  # shows samples side by side
    more_seeds: str = ""  # trains the best again, with seeds enough to tell them apart
    promote: str = ""
    status: str = ""  # shows how far it is


class Meaning(NamedTuple):
    """Sentences on a comparison, and the one command that leads on from it, after the words that say what for. `beside`
    are those on text GANs beside maximum likelihood, one each.
    """

    sentences: list[str]
    purpose: str = ""
    command: str = ""
    beside: Sequence[str] = ()


class _Contestant(NamedTuple):
    """A ranked row with what its score is the median of."""

    row: Row
    values: list[float]

    @property
    def value(self) -> float:
        return float(self.row["score"]["value"])


def stored_meaning(
    registry: "Registry", comparison: "Comparison", commands: Commands, checkpoint: "FinalCheckpoint" = "last"
) -> Meaning:
    """`meaning` with what the registry holds of the verdicts on this checkpoint."""
    missing = missing_bins(registry, collapsed(comparison)[:MOST_TRIALS], checkpoint)
    reasons = partial_reasons(registry, partly_collapsed(comparison), checkpoint)
    told = meaning(comparison, missing, reasons, commands)
    asked = _asked(registry, comparison, checkpoint)
    beside = beside_likelihood.compared(registry, comparison)
    sentences = [*_unmet(registry, comparison), *told.sentences, *asked, *race_sentences(registry, comparison)]
    sentences += beside_likelihood.summary(beside)
    return told._replace(sentences=sentences, beside=[each.sentence for each in beside])


def _asked(registry: "Registry", comparison: "Comparison", checkpoint: "FinalCheckpoint") -> list[str]:
    """What conditional systems among the first draw for a class that they are asked for, if it is another or all alike;
    a reason of PARTIAL says it by itself.
    """
    rows = [row for row in comparison.rows[:MOST_TRIALS] if "PARTIAL" not in row["verdicts"].get("collapse", {})]
    told, name, sentences = asked_of_trials(registry, rows, checkpoint), _namer(comparison), []
    for row in rows:
        said = (words(verdict, asked, faults_alone=True) for verdict, asked in told[row["sweep"], row["trial"]])
        if fault := next(filter(None, said), ""):
            sentences.append(f"{_capital(name(row))}: {fault}.")
    return sentences


def _unmet(registry: "Registry", comparison: "Comparison") -> list[str]:
    """Which constraints no ranked trial of their sweep meets, as a sentence for each sweep. Rows that violate one rank
    last in their group, so a row that meets it would be shown before them.
    """
    violating: dict[str, bool] = {}
    for row in comparison.rows if comparison.by == "trial" else []:
        if row["score"] is not None:
            violating[row["sweep"]] = violating.get(row["sweep"], True) and violate(row["marks"])
    none = [sweep for sweep, every in violating.items() if every]
    if not none or (len(comparison.groups) > 1 and comparison.total > len(comparison.rows)):
        return []
    with registry.read() as connection:
        steering = steered(connection, Sweep.c.id.in_(none))
    of = "{} that --where leaves" if comparison.filtered else "{}"
    told = []
    for sweep, each in steering.items():
        constraints = [f"{kind}: {', '.join(allowed)}" for kind, allowed in each.subject_to.items()]
        who = of.format("No trial" if len(violating) == 1 else f"No trial of {sweep}")
        what = "the constraint" if len(constraints) == 1 else "the constraints"
        told.append(f"{who} meets {what} {'; '.join(constraints)}. What follows ranks trials that do not.")
    return told


def meaning(comparison: "Comparison", missing: Missing, reasons: Reasons, commands: Commands) -> Meaning:
    """Who leads, whether that is more than chance, who collapsed, and what to do next. `missing` names what a collapsed
    trial (sweep, number) lacks, `reasons` says why one has collapsed in part. Of several signatures only the first is
    told of, since numbers of two do not compare.
    """
    name = _namer(comparison)
    if not comparison.rows:
        return Meaning([])
    going = any(row["state"] in GOING for row in comparison.rows)
    collapse = _collapse(comparison, missing, reasons, name)
    if not comparison.groups:
        return Meaning(["No configuration has a score to rank by.", *collapse], *_advice(None, False, going, commands))
    group, others = comparison.groups[0], len(comparison.groups) - 1
    first, second = _first_two(comparison, group)
    lead = _lead(first, second, group, name)
    found = pairs_by_group(comparison)[group]
    chance, undecided = ([], False) if second is None else _chance(first, second, found, name)
    told = [f"So far: {lead}" if going else lead, *chance, *_within_noise(comparison, found, name)]
    told += [*_fronts(comparison), *collapse]
    if others:
        told.append(f"Rows of {others} other signature{'s' if others > 1 else ''} do not compare with these.")
    return Meaning(told, *_advice(first, undecided, going, commands))


def _first_two(comparison: "Comparison", group: "Group") -> tuple[_Contestant, _Contestant | None]:
    """The first two rows of a group; there is no second where only one is shown."""
    key = (group.name, group.better, group.signature)
    ranked = [
        _Contestant(row, values)
        for row, values in zip(comparison.rows, comparison.values, strict=True)
        if row["score"] is not None and tuple(row["score"][part] for part in ("name", "better", "signature")) == key
    ]
    return ranked[0], ranked[1] if len(ranked) > 1 else None


def _namer(comparison: "Comparison") -> Callable[[Row], str]:
    """How a row is called: `trial 2 (dcgan)`, with what tells it from variants of its system, and its sweep where there
    are several; of several trials `lr=0.001`.
    """
    if comparison.by != "trial":
        return lambda row: f"{row['by']}={pool_value(row)}"
    several = len({row["sweep"] for row in comparison.rows}) > 1
    keys = [(row["sweep"], row["trial"]) for row in comparison.rows]
    called = dict(zip(keys, titles(comparison.rows), strict=True))

    def name(row: Row) -> str:
        title = called.get((row["sweep"], row["trial"]), row["system"])
        return f"trial {row['trial']} ({title}{', ' + row['sweep'] if several else ''})"

    return name


# ---- who leads


def _lead(first: _Contestant, second: _Contestant | None, group: "Group", name: Callable[[Row], str]) -> str:
    """Who leads, by how much, and how far that is from what real samples score."""
    value = f"{group.name} {number(first.value)} ({group.better} is better)"
    floor, who = _floor(first, group), _capital(name(first.row))
    if second is None:
        if group.rows > 1:
            return f"{who} ranks first with {value}{floor}."
        return f"Only {name(first.row)} has a score to rank, {value}{floor}. There is nothing to compare it with."
    ahead, other = _ahead(first, second, group), f"{name(second.row)} with {number(second.value)}"
    if ahead > 0:
        return f"{who} leads with {value}, {number(ahead)} ahead of {other}{floor}."
    if ahead == 0:
        return f"{who} and {name(second.row)} have the same value, {value}{floor}."
    why = _why_before(first.row, second.row)
    return f"{who} ranks first with {value}, before {other}: {why}{floor}."


def _why_before(first: Row, second: Row) -> str:
    """Why a row ranks before one whose value is better, as `ranking.in_order` has it."""
    if violate(second["marks"]) and not violate(first["marks"]):
        return "the other violates a constraint of its sweep"
    if first["confirmed"] and not second["confirmed"]:
        return "it is confirmed on fresh seeds, and the other was chosen by the seeds that it is scored on"
    if first["role"] == "report" != second["role"]:
        return "it won the confirmation, and its value is of seeds that chose nothing"
    return "the reference split ranks, and on the holdout the order is the other way round"


def _ahead(first: _Contestant, second: _Contestant, group: "Group") -> float:
    """By how much the first value is better; negative where it is worse."""
    return (second.value - first.value) * (1 if group.better == "lower" else -1)


def _floor(first: _Contestant, group: "Group") -> str:
    """How far the first is from the floor; "" where there is none."""
    floor = first.row["score"]["floor"]
    if floor is None:
        return ""
    away = (first.value - floor) * (1 if group.better == "lower" else -1)
    if away > 0:
        return f"; real samples score {number(floor)} (the floor), {number(away)} better than the first"
    return f"; real samples score {number(floor)} (the floor), no better than the first"


# ---- is that chance


def _chance(
    first: _Contestant, second: _Contestant, found: Sequence[Pair], name: Callable[[Row], str]
) -> tuple[list[str], bool]:
    """Whether the two differ by more than chance, and whether that is undecided for want of seeds. Rows that are no
    pair are not both confirmed: what lacks are fresh seeds, and those that a search chose by count as none.
    """
    if first.row.get("adaptive") or second.row.get("adaptive"):
        return ["Their trials are no random draw, so no test can tell whether that is more than chance."], False
    if unit_of(first.row) != unit_of(second.row):
        return ["The values of one are its trials, of the other its seeds: no test compares them."], False
    if violate(second.row["marks"]) and not violate(first.row["marks"]):
        return [f"{_capital(name(second.row))} violates a constraint of its sweep, so no test compares the two."], False
    pair = next((pair for pair in found if pair.first is first.row and pair.second is second.row), None)
    if pair is None:
        n, m = (len(each.values) if each.row["confirmed"] else 0 for each in (first, second))
        return [_too_few(n, m, "fresh seed", _at_least(values_lacking(n, m), "fresh seed"))], True
    n, m = pair.beside.n, pair.beside.m
    if pair.hopeless:
        least = min(n, m) < 2 and pair.more is not None
        more = _at_least(pair.more or 0, pair.unit) if least else _about(pair)
        return [_too_few(n, m, pair.unit, more, 1 if pair.p is None else pair.comparisons)], True
    test = f"{basis([pair])}, p = {pair.p:.2g}"
    if not pair.told:
        limit = f"below {LEVEL:g} it would count as more"
        return [f"The difference may be chance ({test}; {limit}); {_about(pair)}."], False
    if pair.answer == "better" and _ahead(first, second, pair.group) > 0:
        return [f"That is more than chance ({test})."], False
    better = first if pair.answer == "better" else second
    return [f"By more than chance it is {name(better.row)} that is better ({test})."], False


def _too_few(n: int, m: int, unit: str, more: str, comparisons: int = 1) -> str:
    of = f" one of {comparisons} pairs" if comparisons > 1 else ""
    have = f"with {n} and {m} {unit}s no result could tell{of}"
    return f"Whether the difference is more than chance cannot be told yet: {have}; {more}."


def _at_least(more: int, unit: str) -> str:
    return f"{more} more {unit}{'' if more == 1 else 's'} each would, if their values do not overlap"


def _about(pair: Pair) -> str:
    if pair.more is None:
        return f"to tell them apart takes more than {MOST_SEEDS} more {pair.unit}s each"
    return f"about {pair.more} more {pair.unit}{'' if pair.more == 1 else 's'} each would tell"


def _within_noise(comparison: "Comparison", found: Sequence[Pair], name: Callable[[Row], str]) -> list[str]:
    """Which rows lead together, where these are not just the first two, of whom it was said."""
    compared = [each for pair in found for each in (pair.first, pair.second)]
    leaders = [row for row in comparison.rows if row.get("leaders") and any(row is each for each in compared)]
    if len(leaders) < 2 or leaders == comparison.rows[:2]:
        return []
    names = _listed([name(row) for row in leaders], len(leaders))
    return [f"Leaders within noise, none of which a test finds worse than the first: {names}."]


# ---- what is on the front


def _fronts(comparison: "Comparison") -> list[str]:
    """Which trials are on the Pareto front of a sweep, as a sentence for each sweep with several objectives."""
    fronts: dict[str, list[Row]] = {}
    for row in comparison.rows:
        if row.get("front"):
            fronts.setdefault(row["sweep"], []).append(row)
    of_several = len({row["sweep"] for row in comparison.rows}) > 1
    shown = " that are shown" if comparison.total > len(comparison.rows) else ""
    return [_front(rows, (f" of {sweep}" if of_several else "") + shown) for sweep, rows in fronts.items()]


def _front(rows: Sequence[Row], of: str) -> str:
    names = list(rows[0]["objectives"])
    objectives, trials = _listed(names, len(names)), [str(row["trial"]) for row in rows]
    if len(rows) == 1:
        return f"Of the trials{of} only {trials[0]} is on the front of {objectives}."
    # Confirmed trials are on it whatever the search's values, which flatter, say.
    alike = " that is as well confirmed" if len({row["confirmed"] for row in rows}) > 1 else ""
    among = "both" if len(names) == 2 else "all"
    left = len(trials) - _MOST_ON_FRONT
    listed = ", ".join(trials[:_MOST_ON_FRONT]) + (f" and {left} more" if left > 0 else "")
    return (
        f"{len(rows)} trials{of} are on the front of {objectives}: none{alike} is better in {among}: trials {listed}."
    )


# ---- did anything collapse


def _collapse(comparison: "Comparison", missing: Missing, reasons: Reasons, name: Callable[[Row], str]) -> list[str]:
    """Who collapsed and how; where nobody did, what the verdicts say of that. Nothing where nothing was judged."""
    judged = [row for row in comparison.rows if row["verdicts"].get("collapse")]
    if not judged:
        return []
    doubtful = [row for row in judged if any(verdict in row["verdicts"]["collapse"] for verdict in DOUBTFUL)]
    in_part = _in_part(comparison, reasons, name)
    if not doubtful:
        return [" ".join([_no_collapse(judged, shown_only=comparison.total > len(comparison.rows)), *in_part])]
    gone = collapsed(comparison)
    unlike = [row for row in doubtful if not _is_collapsed(row)]
    told = [_collapsed(row, missing.get((row["sweep"], row["trial"]), ()), name) for row in gone[:MOST_TRIALS]]
    if len(gone) > MOST_TRIALS:
        told.append(f"So did {len(gone) - MOST_TRIALS} more.")
    told += in_part
    if unlike:
        makes = "makes samples" if len(unlike) == 1 else "make samples"
        which = _listed([f"{name(row)}{_share(row, 'UNMEASURABLE')}" for row in unlike], MOST_TRIALS)
        told.append(f"{_capital(which)} {makes} too unlike real ones to be measured (UNMEASURABLE).")
    return [" ".join(told)]


def collapsed(comparison: "Comparison") -> list[Row]:
    """The rows of which a run is SEVERE or TOTAL."""
    return [row for row in comparison.rows if _is_collapsed(row)]


def partly_collapsed(comparison: "Comparison") -> list[Row]:
    """The rows of which a run is PARTIAL, and none worse."""
    rows = [row for row in comparison.rows if not _is_collapsed(row)]
    return [row for row in rows if "PARTIAL" in row["verdicts"].get("collapse", {})]


def _in_part(comparison: "Comparison", reasons: Reasons, name: Callable[[Row], str]) -> list[str]:
    """`Trial 3 (vae) collapsed in part (PARTIAL): …`, with the verdict's reason, as a sentence each."""
    rows = [row for row in partly_collapsed(comparison) if (row["sweep"], row["trial"]) in reasons]
    told = [
        f"{_capital(name(row))} collapsed in part (PARTIAL{_share(row, 'PARTIAL')}): "
        f"{reasons[row['sweep'], row['trial']]}."
        for row in rows[:MOST_TRIALS]
    ]
    return told + [f"So did {len(rows) - MOST_TRIALS} more."] * (len(rows) > MOST_TRIALS)


def _is_collapsed(row: Row) -> bool:
    return any(verdict in row["verdicts"].get("collapse", {}) for verdict in ("SEVERE", "TOTAL"))


def _no_collapse(judged: Sequence[Row], *, shown_only: bool) -> str:
    counts: Counter[str] = Counter()
    for row in judged:
        counts.update(row["verdicts"]["collapse"])
    of = " that is shown" if shown_only else ""
    if set(counts) == {"NONE"}:
        return f"No configuration{of} collapsed: every verdict on a collapse is NONE."
    shown = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    undecided = "; INCONCLUSIVE: too little is known to rule a collapse out" if "INCONCLUSIVE" in counts else ""
    return f"No configuration{of} was found to have collapsed severely; verdicts by run: {shown}{undecided}."


def _collapsed(row: Row, missing: Sequence[str], name: Callable[[Row], str]) -> str:
    """`Trial 3 (vae) collapsed (SEVERE in 1 of 2 runs, PARTIAL in 1): it lacks 1, 4 and 7`, as a sentence."""
    counts = row["verdicts"]["collapse"]
    verdicts = [verdict for verdict in (*reversed(DOUBTFUL), "PARTIAL") if verdict in counts]
    how = f"{verdicts[0]}{_share(row, verdicts[0])}"
    how += "".join(f", {verdict} in {counts[verdict]}" for verdict in verdicts[1:])
    lacks = f": it lacks {_listed(missing, _MOST_BINS)}" if missing else ""
    return f"{_capital(name(row))} collapsed ({how}){lacks}."


def _share(row: Row, verdict: str) -> str:
    """` in 1 of 2 runs`, where not all have this verdict."""
    count, runs = row["verdicts"]["collapse"][verdict], sum(row["verdicts"]["collapse"].values())
    return f" in {count} of {runs} runs" if count < runs else ""


def _listed(names: Sequence[str], most: int) -> str:
    """`1, 4 and 7`, of many the first."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


# ---- what next


def _advice(first: _Contestant | None, undecided: bool, going: bool, commands: Commands) -> tuple[str, str]:
    """What for, and the command."""
    if going and commands.status:
        return "To see how far it is", commands.status
    if first is not None and not first.row["marks"]:
        if undecided and commands.more_seeds:
            return "To find out, as a sweep of its own", commands.more_seeds
        if not undecided and commands.promote:
            return "To keep the first", commands.promote
    return "To look at the samples", commands.samples


def _capital(text: str) -> str:
    """The text as a sentence begins; a name such as `lr=0.001` stays as it is."""
    return text if "=" in text.partition(" ")[0] else text[0].upper() + text[1:]
