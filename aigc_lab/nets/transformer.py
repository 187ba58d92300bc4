"""A transformer decoder (Vaswani et al. 2017) with its norms first, as GPT-2 has them (Radford et al. 2019)."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aigc_lab.nets.words import WordEmbedding

# What scales the features that enter, and those that leave.
Keep = tuple[Tensor, Tensor]


class Memory(NamedTuple):
    """Keys and values of the words so far [layers, N, heads, L, width / heads], of which `seen` places are filled; L is
    `seen` where gradients are recorded.
    """

    keys: Tensor
    values: Tensor
    seen: int


class TransformerDecoder(nn.Module):
    """Next-word features [N, L, width] of words, all at once or word by word with what it remembers. Words are numbers
    int64 [N, L], or weights of all words [N, L, V], as `WordEmbedding` reads them.

    `context` [N, width] is added to the vector of every word, as its position is.
    """

    def __init__(self, words: int, length: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads: {width} channels cannot be shared out among {heads} heads; choose a divisor")
        self.embedding = WordEmbedding(words, width)
        self.positions = nn.Parameter(torch.randn(length, width) * 0.02)
        self.blocks = nn.ModuleList([_Block(width, heads, layers) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.width, self.input_width, self.heads = width, width, heads
        nn.init.normal_(self.embedding.weight, std=0.02)

    def start(self, count: int, length: int, context: Tensor | None = None) -> Memory:
        """An empty memory with room for `length` words."""
        room = (len(self.blocks), count, self.heads, length, self.width // self.heads)
        return Memory(self.positions.new_empty(room), self.positions.new_empty(room), 0)

    def forward(self, words: Tensor, context: Tensor | None = None, keep: Keep | None = None) -> Tensor:
        """`keep` scales what enters and what leaves [N, 1, width], as in `RecurrentDecoder`."""
        features = self._embedded(words, 0, context)
        features = features if keep is None else features * keep[0]
        for block in self.blocks:
            features, *_ = block(features)
        normed: Tensor = self.norm(features)
        return normed if keep is None else normed * keep[1]

    def step(self, words: Tensor, memory: Memory, context: Tensor | None = None) -> tuple[Tensor, Memory]:
        """Features of words [N, k] (or weights [N, k, V]) that follow what the memory has seen, and the memory after
        them. Without gradients the memory itself is written to; with them it is copied, since a backward pass reads it
        as it was.
        """
        seen, after = memory.seen, memory.seen + words.shape[1]
        copied = torch.is_grad_enabled() or memory.keys.shape[3] < after
        features, pairs = self._embedded(words, seen, context), []
        for index, block in enumerate(self.blocks):
            features, *pair = block(features, (memory.keys[index], memory.values[index]), seen, copied)
            pairs.append(pair)
        if copied:
            keys, values = (torch.stack(parts) for parts in zip(*pairs, strict=True))
            return self.norm(features), Memory(keys, values, after)
        return self.norm(features), memory._replace(seen=after)

    def _embedded(self, words: Tensor, first: int, context: Tensor | None) -> Tensor:
        """What enters the first block [N, k, width] for words at the places from `first` on."""
        features: Tensor = self.embedding(words) + self.positions[first : first + words.shape[1]]
        return features if context is None else features + context.unsqueeze(1)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.grow, self.shrink = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for linear in (self.attention, self.grow, self.mix, self.shrink):
            # What is added to the stream 2·layers times grows no larger for it.
            deep = linear in (self.mix, self.shrink)
            nn.init.normal_(linear.weight, std=0.02 / math.sqrt(2 * layers) if deep else 0.02)
            nn.init.zeros_(linear.bias)

    def forward(
        self, inputs: Tensor, past: tuple[Tensor, Tensor] | None = None, seen: int = 0, copied: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What leaves it [N, k, width], with the keys and values of all words up to these; `past` has those of the
        `seen` words before.
        """
        count, length, width = inputs.shape
        parts = self.attention(self.norm_1(inputs)).reshape(count, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind()
        if past is not None:
            key, value = (_appended(*parts, seen, copied) for parts in zip(past, (key, value), strict=True))
        # A word looks at itself and at those before it.
        allowed = torch.ones(length, seen + length, dtype=torch.bool, device=inputs.device).tril(seen)
        # Written out: torch's fused attention has no rule for vmap, and gains little on sentences.
        likeness = (query @ key.transpose(2, 3) / math.sqrt(query.shape[3])).masked_fill(~allowed, -torch.inf)
        attended = likeness.softmax(3) @ value
        stream = inputs + self.mix(attended.transpose(1, 2).reshape(count, length, width))
        return stream + self.shrink(F.gelu(self.grow(self.norm_2(stream)))), key, value


def _appended(past: Tensor, new: Tensor, seen: int, copied: bool) -> Tensor:
    """The first `seen` places of `past` [N, heads, L, d] and `new` behind them: in `past` itself, or in a copy."""
    if copied:
        return torch.cat([past[:, :, :seen], new], 2)
    past[:, :, seen : seen + new.shape[2]] = new
    return past[:, :, : seen + new.shape[2]]
