"""`aigc-lab judge`: what is read of a file, what is said of it, and how files that cannot be read are refused."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aigc_lab import cli
from aigc_lab.commands.judge import stability_of_file
from aigc_lab.errors import UsageError
from aigc_lab.verdicts.stability import judge

STEPS = [500 * place for place in range(20)]
SOUND = [300.0, 120.0, 60.0, 30.0, 18.0, *[10.25, 10.5, 10.0, 10.25, 10.125] * 3]
LOST = [*SOUND[:16], 24.5, 25.0, 24.75, 25.25]
ERRORS = [value / 64 for value in LOST]


def table(values: list[float], delimiter: str = ",", end: str = "\n", quote: str = "") -> str:
    rows = [["step", "fid", "se"]]
    rows += [[str(step), f"{quote}{value}{quote}", str(value / 64)] for step, value in zip(STEPS, values, strict=True)]
    return end.join(delimiter.join(row) for row in rows) + end


def written(tmp_path: Path, content: str | bytes, name: str = "history.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def lab(*words: str, cwd: Path, code: int = 0) -> "subprocess.CompletedProcess[str]":
    """The command in a process of its own, without a home, which ends badly if it has loaded torch."""
    program = (
        "import sys, atexit, os\n"
        "from aigc_lab.cli import main\n"
        "atexit.register(lambda: os._exit(99) if {'torch', 'pandas', 'scipy', 'mlflow'} & {*sys.modules} else None)\n"
        "main()"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIGC_LAB_")}
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


# ---- the command


def test_the_command_says_json_and_nothing_else(tmp_path: Path) -> None:
    path = written(tmp_path, table(LOST))
    done = lab(
        *["judge", "stability", path.name, "--value", "fid", "--step", "step", "--se", "se"],
        *["--baseline", "300", "--better", "lower", "--json"],
        cwd=tmp_path,
    )
    found = strict(done.stdout)
    assert {"verdict", "alarm_step", "best", "last", "evidence", "reason", "scale", "n"} <= {*found}
    assert found == judge(STEPS, LOST, ERRORS, baseline=300.0).as_dict()
    arrays = judge(np.array(STEPS), np.array(LOST), np.array(ERRORS), baseline=300.0)
    assert arrays.as_dict() == found
    assert (found["verdict"], found["alarm_step"]) == ("REGRESSED", 8500)
    assert (found["best"], found["last"]) == ({"step": 3500, "value": 10.0}, {"step": 9500, "value": 25.0})
    assert done.stderr == "" and [*tmp_path.iterdir()] == [path]  # no home


def test_the_command_tells_a_story(tmp_path: Path) -> None:
    written(tmp_path, table(LOST))
    shown = lab("judge", "stability", "history.csv", "--value", "fid", "--se", "se", cwd=tmp_path).stdout
    first, *rest = shown.splitlines()
    assert first == "REGRESSED: the last 3 evaluations (median 25) are 2.50 times the best, 10 at step 3500"
    assert "  alarm at step 8500" in rest and "  standard errors are given" in rest
    assert "  beyond that since: 24.5 (step 8000)" in rest


def refusal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["aigc-lab", "judge", "stability", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    shown = capsys.readouterr()
    assert ended.value.code == 2 and shown.out == "", shown
    return shown.err


def test_a_mistake_is_one_line_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, table(SOUND).replace("18.0,", "eighteen,"))
    said = refusal(capsys, monkeypatch, str(path), "--value", "fid")
    assert said.startswith(f"error: {path}, line 6, column fid: 'eighteen' is no number; write")
    assert said.count("\n") == 1
    path = written(tmp_path, table(SOUND))
    assert "--baseline is nan" in refusal(capsys, monkeypatch, str(path), "--value", "fid", "--baseline", "nan")
    assert "--floor is inf" in refusal(capsys, monkeypatch, str(path), "--value", "fid", "--floor", "inf")
    assert "--diverged-at is" in refusal(capsys, monkeypatch, str(path), "--value", "fid", "--diverged-at", "nan")
    assert "is not one of" in refusal(capsys, monkeypatch, str(path), "--value", "fid", "--better", "up")
    assert "--value" in refusal(capsys, monkeypatch, str(path))


# ---- files that are read

EXPECTED = judge(STEPS, LOST, ERRORS).as_dict()
OBJECTS = [dict(zip(("step", "fid", "se"), each, strict=True)) for each in zip(STEPS, LOST, ERRORS, strict=True)]
BOM = b"\xef\xbb\xbf"
READ: dict[str, str | bytes] = {
    "commas": table(LOST),
    "semicolons": table(LOST, ";"),
    "tabs": table(LOST, "\t"),
    "windows": table(LOST, end="\r\n"),
    "old macintosh": table(LOST, end="\r"),
    "byte order mark": BOM + table(LOST, ";", "\r\n").encode(),
    "quoted numbers": table(LOST, quote='"'),
    "quoted names": table(LOST).replace("step,fid", '"step","fid"'),
    "spaces": table(LOST, ", ").replace("fid", " fid "),
    "no newline at the end": table(LOST).rstrip(),
    "blank lines": "\n" + table(LOST).replace("\n", "\n\n") + ",,\n",
    "other columns": "\n".join(f"x y,{line},fidelity" for line in table(LOST).splitlines()),
    "a comma at the end of lines": table(LOST, end=",\n").replace("se,", "se", 1),
    "steps as floats": "\n".join(line.replace(",", ".0,", 1) for line in table(LOST).splitlines()).replace(".0", "", 1),
    "rows from the last to the first": "\n".join([table(LOST).split()[0], *reversed(table(LOST).split()[1:])]),
    "JSON lines": "".join(json.dumps(each) + "\n" for each in OBJECTS),
    "a list in JSON": json.dumps(OBJECTS, indent=2),
    "names again": table(LOST).replace("\n4000,", "\nstep,fid,se\n4000,"),
    "decimal commas": table(LOST, ";").replace(".", ","),
    "decimal commas, quoted, and points of thousands": table(LOST, ";", quote='"')
    .replace(".", ",")
    .replace('"300,0"', '"0.300,0"'),
    "steps in names of files": re.sub(r"(?m)^(\d+),", r"network-snapshot-\1.pkl,", table(LOST)),
    "objects in an object": json.dumps(
        {"epoch": 3, "log_history": [{"step": 1, "loss": 2.0}, *OBJECTS, {"step": 9600, "loss": 1.0}]}, indent=1
    ),
    "lists in an object": json.dumps({name: [each[name] for each in OBJECTS] for name in OBJECTS[0]}, indent=1),
    "names in brackets": table(LOST).replace("step,", "[x],step,").replace("\n", "\n0,").rstrip("0,"),
}


@pytest.mark.parametrize("content", READ.values(), ids=READ)
def test_the_same_table_in_many_forms(tmp_path: Path, content: str | bytes) -> None:
    assert stability_of_file(written(tmp_path, content), "fid", se="se") == EXPECTED


def test_semicolons_win_where_the_names_are_found_by_them(tmp_path: Path) -> None:
    names, *rows = table(LOST, ";").splitlines()
    content = "\n".join([f"a, b, c, d, e;{names}", *(f"1,2,3,4,5;{row}" for row in rows)])
    assert stability_of_file(written(tmp_path, content), "fid", se="se") == EXPECTED


@pytest.mark.parametrize("cell", ["", " ", "NA", "null", "None", '""'])
def test_an_empty_cell_was_not_measured(tmp_path: Path, cell: str) -> None:
    content = table(SOUND).replace(",120.0,", f",{cell},")
    found = stability_of_file(written(tmp_path, content), "fid")
    assert (found["verdict"], found["n"]) == ("STABLE", 19)
    assert "left out: 1 of 20 evaluations, which have no value" in [each["what"] for each in found["evidence"]]


@pytest.mark.parametrize("cell", ["nan", "NaN", "inf", "-Infinity", "1e999"])
def test_a_value_that_is_not_finite_diverged(tmp_path: Path, cell: str) -> None:
    content = table(SOUND).replace(",120.0,", f",{cell},")
    found = stability_of_file(written(tmp_path, content), "fid")
    assert (found["verdict"], found["alarm_step"]) == ("DIVERGED", 500)
    assert json.dumps(found, allow_nan=False)


def test_a_cut_line_lacks_its_value(tmp_path: Path) -> None:
    content = table(SOUND).rstrip()
    assert stability_of_file(written(tmp_path, content + "\n9999"), "fid")["n"] == 20


def test_an_unknown_error_is_no_error_of_zero(tmp_path: Path) -> None:
    values = [*SOUND[:16], *[14.5] * 4]
    sure = table(values).replace(f",{14.5 / 64}", ",0.001")
    assert stability_of_file(written(tmp_path, sure), "fid", se="se")["verdict"] == "REGRESSED"
    unsure = "\n".join(
        f"{step},{value},{value / 8 if value != 14.5 else ''}" for step, value in zip(STEPS, values, strict=True)
    )
    assert stability_of_file(written(tmp_path, f"step,fid,se\n{unsure}"), "fid", se="se")["verdict"] == "STABLE"


def test_lines_of_other_metrics_are_no_evaluations(tmp_path: Path) -> None:
    lines = ['{"config": {"lr": 1}}']
    for step, value in zip(STEPS, LOST, strict=True):
        lines += [json.dumps({"step": step, "fid": value}), json.dumps({"step": step + 1, "loss": 1.0})]
    found = stability_of_file(written(tmp_path, "\n".join(lines), "log.jsonl"), "fid")
    assert (found["verdict"], found["n"]) == ("REGRESSED", 20)


def test_options_reach_the_verdict(tmp_path: Path) -> None:
    path = written(tmp_path, table(SOUND))
    assert stability_of_file(path, "fid", baseline=15.0)["verdict"] == "NEVER-LEARNED"
    assert stability_of_file(path, "fid", baseline=15.0, floor=9.0)["verdict"] == "STABLE"
    assert stability_of_file(path, "fid", better="higher")["verdict"] == "REGRESSED"
    diverged = stability_of_file(path, "fid", diverged_at=750.0)
    assert (diverged["verdict"], diverged["alarm_step"]) == ("DIVERGED", 750)


@pytest.mark.parametrize("rows", [1, 9])
def test_a_few_rows_are_withheld(tmp_path: Path, rows: int) -> None:
    content = "\n".join(table(SOUND).splitlines()[: rows + 1])
    found = stability_of_file(written(tmp_path, content), "fid")
    assert (found["verdict"], found["n"]) == ("WITHHELD", rows)


# ---- files that are refused

HEAD = "step,fid,se\n"
REFUSED: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "FILE: is empty; write the names of the columns, and below them a line an evaluation"),
    "a mark and nothing": (BOM, "FILE: is empty"),
    "blank lines": ("\n \n", "FILE: is empty"),
    "names alone": (HEAD, "FILE: there is no row under the names of the columns"),
    "no such column": ("step,fd,se\n1,2,3\n", "FILE, line 1: unknown column 'fid'; did you mean fd?"),
    "no names": ("1,2,3\n2,3,4\n", "FILE, line 1: unknown column 'step'; there are: 1, 2, 3"),
    "two of a name": ("step,fid,se,fid\n1,2,3,4\n", "FILE, line 1: 2 columns are named fid; rename the others"),
    "text": (HEAD + "1,2,3\n2,abc,3\n", "FILE, line 3, column fid: 'abc' is no number; write a number like 1234.5"),
    "a decimal comma between commas": (HEAD + '1,"2,5",1\n', "FILE, line 2, column fid: '2,5' is no number"),
    "lists of two lengths": (
        '{"step": [1, 2], "fid": [3], "se": [1, 1]}',
        "FILE: the lists differ in length (step 2, fid",
    ),
    "a lacking name in an object": ('{"results": {"fd": 1}, "step": 1, "se": 1}', "FILE: unknown column 'fid'"),
    "too many cells": (HEAD + "1,2,5,3\n", "FILE, line 2: 4 cells, 3 columns; quote a cell that holds a comma"),
    "no step": (HEAD + "1,2,3\n,4,5\n", "FILE, line 3, column step: is no step; number the evaluation, or remove it"),
    "a step that is not finite": (HEAD + "nan,2,3\n", "FILE, line 2, column step: nan is no step"),
    "a negative error": (HEAD + "1,2,-0.5\n", "FILE, line 2, column se: -0.5 is no standard error; it is 0 or more"),
    "an open quote": (HEAD + '1,"2,3\n', "FILE, after line 1: no table (unexpected end of data)"),
    "utf-16": (HEAD.encode("utf-16"), "FILE: is UTF-16; save it as UTF-8"),
    "latin-1": (HEAD.encode() + b"1,2,3\n2,\xe9,3\n", "FILE, line 3: is not UTF-8"),
    "binary": (HEAD + "1,\0,3\n", "FILE, line 2: holds a zero byte"),
    "no JSON": ('{"step": 1, "fid": 2, "se": 1}\n{"step": 2,\n', "FILE, line 2: no JSON ("),
    "a list in JSON lines": ('{"step": 1, "fid": 2, "se": 1}\n[1]\n', "FILE, line 2: [1] is no object"),
    "a lacking name in JSON lines": ('{"step": 1, "fd": 2, "se": 1}\n', "FILE: unknown column 'fid'; did you mean fd?"),
    "no number in JSON": ('{"step": 1, "fid": true, "se": 1}\n', "FILE, line 1, column fid: 'True' is no number"),
    "an open list in JSON": ('[\n{"step": 1},\n{"step": 2', "FILE, line 3: no JSON ("),
    "no object in a list": ('[{"step": 1, "fid": 2, "se": 1}, 3]', "FILE, object 2: 3 is no object; write one for"),
    "a lacking name in a list": ('[{"step": 1, "fd": 2}]', "FILE: unknown column 'fid'; did you mean fd?"),
    "text in a list": ('[{"step": 1, "fid": "x", "se": 1}]', "FILE, object 1, column fid: 'x' is no number"),
    "nothing in a list": ("[]", "FILE: the list is empty; write an object for each evaluation"),
    "lists within lists": ('[{"a":' * 100_000, "FILE, line 1: no JSON that can be read ("),
    "a list for a number": ('{"step": 1, "fid": [2], "se": 1}\n', "FILE, line 1, column fid: '[2]' is no number"),
}


@pytest.mark.parametrize(("content", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_named_by_its_place(tmp_path: Path, content: str | bytes, said: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(UsageError) as refused:
        stability_of_file(path, "fid", se="se")
    message = str(refused.value).replace(str(path), "FILE")
    assert message.startswith(said) and "\n" not in message


@pytest.mark.parametrize("name", ["nothing.csv", ".", "x" * 5000, "a\0b"])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        stability_of_file(tmp_path / name, "fid")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = written(tmp_path, table(SOUND))
    path.chmod(0)
    with pytest.raises(UsageError, match="cannot be read"):
        stability_of_file(path, "fid")


def test_values_from_a_file_are_those_that_were_written(tmp_path: Path) -> None:
    values = [math.pi * 10**power for power in range(-5, 7)]
    content = "step,v\n" + "".join(f"{step},{value!r}\n" for step, value in enumerate(values))
    found = stability_of_file(written(tmp_path, content), "v", better="higher")
    assert found == judge(range(12), values, better="higher").as_dict()


# ---- several histories in one file


def long_table(**runs: list[float]) -> str:
    """As MLflow's page exports a chart: a row a point."""
    rows = [
        f"{name},{name}01,score/fid,{step},{value}"
        for name, values in runs.items()
        for step, value in zip(STEPS, values, strict=True)
    ]
    return "\n".join(["Run,Run ID,metric,step,value", *rows, ""])


