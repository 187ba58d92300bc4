"""Who asks of which kind samples are: modalities themselves, and plugins that are for one kind only."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import aigc_lab

PACKAGE = Path(aigc_lab.__file__).parent
# Rooms whose plugins may be for one kind of samples.
OWN = ("modalities", "systems", "data", "metrics", "extractors", "penalties")
KINDS = {"Images", "Points", "Text"}


def questions(source: str) -> Iterator[str]:
    """Every comparison with a modality by name, and every `isinstance` on a class of samples that is no assertion."""
    tree = ast.parse(source)
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "aigc_lab.samples"
        for alias in node.names
    }
    asserted = {id(part) for node in ast.walk(tree) if isinstance(node, ast.Assert) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in asserted:
            continue
        if isinstance(node, ast.Compare | ast.match_case) and "Modality." in ast.unparse(node):
            yield ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
            names = {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
            if names & KINDS & imported:
                yield ast.unparse(node)


def test_nobody_else_asks_which_kind_samples_are() -> None:
    asked = {
        str(path.relative_to(PACKAGE)): found
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] not in OWN and (found := list(questions(path.read_text("utf-8"))))
    }
    assert asked == {}


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("from aigc_lab.samples import Images\nif isinstance(made, Images): ...", 1),
        ("from aigc_lab.samples import Points, Text\nx = 1 if isinstance(made, Points | Text) else 2", 1),
        ("if shape.modality == Modality.TEXT: ...", 1),
        ("match shape.modality:\n    case Modality.TEXT: ...", 1),
        ("from aigc_lab.samples import Text\nassert isinstance(made, Text)", 0),
        ("from rich.text import Text\nif isinstance(line, Text): ...", 0),
        ("if made.modality != real.modality: ...", 0),
        ("shape = Shape(Modality.POINTS, (2,))", 0),
    ],
)
def test_a_question_is_found(source: str, count: int) -> None:
    assert len(list(questions(source))) == count
