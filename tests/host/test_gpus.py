"""Which GPU a process sees, under the variable of a scheduler and without. No GPU is asked."""

import pytest

from aigc_lab.errors import UsageError
from aigc_lab.host import environment, gpus


@pytest.mark.parametrize(
    ("visible", "device", "outside"),
    [
        (None, "cuda:0", "0"),
        (None, "cuda:3", "3"),
        ("", "cuda", "0"),
        ("2,5", "cuda:0", "2"),
        ("2,5", "cuda:1", "5"),
        ("GPU-8a1b, MIG-77", "cuda:1", "MIG-77"),
        ("7", "cuda", "7"),
    ],
)
def test_a_worker_sees_the_gpu_of_its_place_as_its_only_one(
    visible: str | None, device: str, outside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(gpus.VARIABLE, raising=False)
    if visible is not None:
        monkeypatch.setenv(gpus.VARIABLE, visible)
    assert gpus.alone(device) == ({"CUDA_VISIBLE_DEVICES": outside}, "cuda:0")
    # In the worker, where the variable shows it alone, it is still told which it is.
    monkeypatch.setenv(gpus.VARIABLE, outside)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda name: "a model")
    facts = environment.describe("cuda:0")
    assert (facts["device"], facts["gpu"]) == ("a model", outside)


def test_nothing_changes_for_a_cpu() -> None:
    assert gpus.alone("cpu") == ({}, "cpu")
    assert "gpu" not in environment.describe("cpu")


def test_a_device_that_is_not_shown_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpus.VARIABLE, "4,6")
    with pytest.raises(UsageError, match="cuda:2: CUDA_VISIBLE_DEVICES=4,6 shows 2 GPUs; name one of these"):
        gpus.alone("cuda:2")
