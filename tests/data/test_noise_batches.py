"""Keyed draws and the order of the data: functions of their keys and of nothing else."""

import pytest
import torch
from scipy.stats import kstest

from aigc_lab import noise
from aigc_lab.data.shared.batches import Batches
from aigc_lab.noise import Draw
from aigc_lab.samples import Points


def test_a_key_always_gives_the_same_draw() -> None:
    what = Draw((4, 3))
    first = noise.draw(what, 1, 2, "critic")
    torch.manual_seed(123)
    torch.randn(7)
    assert torch.equal(noise.draw(what, 1, 2, "critic"), first)


def test_a_draw_leaves_the_shared_stream_alone() -> None:
    before = torch.get_rng_state()
    noise.draw(Draw((4,)), 1)
    noise.generator("anything")
    assert torch.equal(torch.get_rng_state(), before)


def test_different_keys_give_different_draws() -> None:
    keys: list[tuple[noise.Key, ...]] = [
        (1,),
        (2,),
        ("1",),
        (1, 2),
        (12,),
        (2, 1),
        (1, "2"),
        ("a", "bc"),
        ("ab", "c"),
        ("abc",),
        (-1,),
    ]
    draws = {key: noise.draw(Draw((8,)), *key) for key in keys}
    assert len({tuple(values.tolist()) for values in draws.values()}) == len(keys)


def test_draws_of_neighbouring_keys_are_unrelated() -> None:
    draws = torch.stack([noise.draw(Draw((2000,)), 0, step, "critic") for step in range(20)])
    correlations = torch.corrcoef(draws)[~torch.eye(20, dtype=torch.bool)]
    # 190 pairs of standard error 0.022.
    assert correlations.abs().max() < 0.022 * 4.5


@pytest.mark.parametrize(("law", "cdf", "arguments"), [("normal", "norm", (0, 1)), ("uniform", "uniform", (-1, 2))])
def test_draws_follow_their_law(law: str, cdf: str, arguments: tuple[float, float]) -> None:
    values = noise.draw(Draw((20_000,), law), "law")  # type: ignore[arg-type]
    assert values.dtype == torch.float32
    assert kstest(values.numpy(), cdf, arguments).pvalue > 0.001
    if law == "uniform":
        assert values.min() >= -1 and values.max() <= 1


def numbers(count: int) -> Points:
    return Points(torch.arange(count).float()[:, None], torch.arange(count))


def drawn(batches: Batches, number: int) -> list[int]:
    batch = batches[number]
    assert batch.labels is not None and torch.equal(batch.values[:, 0].long(), batch.labels)
    return batch.labels.tolist()


@pytest.mark.parametrize(("total", "size"), [(12, 4), (10, 4), (7, 7), (5, 13), (3, 1)])
def test_every_epoch_is_a_permutation(total: int, size: int) -> None:
    batches = Batches(numbers(total), size, seed=3)
    stream = [item for number in range(3 * total) for item in drawn(batches, number)]
    assert all(len(drawn(batches, number)) == size for number in (0, 1, 5))
    epochs = [stream[first : first + total] for first in range(0, 3 * size * total, total)]
    assert all(sorted(epoch) == list(range(total)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_epochs_are_shuffled_anew() -> None:
    batches = Batches(numbers(50), 50, seed=0)
    assert len({tuple(drawn(batches, number)) for number in range(6)}) == 6
    assert len(batches._orders) <= 2, "old epochs are forgotten"


@pytest.mark.parametrize(("total", "size"), [(10, 4), (5, 13)])
def test_a_batch_does_not_depend_on_what_was_read_before(total: int, size: int) -> None:
    in_order = Batches(numbers(total), size, seed=3)
    expected = [drawn(in_order, number) for number in range(12)]
    jumping = Batches(numbers(total), size, seed=3)
    for number in (11, 0, 7, 7, 3, 10, 1, 2, 11, 5):
        assert drawn(jumping, number) == expected[number]
    assert drawn(Batches(numbers(total), size, seed=3), 6) == expected[6]


def test_the_seed_decides_the_order() -> None:
    assert drawn(Batches(numbers(50), 50, 0), 0) == drawn(Batches(numbers(50), 50, 0), 0)
    assert drawn(Batches(numbers(50), 50, 0), 0) != drawn(Batches(numbers(50), 50, 1), 0)