def test_rows_of_several_runs_or_metrics_are_refused_with_the_column(tmp_path: Path) -> None:
    path = written(tmp_path, long_table(good=SOUND, bad=LOST))
    with pytest.raises(UsageError) as refused:
        stability_of_file(path, "value")
    assert str(refused.value).startswith(
        f"{path}: column Run says that these are 2 histories ('good', 'bad'); choose one"
    )
    assert "--where 'Run=good'" in str(refused.value)
    for name, values in (("good", SOUND), ("bad", LOST)):
        expected = judge(STEPS, values).as_dict()
        assert stability_of_file(path, "value", where=[f"Run={name}"]) == expected
        assert stability_of_file(path, "value", where=["metric=score/fid", f"Run ID={name}01"]) == expected
    lines = long_table(good=SOUND).splitlines()
    mixed = [each.replace("score/fid", "loss").replace(",30.0", ",0.5") for each in lines[1:]]
    path = written(
        tmp_path, "\n".join([lines[0], *(line for pair in zip(lines[1:], mixed, strict=True) for line in pair)])
    )
    with pytest.raises(UsageError, match="column metric says that these are 2 histories"):
        stability_of_file(path, "value")
    assert stability_of_file(path, "value", where=["metric=score/fid"]) == judge(STEPS, SOUND).as_dict()


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("Run", "--where 'Run' is no condition; write COLUMN=VALUE"),
        ("=x", "--where '=x' is no condition"),
        ("Rum=good", "line 1: unknown column 'Rum'; did you mean Run?"),
        ("Run=god", "no row has Run=god; column Run holds 'bad', 'good'"),
    ],
)
def test_a_condition_that_chooses_nothing_is_refused(tmp_path: Path, where: str, said: str) -> None:
    path = written(tmp_path, long_table(good=SOUND, bad=LOST))
    with pytest.raises(UsageError) as refused:
        stability_of_file(path, "value", where=[where])
    assert said in str(refused.value)


