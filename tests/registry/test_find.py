"""Which sweep or run a name means."""

from pathlib import Path

import pytest
from registries import Lab, url_in

from aigc_lab.errors import UsageError
from aigc_lab.registry.comparison import compare_trials
from aigc_lab.registry.find import find_run, find_sweep
from aigc_lab.registry.runs import list_runs
from aigc_lab.registry.store import Registry


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(Registry.open(url_in(tmp_path)))


def test_a_name_means_its_newest_sweep(lab: Lab) -> None:
    lab.registry.sweep("digits", "1" * 8, {}, "fd", "lower")
    newest = lab.registry.sweep("digits", "0" * 8, {}, "fd", "lower")
    assert find_sweep(lab.registry, "digits") == newest
    assert find_sweep(lab.registry, "digits-11111111") == "digits-11111111"
    with pytest.raises(UsageError, match=r"unknown sweep 'digit'; did you mean digits\?"):
        find_sweep(lab.registry, "digit")


def test_an_empty_registry_says_so(lab: Lab) -> None:
    assert list_runs(lab.registry) == compare_trials(lab.registry).rows == []
    with pytest.raises(UsageError, match="the registry is empty, run a sweep first"):
        find_sweep(lab.registry, "digits")


def test_a_run_is_found_by_id_or_by_the_name_of_its_sweep(lab: Lab) -> None:
    run = lab.run(lab.sweep("my.sweep"), 3, 1, 1.0)
    assert find_run(lab.registry, run) == run
    assert find_run(lab.registry, "my.sweep.3.1") == run
    with pytest.raises(UsageError, match=f"unknown run 'my.sweep.3.2'; did you mean {run}"):
        find_run(lab.registry, "my.sweep.3.2")
    with pytest.raises(UsageError, match="unknown sweep 'other'"):
        find_run(lab.registry, "other.3.1")
