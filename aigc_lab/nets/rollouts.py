"""Monte-Carlo rollouts: every beginning of every sentence, completed several times at once (Yu et al. 2017, eq. 4)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aigc_lab.nets.decoding import Choose, Predict
from aigc_lab.text.vocabulary import EOS, PAD


@dataclass(frozen=True)
class RolloutMemory:
    """Bytes that the rollouts of a step hold at most, about.

    `noise` of all completions of all beginnings is there from the first to the last. So are the words, of `words` bytes
    for every completion of each beginning that is in memory together (`at_once`), while they are drawn and then
    judged, which takes a number of bytes, and some for every such completion.
    """

    beginnings: int
    sentences: int
    rollouts: int
    at_once: int
    noise: int
    words: int
    drawing: tuple[int, int]
    judging: tuple[int, int]

    def of(self, at_once: int) -> int:
        """Bytes where so many completions of each beginning are in memory together."""
        return (
            self.noise
            + self.words * at_once
            + max(fixed + each * at_once for fixed, each in (self.drawing, self.judging))
        )

    def most(self, free: int) -> int:
        """How many completions of each beginning fit into so many bytes together; 0 where not even one does."""
        fits = ((free - self.noise - fixed) // (self.words + each) for fixed, each in (self.drawing, self.judging))
        return max(min(fits), 0)


def completions(read: Predict, memory: Any, words: Tensor, uniform: Tensor, choose: Choose) -> Tensor:
    """Sentences int64 [L − 1, N, K, L] that complete the beginnings of words [N, L]: those of row t keep the first t +
    1 words.

    The model draws the rest by uniform numbers [L − 1, N, K, L − 1]: entry [t, n, k, p] picks the word at place
    p + 1. `read(words [R, 1], memory)` gives features [R, d] and the memory after them, `choose` the words [R] of
    features and uniform numbers [R]; `memory` is of N sentences before their first word.

    No beginning is read twice: what the model remembers of it is kept, and rollouts begin from there. All rows of a
    place are read together, up to (L − 1)·N·K of them.
    """
    count, length = words.shape
    rollouts = uniform.shape[2]
    tokens = words[None, :, None].expand(length - 1, -1, rollouts, -1).clone()
    ended = (words == EOS).cumsum(1) > 0
    _, memory = read(torch.full_like(words[:, :1], PAD), memory)
    live: Any = None
    over = torch.zeros(0, count, rollouts, dtype=torch.bool, device=words.device)
    for place in range(1, length):
        # The beginning of `place` words starts its rollouts here, from what the model remembers of all but the last.
        begun = repeated(memory, rollouts)
        live = begun if live is None else joined(live, begun)
        over = torch.cat([over, ended[None, :, place - 1, None].expand(1, -1, rollouts)])
        features, live = read(tokens[:place, :, :, place - 1].reshape(-1, 1), live)
        drawn = choose(features, uniform[:place, :, :, place - 1].reshape(-1))
        drawn = drawn.reshape(place, count, rollouts).masked_fill(over, PAD)
        tokens[:place, :, :, place] = drawn
        over = over | (drawn == EOS)
        if place < length - 1:
            _, memory = read(words[:, place - 1 : place], memory)
    return tokens


def memory_of_reading(start: Any, width: int, input_width: int) -> int:
    """Bytes for each row of `completions` while a decoder reads on, about, of `start`, its memory of one sentence: the
    memory joined and before, what enters and leaves the network, and the words drawn.
    """
    memory = sum(part.numel() * part.element_size() for part in start if isinstance(part, Tensor))
    return 2 * memory + 4 * (input_width + 8 * width) + 50


def repeated(memory: Any, times: int) -> Any:
    """A decoder's memory of N sentences as that of N·`times`, each several times in a row; dimension 1 is the
    sentences'.
    """
    return _each(memory, lambda tensor: tensor.repeat_interleave(times, 1))


def joined(first: Any, second: Any) -> Any:
    """The memories of two sets of sentences, which have read as many words, as one."""
    rest = iter(second)
    return type(first)(
        *(torch.cat([a, b], 1) if isinstance(a, Tensor) else a for a, b in zip(first, rest, strict=True))
    )


def _each(memory: Any, change: Any) -> Any:
    return type(memory)(*(change(part) if isinstance(part, Tensor) else part for part in memory))
