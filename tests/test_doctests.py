"""Every example of a docstring is run, and what users and authors of plugins begin with has one."""

import ast
import doctest
import importlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import WriterHere

import aigc_lab
from aigc_lab.tracking import writer

PACKAGE = Path(aigc_lab.__file__).parent
# What is called from Python, and what a plugin inherits or computes with; a folder stands for each of its modules.
SHOWN = (
    *("api", "evaluate", "noise", "samples", "shape", "statistics", "verdicts/stability"),
    *("systems/base", "data/base", "metrics/base", "extractors/base"),
    *("penalties/base", "augmentations/base", "pruners/base", "executors/base", "modalities/base"),
    *("text/bleu", "text/rouge", "text/tokenizer"),
)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def examples(file: Path) -> Iterator[doctest.Example]:
    """The examples in a file's docstrings, read and not imported; code that merely mentions `>>>` has none."""
    text = file.read_text("utf-8")
    if ">>>" not in text:
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, DOCUMENTED) and (said := ast.get_docstring(node)) is not None:
            yield from doctest.DocTestParser().get_examples(said, str(file))


def with_examples(package: Path) -> dict[str, int]:
    """How many examples each module has that has any, by its name inside the package (`text/bleu`)."""
    counts = {
        file.relative_to(package).with_suffix("").as_posix(): sum(1 for _ in examples(file))
        for file in sorted(package.rglob("*.py"))
    }
    return {module: count for module, count in counts.items() if count}


def expected_to_show(package: Path) -> Iterator[str]:
    for place in SHOWN:
        folder = package / place
        files = sorted(folder.glob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
        for file in files:
            if file.name != "__init__.py":
                yield file.relative_to(package).with_suffix("").as_posix()


EXAMPLES = with_examples(PACKAGE)


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples_say_what_they_give(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AIGC_LAB_", "MLFLOW_")) and "PLUGIN" not in name]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AIGC_LAB_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(writer, "Writer", WriterHere)
    shown = importlib.import_module(f"aigc_lab.{module.removesuffix('/__init__').replace('/', '.')}")
    said: list[str] = []
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder().find(shown):
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)
    # As many as were read: one of what the finder does not reach (a name inside a function, say) would never be run.
    assert runner.tries == EXAMPLES[module]


@pytest.mark.parametrize("module", [*expected_to_show(PACKAGE)])
def test_what_users_begin_with_has_an_example(module: str) -> None:
    assert module in EXAMPLES, f"aigc_lab/{module}.py has no docstring with a >>> example"


# ---- the checker


def test_an_example_is_found_where_it_is_run(tmp_path: Path) -> None:
    (tmp_path / "shown.py").write_text('def f():\n    """Says.\n\n    >>> f()\n    >>> 1 + 1\n    2\n    """\n')
    (tmp_path / "mentioned.py").write_text('MARK = ">>> no example"  # nor is >>> this\n')
    assert with_examples(tmp_path) == {"shown": 2}
