"""The language of --where: whole expressions against Python's own evaluation, and what is refused, with its place."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aigc_lab.errors import UsageError
from aigc_lab.registry.conditions import Column, column_name, names, parse, predicate

Row = Mapping[str, Any]


def column(name: str) -> Column[Row]:
    """Of rows that are mappings: a list has several values."""

    def values(row: Row) -> Sequence[Any]:
        value = row.get(name, [])
        return value if isinstance(value, list) else [value]

    return Column(values, upper=name == "state", decides=name in ("flag", "lr"))


def holds(text: str, **row: Any) -> bool:
    return predicate(parse(text), column)(row)


# ---- against Python

ROWS = st.fixed_dictionaries(
    {},
    optional={
        "lr": st.one_of(st.sampled_from([0.0, 1e-3, -2.5]), st.floats(-1e3, 1e3), st.integers(-3, 3)),
        "loss": st.sampled_from(["hinge", "wgan-gp", "and", "true", "1e-3", "it's", 'say "a"', ""]),
        "flag": st.booleans(),
        "verdicts": st.lists(st.sampled_from(["NONE", "PARTIAL", "TOTAL"]), max_size=3),
    },
)
NUMBERS = st.one_of(st.floats(-1e3, 1e3), st.integers(-3, 3), st.sampled_from([1e-3, 0.0, -2.5]))


def quoted(text: str) -> str:
    return f'"{text}"' if "'" in text else f"'{text}'"


@st.composite
def comparisons(draw: st.DrawFn) -> tuple[str, str]:
    """A comparison in the language, and the same in Python."""
    name = draw(st.sampled_from(["lr", "loss", "flag", "verdicts"]))
    if name == "flag":
        text, python = draw(
            st.sampled_from([("flag", "row['flag'] is True"), ("flag = false", "row['flag'] is False")])
        )
        return text, f"('flag' in row and {python})"
    if name == "lr":
        value: Any = draw(NUMBERS)
        written, signs = repr(value), ["=", "==", "!=", "<", "<=", ">", ">="]
    else:
        value = draw(st.sampled_from(["hinge", "wgan-gp", "NONE", "TOTAL", "it's", "true"]))
        bare = value not in ("it's", "true") and draw(st.booleans())
        written, signs = value if bare else quoted(value), ["=", "!=", "in", "not in"]
    sign = draw(st.sampled_from(signs))
    present, of = f"row.get({name!r}, []) != []", f"[row[{name!r}]]" if name != "verdicts" else "row['verdicts']"
    if sign in ("in", "not in"):
        outcome = f"any(each in [{value!r}, 'PARTIAL'] for each in {of})"
        text = f"{name} {sign} ({written}, PARTIAL)"
    else:
        python = "==" if sign in ("=", "!=") else sign
        outcome, text = f"any(each {python} {value!r} for each in {of})", f"{name} {sign} {written}"
    return text, f"({present} and {'not ' if sign in ('!=', 'not in') else ''}{outcome})"


EXPRESSIONS = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
            lambda three: (f"{three[0][0]} {three[1]} {three[2][0]}", f"{three[0][1]} {three[1]} {three[2][1]}")
        ),
        inner.map(lambda one: (f"not ({one[0]})", f"(not ({one[1]}))")),
        inner.map(lambda one: (f"({one[0]})", f"({one[1]})")),
    ),
    max_leaves=8,
)


@given(EXPRESSIONS, ROWS)
def test_an_expression_means_what_python_makes_of_it(expression: tuple[str, str], row: Row) -> None:
    text, python = expression
    assert predicate(parse(text), column)(row) == eval(python, {"row": row}), python


@pytest.mark.parametrize(
    ("text", "row", "expected"),
    [
        ("lr < 1e-3 and system = 'dcgan'", {"lr": 2e-4, "system": "dcgan"}, True),
        ("lr<1e-3 AND system=dcgan", {"lr": 2e-4, "system": "dcgan"}, True),
        ("lr < 1E-3 or system = vae and lr > 1", {"lr": 2e-4, "system": "dcgan"}, True),  # and binds more tightly
        ("(lr < 1e-3 or system = vae) and lr > 1", {"lr": 2e-4, "system": "dcgan"}, False),
        ("not lr < 1e-3 and system = vae", {"lr": 2e-4, "system": "dcgan"}, False),  # and not more than its comparison
        ("not not flag", {"flag": True}, True),
        ("lr = -.5", {"lr": -0.5}, True),
        ("lr = +5.", {"lr": 5}, True),
        ("lr>=-3", {"lr": -3}, True),
        ("loss = null", {"loss": None}, True),
        ("loss = null", {}, False),
        ("lr = 1", {"lr": True}, False),  # a truth value is no number
        ("lr = true", {"lr": 1}, False),
        ("lr = 1e-3", {"lr": "1e-3"}, False),
        ("lr = '1e-3'", {"lr": "1e-3"}, True),
        ("lr < abc", {"lr": 1}, False),
        ("lr != abc", {"lr": 1}, True),
        ("lr != 3", {}, False),
        ("not lr = 3", {}, True),
        ("state in (finished, Running)", {"state": "FINISHED"}, True),
        ("state != finished", {"state": "FINISHED"}, False),
        ("loss in ('hinge')", {"loss": "Hinge"}, False),
        ("'lr' < 1", {"lr": 0.5}, True),
        ("lr < 99999999999999999999999", {"lr": 2**60}, True),
        ("loss = wgan-gp/2.0", {"loss": "wgan-gp/2.0"}, True),
    ],
)
def test_what_an_expression_says(text: str, row: dict[str, Any], expected: bool) -> None:
    assert holds(text, **row) is expected


def test_the_columns_of_a_condition() -> None:
    assert names(parse("a.lr < 1 and not (b = 2 or a.lr > 3 and c)")) == ["a.lr", "b", "c"]


# ---- refusals


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the condition is empty"),
        ("  ", "the condition is empty"),
        ("lr <", "--where lr <: at its end: a value is expected"),
        ("lr < and x = 1", "at character 6, 'and': a value is expected"),
        ("lr < 1 x = 2", "at character 8, 'x': 'and' or 'or' is expected"),
        ("1e-4 < lr", "at character 1, '1e-4': begin with the column"),
        ("lr > 1 < 3", "at character 8, '<': write two comparisons and 'and' between them"),
        ("(lr < 1", "at its end: ')' is expected"),
        ("lr < 1)", "at character 7, ')': 'and' or 'or' is expected"),
        ("lr in 1", "at character 7, '1': '(' is expected"),
        ("lr in (1 2)", "at character 10, '2': ')' is expected"),
        ("lr not 3", "at character 8, '3': 'in' is expected"),
        ("loss = 'hinge", "at character 8, ''': this quote is not closed"),
        ("lr ! 3", "at character 4, '!': this means nothing here"),
        ("and", "at character 1, 'and': a column is expected"),
        ("= 3", "at character 1, '=': a column is expected"),
        ("(" * 60 + "lr = 1" + ")" * 60, "no more than 50 parentheses in one another"),
        ("loss", "'loss' alone is no condition; compare it, as in loss = …"),
    ],
)
def test_what_is_no_condition_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        predicate(parse(text), column)
    assert said in str(refused.value) and "\n" not in str(refused.value)


@given(st.text(alphabet="lr<>=!()'\", and1.e-\n\t", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(UsageError):
        parse(text)


def test_a_long_condition_needs_no_stack() -> None:
    assert holds(" and ".join(["lr < 1"] * 3000), lr=0.5)
    assert holds("not " * 3000 + "lr < 1", lr=0.5)


def test_a_column_is_named_by_its_last_part_or_in_full() -> None:
    columns = ["system", "critic.lr", "generator.lr", "training.batch_size"]
    assert column_name("batch_size", columns) == "training.batch_size"
    assert column_name("critic.lr", columns) == "critic.lr"
    with pytest.raises(UsageError, match=r"--where: 'lr' may be critic.lr or generator.lr; write the whole name"):
        column_name("lr", columns)
    with pytest.raises(UsageError, match="--by: unknown column 'sytem'; did you mean system?"):
        column_name("sytem", columns, "--by")
