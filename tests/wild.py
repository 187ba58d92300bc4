"""Wild values for every key of every shipped experiment and every option of every command, typed as a user types them.

`keys` and `options` say what there is to try. `run` tries it in a child process, which does hundreds of cases in the
time that one import of torch takes, and is limited in what it may take: every case ends in seconds, takes no memory to
speak of, and is accepted or refused in one line.
"""

import contextlib
import ctypes
import faulthandler
import io
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

_SECONDS = 20  # for one case, on a machine that others use too
_BYTES = 10**9  # resident
_TORCH = 5 * 10**8  # of them a command that was refused; what the child held before a case is not the case's
_FREE = 4 * 10**8  # what the child takes for the machine's memory
_LIMIT = 3 * 10**9  # what the child may allocate at all: what asks for more ends there, and no machine is filled

_BILLION = "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else '0'] * 9)}]" + ("\n" if i < 9 else "") for i in range(10)
)

#: YAML that stands where a value goes. What is not one line goes into a file only.
VALUES = (
    "",
    "~",
    "true",
    "false",
    "0",
    "-1",
    "1",
    "3",
    "1e-300",
    "-0.0",
    "1e400",
    "1e300",
    "1e12",
    ".inf",
    "-.inf",
    ".nan",
    "65537",
    "9999999",
    "99999999999",
    str(2**63 - 1),
    str(2**63),
    str(-(2**63) - 1),
    "9" * 300,
    "-" + "9" * 5000,
    "0x" + "f" * 4000,
    "9" * 400 + ".5",
    "1e" + "9" * 300,
    "''",
    "word",
    "w" * 300,
    "W" * 20000,
    "'a\\nb'",
    '"\\e[31mred\\a\\u202e\\0"',
    '"\\ud800"',
    "日本語✓",
    "/",
    "/dev/zero",
    "../../etc/passwd",
    ".",
    "~/x",
    "x.py",
    "/dev/stdin.py",
    "1:2:3",
    "2020-01-01",
    "[]",
    "{}",
    "[1, 2]",
    "[[[[[]]]]]",
    "[" * 90 + "]" * 90,
    "[" * 3000 + "]" * 3000,
    "{a: {b: {c: 1}}}",
    "{name: word}",
    "{name: [1]}",
    "{1: 2}",
    "{~: 2}",
    "{'': 1}",
    "{choice: []}",
    "{choice: 5}",
    "{choice: ~}",
    "{choice: [1, 1.0, true]}",
    "{choice: [~, 1, word, {name: word}, [1]]}",
    "{choice: [{choice: [{choice: [1, 2]}, 3]}, 4]}",
    "{choice: [.nan]}",
    "{choice: [" + ", ".join(map(str, range(5000))) + "]}",
    "{log: [1e-400, 1e400]}",
    "{log: [1e-300, 1e300]}",
    "{log: [-1, 1]}",
    "{log: [1, " + "9" * 400 + "]}",
    "{uniform: [0, " + "9" * 400 + "]}",
    "{uniform: [-1e308, 1e308]}",
    "{uniform: [.nan, 1]}",
    "{uniform: word}",
    "{int: [1, 99999999999]}",
    "{int: [1, " + "9" * 300 + "]}",
    "{int: [-9, 9]}",
    "{int: [1, 70]}",
    "{int: [true, false]}",
    "{int: [1, 2], log: [1, 2]}",
    "!!python/object/apply:os.system [true]",
    "!!int word",
    "!mine 5",
    "!!binary aGFsbG8=",
    "!!set {a, b}",
    "*nowhere",
    "&x [*x]",
    "{<<: {a: 1}}",
    "[1, 2",
    "}",
    "\x00",
    "\x1b[2J",
)

#: what stands on a command line; a zero byte cannot
WORDS = tuple(value for value in VALUES if "\x00" not in value and len(value) < 6000)


@dataclass(frozen=True)
class Case:
    """A command line, and the files that it reads: name -> content."""

    words: tuple[str, ...]
    about: str
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    kind: str
    case: Case
    said: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.case.about}: {' '.join(map(_shown, self.case.words))}: {self.said[-600:]}"


def _shown(word: str) -> str:
    return repr(word if len(word) < 80 else f"{word[:40]}…{len(word)} characters")


# ---- every key of every experiment

Path_ = tuple[str | int, ...]


def _paths(node: Any, path: Path_ = ()) -> Iterator[Path_]:
    if path:
        yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from _paths(value, (*path, key))


