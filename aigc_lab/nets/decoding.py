"""Sentences word by word: what a model says of the next word, sharpened or cut, and one word drawn of it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aigc_lab.text.vocabulary import EOS, PAD, Vocabulary


@dataclass(frozen=True)
class Sampling:
    """How a word is drawn. At `temperature` t from p^(1/t), 0 for the most likely word; of the `top_k` most likely
    words; of the fewest that hold `top_p` of the probability (nucleus sampling, Holtzman et al. 2020). What is left is
    scaled to one. Every sentence begins with the words of `prefix`.

    Raises `ValueError` for numbers that mean nothing.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    prefix: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < 100:
            raise ValueError(f"temperature {self.temperature:g}: give one from 0 (the likeliest word) up, like 0.8")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top-k {self.top_k}: keep at least the likeliest word")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top-p {self.top_p:g}: give a probability above 0, up to 1")

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of each word [N, V] float32, from the model's logits [N, V]."""
        logits = logits.float()
        if self.temperature == 0:
            return torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1]).float()
        if self.temperature != 1:
            # Below the largest, which no temperature then takes to infinity, and 0 for none.
            logits = (logits - logits.max(1, keepdim=True).values) / max(self.temperature, 1e-30)
        if self.top_k is not None and self.top_k < logits.shape[1]:
            least = logits.topk(self.top_k).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        probabilities = logits.softmax(1)
        if self.top_p is not None and self.top_p < 1:
            ordered, order = probabilities.sort(dim=1, descending=True, stable=True)
            # A word is kept where those above it do not hold as much: the first always is.
            nucleus = ordered.cumsum(1) - ordered < self.top_p
            probabilities = torch.zeros_like(probabilities).scatter_(1, order, ordered * nucleus)
            probabilities = probabilities / probabilities.sum(1, keepdim=True)
        return probabilities


def pick(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """A word for each row [N] by the inverse of its distribution function at `uniform` [N] in [0, 1): the same numbers
    draw the same words, whoever draws beside them.
    """
    total = probabilities.cumsum(1)
    mass = total[:, -1:]
    # Below the mass, whatever rounding says: beyond it lies no word.
    at = torch.minimum(uniform.unsqueeze(1) * mass, torch.nextafter(mass, torch.zeros_like(mass)))
    return torch.searchsorted(total, at, right=True).squeeze(1)


def pick_by_groups(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """What `pick` gives but for rounding, for less: first a group of neighbouring words by the sums of groups, which
    take a fraction of the time of a running sum, then a word of it.
    """
    count = probabilities.shape[1]
    size = math.isqrt(count)
    whole = count - count % size
    sums = probabilities[:, :whole].reshape(len(probabilities), whole // size, size).sum(2)
    if whole < count:
        sums = torch.cat([sums, probabilities[:, whole:].sum(1, keepdim=True)], 1)
    group = pick(sums, uniform).unsqueeze(1)
    total = sums.cumsum(1)
    before = total.gather(1, group) - sums.gather(1, group)
    words = group * size + torch.arange(size, device=group.device)
    inside = probabilities.gather(1, words.clamp_max(count - 1)).masked_fill(words >= count, 0).cumsum(1)
    mass = inside[:, -1:]
    # Rounding leads out of the group at neither end, nor to a word of no mass.
    at = (uniform.unsqueeze(1) * total[:, -1:] - before).clamp_min(0)
    at = torch.minimum(at, torch.nextafter(mass, torch.zeros_like(mass)))
    return group.squeeze(1) * size + torch.searchsorted(inside, at, right=True).squeeze(1)


def chosen(logits: Callable[[Tensor], Tensor], features: Tensor, uniform: Tensor, words: int, first: int) -> Tensor:
    """Words [R], from number `first` on, that features [R, d] predict and uniform numbers [R] pick: `logits(features)`
    are of `words` words. A block of rows at a time, whose logits stay in a processor's cache.
    """
    rows = block_rows(words, uniform.device.type)
    parts = zip(torch.split(features, rows), torch.split(uniform, rows), strict=True)
    return torch.cat([pick_by_groups(logits(some).float().softmax(1), at) for some, at in parts]) + first


def block_rows(words: int, device: str) -> int:
    """How many rows of logits of so many words are held at once, on a device of this type."""
    return max((2**20 if device == "cpu" else 2**25) // words, 1)


Predict = Callable[[Tensor, Any], tuple[Tensor, Any]]
Choose = Callable[[Tensor, Tensor], Tensor]


def sentences(
    predict: Predict,
    memory: Any,
    uniform: Tensor,
    vocabulary: Vocabulary,
    first: int,
    sampling: Sampling,
    *,
    to_the_end: bool = False,
) -> Tensor:
    """Sentences int64 [N, L] of as many uniform numbers: `predict(words [N, 1], memory)` gives the logits [N, V −
    first] of the words from number `first` on, and the memory that goes with them. `<pad>` stands for the beginning.

    Places behind the end of every sentence are left out, which asks the device now and then; with `to_the_end` nothing
    is asked, as a training step wants it.
    """
    count, length = uniform.shape
    tokens = torch.full((count, length), PAD, dtype=torch.int64, device=uniform.device)
    word = tokens.new_full((count,), PAD)
    ended = torch.zeros(count, dtype=torch.bool, device=uniform.device)
    given = sampling.prefix[:length]
    for place in range(length):
        if place < len(given):
            _, memory = predict(word.unsqueeze(1), memory)
            word = torch.full_like(word, given[place])
        else:
            logits, memory = predict(word.unsqueeze(1), memory)
            word = (pick(sampling.probabilities(logits), uniform[:, place]) + first).masked_fill(ended, PAD)
        tokens[:, place] = word
        ended = ended | (word == EOS)
        # Asking costs a wait for the device: seldom, then.
        if not to_the_end and vocabulary.ends and place % 8 == 7 and bool(ended.all()):
            break
    return tokens
