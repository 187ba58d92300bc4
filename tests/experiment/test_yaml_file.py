"""YAML 1.2 scalars, where every key stands, and what a broken file is told."""

import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aigc_lab.errors import UsageError
from aigc_lab.experiment.yaml_file import Document, dotted, parse, read_yaml, unknown_key


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "file.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(folder: Path, text: str | bytes) -> str:
    with pytest.raises(UsageError) as caught:
        read_yaml(write(folder, text))
    message = str(caught.value)
    assert message.startswith(str(folder / "file.yaml"))
    assert "\n" not in message
    return message.removeprefix(f"{folder / 'file.yaml'}:")


# ---- scalars


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.5E+3", 1500.0),
        ("-2e3", -2000.0),
        (".5", 0.5),
        ("-.5", -0.5),
        ("3.", 3.0),
        ("0.0", 0.0),
        ("7", 7),
        ("-7", -7),
        ("+7", 7),
        ("010", 10),
        ("0o10", 8),
        ("0xff", 255),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2001-12-14", "2001-12-14"),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("'1e-4'", "1e-4"),
        ('"12"', "12"),
        ("'true'", "true"),
        ("''", ""),
        ("'null'", "null"),
        ("1e", "1e"),
        ("e5", "e5"),
        (".", "."),
        ("1.2.3", "1.2.3"),
        ("-", [None]),
    ],
)
def test_scalars_of_the_core_schema(text: str, value: Any) -> None:
    found = parse(text, "here")
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_one() -> None:
    assert math.isnan(parse(".nan", "here"))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_float_survives(number: float) -> None:
    for text in (repr(number), f"{number:e}", f"{number:.17E}"):
        found = parse(f"key: {text}", "here")["key"]
        assert type(found) is float
        assert found == float(text)


@given(st.integers(-(10**30), 10**30))
def test_every_integer_survives(number: int) -> None:
    found = parse(str(number), "here")
    assert type(found) is int
    assert found == number


# ---- places

TEXT = """\
# a comment
data: {name: ring}

system:
  choice:
    - name: dcgan
      lr: {log: [1e-4,
                 1e-3]}
    - name: vae
training:
  steps: 5
"""

LINES = {
    (): 2,
    ("data",): 2,
    ("data", "name"): 2,
    ("system",): 4,
    ("system", "choice"): 5,
    ("system", "choice", 0): 6,
    ("system", "choice", 0, "name"): 6,
    ("system", "choice", 0, "lr"): 7,
    ("system", "choice", 0, "lr", "log"): 7,
    ("system", "choice", 0, "lr", "log", 0): 7,
    ("system", "choice", 0, "lr", "log", 1): 8,
    ("system", "choice", 1): 9,
    ("system", "choice", 1, "name"): 9,
    ("training",): 10,
    ("training", "steps"): 11,
}


def test_every_path_has_its_line(tmp_path: Path) -> None:
    assert read_yaml(write(tmp_path, TEXT)).lines == LINES


def test_a_place_is_the_nearest_that_is_known(tmp_path: Path) -> None:
    document = read_yaml(write(tmp_path, TEXT))
    file = tmp_path / "file.yaml"
    assert document.where(("training", "steps")) == f"{file}:11"
    assert document.where(("training", "missing", "deeper")) == f"{file}:10"
    document.overridden["training",] = "--set training=5"
    assert document.where(("training", "missing")) == "--set training=5"
    assert document.where(("system",)) == f"{file}:4"
    assert Document("bare.yaml", {}).where(("a",)) == "bare.yaml"


def test_a_path_is_written_with_dots_and_brackets() -> None:
    assert dotted(("system", "choice", 0, "lr")) == "system.choice[0].lr"
    assert dotted(()) == ""


def test_near_keys_are_suggested() -> None:
    assert "did you mean steps?" in unknown_key("step", ["steps", "batch_size"])
    assert "known are steps, batch_size" in unknown_key("zzzz", ["steps", "batch_size"])


# ---- broken files