def _allowed(data: dict[str, Any]) -> Iterator[Path_]:
    """What the types allow beside what a file says."""
    from aigc_lab import plugins
    from aigc_lab.data.base import Dataset
    from aigc_lab.experiment.protocol import Protocol
    from aigc_lab.experiment.sections import Confirm, Objective, Search, Training
    from aigc_lab.systems.base import System

    sections: dict[str, Any] = {
        "training": Training,
        "search": Search,
        "confirm": Confirm,
        "objective": Objective,
        "evaluation": Protocol,
    }
    for section, model in sections.items():
        yield (section,)
        yield from ((section, key) for key in model.model_fields)
    kind: Any = plugins.find(Dataset, data["data"]["name"])
    yield from (("data", key) for key in kind.Config.model_fields)
    options = data["system"].get("choice", [data["system"]])
    for index, option in enumerate(options):
        at: Path_ = ("system", "choice", index) if "choice" in data["system"] else ("system",)
        system: Any = plugins.find(System, option["name"])
        yield from ((*at, key) for key in system.Config.model_fields)


def _written(data: dict[str, Any], path: Path_, text: str) -> str:
    """The file with this text where the path leads."""
    mark = "PUT-IT-HERE"
    copy = json.loads(json.dumps(data))
    if path[0] == "evaluation" and isinstance(copy["evaluation"], str) and len(path) > 1:
        copy["evaluation"] = {"name": copy["evaluation"]}
    if path[0] == "objective" and isinstance(copy["objective"], list):
        copy["objective"] = copy["objective"][0]
    node = copy
    for part in path[:-1]:
        if isinstance(node, dict) and node.get(part) is None:
            node[part] = {}
        node = node[part]
    node[path[-1]] = mark
    return json.dumps(copy, ensure_ascii=False).replace(f'"{mark}"', text)  # JSON is YAML


def _metric_keys() -> list[tuple[str, str]]:
    """Every key of every metric's configuration."""
    from aigc_lab import plugins
    from aigc_lab.metrics.base import Metric

    found = []
    for name in plugins.describe("metrics"):
        kind: Any = plugins.find(Metric, name)
        found += [(name, key) for key in kind.Config.model_fields]
    return found


def keys(each: int, seed: int = 0) -> list[Case]:
    """So many cases for every key of every experiment and every key of every metric, the same for a seed."""
    from aigc_lab.experiment import yaml_file
    from aigc_lab.host import content

    source = random.Random(seed)
    cases = []
    for name in content.names("experiments"):
        data = yaml_file.read_yaml(content.find_file("experiments", name)).data
        for path in dict.fromkeys((*_paths(data), *_allowed(data))):
            about = f"{name}: {yaml_file.dotted(path)}"
            for number, value in source.sample(list(enumerate(VALUES)), each):
                plain = all(isinstance(part, str) and "." not in part for part in path) and "choice" not in path
                if number % 2 and plain and "\x00" not in value:
                    # Given twice, the second goes into what the first has made.
                    word = f"{'.'.join(map(str, path))}={value}"
                    cases.append(Case(("sweep", name, "--dry-run", "--set", word), about))
                else:
                    files = {"wild.yaml": _written(data, path, value)}
                    cases.append(Case(("sweep", "wild.yaml", "--dry-run"), about, files))
    for metric, key in _metric_keys():
        for value in source.sample(VALUES, each):
            protocol = f"samples: 100\nmetrics:\n- {metric}: {{{key}: {value}}}\n"
            files = {"protocol.yaml": protocol}
            words = ("sweep", "ring", "--dry-run", "--set", "evaluation=./protocol.yaml")
            cases.append(Case(words, f"metric {metric}: {key}", files))
    return cases


def files() -> list[Case]:
    """Files that are none, or are meant to do harm."""
    return [Case(("sweep", "wild.yaml", "--dry-run"), "file", {"wild.yaml": text}) for text in _FILES]


_FILES = (
    "",
    _BILLION,
    "\ufeffdata: {name: ring}",
    "- 1",
    "a: 1\na: 2",
    "a: " + "x" * 5_000_000,
    "a: [" + "0," * 500_000 + "]",
    "%YAML 1.1\n---\na: 1\n---\nb: 2",
    "? {a: 1}\n: 2",
    "\x00" * 100,
)


# ---- every option of every command