def test_a_resumed_log_is_one_history(tmp_path: Path) -> None:
    """Losses and times differ in each row, and tell no histories apart."""
    values = [*SOUND[:15], *[90.0, 150.0, 200.0, 240.0, 280.0]]
    rows = [
        f"{step},{value},{value / 7},{place}" for place, (step, value) in enumerate(zip(STEPS, values, strict=True))
    ]
    again = [f"{step},10.1,{step / 3},{step}" for step in STEPS[15:18]]
    path = written(tmp_path, "\n".join(["step,fid,loss,time", *rows, "step,fid,loss,time", *again]))
    found = stability_of_file(path, "fid")
    assert found == judge([*STEPS, *STEPS[15:18]], [*values, 10.1, 10.1, 10.1]).as_dict()
    assert (found["verdict"], found["n"]) == ("STABLE", 18)


# ---- what NaN means


def sparse(values: list[float], every: int, tail: int = 0) -> str:
    """An evaluation in every so many rows, and NaN in the others."""
    cells = [cell for value in values for cell in (*["NaN"] * (every - 1), str(value))] + ["nan"] * tail
    return "step,fid\n" + "".join(f"{place},{cell}\n" for place, cell in enumerate(cells, 1))


@pytest.mark.parametrize("tail", [0, 3])
def test_nan_between_regular_evaluations_was_not_evaluated(tmp_path: Path, tail: int) -> None:
    path = written(tmp_path, sparse(SOUND, 5, tail))
    found = stability_of_file(path, "fid")
    assert found["verdict"] == "STABLE" and found["n"] == len(SOUND) and "no value" not in found["reason"]
    assert any(
        "is taken for not evaluated, for every 5th row has a value" in each["what"] for each in found["evidence"]
    )
    assert stability_of_file(path, "fid", nan="diverged")["verdict"] == "DIVERGED"


