"""What a comparison means, with the commands that lead on from it as they are typed here."""

import json
import shlex
from collections.abc import Iterator
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
from aigc_lab.registry.columns import FinalCheckpoint, Json
from aigc_lab.registry.ranking import Comparison
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import show_sweep
from aigc_lab.statistics.rank_test import FEWEST


def explained(
    registry: Registry,
    comparison: Comparison,
    settings: Settings,
    home: Path | None,
    *,
    checkpoint: FinalCheckpoint = "last",
    by_objective: bool = True,
) -> Meaning:
    """What the comparison means. What `promote` and more seeds choose by is the objective of the last checkpoint, so
    other scores and checkpoints (not `by_objective`) lead to neither.
    """
    if not comparison.rows:
        return Meaning([])
    first = [each.get("sweeps", [each["sweep"]])[0] for each in comparison.rows]
    row = show_sweep(registry, first[0])
    sweep, chooses = row["id"], by_objective and checkpoint == "last"
    going = next((of for each, of in zip(comparison.rows, first, strict=True) if each["state"] in GOING), sweep)
    one_sweep = len(set(first[:2])) == 1
    commands = Commands(
        samples=f"aigc-lab report {sweep}",
        more_seeds=(chooses and one_sweep and with_more_seeds(row)) or "",
        promote=f"aigc-lab promote {sweep}" if chooses else "",
        status=f"aigc-lab status {going}",
    )
    typed = Commands(*(command and as_typed(command, settings, home) for command in commands))
    return stored_meaning(registry, comparison, typed, checkpoint)


def with_more_seeds(row: Json) -> str | None:
    """The command of a sweep that trains the two best with seeds enough to tell them apart. It repeats this sweep with
    all that the command line changed in its file; None where that cannot be said in options.
    """
    if row["command"] != "sweep" or not row["source"]:
        return None
    name = row["name"] if row["name"] in content.names("experiments") else row["source"]
    try:
        document, again = (read_yaml(content.find_file("experiments", name)) for _ in range(2))
        changes = list(_changes(document.data, row["experiment"]))
        for key, value in changes:
            override(again, key, value, "--set", sections=list(Sections.model_fields))
    except UsageError:
        return None
    if again.data != row["experiment"]:
        return None
    changes = [(key, value) for key, value in changes if key not in ("confirm", "confirm.top", "confirm.seeds")]
    changes += [("confirm.top", 2), ("confirm.seeds", FEWEST)]
    options = [f"--set {shlex.quote(f'{key}={_yaml(value)}')}" for key, value in changes]
    return " ".join(["aigc-lab sweep", shlex.quote(name), *options])


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
