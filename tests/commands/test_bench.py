"""`aigc-lab bench`: what was measured is shown, stored and compared, whatever ends it; contestants of a folder."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from shell import command, mistakes

from aigc_lab import plugins
from aigc_lab.benchmarks.base import Benchmark, Case, Setting, Size, Unmeasured
from aigc_lab.benchmarks.shared import contestants
from aigc_lab.commands import bench
from aigc_lab.errors import UsageError
from aigc_lab.host import environment
from aigc_lab.host.settings import Settings

Body = Callable[[Setting], Iterator[Case | Unmeasured]]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AIGC_LAB_HOME", raising=False)


def nothing() -> None: ...


def case(name: str, run: Callable[[], object] = nothing, rounds: int = 3) -> Case:
    return Case(name, "a reference", run, nothing, 1, "calls", rounds)


@pytest.fixture
def shams(monkeypatch: pytest.MonkeyPatch) -> dict[str, Body]:
    """Measurements by name, which a test fills, in the place of those that ship."""
    bodies: dict[str, Body] = {}

    def find(base: object, name: str) -> type[Benchmark]:
        class Sham(Benchmark):
            seconds: ClassVar[Mapping[Size, float]] = {"full": 60, "quick": 30, "tiny": 1}

            def cases(self, setting: Setting) -> Iterator[Case | Unmeasured]:
                yield from bodies[name](setting)

        return Sham

    monkeypatch.setattr(plugins, "find", find)
    monkeypatch.setattr(bench, "names", lambda: sorted(bodies))
    return bodies


def measured(**options: Any) -> dict[str, Any]:
    return bench.measure(Settings.load(), device="cpu", **options)


def files() -> list[Path]:
    return sorted(Path(".aigc-lab/bench").glob("*"))


def test_a_result_is_the_file_and_the_next_one_stands_beside_it(shams: dict[str, Body]) -> None:
    shams["one"] = lambda setting: iter([case("first"), Unmeasured("second", "no such thing here")])
    first = measured()
    (file,) = files()
    read = json.loads(file.read_text())
    assert first == read | {"rows": [row | {"before": None} for row in read["rows"]]}
    assert {"cpu", "cores", "load", "host", "versions"} <= read["machine"].keys() and read["threads"] == 1
    assert {"benchmark": "one", "case": "second", "reason": "no such thing here"} in read["unmeasured"]

    shams["two"] = lambda setting: iter([case("first")])
    second = measured()
    before = [row["before"] for row in second["rows"]]
    assert before == [{"at": first["at"], "id": first["id"], "ratio": first["rows"][0]["ratio"]}, None]
    newest, oldest = bench.history(Settings.load())
    assert (newest, oldest) == (second, first)


@pytest.mark.parametrize("change", [{"threads": 2}, {"size": "quick"}, {"machine": {"cpu": "another"}}])
def test_results_of_another_kind_are_not_compared(shams: dict[str, Body], change: dict[str, Any]) -> None:
    shams["one"] = lambda setting: iter([case("first")])
    measured()
    (file,) = files()
    result = json.loads(file.read_text())
    machine = result["machine"] | change.get("machine", {})
    file.write_text(json.dumps(result | change | {"machine": machine}))
    assert [row["before"] for row in measured()["rows"]] == [None]


def test_a_damaged_file_is_left_out(shams: dict[str, Body]) -> None:
    shams["one"] = lambda setting: iter([case("first")])
    measured()
    for number, text in enumerate(("{", "[]", '{"format": 2}', "")):
        Path(f".aigc-lab/bench/{number}.json").write_text(text)
    assert len(bench.stored(Settings.load())) == 1
    assert measured()["rows"][0]["before"] is not None


def test_ctrl_c_keeps_what_was_measured(shams: dict[str, Body]) -> None:
    calls = 0

    def interrupted() -> None:
        nonlocal calls
        calls += 1
        if calls == 4:  # of which one warmed up
            raise KeyboardInterrupt

    shams["one"] = lambda setting: iter([case("whole"), case("part", interrupted, 9), case("never")])
    shams["two"] = lambda setting: iter([case("never")])
    told = command("bench", "--json")
    assert told.code == 130
    result = json.loads(told.output)
    assert result["interrupted"] and [(row["case"], row["rounds"]) for row in result["rows"]] == [
        ("whole", 3),
        ("part", 2),
    ]
    (stored,) = bench.history(Settings.load())
    assert stored == result
    assert list(Path(".aigc-lab").glob(".bench-*")) == []


def test_before_the_first_round_nothing_is_kept(shams: dict[str, Body]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    shams["one"] = lambda setting: iter([case("part", interrupted)])
    assert command("bench").code == 130
    assert files() == []


def test_what_fails_is_listed_and_the_others_are_measured(shams: dict[str, Body]) -> None:
    def fails() -> None:
        raise RuntimeError("no luck")

    shams["bad"] = lambda setting: iter([case("first"), case("second", fails)])
    shams["good"] = lambda setting: iter([case("third")])
    told = command("bench")
    assert told.code == 1
    assert told.why == "error: 1 measurement failed; see above"
    assert "failed: bad, second: RuntimeError: no luck (test_bench.py:" in told.output
    (result,) = bench.history(Settings.load())
    assert [row["case"] for row in result["rows"]] == ["first", "third"]


def test_figures_stand_with_reference_spread_and_rounds(shams: dict[str, Body]) -> None:
    shams["one"] = lambda setting: iter([case("first")])
    shams["two"] = lambda setting: iter([case("other")])
    told = command("bench", "--only", "one", "--quick")
    assert told.code == 0 and mistakes(told.errors) == []
    (row,) = [line for line in told.output.splitlines() if line.startswith("one ")]
    assert " × (" in row and "a reference" in row and row.split()[-2:] == ["3", "CPU"]
    assert "other" not in told.output
    assert "1 measurement, about 30 s" in told.errors
    listed = command("bench", "--list")
    assert row in listed.output and ", quick, " in listed.output


def test_a_change_is_one_where_the_quartiles_do_not_meet() -> None:
    from aigc_lab.display.bench import before_text

    now = {"median": 2.0, "low": 1.9, "high": 2.1}
    row = {"says": "speed", "ratio": now, "before": {"at": "2026-12-01T10:00:00", "ratio": now}}
    assert before_text(row) == "2.00 × (1.90–2.10) on 2026-12-01: as before"
    faster = {"median": 3.0, "low": 2.9, "high": 3.1}
    assert before_text(row | {"ratio": faster}).endswith("on 2026-12-01: +50%")
    slower = {"median": 1.6, "low": 1.5, "high": 1.7}
    assert before_text(row | {"ratio": slower}).endswith("on 2026-12-01: -20%")


def test_no_results_are_no_error_and_make_no_home() -> None:
    assert command("bench", "--list").output == "no results yet; aigc-lab bench measures this machine\n"
    assert json.loads(command("bench", "--list", "--json").output) == []
    assert list(Path().iterdir()) == []


def test_a_busy_machine_is_told() -> None:
    assert bench.busy_line({"load": 2.4, "cores": 2}) == ""
    assert bench.busy_line({"load": None, "cores": 2}) == ""
    assert bench.busy_line({"load": 9.0, "cores": 2}).startswith("load 9.0 on 2 cores")


# ---- what a user can get wrong

CONTESTANT = """\
NAME = "theirs"
def prepare(network, batch_size, device, threads):
    print("prepared")
    if network == "dcgan":
        return None
    def steps():
        while True:
            print("stepped")
            yield
    return steps()
