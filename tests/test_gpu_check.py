"""The script behind `tests/gpu.sh`: what it keeps of an interrupted report, and what it says is missing."""

import json
import signal
import time
import tomllib
from importlib import metadata
from pathlib import Path

import gpu_check
import pytest
import torch
from gpu_check import Check, Found


def check_of(report: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    check = Check("cpu", 60.0, report)
    machine = check.machine()
    check.found = gpu_check.earlier(report, machine) | {"machine": machine}
    return check


def test_an_interrupted_report_goes_on_where_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, done = tmp_path / "gpu.json", list[str]()

    def piece(name: str) -> Found:
        done.append(name)
        if len(done) == 3:
            raise KeyboardInterrupt
        return {"error": "no room"} if len(done) == 2 else {"steps per second": 1.0}

    def systems() -> Found:
        return check._each("systems", "abc", piece)

    check = check_of(report, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        check.do(systems)
    assert set(json.loads(report.read_text())["systems"]) == {"a", "b", "took"}
    check = check_of(report, monkeypatch)
    check.do(systems)
    check.do(systems)
    assert done == ["a", "b", "c", "b", "c"]  # what failed is tried again, and what is whole is not
    assert all(gpu_check.whole(each) for each in check.found["systems"].values() if isinstance(each, dict))


def test_a_piece_that_takes_too_long_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = check_of(tmp_path / "gpu.json", monkeypatch)
    check._until = time.monotonic() + 0.2
    before = signal.getsignal(signal.SIGALRM)

    def slow(name: str) -> Found:
        time.sleep(30)
        return {}

    found = check._each("systems", ["slow"], slow)
    assert found["slow"]["error"] == "TimeoutError: cut off, for the time is up"
    assert signal.getsignal(signal.SIGALRM) is before


@pytest.mark.parametrize("key", ["torch", "asked", "commit"])
def test_a_report_of_something_else_is_left_alone(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = tmp_path / "gpu.json"
    check = check_of(report, monkeypatch)
    check.found["systems"] = {"a": {"finite": True}}
    check.save()
    assert "systems" in gpu_check.earlier(report, check.machine() | {"load": 99.0})
    assert gpu_check.earlier(report, check.machine() | {key: "other"}) == {}
    report.write_text("{")
    assert gpu_check.earlier(report, check.machine()) == {}


def test_what_is_not_installed_is_named_and_torch_may_be_of_any_age() -> None:
    def nothing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["dependencies"]
    missing = gpu_check.lacking(nothing)
    assert {each for each in project if not each.startswith(("torch>", "torchvision>"))} <= set(missing)
    assert not [each for each in missing if each.startswith(("torch>", "torchvision>"))]
    assert [each for each in missing if each.startswith("pytest>")]
    assert gpu_check.lacking(lambda name: "1.0") == []
