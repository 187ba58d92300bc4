"""Holes in an experiment file: `choice`, `log`, `uniform` and `int` stand where a value goes.

A hole is a mapping with one of these keys and no other. An option of a `choice` may hold further holes; they count only
when the option is chosen. Nothing here knows Optuna: `fill` asks a function for the value of each hole it meets.
"""

import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any, Literal, TypeGuard

from aigc_lab.config import LEAST, MOST
from aigc_lab.experiment.yaml_file import Document, KeyPath

# A choice of more was not written by hand, and trying every option before anything is trained would take minutes.
_OPTIONS = 1000
# The points of a grid are laid out before any of them is trained.
_POINTS = 100_000

# Sections that hold no holes, whatever their keys are called: an executor may have an option `log`.
_UNSEARCHED = ("execution",)

# Stands for a key that an option lacks.
_ABSENT = object()

KINDS = ("choice", "log", "uniform", "int")


@dataclass(frozen=True)
class Hole:
    """One open value. `name` is unique in the experiment (`system.dcgan.lr`); `path` is where the value goes
    (`system`, `lr`); `given` are the options of enclosing choices under which the hole exists.
    """

    name: str
    path: KeyPath
    source: KeyPath
    kind: Literal["choice", "log", "uniform", "int"]
    low: float = 0.0
    high: float = 0.0
    labels: tuple[Any, ...] = ()
    given: tuple[tuple[str, Any], ...] = ()

    def ends(self) -> list[Any]:
        """The values that validation tries: every option, or both ends of the range."""
        return list(self.labels) if self.kind == "choice" else [self.low, self.high]

    def all(self) -> list[Any]:
        """Every value of a choice and of a short range of whole numbers; else `ends`."""
        whole = self.kind == "int" and self.high - self.low <= 64
        return list(range(int(self.low), int(self.high) + 1)) if whole else self.ends()

    def __contains__(self, value: Any) -> bool:
        if self.kind == "choice":
            return any(value == label and type(value) is type(label) for label in self.labels)
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high


Pick = Callable[[Hole], Any]


