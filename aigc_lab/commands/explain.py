"""What a comparison means, with the commands that lead on from it as they are typed here."""

import json
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from aigc_lab.display.meaning import GOING, Commands, Meaning, stored_meaning
from aigc_lab.errors import UsageError
from aigc_lab.experiment import space
from aigc_lab.experiment.overrides import override
from aigc_lab.experiment.sections import Sections
from aigc_lab.experiment.yaml_file import read_yaml, scalar
from aigc_lab.host import content
from aigc_lab.host.settings import Settings, as_typed
from aigc_lab.registry.best import select_run
from aigc_lab.registry.columns import FinalCheckpoint, Json
from aigc_lab.registry.pairs import pairs
from aigc_lab.registry.ranking import Comparison
from aigc_lab.registry.savings import savings
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import show_sweep
from aigc_lab.statistics.rank_test import FEWEST

# Sweeps of one comparison of which is told what their pruners saved.
_MOST_SWEEPS = 5


def explained(
    registry: Registry,
    comparison: Comparison,
    settings: Settings,
    home: Path | None,
    *,
    checkpoint: FinalCheckpoint = "last",
    by_objective: bool = True,
) -> Meaning:
    """What the comparison means. What `promote` and more seeds choose among are all trials of a sweep, by the objective
    of the last checkpoint, so other scores (not `by_objective`), checkpoints and choices of rows lead to neither.
    """
    if not comparison.rows:
        return Meaning([])
    first = [each.get("sweeps", [each["sweep"]])[0] for each in comparison.rows]
    row = show_sweep(registry, first[0])
    sweep, whole = row["id"], comparison.by == "trial" and not comparison.filtered
    chooses = by_objective and checkpoint == "last" and whole
    going = next((of for each, of in zip(comparison.rows, first, strict=True) if each["state"] in GOING), sweep)
    one_sweep = len(set(first[:2])) == 1
    commands = Commands(
        samples=f"aigc-lab report {sweep}",
        more_seeds=(chooses and one_sweep and with_more_seeds(row, _seeds_to_tell(comparison))) or "",
        promote=f"aigc-lab promote {sweep}" if chooses and _first_passes(registry, comparison) else "",
        status=f"aigc-lab status {going}",
    )
    typed = Commands(*(command and as_typed(command, settings, home) for command in commands))
    meaning = stored_meaning(registry, comparison, typed, checkpoint)
    return meaning._replace(sentences=[*meaning.sentences, *_saved(registry, comparison)])


def _saved(registry: Registry, comparison: Comparison) -> list[str]:
    """What pruners saved, a sentence for each of the first sweeps of a comparison."""
    sweeps = list(dict.fromkeys(sweep for row in comparison.rows for sweep in row.get("sweeps", [row["sweep"]])))
    with registry.read() as connection:
        each = [savings(connection, sweep) for sweep in sweeps[:_MOST_SWEEPS]]
    several = len(sweeps) > 1
    return [f"{sweep}: {saved}" if several else str(saved) for sweep, saved in zip(sweeps, each, strict=False) if saved]


def _first_passes(registry: Registry, comparison: Comparison) -> bool:
    """Whether `promote` keeps the trial that ranks first: a run of it that no verdict speaks against."""
    selection = select_run(registry, comparison.rows[:1])
    return selection is None or selection.sound


def _seeds_to_tell(comparison: Comparison) -> int:
    """How many seeds each would tell the first two rows apart, by what is known of their spread."""
    first = next((pair for pair in pairs(comparison) if pair.first is comparison.rows[0]), None)
    if first is None or first.second is not comparison.rows[1] or first.more is None:
        return FEWEST
    return max(FEWEST, min(first.beside.n, first.beside.m) + first.more)


def with_more_seeds(row: Json, seeds: int = FEWEST) -> str | None:
    """The command of a sweep that trains the two best with so many seeds each, to tell them apart. It repeats this
    sweep with all that the command line changed in its file, but not where it was executed; None where that cannot be
    said in options.
    """
    if row["command"] != "sweep" or not row["source"]:
        return None
    name = row["name"] if row["name"] in content.names("experiments") else row["source"]
    try:
        document, again = (read_yaml(content.find_file("experiments", name)) for _ in range(2))
        stored = _recipe(row["experiment"])
        changes = list(_changes(_recipe(document.data), stored))
        for key, value in changes:
            override(again, key, value, "--set", sections=list(Sections.model_fields))
    except UsageError:
        return None
    if _recipe(again.data) != stored:
        return None
    changes = _without_fitted((key, value) for key, value in changes if key.partition(".")[0] != "confirm")
    if (read_yaml(content.find_file("experiments", name)).data.get("confirm") or {}).keys() <= {"top", "seeds"}:
        changes += [("confirm.top", 2), ("confirm.seeds", seeds)]
    else:  # keys of a race do not fit the two
        changes += [("confirm", {"top": 2, "seeds": seeds})]
    options = [f"--set {shlex.quote(f'{key}={_yaml(value)}')}" for key, value in changes]
    return " ".join(["aigc-lab sweep", shlex.quote(name), *options])


def _recipe(sections: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in sections.items() if key != "execution"}


def _without_fitted(changes: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The changes but those that `evaluation.fewer` made, and will make again: the metrics that the data were too few
    for are taken out of the protocol's.
    """
    several, fitted = dict(changes), ("metrics", "left_out")
    whole = several.get("evaluation")
    if isinstance(whole, dict) and "left_out" in whole:
        several["evaluation"] = {key: value for key, value in whole.items() if key not in fitted}
    if "evaluation.left_out" in several:
        several = {key: value for key, value in several.items() if key.removeprefix("evaluation.") not in fitted}
    return list(several.items())


def _changes(before: Any, after: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of each difference; what has gone is no difference that an option could make."""
    if isinstance(before, dict) and isinstance(after, dict) and not (space.is_hole(before) or space.is_hole(after)):
        for name, value in after.items():
            yield from _changes(before.get(name), value, f"{key}.{name}" if key else str(name))
    elif (options := _options(before)) and options.keys() == _options(after).keys():
        for label, option in _options(after).items():
            yield from _changes(options[label], option, f"{key}.{label}")
    elif before != after:
        yield key, after


def _options(node: Any) -> dict[str, Any]:
    """Part of a key -> option of a choice between plugins; nothing of anything else."""
    options = node.get("choice") if space.is_hole(node) else None
    if not isinstance(options, list) or not all(isinstance(option, dict) for option in options):
        return {}
    return dict(zip(space.handles(options), options, strict=True))


def _yaml(value: Any) -> str:
    """The text that is read as this value."""
    return value if isinstance(value, str) and scalar(value) == value else json.dumps(value)
