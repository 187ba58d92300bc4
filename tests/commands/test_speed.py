"""`aigc-lab doctor --speed`: keys that are measured to be faster are named, with the ratio; others are not."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from aigc_lab import cli
from aigc_lab.benchmarks import bound
from aigc_lab.benchmarks.shared.usual_gans import Way
from aigc_lab.commands import speed
from aigc_lab.experiment.experiment import load_experiment

LAST = "training.channels_last=true"
HALF = f"training.precision=bf16 {LAST}"
MEDIUM = "training.matmul_precision=medium"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, float]], None]:
    """A machine whose steps take so many seconds of the processor, by the keys that are set; 1 unless given."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def made(seconds: dict[str, float]) -> None:
        spent = 0.0

        def arithmetic(network: str, device: str, way: Way, steps: int) -> Callable[[], None]:
            def segment() -> None:
                nonlocal spent
                assert torch.get_num_threads() == 1
                spent += steps * seconds.get(" ".join(way.changes), 1.0)

            return segment

        monkeypatch.setattr(bound, "arithmetic", arithmetic)
        monkeypatch.setattr(time, "process_time", lambda: spent)

    return made


def told() -> list[tuple[str, str]]:
    return [(check.found, check.remedy) for check in speed.proposals()]


def test_what_is_faster_is_proposed_with_its_ratio(machine: Callable[[dict[str, float]], None]) -> None:
    machine({MEDIUM: 0.5, "training.precision=bf16": 0.8, LAST: 0.8, HALF: 0.25})
    torch.set_num_threads(2)
    try:
        (connected, set_connected), (convolutions, set_convolutions) = told()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert connected.startswith("fully connected networks") and f"{MEDIUM} 2.00" in connected
    assert "training.precision=bf16 1.25" in connected
    assert set_connected.startswith(f"--set {MEDIUM} trains 2.0 times as fast")
    assert f"{LAST} 1.25; {HALF} 4.00" in convolutions
    assert set_convolutions.startswith(f"--set training.precision=bf16 --set {LAST} trains 4.0 times as fast")
    assert all("aigc-lab compare" in each for each in (set_connected, set_convolutions))


def test_what_is_hardly_faster_is_not_proposed(machine: Callable[[dict[str, float]], None]) -> None:
    """Nor a second key that gains little beside the first."""
    machine({MEDIUM: 0.95, "training.precision=bf16": 1.5, LAST: 0.5, HALF: 0.49})
    (connected, nothing), (_, one_key) = told()
    assert connected.endswith("none is worth its rounding here") and not nothing
    assert one_key.startswith(f"--set {LAST} trains 2.0 times as fast")


def test_the_keys_are_those_of_an_experiment(tmp_path: Path) -> None:
    for way in (Way("bf16", channels_last=True), Way(matmul="high"), Way()):
        changes = [(*change.split("="), "--set") for change in way.changes]
        training = load_experiment("ring", changes, data_dir=tmp_path).file.training  # type: ignore[arg-type]
        assert Way(training.precision, training.channels_last, training.matmul_precision) == way


def test_a_real_measurement_has_a_ratio_for_each_way() -> None:
    threads, settings = torch.get_num_threads(), torch.get_float32_matmul_precision()
    ratios = speed.measured("mlp", "cpu")
    assert [str(way) for way, _ in ratios] == ["fp32, products at medium", "bf16"]
    assert all(0.1 < ratio < 100 for _, ratio in ratios)
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (threads, settings)


def test_only_with_its_option(
    machine: Callable[[dict[str, float]], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine({MEDIUM: 0.5})
    for words, count in (([], 0), (["--speed"], 2)):
        monkeypatch.setattr(sys, "argv", ["aigc-lab", "doctor", "--json", "--home", str(tmp_path / "home"), *words])
        with pytest.raises(SystemExit):
            cli.main()
        checks = json.loads(capsys.readouterr().out)
        assert [check["name"] for check in checks].count("speed") == count
