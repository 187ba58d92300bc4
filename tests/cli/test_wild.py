"""Wild values wherever a value may stand: they are taken, or refused in one line, in seconds and little memory."""

import contextlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import wild
from hypothesis import given, settings
from hypothesis import strategies as st

from aigc_lab.errors import UsageError
from aigc_lab.experiment import experiment
from aigc_lab.experiment.checks import check_experiment


def tried(cases: list[wild.Case], folder: Path) -> list[str]:
    """What is wrong; how the cases ended is printed."""
    ends = list(wild.run(cases, folder))
    print(len(ends), "cases:", dict(Counter(end.code for end in ends)))
    return [str(end.fault) for end in ends if end.fault is not None]


def test_some_keys_and_some_options(tmp_path: Path) -> None:
    cases = wild.files() + wild.sample(wild.keys(1), 50, seed=0) + wild.sample(wild.options(), 60, seed=0)
    assert tried(cases, tmp_path) == []


@pytest.mark.slow
def test_many_keys(tmp_path: Path) -> None:
    assert tried(wild.keys(2, seed=1), tmp_path) == []


@pytest.mark.slow
def test_every_option(tmp_path: Path) -> None:
    assert tried(wild.options(), tmp_path) == []


def test_every_command_is_tried() -> None:
    """A command, an option or an argument that is new is tried from the day that it is there."""
    about = {case.about for case in wild.options()}
    assert len(about) > 100
    assert {"sweep --set", "ui --port", "judge stability --baseline", "cache clear --home", "init folder"} <= about
    keys = {case.about for case in wild.keys(1)}
    assert {"digits: training.steps", "metric kid: features", "ring: system.hidden"} <= keys


RING: dict[str, Any] = {
    "name": "mine",
    "data": {"name": "ring", "points": 2000, "sigma": 0.01},
    "system": {"name": "point_gan", "hidden": 16, "lr": 1e-3},
    "training": {"steps": 20, "batch_size": 32, "log_every": 10, "evaluate_every": 20},
    "evaluation": {"name": "points", "samples": 400},
    "objective": {"minimize": "rkl"},
    "search": {"trials": 2, "sampler": "random"},
}
PATHS = [(section, key) for section, keys in RING.items() if isinstance(keys, dict) for key in keys]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**90), 10**90)
    | st.sampled_from([0, -1, 2**31, 2**32, 2**63 - 1, 2**63, 10**11])
    | st.floats()
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["choice", "log", "int", "uniform", "name", "x", ""]), inner, max_size=2)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(path=st.sampled_from(PATHS), value=VALUES)
def test_any_value_is_taken_or_refused(path: tuple[str, str], value: Any) -> None:
    """Whatever else is raised is a traceback."""
    section, key = path
    content = RING | {section: RING[section] | {key: value}}
    with contextlib.suppress(UsageError):
        check_experiment(experiment.load_experiment(content, data_dir=Path()))
