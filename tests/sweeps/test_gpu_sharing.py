"""`--trials-per-gpu auto`: what is measured, divided and said. There is no GPU here: its memory is made up."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from aigc_lab.errors import UsageError
from aigc_lab.executors.base import Place
from aigc_lab.experiment.experiment import Experiment, load_experiment
from aigc_lab.host import capacity, confined, environment, gpus
from aigc_lab.sweeps import gpu_sharing, needs, places
from aigc_lab.sweeps.execution import Asked, choose
from aigc_lab.sweeps.gpu_sharing import share_gpus
from aigc_lab.training.captured import SETTLED

GB = 10**9


def made(system: Any = None, trials: int = 1000, **sections: Any) -> Experiment:
    whole = {
        "name": "mine",
        "data": {"name": "ring", "points": 2000},
        "system": system or {"name": "point_gan", "hidden": {"int": [16, 64]}},
        "training": {"steps": 20, "batch_size": {"choice": [32, 128]}, "log_every": 10, "evaluate_every": 20},
        "evaluation": {"name": "points", "samples": 400},
        "objective": {"minimize": "rkl"},
        "search": {"trials": trials},
        **sections,
    }
    return load_experiment(whole, data_dir=Path())


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """GPUs with so many free GB, of which a run takes some; and a host."""

    def of(*free: float, taken: float, cores: int = 64, host: int = 1000) -> list[Place]:
        memory = {f"cuda:{index}": round(each * GB) for index, each in enumerate(free)}
        monkeypatch.setattr(capacity, "free_memory", memory.__getitem__)
        monkeypatch.setattr(environment, "cores", lambda: cores)
        monkeypatch.setattr(needs, "most_at_once", lambda experiment: host)
        answer = [{"taken": round(taken * GB), "of": "point_gan, batch 128"}]
        monkeypatch.setattr(confined, "call", lambda *_, **__: iter(answer))
        return [Place(device, 1) for device in memory]

    return of


# Four fifths of what is free are given away.
@pytest.mark.parametrize(
    ("free", "taken", "cores", "host", "trials", "on_each", "because"),
    [
        ((80,), 3, 64, 1000, 1000, [21], ""),
        ((80,), 65, 64, 1000, 1000, [1], ""),
        ((80,), 900, 64, 1000, 1000, [1], ""),
        ((80, 40), 8, 64, 1000, 1000, [8, 4], ""),
        ((80,), 3, 16, 1000, 1000, [16], "16 cores"),
        ((80,), 3, 64, 5, 1000, [5], "the host's memory"),
        ((80, 80), 3, 64, 1000, 7, [4, 3], "7 runs in all"),
        ((80, 80), 900, 1, 1000, 1000, [1, 1], ""),
    ],
)
def test_as_many_as_fit(
    machine: Any,
    free: tuple[float, ...],
    taken: float,
    cores: int,
    host: int,
    trials: int,
    on_each: list[int],
    because: str,
) -> None:
    one_each = machine(*free, taken=taken, cores=cores, host=host)
    chosen, line = share_gpus(made(), one_each, trials)
    devices = [place.device for place in chosen]
    assert [devices.count(place.device) for place in one_each] == on_each
    assert all(place.threads == max(1, cores // len(chosen)) for place in chosen)
    assert line.endswith(f"; {sum(on_each)} in all, because of {because}" if because else " free)")


def test_the_numbers_are_said(machine: Any) -> None:
    _, line = share_gpus(made(), machine(80, 40.5, taken=3.21), 1000)
    assert line == (
        "--trials-per-gpu auto: a run takes 3.2 GB at most (point_gan, batch 128, measured): "
        "19 on cuda:0 (80.0 GB free), 10 on cuda:1 (40.5 GB free)"
    )


# ---- the measurement, in this process


class Memory:
    """The memory of a GPU, of which each training takes some and the peak stays until it is forgotten."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, sizes: dict[int, int], total: int = 50 * GB) -> None:
        self.sizes, self.total, self.context = sizes, total, GB // 2
        self.held = self.peak = 0
        self.trained: list[int] = []
        monkeypatch.setattr(gpu_sharing, "train_first_steps", self.train)
        monkeypatch.setattr(gpus, "free", lambda device: self.total - self.context - self.held)
        monkeypatch.setattr(gpus, "released", lambda device: self.peak - self.held)
        monkeypatch.setattr(gpus, "forget", self.forget)

    def train(self, plan: Any, device: str, steps: int) -> Any:
        assert steps >= SETTLED, "what CUDA graphs hold is measured too"
        batch = plan.training.batch_size * getattr(plan.system_config, "hidden", 1)
        self.trained.append(batch)
        self.peak = self.sizes[batch]
        self.held = self.peak // 4  # the rest was given back on the way
        if self.peak > self.total:
            raise torch.OutOfMemoryError("CUDA out of memory.")

        return SimpleNamespace(average=SimpleNamespace(generate=lambda *_: None))

    def forget(self, device: str) -> None:
        self.held = self.peak = 0


def measured(experiment: Experiment, before: int = 50 * GB) -> dict[str, Any]:
    sent: list[dict[str, Any]] = []
    gpu_sharing.perform(
        lambda **facts: sent.append(facts),
        experiment.name,
        experiment.path,
        experiment.recipe,
        str(experiment.data_dir),
        (None, False),
        "cuda:0",
        before,
    )
    return sent[-1]


def test_the_peak_of_the_most_demanding_counts_with_what_cuda_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(monkeypatch, {64 * 128: 3 * GB})
    assert measured(made()) == {"taken": 3 * GB + GB // 2, "of": "point_gan, batch 128"}
    assert memory.trained == [64 * 128]


def test_each_system_is_measured_alone_and_the_larger_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    systems = [{"name": "point_gan", "hidden": 16}, {"name": "point_gan", "hidden": 32}, {"name": "maxout_gan"}]
    memory = Memory(monkeypatch, {32 * 128: 3 * GB, 400 * 128: 2 * GB})
    assert measured(made({"choice": systems}))["taken"] == 3 * GB + GB // 2
    # Of the variants of one, the one that takes most.
    assert sorted(memory.trained) == [32 * 128, 400 * 128]


def test_one_that_does_not_fit_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Memory(monkeypatch, {64 * 128: 60 * GB})
    with pytest.raises(UsageError, match=r"^point_gan: a run alone is out of memory on cuda:0; set training"):
        measured(made())


# ---- as it is asked for


def test_auto_is_taken_from_both_and_refused_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    ways: list[tuple[Asked, Any]] = [
        (Asked(trials_per_gpu="auto"), {}),
        (Asked(), {"execution": {"trials_per_gpu": "auto"}}),
    ]
    for asked, sections in ways:
        chosen = choose(made(**sections), asked)
        assert chosen.trials_per_gpu == "auto"
        with pytest.raises(UsageError, match="needs CUDA devices, and there is none here"):
            chosen.places(10)
        with monkeypatch.context() as patch:
            patch.setattr(places, "device_names", lambda option: ["cuda:0", "cuda:1"])
            assert [place.device for place in chosen.places(10)] == ["cuda:0", "cuda:1"]


@pytest.mark.parametrize("value", [0, 1025, True, 2.5, "many"])
def test_what_is_neither_a_number_nor_auto_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match=r"trials_per_gpu: it should be a whole number from 1 to 1024, or auto"):
        choose(made(execution={"trials_per_gpu": value}), Asked())