#: what a command needs beside the option that is tried; a command that is not here gets a word for every argument
_NEEDS: dict[str, tuple[str, ...]] = {
    "sweep": ("good.yaml", "--dry-run"),
    "train": ("good.yaml",),
    "resume": ("good",),
    "stop": ("good",),
    "promote": ("good",),
    "sample": ("good", "-o", "drawn.npz", "--force"),
    "evaluate": ("--generated", "points.npy", "--reference", "points.npy", "--device", "cpu"),
    "judge stability": ("history.csv", "--value", "score"),
    "judge collapse": ("--generated", "points.npy", "--reference", "points.npy", "--device", "cpu"),
    "judge seeds": ("good",),
    "rejudge": ("good",),
    "show": ("good.0.0",),
    "check": ("good.yaml",),
    "report": ("good", "-o", "report.html"),
    "plot": ("good", "--kind", "seeds", "-o", "seeds.pdf"),
    "list": ("systems",),
    "delete": ("good", "--dry-run"),
    "export": ("good", "-o", "packed.tar", "--force"),
    "import": ("packed.tar",),
    "init": ("copied", "--force"),
    "bench": ("--only", "self_bleu", "--quick"),
}
_GOOD = """\
data: {name: ring, points: 300}
system: {name: point_gan, hidden: 8}
training: {steps: 4, batch_size: 8, log_every: 2, evaluate_every: 2, threads: 1}
evaluation: {name: points, samples: 200}
objective: {minimize: rkl}
"""


def _commands(group: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _commands(command, (*before, name))
        else:
            yield (*before, name), command


def options() -> list[Case]:
    """A case for every option and argument of every command, and every value."""
    import typer

    from aigc_lab.cli import app

    cases = []
    for name, command in _commands(typer.main.get_command(app)):
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        needs = _NEEDS.get(" ".join(name), ("word",) * sum(each.required for each in arguments))
        for parameter in command.params:
            about = f"{' '.join(name)} {parameter.opts[-1] if parameter.opts[0].startswith('-') else parameter.name}"
            if parameter.param_type_name == "argument":
                rest = needs[1:] if needs and not needs[0].startswith("-") else needs
                cases += [Case((*name, *rest, "--", value), about) for value in WORDS]
            elif parameter.is_flag:
                cases.append(Case((*name, *needs, parameter.opts[0]), about))
            else:
                cases += [Case((*name, *needs, f"{_long(parameter)}{value}"), about) for value in WORDS]
    return cases


def _long(parameter: Any) -> str:
    long = next((name for name in parameter.opts if name.startswith("--")), None)
    return f"{long}=" if long else str(parameter.opts[0])


# ---- trying them


def sample(cases: Sequence[Case], count: int, seed: int) -> list[Case]:
    """So many of the cases, the same for a seed: each thing that they are about once, then again, with other values."""
    source = random.Random(seed)
    by: dict[str, list[Case]] = {}
    for case in source.sample(list(cases), len(cases)):
        # What two experiments have alike is the same thing.
        by.setdefault(re.sub(r"^.*: |\[\d+\]", "", case.about), []).append(case)
    turns = [group[turn] for turn in range(max(map(len, by.values()))) for group in by.values() if turn < len(group)]
    return turns[:count]


@dataclass(frozen=True)
class End:
    """How a case ended: its exit code, or a word; and what was wrong with that."""

    case: Case
    code: str
    fault: Fault | None = None


def run(cases: Sequence[Case], folder: Path) -> Iterator[End]:
    """Tries the cases in a child process; a child that dies is a fault of its case, and another goes on."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AIGC_LAB_", "MLFLOW_"))}
    env |= {"COLUMNS": "200", "MLFLOW_DISABLE_TELEMETRY": "true", "HOME": str(folder)}
    left, begun = list(cases), False
    while left:
        lines = "".join(json.dumps([case.words, case.files]) + "\n" for case in left)
        with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+") as said:
            given.write(lines)
            given.seek(0)
            command = [sys.executable, __file__, str(folder)]
            with subprocess.Popen(
                command, stdin=given, stdout=subprocess.PIPE, stderr=said, text=True, env=env
            ) as child:
                assert child.stdout is not None
                for line in child.stdout:
                    code, fault, text = json.loads(line)
                    case, begun = left.pop(0), True
                    yield End(case, code, Fault(fault, case, text) if fault else None)
            said.seek(0)
            if left:
                assert begun, f"the child did not begin: {said.read()[-2000:]}"
                case = left.pop(0)
                yield End(case, "died", Fault("died", case, f"{child.returncode}: {said.read()[-800:]}"))


# ---- the child


class _TooLong(BaseException):
    """Not an `Exception`: nothing that answers for broken files and plugins may take it for one."""


def _late(*_: object) -> NoReturn:
    raise _TooLong


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s*(\d+)", status)[1])  # type: ignore[index]


def _typed(words: list[str]) -> tuple[int | str, str, str]:
    """The exit code of a command and what it wrote to each stream; in the place of a traceback, what it is about."""
    from aigc_lab import cli

    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8", errors="replace")
    sys.argv = ["aigc-lab", *words]
    code: int | str = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        except _TooLong:
            code = "late"
        except BaseException as error:  # noqa: BLE001 -- whatever Python would print a traceback of is looked for
            import traceback

            place = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in place if "aigc_lab" in frame.filename][-1:]
            code = f"{type(error).__name__}: {str(error)[:200]} at {own or place[-1:]}"
    for stream in (out, err):
        stream.flush()
    return code, _text(out), _text(err)


def _text(stream: io.TextIOWrapper) -> str:
    return stream.detach().getvalue().decode(errors="replace")  # type: ignore[attr-defined, no-any-return]


def _judged(words: list[str]) -> tuple[str, str, str]:
    """How it ended, what is wrong with that, and what was said."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak()
    began = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, _SECONDS, 1)
    faulthandler.dump_traceback_later(2 * _SECONDS, exit=True)
    try:
        code, out, err = _typed(words)
    except _TooLong:
        code, out, err = "late", "", ""
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
    peak = _peak()
    told = f"{time.monotonic() - began:.1f} s, {peak / 1e6:.0f} MB: {err}"
    if code == "late":
        return "late", "hang", told
    if isinstance(code, str):
        return "traceback", "traceback", f"{code} {told}"
    if code not in (0, 1, 2):
        return str(code), "exit code", f"{code} {told}"
    if peak - before > (_BYTES if code == 0 else _BYTES - _TORCH):
        return str(code), "memory", told
    if "Traceback" in err:
        return str(code), "traceback", told
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f\x9b\u202a-\u202e\u2066-\u2069]", err + out):
        return str(code), "control characters", told
    # What is fetched or goes on is said first, for it may take a while.
    lines = [line for line in err.splitlines() if not line.startswith("downloading ") and not line.endswith(" …")]
    if code == 2 and (len(lines) != 1 or not lines[0].startswith("error: ")):
        return "2", "lines", told
    if code and len(err) > 2500:
        return str(code), "length", told
    return str(code), "", ""