def test_nan_where_an_evaluation_was_due_diverged(tmp_path: Path) -> None:
    found = stability_of_file(written(tmp_path, sparse(SOUND, 5, tail=6)), "fid")
    assert found["verdict"] == "DIVERGED" and found["alarm_step"] == 5 * len(SOUND) + 5
    assert stability_of_file(written(tmp_path, sparse(SOUND, 5, tail=6)), "fid", nan="missing")["verdict"] == "STABLE"
    dense = sparse(SOUND, 1).replace("30.0", "nan")
    assert stability_of_file(written(tmp_path, dense), "fid")["verdict"] == "DIVERGED"
    irregular = "step,fid\n" + "".join(
        f"{place},{10 if place in (1, 2, 9, 14, 30) else 'nan'}\n" for place in range(40)
    )
    assert stability_of_file(written(tmp_path, irregular), "fid")["verdict"] == "DIVERGED"


# ---- JSON within JSON


def test_values_within_objects(tmp_path: Path) -> None:
    lines = [
        json.dumps({"results": {"fid50k_full": value}, "metric": "fid50k_full", "snapshot_pkl": f"net-{step:06d}.pkl"})
        for step, value in zip(STEPS, LOST, strict=True)
    ]
    path = written(tmp_path, "\n".join(lines), "metric-fid50k_full.jsonl")
    assert stability_of_file(path, "results.fid50k_full", "snapshot_pkl") == judge(STEPS, LOST).as_dict()
    with pytest.raises(UsageError, match=r"unknown column 'results.fid'; did you mean results.fid50k_full"):
        stability_of_file(path, "results.fid", "snapshot_pkl")
