"""Holes: found wherever they stand, filled, listed at their ends, and refused when they make no sense."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aigc_lab.errors import UsageError
from aigc_lab.experiment import space
from aigc_lab.experiment.space import Filled, Hole
from aigc_lab.experiment.yaml_file import Document, parse

NESTED = """\
system:
  choice:
    - {name: a, lr: {log: [1e-4, 1e-2]}, loss: {choice: [x, y, z]}}
    - name: b
      beta: {uniform: [0.0, 1.0]}
      net:
        choice:
          - {name: deep, layers: {int: [2, 4]}}
          - {name: flat}
training: {steps: 10, batch: {choice: [32, 64]}}
"""


def document(text: str) -> Document:
    """With the lines of a file, and without the file."""
    from aigc_lab.experiment.yaml_file import _document

    data, found = _document(text, "f.yaml")
    found.data = data
    return found


def first(hole: Hole) -> Any:
    return hole.ends()[0]


# ---- an independent account of what a template can become


def fillings(node: Any, values: Callable[[str, list[Any]], list[Any]]) -> list[Any]:
    """All data without holes that a node can become, when a range stands for `values` of it."""
    if isinstance(node, dict):
        if len(node) == 1 and (kind := next(iter(node))) in ("choice", "log", "uniform", "int"):
            if kind == "choice":
                return [data for option in node[kind] for data in fillings(option, values)]
            return values(kind, node[kind])
        parts = [fillings(value, values) for value in node.values()]
        return [dict(zip(node, combined, strict=True)) for combined in itertools.product(*parts)]
    if isinstance(node, list):
        return [list(combined) for combined in itertools.product(*(fillings(item, values) for item in node))]
    return [node]


def whole(kind: str, bounds: list[Any]) -> list[Any]:
    assert kind == "int"
    return list(range(bounds[0], bounds[1] + 1))


def ends(node: Any, path: tuple[Any, ...] = ()) -> set[str]:
    """Every option of every choice and both ends of every range, each as a word."""
    if isinstance(node, dict):
        if len(node) == 1 and (kind := next(iter(node))) in ("choice", "log", "uniform", "int"):
            items = list(enumerate(node[kind]))
            found = {f"{path} {index} of {kind}" for index, _ in items}
            if kind == "choice":
                for index, option in items:
                    found |= ends(option, (*path, index))
            return found
        return set().union(*(ends(value, (*path, key)) for key, value in node.items()))
    if isinstance(node, list):
        return set().union(*(ends(item, (*path, index)) for index, item in enumerate(node)))
    return set()


def used(node: Any, filled: Any, path: tuple[Any, ...] = ()) -> set[str]:
    """The words of `ends` that a filling shows, found by comparing template and result."""
    if isinstance(node, dict):
        if len(node) == 1 and (kind := next(iter(node))) in ("choice", "log", "uniform", "int"):
            if kind != "choice":
                return {f"{path} {index} of {kind}" for index, end in enumerate(node[kind]) if end == filled}
            every = {json.dumps(data): i for i, o in enumerate(node[kind]) for data in fillings(o, lambda k, v: v)}
            index = every[json.dumps(filled)]
            return {f"{path} {index} of {kind}"} | used(node[kind][index], filled, (*path, index))
        return set().union(*(used(value, filled[key], (*path, key)) for key, value in node.items()))
    if isinstance(node, list):
        return set().union(
            *(used(item, part, (*path, i)) for i, (item, part) in enumerate(zip(node, filled, strict=True)))
        )
    return set()


# ---- finding and filling


def test_holes_are_found_inside_options_that_are_not_chosen() -> None:
    found = {hole.name: hole for hole in space.holes(document(NESTED))}
    assert {name: (hole.kind, hole.path) for name, hole in found.items()} == {
        "system": ("choice", ("system",)),
        "system.a.lr": ("log", ("system", "lr")),
        "system.a.loss": ("choice", ("system", "loss")),
        "system.b.beta": ("uniform", ("system", "beta")),
        "system.b.net": ("choice", ("system", "net")),
        "system.b.net.deep.layers": ("int", ("system", "net", "layers")),
        "training.batch": ("choice", ("training", "batch")),
    }
    assert found["system.b.net.deep.layers"].given == (("system", "b"), ("system.b.net", "deep"))
    assert found["training.batch"].given == ()
    assert next(iter(found)) == "system"


def test_filling_puts_the_value_where_the_hole_was() -> None:
    chosen = {"system": "b", "system.b.beta": 0.25, "system.b.net": "deep", "system.b.net.deep.layers": 3}
    filled = space.fill(document(NESTED), lambda hole: chosen.get(hole.name, first(hole)))
    assert filled.data == {
        "system": {"name": "b", "beta": 0.25, "net": {"name": "deep", "layers": 3}},
        "training": {"steps": 10, "batch": 32},
    }
    assert filled.values == chosen | {"training.batch": 32}
    assert filled.paths["system.b.net.deep.layers"] == ("system", "net", "layers")
    # An error in the result is told at the line that it came from.
    assert document(NESTED).where(filled.source(("system", "net", "layers"))) == "f.yaml:8"
    assert document(NESTED).where(filled.source(("system", "net", "unknown"))) == "f.yaml:8"


@pytest.mark.parametrize(
    "text",
    [
        "lr: {choice: [1.0, {log: [1e-4, 1e-2]}]}",
        "lr: {choice: [{log: [1e-5, 1e-4]}, {log: [1e-2, 1e-1]}]}",
        "lr: {choice: [{choice: [1, 2]}, {choice: [3, 4]}]}",
        "net: {choice: [{width: {int: [1, 2]}}, {width: {int: [3, 4]}}]}",
        "net: {choice: [[{int: [1, 2]}, 5], [{int: [3, 4]}, 6]]}",
        "a: [{int: [1, 2]}, {int: [1, 2]}]",
    ],
)
def test_every_hole_has_a_name_of_its_own(text: str) -> None:
    template = document(text)
    seen: dict[str, tuple[Any, ...]] = {}

    def pick(hole: Hole) -> Any:
        assert seen.setdefault(hole.name, hole.source) == hole.source
        return hole.ends()[-1]

    for hole in space.holes(template):
        pick(hole)
    last = space.fill(template, pick)
    assert last.data == fillings(template.data, lambda kind, bounds: bounds)[-1]
    assert len(last.values) == len(last.paths)


def test_an_option_is_called_by_its_name() -> None:
    assert space.label({"name": "dcgan", "lr": 1}) == "dcgan"
    assert space.label({"lr": 1}) == '{"lr": 1}'
    assert space.label([1, 2]) == "[1, 2]"
    assert [space.label(option) for option in (None, True, 2, 0.5, "hinge")] == [None, True, 2, 0.5, "hinge"]


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("{log: [1e-4, 1e-2]}", (1e-4, 1e-3, 1e-2), (9e-5, 0.1, "1e-3", None, True)),
        ("{uniform: [0, 1]}", (0, 0.5, 1), (-0.1, 1.1, True)),
        ("{int: [1, 3]}", (1, 3), (0, 4, True)),
        ("{choice: [1, hinge]}", (1, "hinge"), (True, 1.0, "1", 2)),
    ],
)
def test_what_a_hole_takes(text: str, inside: tuple[Any, ...], outside: tuple[Any, ...]) -> None:
    (hole,) = space.holes(document(f"key: {text}"))
    assert [value in hole for value in inside] == [True] * len(inside)
    assert [value in hole for value in outside] == [False] * len(outside)


@pytest.mark.parametrize("text", ["{int: [1, 3]}", "{choice: [1, 2]}"])
def test_a_value_from_outside_is_never_filled_in(text: str) -> None:
    with pytest.raises(AssertionError, match="outside the hole"):
        space.fill(document(f"key: {text}"), lambda hole: 7)


# ---- corners and grid

TEMPLATES = [
    NESTED,
    "a: 1\n",
    "a: {choice: [1]}\n",
    "a: {int: [1, 1]}\nb: {log: [1.0, 2.0]}\n",
    "a: {choice: [{name: p, x: {choice: [{name: q, y: {int: [0, 5]}}, r]}}, s]}\n",
    "a: {choice: [1.0, {log: [1e-4, 1e-2]}]}\n",
]


@pytest.mark.parametrize("text", TEMPLATES)
def test_corners_try_every_option_and_both_ends(text: str) -> None:
    template = document(text)
    tried: set[str] = set()
    for filled in space.corners(template):
        tried |= used(template.data, filled.data)
    assert tried >= ends(template.data)


FINITE = [
    "a: {choice: [1, 2]}\nb: {int: [3, 5]}\n",
    "a: {choice: [{name: p, x: {choice: [{name: q, y: {int: [0, 2]}}, r]}}, s]}\nb: {choice: [t, u]}\n",
    "a: 1\n",
    "a: {choice: [{choice: [1, 2]}, 3]}\n",
]


@pytest.mark.parametrize("text", FINITE)
def test_a_grid_is_the_product_of_what_exists(text: str) -> None:
    template = document(text)
    points = space.grid(template)
    made = [json.dumps(space.fill(template, lambda hole, p=p: p[hole.name]).data) for p in points]  # type: ignore[misc]
    assert sorted(made) == sorted(json.dumps(data) for data in fillings(template.data, whole))
    for point in points:  # nothing is fixed that does not exist under this choice
        assert set(space.fill(template, lambda hole, p=point: p[hole.name]).values) == set(point)  # type: ignore[misc]


@pytest.mark.parametrize("kind", ["log", "uniform"])
def test_a_grid_has_no_continuous_hole(kind: str) -> None:
    with pytest.raises(UsageError) as caught:
        space.grid(document(f"a: {{choice: [1, 2]}}\nb: {{{kind}: [1, 2]}}\n"))
    assert (
        str(caught.value) == f"f.yaml:2: b: sampler grid needs finite holes; give this one as a choice, not as {kind}"
    )


# ---- malformed holes


@pytest.mark.parametrize(
    ("hole", "key", "remedy"),
    [
        ("{uniform: [2, 1]}", "a.uniform", "the low end 2 is above the high end 1; swap them"),
        ("{int: [2, 1]}", "a.int", "swap them"),
        ("{log: [0.0, 1.0]}", "a.log", "must be above 0; use uniform"),
        ("{log: [-1, 1]}", "a.log", "must be above 0"),
        ("{choice: []}", "a.choice", "one option or more"),
        ("{choice: hinge}", "a.choice", "a choice is a list"),
        ("{choice: {x: 1}}", "a.choice", "a choice is a list"),
        ("{choice: }", "a.choice", "a choice is a list"),
        ("{choice: [x, y, x]}", "a.choice[2]", "the option x stands here twice"),
        ("{choice: [{name: x, y: 1}, {name: x, y: 1}]}", "a.choice[1]", "the option x stands here twice"),
        ("{choice: [1, .nan]}", "a.choice[1]", "not finite"),
        ("{choice: [.inf]}", "a.choice[0]", "not finite"),
        ("{log: [1, 2], uniform: [1, 2]}", "a", "the key log alone, and this one has uniform too"),
        ("{choice: [1, 2], default: 1}", "a", "the key choice alone, and this one has default too"),
        ("{log: ['1', 2]}", "a.log", "takes two numbers"),
        ("{uniform: [false, true]}", "a.uniform", "takes two numbers"),
        ("{uniform: [1]}", "a.uniform", "takes two numbers"),
        ("{uniform: [1, 2, 3]}", "a.uniform", "takes two numbers"),
        ("{uniform: 1}", "a.uniform", "takes two numbers, like uniform: [1e-4, 1e-3]"),
        ("{int: }", "a.int", "takes two numbers, like int: [1, 8]"),
        ("{uniform: [0, .inf]}", "a.uniform", "is not finite"),
        ("{log: [.nan, 1]}", "a.log", "is not finite"),
        ("{int: [1.0, 2.0]}", "a.int", "int takes two whole numbers, not [1.0, 2.0]"),
    ],
)
def test_a_malformed_hole_is_refused_at_its_place(hole: str, key: str, remedy: str) -> None:
    with pytest.raises(UsageError) as caught:
        space.holes(document(f"# first line\na: {hole}\n"))
    message = str(caught.value)
    assert message.startswith(f"f.yaml:2: {key}: ")
    assert remedy in message
    assert "\n" not in message


def test_a_malformed_hole_inside_an_option_that_is_not_first_is_found() -> None:
    with pytest.raises(UsageError, match=r"f.yaml:4: a\.choice\[1\]\.lr\.log: "):
        space.holes(document("a:\n  choice:\n    - {name: p}\n    - {name: q, lr: {log: [0, 1]}}\n"))


# ---- any template

scalars = st.one_of(st.integers(-5, 5), st.sampled_from(["x", "y", "z"]), st.booleans(), st.none())
ranges = st.one_of(
    st.tuples(st.integers(-3, 3), st.integers(0, 2)).map(lambda t: {"int": [t[0], t[0] + t[1]]}),
    st.tuples(st.floats(0.01, 1), st.floats(0, 1)).map(lambda t: {"log": [t[0], t[0] + t[1]]}),
    st.tuples(st.floats(-1, 1), st.floats(0, 1)).map(lambda t: {"uniform": [t[0], t[0] + t[1]]}),
)
keys = st.sampled_from(["k", "l", "m"])


def unlike(options: list[Any]) -> bool:
    labels = [space.label(option) for option in options]
    return all(label not in labels[:index] for index, label in enumerate(labels))


nodes = st.recursive(
    st.one_of(scalars, ranges),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).filter(unlike).map(lambda options: {"choice": options}),
        st.dictionaries(keys, inner, max_size=3),
        st.lists(inner, max_size=2),
    ),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(keys, nodes, max_size=3), st.data())
def test_what_is_picked_is_what_stands_there(data: dict[str, Any], chooser: st.DataObject) -> None:
    template = document(yaml.safe_dump(data))
    assert template.data == data
    seen: dict[str, Hole] = {}

    def pick(hole: Hole) -> Any:
        assert hole.name not in seen, "a hole is asked for once"
        seen[hole.name] = hole
        if hole.kind == "choice":
            return chooser.draw(st.sampled_from(hole.labels))
        if hole.kind == "int":
            return chooser.draw(st.integers(int(hole.low), int(hole.high)))
        return chooser.draw(st.floats(hole.low, hole.high))

    filled = space.fill(template, pick)
    assert set(filled.values) == set(seen)
    assert all(value in seen[name] for name, value in filled.values.items())
    assert not any(space.is_hole(node) for node in walk(filled.data))
    for name, hole in seen.items():  # a range's value stands at the hole's path, also under choices
        if hole.kind != "choice":
            assert at(filled.data, hole.path) == filled.values[name]
    assert set(seen) <= {hole.name for hole in space.holes(template)}
    again: Filled = space.fill(template, lambda hole: filled.values[hole.name])
    assert again == filled


def walk(node: Any) -> list[Any]:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [node, *(found for child in children for found in walk(child))]


def at(node: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        node = node[part]
    return node


def test_plain_data_is_left_as_it_is() -> None:
    template = document("a: {b: [1, {c: d}]}\n")
    filled = space.fill(template, first)
    assert (filled.data, filled.values) == (parse("a: {b: [1, {c: d}]}", "x"), {})
    assert [corner.data for corner in space.corners(template)] == [template.data]
    assert space.holes(template) == []


# ---- names of options


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([1, 0.5, None, True, [1, 2]], [1, 0.5, None, True, "[1, 2]"]),
        ([{"name": "x", "y": 1}, {"name": "z", "y": 2}], ["x", "z"]),
        ([{"name": "x", "y": 1, "w": 3}, {"name": "x", "y": 2, "w": 3}], ["x y=1", "x y=2"]),
        ([{"name": "x"}, {"name": "x", "y": None}, {"name": "x", "y": "b"}], ["x", "x y=null", "x y=b"]),
        # what a hole or a mapping holds is said only where nothing else tells two options apart
        ([{"name": "x", "y": 1, "h": {"log": [1, 2]}}, {"name": "x", "y": 2, "h": 1}], ["x y=1", "x y=2"]),
        ([{"name": "x", "h": {"log": [1, 2]}}, {"name": "x", "h": 1}], ['x h={"log": [1, 2]}', "x h=1"]),
        ([{"name": "x", "y": 1}, {"name": "x", "y": 1}], ["x", "x"]),
    ],
)
def test_options_of_one_name_are_called_by_what_differs(options: list[Any], expected: list[Any]) -> None:
    assert space.labels(options) == expected
