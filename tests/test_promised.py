"""What is promised to users' files and scripts: import paths with their names, former paths, commands with options.

`tests/fixtures/promised.yaml` says it. What it names and the code has no longer is a broken promise. After an addition,
`python tests/test_promised.py` says the file anew, and the difference is what is reviewed.
"""

import copy
import importlib
import inspect
import subprocess
import sys
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml

from aigc_lab.cli.options import app
from aigc_lab.host.former_names import FORMER

FILE = Path(__file__).with_name("fixtures") / "promised.yaml"
# A name of a module: a class's public members, a function's parameters, or None for anything else.
Said = list[str] | str | None
HEADER = """\
# What users' files and scripts may rely on; tests/test_promised.py holds the code to it. Of a class its public members,
# of a function its parameters (= where one may be left out), of a command its arguments in order and its options.
# modules: import paths; former: paths of before, by which stored sources import. To promise more, write the name with
# nothing behind it and run `python tests/test_promised.py`, which says this file anew; compare before replacing.
"""
PROMISED: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))


def said(value: Any) -> Said:
    """What is promised of a value: of a class what our own classes give it, and not what torch or pydantic do."""
    if inspect.isclass(value):
        ours = [each for each in value.__mro__ if each.__module__.startswith("aigc_lab")]
        found = {name for each in ours for name in (*vars(each), *inspect.get_annotations(each))}
        return sorted(name for name in found - {"model_config"} if not name.startswith("_"))
    called = inspect.isfunction(value) or (isinstance(value, ModuleType) and callable(value))
    return parameters(value) if called else None


def parameters(function: Any) -> str:
    kinds = inspect.Parameter
    marks: dict[Any, str] = {kinds.VAR_POSITIONAL: "*", kinds.VAR_KEYWORD: "**"}
    parts: list[str] = []
    for each in inspect.signature(function).parameters.values():
        if each.kind is each.KEYWORD_ONLY and not any(part.startswith("*") for part in parts):
            parts.append("*")
        default = "" if each.default is each.empty else "="
        parts.append(f"{marks.get(each.kind, '')}{each.name}{default}")
    return f"({', '.join(parts)})"


def commands(group: Any, before: str = "") -> dict[str, list[str]]:
    """Every command: arguments by position (`1: EXPERIMENT`), options by all their names (`-o/--output`)."""
    found: dict[str, list[str]] = {}
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            found |= commands(command, f"{before}{name} ")
            continue
        arguments = [each for each in command.params if not each.opts[0].startswith("-")]
        options = [each for each in command.params if each.opts[0].startswith("-")]
        places = [f"{number}: {each.metavar or each.name}" for number, each in enumerate(arguments, 1)]
        found[f"{before}{name}"] = places + sorted("/".join([*each.opts, *each.secondary_opts]) for each in options)
    return found


def module_of(name: str) -> ModuleType | None:
    """The module by its name inside the package; None where there is none."""
    whole = "aigc_lab" if name == "aigc_lab" else f"aigc_lab.{name}"
    try:
        return importlib.import_module(whole)
    except ModuleNotFoundError as error:
        if error.name is None or not whole.startswith(error.name):
            raise
        return None


def present() -> dict[str, Any]:
    """The file's content as the code is now: of the names that it holds, and of all commands."""
    told: dict[str, Any] = {}
    for section in ("modules", "former"):
        found = {name: module_of(name) for name in PROMISED[section]}
        told[section] = {
            name: {each: said(getattr(module, each, None)) for each in PROMISED[section][name]}
            for name, module in found.items()
        }
    return told | {"commands": commands(typer.main.get_command(app))}


def broken(promised: Said, now: Said) -> str | None:
    """What of a promise is not kept; more members, and more parameters that may be left out, break none."""
    if isinstance(promised, list):
        if not isinstance(now, list):
            return "is a class no longer"
        lacking = sorted(set(promised) - set(now))
        return f"lacks {', '.join(lacking)}" if lacking else None
    if isinstance(promised, str):
        if not isinstance(now, str):
            return "is a function no longer"
        before, after = ([each for each in said[1:-1].split(", ") if each] for said in (promised, now))
        optional = {each for each in after if each.endswith("=") or each.startswith("*")}
        lacking = [each for each in before if each not in after and f"{each}=" not in optional]
        demanded = [each for each in after if each not in optional and each not in before]
        places = before[: before.index("*")] if "*" in before else before
        moved = [was for was, now_ in zip_longest(places, after[: len(places)]) if was != now_ and f"{was}=" != now_]
        if lacking or demanded or moved:
            return f"is called as {now}, and was promised as {promised}"
    return None