"""
OTHERS = {
    "broken.py": ("NAME = 'x'\ndef prepare(:\n", "broken.py:2: invalid syntax"),
    "raises.py": ("NAME = 'x'\n1 / 0\ndef prepare(*a): ...\n", "raises.py:2: ZeroDivisionError: division by zero"),
    "nameless.py": ("NAME = 3\ndef prepare(*a): ...\n", "nameless.py: NAME is 3; a contestant has NAME = '…'"),
    "late.py": ("NAME = 'x'\nprepare = 5\n", "late.py: prepare is no function; a contestant has"),
    "twin.py": (CONTESTANT, "twin.py: NAME 'theirs' is that of theirs.py too; change one"),
    "leaves.py": ("NAME = 'x'\ndef prepare(*a): ...\nexit(0)\n", "leaves.py:3: SystemExit: 0"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_broken_contestant_is_one_line(tmp_path: Path, name: str) -> None:
    text, said = OTHERS[name]
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers" / "theirs.py").write_text(CONTESTANT)
    (tmp_path / "peers" / name).write_text(text)
    told = command("bench", "--only", "peers", "--peers", "peers")
    assert told.code == 2 and told.output == ""
    assert said in told.why
    assert files() == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "stepp"], "--only stepp: unknown measurement 'stepp'; did you mean step?"),
        (
            ["--only", "step", "--only", "xyz"],
            "--only xyz: unknown measurement 'xyz'; there are: bound, evaluation, frechet",
        ),
        (["--only", "peers"], "--only peers: name the contestants' folder with --peers DIR"),
        (["--peers", "nowhere"], "--peers nowhere: is no folder; name one whose files are contestants"),
        (["--only", "step", "--peers", "nowhere"], "--peers nowhere: is no folder"),
        (["--peers", "empty"], "--peers empty: none of its 1 Python files is a contestant"),
        (["--device", "abacus"], "--device abacus: there is no such device"),
        (["--device", "cuda:99"], "--device cuda:99: this machine has"),
        (["--threads", "100000"], "--threads 100000: this process may use"),
        (["--threads", "0"], "Invalid value for '--threads': Input should be greater"),
        (["--home", "file"], "home"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "other.py").write_text("raise SystemExit(5)\n")
    monkeypatch.setattr(bench, "_measured", lambda *a: pytest.fail("something was measured"))
    told = command("bench", *words)
    assert told.code == 2 and told.output == ""
    assert said in told.why


# ---- contestants


@pytest.fixture
def peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environment, "load", lambda: 0.5)
    folder = tmp_path / "peers"
    folder.mkdir()
    (folder / "theirs.py").write_text(CONTESTANT)
    (folder / "helper.py").write_text("raise RuntimeError('is not run')\n")
    return folder


def test_contestants_are_timed_on_what_they_train(peers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = measured(only=["peers"], size="tiny", peers=peers)
    assert [(row["case"], row["reference"]) for row in result["rows"]] == [("mlp 32×32, fp32", "theirs")]
    assert result["rows"][0]["unit"] == "images" and result["rows"][0]["ratio"]["median"] > 0
    assert {"benchmark": "peers", "case": "dcgan 32×32 of theirs", "reason": "it does not train this network"} in (
        result["unmeasured"]
    )
    assert result["failed"] == [] and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("    raise OSError('no data')", "peers/mine.py:3: OSError: no data"),
        ("    return 7", "peers/mine.py: prepare gives int; it gives a function that takes a step, or an iterator"),
        ("    return lambda: 1 / 0", "peers/mine.py:3: ZeroDivisionError: division by zero"),
        ("    return iter([1])", "peers/mine.py: StopIteration"),
    ],
)
def test_a_contestant_that_fails_is_named(peers: Path, body: str, said: str) -> None:
    (peers / "theirs.py").unlink()
    (peers / "mine.py").write_text(f"NAME = 'mine'\ndef prepare(network, batch_size, device, threads):\n{body}\n")
    result = measured(only=["peers"], size="tiny", peers=Path("peers"))
    assert result["rows"] == []
    assert [each["reason"] for each in result["failed"]] == [said]
    assert files() == []


def test_a_contestant_may_import_what_lies_beside_it(peers: Path) -> None:
    (peers / "helper.py").write_text("NUMBER = 5\n")
    (peers / "theirs.py").write_text(
        "from helper import NUMBER\nNAME = f'number {NUMBER}'\ndef prepare(*given):\n    return lambda: given\n"
    )
    (contestant,) = contestants.load(peers)
    assert contestant.name == "number 5"
    step = contestant.step("mlp", 64, "cpu", 1)
    assert step is not None


def test_without_a_folder_contestants_are_told_of(shams: dict[str, Body]) -> None:
    from aigc_lab.benchmarks.peers import Peers

    shams["peers"] = lambda setting: Peers().cases(setting)
    reasons = {each["benchmark"]: each["reason"] for each in measured()["unmeasured"]}
    assert reasons["peers"] == "no contestants: --peers DIR names a folder of them"


def test_a_folder_without_contestants_says_what_one_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="def prepare"):
        contestants.found(tmp_path)
