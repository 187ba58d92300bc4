"""Batches of sentences: every one once an epoch, like lengths together, and no more padding than that takes."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from aigc_lab.data.shared.batches import Batches
from aigc_lab.noise import generator
from aigc_lab.samples import Points, Text
from aigc_lab.text.vocabulary import EOS, PAD, SPECIAL, Vocabulary

LONGEST = 30


def prose(count: int, seed: int = 0, *, longest: int = LONGEST) -> Text:
    """Sentences of any length, of which each is another: its first words are its number."""
    source = np.random.default_rng(seed)
    lengths = np.minimum(3 + source.geometric(0.12, count), longest)
    numbers = [[3 + row // 100 % 10, 3 + row // 10 % 10, 3 + row % 10] for row in range(count)]
    rows = [[*head, *source.integers(3, 13, length - 3)] for head, length in zip(numbers, lengths, strict=True)]
    return Text.of(rows, longest + 1, Vocabulary((*SPECIAL, *"abcdefghij")))


def level(count: int, length: int = 8) -> Text:
    values = torch.from_numpy(np.random.default_rng(1).integers(3, 13, (count, length)))
    return Text(values, vocabulary=Vocabulary((*SPECIAL, *"abcdefghij"), ends=False))


def sentences(values: Tensor) -> list[tuple[int, ...]]:
    return [tuple(word for word in row if word != PAD) for row in values.tolist()]


@pytest.mark.parametrize(
    ("count", "size"), [(1000, 32), (997, 64), (64, 64), (130, 7), (50, 64), (7, 20), (1, 2), (641, 10), (5003, 50)]
)
def test_every_epoch_holds_every_sentence_once(count: int, size: int) -> None:
    text = prose(count)
    everyone = Counter(sentences(text.values))
    batches = Batches(text, size, 3)
    epochs = 3
    stream = [each for number in range(-(-epochs * count // size)) for each in sentences(batches[number].values)]
    assert len(stream) >= epochs * count
    for epoch in range(epochs):
        assert Counter(stream[epoch * count : (epoch + 1) * count]) == everyone


def test_epochs_differ_in_their_order_and_in_who_is_together() -> None:
    text, size = prose(960), 32
    batches = Batches(text, size, 0)
    epochs = [[frozenset(sentences(batches[30 * epoch + number].values)) for number in range(30)] for epoch in range(3)]
    for first, second in ((0, 1), (1, 2), (0, 2)):
        # The shortest of all may be together again.
        assert len(set(epochs[first]) & set(epochs[second])) <= 3
    # Long batches are anywhere in an epoch.
    widths = [batches[number].values.shape[1] for number in range(90)]
    for epoch in range(3):
        mine = widths[30 * epoch : 30 * epoch + 30]
        assert abs(np.corrcoef(mine, range(30))[0, 1]) < 0.6 and mine != sorted(mine)


def test_a_batch_is_a_function_of_seed_and_number() -> None:
    text = prose(500)
    batches = Batches(text, 24, 5)
    expected = [batches[number].values for number in range(70)]
    again = Batches(text, 24, 5)
    for number in (69, 0, 33, 21, 20, 19, 42, 41, 69, 1):  # in any order, across epochs and back
        assert torch.equal(again[number].values, expected[number])
        assert torch.equal(Batches(text, 24, 5)[number].values, expected[number])
    other = Batches(text, 24, 6)
    assert not any(sentences(other[number].values) == sentences(expected[number]) for number in range(20))


@pytest.mark.parametrize(("count", "size"), [(1000, 32), (997, 64), (130, 7), (20, 64)])
def test_a_batch_is_as_long_as_its_longest_sentence(count: int, size: int) -> None:
    text = prose(count)
    batches = Batches(text, size, 1)
    seen = set()
    for number in range(3 * count // size + 2):
        batch = batches[number]
        assert isinstance(batch, Text) and batch.vocabulary is text.vocabulary
        assert len(batch) == size
        assert batch.values.shape[1] == int(batch.places.max())
        assert torch.equal(batch.canonical().values, batch.values)
        assert ((batch.values == EOS).sum(1) == 1).all()  # nothing of a sentence is cut
        seen.add(batch.values.shape[1])
    assert len(seen) > 1 or count == 20


def padding(batches: Batches, numbers: range) -> float:
    """The share of places without a word."""
    values = [batches[number].values for number in numbers]
    return sum(int((each == PAD).sum()) for each in values) / sum(each.numel() for each in values)


@pytest.mark.parametrize(("count", "size"), [(3000, 32), (3007, 64), (6001, 64)])
def test_there_is_far_less_padding_than_in_random_batches(count: int, size: int) -> None:
    text = prose(count)
    batches = Batches(text, size, 2)
    mine = padding(batches, range(2 * count // size))
    at_random = []
    for number in range(200):
        order = torch.randperm(count, generator=generator("random", number))[:size]
        drawn = text.take(order)
        at_random.append(1 - drawn.places.double().mean().item() / int(drawn.places.max()))
    assert mine < sum(at_random) / len(at_random) / 4
    whole = 1 - text.places.double().mean().item() / text.values.shape[1]
    assert mine < whole / 4


def test_what_has_one_length_is_not_sorted() -> None:
    """Sentences of an oracle are in the plain order of the seed, like any samples."""
    text = level(203)
    batches, plain = Batches(text, 16, 4), Batches(Points(torch.arange(203.0).unsqueeze(1)), 16, 4)
    for number in range(30):
        rows = plain[number].values.flatten().long()
        assert torch.equal(batches[number].values, text.values[rows])


def test_lengths_do_not_favour_a_sentence() -> None:
    """Where an epoch begins within a batch, that batch is filled by sentences of any length."""
    text = prose(330)
    batches = Batches(text, 32, 0)
    lengths = []
    for epoch in range(1, 60):
        offset = epoch * 330 % 32
        if offset:
            batch = batches[epoch * 330 // 32]
            assert isinstance(batch, Text)
            lengths.append(batch.places[offset:].double().mean().item())
    error = text.places.double().std().item() / (sum(32 - epoch * 330 % 32 for epoch in range(1, 60))) ** 0.5
    assert abs(np.mean(lengths) - text.places.double().mean().item()) < 6 * error