def test_a_key_stands_once(tmp_path: Path) -> None:
    message = refusal(tmp_path, "a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n")
    assert message == "5: b.c: this key stands here twice; keep one"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: [1, 2\nb: 3\n", "2:2"),
        ("a: 1\n  b: 2\n", "2:4"),
        ("a: 'open\n", "2:1"),
        ("a: {b: 1}}\n", "1:10"),
        ("a:\n\t- 1\n", "2:1"),
        ("a: *nowhere\n", "1:4"),
        ("a: 1\n---\nb: 2\n", "2:1"),
    ],
)
def test_a_syntax_error_has_line_and_column(tmp_path: Path, text: str, place: str) -> None:
    assert refusal(tmp_path, text).startswith(f"{place}: YAML syntax: ")


@pytest.mark.parametrize(
    ("text", "kind"),
    [("- 1\n", "list"), ("7\n", "int"), ("words\n", "str"), ("", "NoneType"), ("# only\n", "NoneType")],
)
def test_a_file_holds_keys_and_values(tmp_path: Path, text: str, kind: str) -> None:
    assert refusal(tmp_path, text).endswith(f"holds {kind}")


def test_a_control_character_is_no_yaml(tmp_path: Path) -> None:
    assert "YAML syntax" in refusal(tmp_path, "a: \x00\n")


def test_only_utf8_is_read(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path, "a: é".encode("latin-1"))
    assert read_yaml(write(tmp_path, "a: é")).data == {"a": "é"}


def test_what_is_no_file_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.yaml"):
        with pytest.raises(UsageError, match="cannot be read"):
            read_yaml(path)


@pytest.mark.parametrize("text", ["a: &x [*x]\n", "a: " + "[" * 3000 + "]" * 3000])
def test_what_nests_without_end_is_refused(tmp_path: Path, text: str) -> None:
    assert "nested too deeply" in refusal(tmp_path, text)


def test_an_alias_is_a_copy(tmp_path: Path) -> None:
    data = read_yaml(write(tmp_path, "a: &x {k: 1}\nb: *x\n")).data
    assert data == {"a": {"k": 1}, "b": {"k": 1}}
    assert data["a"] is not data["b"]


def test_a_key_is_a_word(tmp_path: Path) -> None:
    assert "a key must be a plain word" in refusal(tmp_path, "? [a, b]\n: 1\n")


# ---- files that were made to fill memory, or are no files


def test_aliases_of_aliases_are_counted(tmp_path: Path) -> None:
    """500 bytes that stand for 9¹⁰ values."""
    lines = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else '0'] * 9)}]" for i in range(10)]
    assert refusal(tmp_path, "\n".join(lines)) == "5: a4: more than 10,000 values, counting what aliases (*) stand for"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: " + "9" * 5000, "1: a: a number of 5,000 digits; 100 are read at most"),
        ("a: [0x" + "f" * 5000 + "]", "1: a[0]: a number of 5,002 digits; 100 are read at most"),
        ("a: " + "[" * 101 + "]" * 101, "1: nested too deeply: more than 100 levels"),
        ("a: !!python/object/apply:os.system [x]", "1: a: the tag tag:yaml.org,2002:python/object/apply:os.system is"),
        ("a: !mine 5", "1: a: the tag !mine is not read here; write the value without it"),
        ("a: {<<: {b: 1}}", "1: a: merge keys (<<) are not read here; write the keys out"),
        ('a: "\\ud800"', "1: a: half of a surrogate pair is no character"),
        ('a: "\\U00110000"', " YAML syntax: "),
        ("a: " + "x" * 1_000_001, " more than 1,000,000 bytes, too many for a file of keys and values"),
    ],
)
def test_what_no_person_writes_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert refusal(tmp_path, text).startswith(said)


def test_a_byte_order_mark_is_none_of_the_text(tmp_path: Path) -> None:
    assert read_yaml(write(tmp_path, "\ufeffa: 1")).data == {"a": 1}
    assert "save it as UTF-8" in refusal(tmp_path, "a: 1".encode("utf-16"))


def test_tags_of_what_a_value_is_anyway(tmp_path: Path) -> None:
    assert read_yaml(write(tmp_path, "!!map {a: !!int 5, b: !!seq [!!str x, 2020-01-01, =]}")).data["a"] == 5


def test_a_pipe_and_a_device_are_no_files(tmp_path: Path) -> None:
    """Nobody writes to the pipe, and the device never ends."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path / ("n" * 300)):
        with pytest.raises(UsageError, match="cannot be read"):
            read_yaml(path)