@dataclass(frozen=True)
class Filled:
    """Data without holes, the value chosen for each hole by its name, and where each filled path stands in the file."""

    data: Any
    values: dict[str, Any]
    paths: dict[str, KeyPath]
    sources: dict[KeyPath, KeyPath]

    def source(self, path: KeyPath) -> KeyPath:
        """The place in the file that the value at `path` came from (or its nearest enclosing one)."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.sources:
                return (*self.sources[path[:end]], *path[end:])
        return path


def label(option: Any) -> Any:
    """The name of an option of a choice: itself, or the `name` that a mapping has, or its JSON."""
    if (name := _named(option)) is not None:
        return name
    return option if option is None or isinstance(option, bool | int | float | str) else json.dumps(option)


def labels(options: Sequence[Any]) -> list[Any]:
    """The names of all options of a choice. Where several have one `name`, the keys in which they differ stand behind
    it.

    >>> labels(["hinge", {"name": "vae"}, {"name": "dcgan", "lr": 0.1}, {"name": "dcgan", "loss": "hinge", "lr": 0.1}])
    ['hinge', 'vae', 'dcgan', 'dcgan loss=hinge']
    """
    counts = Counter(map(_named, options))
    keys: dict[str | None, list[str]] = {
        name: telling(options, name) for name, count in counts.items() if name is not None and count > 1
    }

    def text(option: Any) -> Any:
        values = {key: option[key] for key in keys.get(_named(option), ()) if key in option}
        parts = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()]
        return " ".join([label(option), *parts]) if parts else label(option)

    return list(map(text, options))


def telling(options: Sequence[Any], name: str) -> list[str]:
    """The keys in which the options of one `name` differ: those of plain values, if they tell all of them apart."""
    twins = [option for option in options if _named(option) == name]
    every = dict.fromkeys(itertools.chain(*twins))
    differing = [key for key in every if any(twin.get(key, _ABSENT) != twins[0].get(key, _ABSENT) for twin in twins)]
    plain = [key for key in differing if not any(isinstance(twin.get(key), dict | list) for twin in twins)]
    told = {json.dumps([[key, twin[key]] for key in plain if key in twin]) for twin in twins}
    return plain if len(told) == len(twins) else differing


def handles(options: Sequence[Any]) -> list[str]:
    """The options of a choice as parts of a dotted key: a name, the stem of a user's file, or a number where neither
    tells an option from the others.

    >>> handles([{"name": "dcgan"}, {"name": "./own.py"}, {"name": "vae", "beta": 0.5}, {"name": "vae", "beta": 4}])
    ['dcgan', 'own', '2', '3']
    """
    names = [str(name) for name in labels(options)]
    stems = [PurePath(name).stem if name.endswith(".py") else name for name in names]
    counts = Counter(stems)
    return [str(index) if "." in stem or " " in stem or counts[stem] > 1 else stem for index, stem in enumerate(stems)]


def _named(option: Any) -> str | None:
    name = option.get("name") if isinstance(option, dict) else None
    return name if isinstance(name, str) else None


def is_hole(node: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(node, dict) and any(kind in node for kind in KINDS)


def misspelt_hole(node: Any) -> str | None:
    """The key that a hole would have in place of the only one of a mapping; None where none is near.

    >>> misspelt_hole({"chioce": [2, 32]}), misspelt_hole({"name": "dcgan"})
    ('choice', None)
    """
    if not isinstance(node, dict) or len(node) != 1:
        return None
    return next(iter(get_close_matches(str(*node), KINDS, n=1, cutoff=0.6)), None)


def fill(document: Document, pick: Pick) -> Filled:
    """Replaces every hole of the document by the value of `pick`. Raises `UsageError` for a malformed hole."""
    filled = Filled(None, {}, {}, {})

    def visit(node: Any, path: KeyPath, source: KeyPath, name: KeyPath, given: tuple[tuple[str, Any], ...]) -> Any:
        filled.sources[path] = source
        if path[:1] == _UNSEARCHED:
            return node
        if is_hole(node):
            hole = _hole(document, node, path, source, name, given)
            value = pick(hole)
            assert value in hole, f"{hole.name}: {value!r} was picked from outside the hole"
            filled.values[hole.name], filled.paths[hole.name] = value, path
            if hole.kind != "choice":
                return value
            index = next(i for i, label in enumerate(hole.labels) if label == value and type(label) is type(value))
            option = node["choice"][index]
            # What an option holds is named after it: two options may have holes at the same place.
            inner = (*name, value if isinstance(option, dict) and value == option.get("name") else index)
            return visit(option, path, (*source, "choice", index), inner, (*given, (hole.name, value)))
        if isinstance(node, dict):
            return {k: visit(v, (*path, k), (*source, k), (*name, k), given) for k, v in node.items()}
        if isinstance(node, list):
            return [visit(v, (*path, i), (*source, i), (*name, i), given) for i, v in enumerate(node)]
        return node

    data = visit(document.data, (), (), (), ())
    return Filled(data, filled.values, filled.paths, filled.sources)


def holes(document: Document) -> list[Hole]:
    """All holes, those inside unchosen options included, outer ones first."""
    by_name: dict[str, Hole] = {}
    queue: list[dict[str, Any]] = [{}]
    while queue:
        forced = queue.pop()

        def pick(hole: Hole, forced: dict[str, Any] = forced) -> Any:
            if hole.name not in by_name:
                by_name[hole.name] = hole
                if hole.kind == "choice":
                    queue.extend(dict(hole.given) | {hole.name: option} for option in hole.labels)
            return forced.get(hole.name, hole.ends()[0])

        fill(document, pick)
    return list(by_name.values())


def corners(document: Document) -> Iterator[Filled]:
    """Fillings that together try every option of every choice and both ends of every range."""
    every = holes(document)
    if not every:
        yield fill(document, lambda hole: None)
    for hole in every:
        for end in hole.ends():
            forced = dict(hole.given) | {hole.name: end}
            yield fill(document, lambda other, forced=forced: forced.get(other.name, other.ends()[0]))  # type: ignore[misc]


def grid(document: Document) -> list[dict[str, Any]]:
    """Every combination of finite holes, as values by hole name. Raises `UsageError` for a continuous hole."""

    def extend(forced: dict[str, Any]) -> Iterator[dict[str, Any]]:
        open_hole: list[Hole] = []

        def pick(hole: Hole) -> Any:
            if hole.name in forced:
                return forced[hole.name]
            if not open_hole:
                open_hole.append(hole)
            return hole.ends()[0]

        fill(document, pick)
        if not open_hole:
            yield forced
            return
        hole = open_hole[0]
        if hole.kind in ("log", "uniform"):
            document.fail(
                hole.source, f"sampler grid needs finite holes; give this one as a choice, not as {hole.kind}"
            )
        # A range is gone through and not laid out: it may be longer than memory.
        options = hole.labels if hole.kind == "choice" else range(int(hole.low), int(hole.high) + 1)
        for option in options:
            yield from extend(forced | {hole.name: option})

    points = list(itertools.islice(extend({}), _POINTS + 1))
    if len(points) > _POINTS:
        document.fail(("search", "sampler"), f"the grid has more than {_POINTS:,} points; use tpe or random")
    return points


def _hole(document: Document, node: dict[str, Any], path: KeyPath, source: KeyPath, name: KeyPath, given: Any) -> Hole:
    kind = next(key for key in KINDS if key in node)
    if len(node) > 1:
        others = ", ".join(key for key in node if key != kind)
        document.fail(source, f"a hole has the key {kind} alone, and this one has {others} too")
    text = ".".join(str(part) for part in name)
    value, at = node[kind], (*source, kind)
    if kind == "choice":
        if not isinstance(value, list) or not value:
            document.fail(at, "a choice is a list of one option or more, like choice: [nonsaturating, hinge]")
        if len(value) > _OPTIONS:
            document.fail(at, f"a choice of {len(value):,} options; {_OPTIONS:,} are tried at most")
        names = tuple(labels(value))
        for index, option in enumerate(names):
            if isinstance(option, float) and not math.isfinite(option):
                document.fail((*at, index), f"the option {option} is not finite")
            if option in names[:index]:
                document.fail((*at, index), f"the option {option!s:.100} stands here twice")
        return Hole(text, path, source, "choice", labels=names, given=given)
    numbers = isinstance(value, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    if not numbers or len(value) != 2:
        document.fail(at, f"{kind} takes two numbers, like {kind}: {'[1, 8]' if kind == 'int' else '[1e-4, 1e-3]'}")
    low, high = value
    if not all(LEAST <= end <= MOST for end in value if isinstance(end, int)):
        document.fail(at, "it holds a whole number beyond 64 bits")
    if not (math.isfinite(low) and math.isfinite(high)):
        document.fail(at, f"the range [{low}, {high}] is not finite")
    if not math.isfinite(high - low):
        document.fail(at, f"the range [{low}, {high}] is wider than any number")
    if low > high:
        document.fail(at, f"the low end {low} is above the high end {high}; swap them")
    if kind == "log" and low <= 0:
        document.fail(at, f"the low end {low} of a logarithmic range must be above 0; use uniform for a range with 0")
    if kind == "int" and not (isinstance(low, int) and isinstance(high, int)):
        document.fail(at, f"int takes two whole numbers, not [{low}, {high}]")
    if kind != "int":
        # A range of reals tries reals at its ends: a key that takes whole numbers must not pass for them.
        low, high = float(low), float(high)
    return Hole(text, path, source, kind, low, high, given=given)  # type: ignore[arg-type]