def violations(promised: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Every broken promise, and every command or option that nobody has promised yet, as a sentence."""
    found = []
    for section in ("modules", "former"):
        for module, names in promised[section].items():
            here = module_of(module)
            if here is None:
                found.append(f"aigc_lab.{module} is gone")
                continue
            for name, what in names.items():
                whole = f"aigc_lab.{module}.{name}".replace("aigc_lab.aigc_lab.", "aigc_lab.")
                if not hasattr(here, name):
                    found.append(f"{whole} is gone")
                elif (why := broken(what, now[section][module][name])) is not None:
                    found.append(f"{whole} {why}")
    for command in promised["commands"].keys() | now["commands"].keys():
        before, after = (set(each["commands"].get(command, ())) for each in (promised, now))
        if command not in now["commands"]:
            found.append(f"aigc-lab {command} is gone")
            continue
        found += [f"aigc-lab {command}: {each} is gone" for each in sorted(before - after)]
        found += [f"aigc-lab {command}: {each} is new: add it to {FILE.name}" for each in sorted(after - before)]
    return sorted(found)


def text(content: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(content), sort_keys=False, width=120, default_flow_style=None, allow_unicode=True)


def test_what_is_promised_is_there() -> None:
    assert violations(PROMISED, present()) == []


@pytest.mark.parametrize("name", FORMER)
def test_a_former_name_is_the_module_itself(name: str) -> None:
    now = importlib.import_module(f"aigc_lab.{FORMER[name]}")
    spec = now.__spec__
    assert importlib.import_module(f"aigc_lab.{name}") is now
    assert name in PROMISED["former"]
    assert now.__spec__ is spec and spec is not None
    assert now.__name__ == spec.name == f"aigc_lab.{FORMER[name]}"


def test_former_names_come_first_as_well() -> None:
    """Stored sources may import a former name before anything has imported the module by its present one."""
    check = """
import importlib, sys
import aigc_lab
from aigc_lab.host.former_names import FORMER
for name, now in FORMER.items():
    former = importlib.import_module(f"aigc_lab.{name}")
    present = importlib.import_module(f"aigc_lab.{now}")
    assert former is present is sys.modules[f"aigc_lab.{now}"], name
    assert present.__name__ == present.__spec__.name == f"aigc_lab.{now}", name
print(len(FORMER))
"""
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(FORMER) == len(PROMISED["former"])


# ---- the checker


@pytest.fixture
def changed() -> dict[str, Any]:
    """The code as it is now, to be changed."""
    return copy.deepcopy(present())


def test_what_is_gone_is_named(changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("aigc_lab.noise.Draw")
    monkeypatch.delattr("aigc_lab.systems.shared.point_gan.PointSystem")
    changed["modules"]["systems.base"]["System"].remove("generate")
    changed["commands"]["sweep"].remove("--dry-run")
    changed["commands"]["sample"].remove("-o/--output")
    changed["commands"]["sample"].append("-o/--out")
    del changed["commands"]["judge seeds"]
    assert violations(PROMISED, changed) == [
        "aigc-lab judge seeds is gone",
        "aigc-lab sample: -o/--out is new: add it to promised.yaml",
        "aigc-lab sample: -o/--output is gone",
        "aigc-lab sweep: --dry-run is gone",
        "aigc_lab.noise.Draw is gone",
        "aigc_lab.point_system.PointSystem is gone",
        "aigc_lab.systems.base.System lacks generate",
    ]


@pytest.mark.parametrize(
    ("promised", "now", "kept"),
    [
        ("(a, b=)", "(a, b=)", True),
        ("(a, b=)", "(a=, b=, c=)", True),
        ("(a, *, b=)", "(a, *, b=, c=)", True),
        ("(a, *, b=, c=)", "(a, *, c=, b=)", True),
        ("(a, b=)", "(a, c=)", False),
        ("(a, b=)", "(a, b)", False),
        ("(a, b)", "(b, a)", False),
        ("(a)", "(a, b)", False),
        ("(a, *, b=)", "(a, *, b=, c)", False),
        ("(a, b=)", "(a, *, b=)", False),
        ("()", "(a)", False),
        ("()", "(a=)", True),
        (["a"], ["a", "b"], True),
        (["a", "b"], ["a"], False),
        (["a"], "(a)", False),
        ("(a)", None, False),
        (None, ["a"], True),
    ],
)
def test_a_call_that_worked_works(promised: Said, now: Said, kept: bool) -> None:
    assert (broken(promised, now) is None) == kept


if __name__ == "__main__":
    print(HEADER + text(present()), end="")