def _prepared(folder: Path) -> Path:
    """A place to work in, and a home with a sweep of one run. Nothing reaches the network or trains long."""
    import socket

    import numpy as np
    import torch

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError("no network in tests")

    for name in ("getaddrinfo", "create_connection"):
        setattr(socket, name, refuse)
    place = folder / "place"
    new = not place.exists()
    place.mkdir(exist_ok=True)
    os.chdir(place)
    source = np.random.default_rng(0)
    np.save("points.npy", source.normal(size=(300, 2)).astype(np.float32))
    Path("history.csv").write_text("step,score\n" + "".join(f"{i},{1 / (i + 1)}\n" for i in range(20)))
    Path("good.yaml").write_text(_GOOD)
    from conftest import WriterHere

    from aigc_lab.commands import sweep
    from aigc_lab.data.oracle import OracleText
    from aigc_lab.executors.base import Place
    from aigc_lab.sweeps import estimate, needs
    from aigc_lab.tracking import writer

    setattr(writer, "Writer", WriterHere)  # noqa: B010 -- mypy allows no other class there
    if new:
        code, _, err = _typed(["train", "good.yaml", "--device", "cpu", "--home", str(place / "home")])
        assert code == 0, f"{code} {err}"
    # What is valid need not be done: no run is trained, one step is timed, and no oracle speaks for minutes.
    seconds, work = estimate._seconds_per_step, estimate.estimate

    def once(plan: Any, where: Any) -> float:
        return seconds(plan, where, 0, 1)

    def silence(oracle: Any, wanted: int) -> Any:
        return torch.zeros((wanted, oracle.config.length), dtype=torch.int64)

    def train(experiment: Any, *_: object, **__: object) -> list[Any]:
        work(experiment, [Place("cpu", 1)])
        return []

    for owner, name, instead in (
        (estimate, "_seconds_per_step", once),
        (OracleText, "_draw", silence),
        (sweep, "_train", train),
        (needs, "free_memory", lambda device="cpu": _FREE),
    ):
        setattr(owner, name, instead)
    return place


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library writes is no answer
    place = _prepared(Path(sys.argv[1]))
    signal.signal(signal.SIGALRM, _late)
    resource.setrlimit(resource.RLIMIT_DATA, (_LIMIT, _LIMIT))
    home = str(place / "home")
    for line in sys.stdin:
        words, files = json.loads(line)
        for name, content in files.items():
            Path(name).write_text(content, "utf-8", errors="surrogatepass")
        if not any(word.startswith("--home") for word in words):
            os.environ["AIGC_LAB_HOME"] = home
        told.write(json.dumps(_judged(words)) + "\n")
        told.flush()


if __name__ == "__main__":
    main()
