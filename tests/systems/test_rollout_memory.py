"""The memory of rollouts: what is stated beforehand is what is held, and what cannot fit is refused."""

import re
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from aigc_lab.data.oracle import OracleText
from aigc_lab.errors import UsageError
from aigc_lab.executors.base import Place
from aigc_lab.experiment import experiment
from aigc_lab.experiment.checks import check_experiment
from aigc_lab.nets.rollouts import RolloutMemory
from aigc_lab.sweeps import needs
from aigc_lab.systems.leakgan import LeakGAN
from aigc_lab.systems.rankgan import RankGAN
from aigc_lab.systems.seqgan import SeqGAN
from aigc_lab.systems.shared.rollout_gan import RolloutGAN

HERE = [Place("cpu", 1)]


class Held(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors made within it that live at the same time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {each.untyped_storage()._cdata for each in tree_leaves((args, kwargs)) if torch.is_tensor(each)}
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if torch.is_tensor(tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._known | given:
                    self._known.add(storage._cdata)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        self.most = max(self.most, self.now)
        return result

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def measured(
    kind: type[RolloutGAN], folder: Path, words: int, length: int, batch: int, **options: Any
) -> tuple[int, int]:
    """Bytes that the rollouts of a step are said to hold, and that they do."""
    data = OracleText(OracleText.Config(words=words, length=length, train=200, scored=100), folder)
    torch.manual_seed(0)
    system = kind(kind.Config(**options), data.shape)
    real, noise = data.load("train").values[:batch], system.phases(batch)[-1].noise
    with torch.no_grad(), Held() as held:
        system.rewards(real, real, torch.rand(noise["rollouts"].size))
    said = system.rollout_memory(batch)
    assert said is not None
    return said.of(said.at_once), held.most


@pytest.mark.parametrize(
    ("words", "length", "batch", "options"),
    [
        (300, 20, 16, {}),
        (50, 30, 8, {"rollouts_at_once": 2}),
        (20, 20, 16, {"decoder": "transformer", "layers": 2}),
        (20, 20, 16, {"critic": "gru"}),
        (20, 12, 16, {"filters": 0.03, "hidden": 128}),
        (2000, 8, 32, {"filters": 0.03}),
    ],
)
def test_rollouts_hold_what_was_said(
    words: int, length: int, batch: int, options: dict[str, Any], tmp_path: Path
) -> None:
    said, held = measured(SeqGAN, tmp_path, words, length, batch, rollouts=6, **options)
    assert held <= said <= 2 * held


def test_rankgan_holds_what_was_said(tmp_path: Path) -> None:
    said, held = measured(RankGAN, tmp_path, 20, 12, 16, rollouts=6)
    assert held <= said <= 2 * held


@pytest.mark.parametrize(
    ("words", "length", "options"),
    [(300, 20, {}), (20, 12, {"filters": 0.03, "hidden": 64}), (2000, 8, {"filters": 0.03}), (20, 9, {"windows": [1]})],
)
def test_leakgan_holds_what_was_said(words: int, length: int, options: dict[str, Any], tmp_path: Path) -> None:
    said, held = measured(LeakGAN, tmp_path, words, length, 8, rollouts=3, interleave=None, **options)
    assert held <= said <= 2 * held


def test_what_fits_at_once_is_the_most_that_does() -> None:
    memory = RolloutMemory(19, 64, 16, 16, noise=1000, words=10, drawing=(5000, 100), judging=(200, 300))
    assert [memory.of(1), memory.of(16), memory.of(20), memory.of(30)] == [6110, 7760, 8200, 10500]
    for free in range(900, 12_000, 37):
        most = memory.most(free)
        assert most == 0 or memory.of(most) <= free
        assert memory.of(most + 1) > free


def test_a_constant_reward_holds_nothing(tmp_path: Path) -> None:
    data = OracleText(OracleText.Config(words=20, length=6, train=200, scored=100), tmp_path)
    assert SeqGAN(SeqGAN.Config(reward="constant"), data.shape).rollout_memory(64) is None


def test_a_gpu_holds_the_logits_of_more_rows(tmp_path: Path) -> None:
    data = OracleText(OracleText.Config(words=5000, length=20, train=200, scored=100), tmp_path)
    system = SeqGAN(SeqGAN.Config(filters=0.03), data.shape)
    here, there = (system.rollout_memory(64, device) for device in ("cpu", "cuda:1"))
    assert here is not None and there is not None
    assert here.drawing[0] == 8 * 209 * 5000, "2²⁰ logits, and their probabilities"
    assert there.drawing[0] == 8 * 6710 * 5000


# ---- said and refused before the start


def made(tmp_path: Path, *, batch: int = 64, **options: Any) -> experiment.Experiment:
    found = experiment.load_experiment(
        {
            "name": "mine",
            "data": {"name": "oracle", "words": 60, "length": 8, "train": 300, "scored": 200},
            "system": {"name": "seqgan", "pretrain_steps": 4, "critic_steps": 2, "filters": 0.1, **options},
            "training": {"steps": 10, "batch_size": batch, "log_every": 10, "evaluate_every": 10},
            "evaluation": {"name": "text-oracle", "samples": 200},
            "objective": {"minimize": "nll_gen"},
        },
        data_dir=tmp_path,
    )
    check_experiment(found)
    return found


def test_what_rollouts_hold_is_stated(tmp_path: Path) -> None:
    (line,) = needs.described_rollouts(made(tmp_path), HERE)
    assert re.fullmatch(
        r"rollouts: at most [\d.]+ MB a run \(16 completions at once of 7 beginnings of 64 sentences\)", line
    )
    assert not needs.described_rollouts(made(tmp_path, reward="constant"), HERE)


def test_the_most_of_a_search_is_stated(tmp_path: Path) -> None:
    (line,) = needs.described_rollouts(made(tmp_path, rollouts={"int": [2, 6]}), HERE)
    assert "(6 completions at once" in line


@pytest.mark.parametrize("options", [{}, {"rollouts_at_once": 12}])
def test_rollouts_that_cannot_fit_are_refused_with_how_many_do(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 10_000_000
    monkeypatch.setattr(needs, "free_memory", lambda device="cpu": free)
    key = "rollouts_at_once" if options else "rollouts"
    said = (
        rf"system\.{key}: rollouts: {options.get(key, 16)} completions at once of 7 beginnings of 64 sentences need "
        r"[\d.]+ MB and [\d.]+ MB are free; rollouts_at_once: (\d+) fits"
    )
    with pytest.raises(UsageError, match=said) as caught:
        needs.check_memory(made(tmp_path, **options), HERE)
    found = re.search(said, str(caught.value))
    assert found is not None
    fits = int(found[1])
    needs.check_memory(made(tmp_path, rollouts_at_once=fits), HERE)
    with pytest.raises(UsageError, match="rollouts_at_once"):
        needs.check_memory(made(tmp_path, rollouts_at_once=fits + 1), HERE)
    # All runs of this machine share what is free.
    with pytest.raises(UsageError, match=rf"rollouts: {fits} completions at once"):
        needs.check_memory(made(tmp_path, rollouts_at_once=fits), HERE * 2)


def test_one_completion_that_does_not_fit_asks_for_a_smaller_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, "free_memory", lambda device="cpu": 50_000_000)
    with pytest.raises(
        UsageError, match=r"batch_size: 4,096: rollouts: 1 completion at once .* choose a smaller batch"
    ):
        needs.check_memory(made(tmp_path, batch=4096, rollouts_at_once=1), HERE)


def test_what_autograd_keeps_is_measured_without_thousands_of_rollouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    rewards = SeqGAN.rewards

    def counted(self: SeqGAN, words: Tensor, real: Tensor, uniform: Tensor | None) -> Tensor:
        drawn.append(0 if uniform is None else uniform.shape[2])
        return rewards(self, words, real, uniform)

    monkeypatch.setattr(SeqGAN, "rewards", counted)
    needs.check_memory(made(tmp_path, batch=512, rollouts=40), HERE)
    assert drawn == [1]
