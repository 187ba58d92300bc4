"""A transformer decoder (Vaswani et al. 2017) with its norms first, as GPT-2 has them (Radford et al. 2019)."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# What scales the features that enter, and those that leave.
Keep = tuple[Tensor, Tensor]


class Memory(NamedTuple):
    """Keys and values of the words so far [layers, N, heads, L, width / heads], of which `seen` places are filled."""

    keys: Tensor
    values: Tensor
    seen: int


class TransformerDecoder(nn.Module):
    """Next-word features [N, L, width] of words [N, L]: all at once, or word by word with what it remembers."""

    def __init__(self, words: int, length: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads: {width} channels cannot be shared out among {heads} heads; choose a divisor")
        self.embedding = nn.Embedding(words, width)
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
        features = self.embedding(words) + self.positions[: words.shape[1]]
        features = features if keep is None else features * keep[0]
        for block in self.blocks:
            features = block(features)
        normed: Tensor = self.norm(features)
        return normed if keep is None else normed * keep[1]

    def step(self, words: Tensor, memory: Memory, context: Tensor | None = None) -> tuple[Tensor, Memory]:
        """Features of words [N, k] that follow what the memory has seen, which is written to."""
        last = memory.seen + words.shape[1]
        features = self.embedding(words) + self.positions[memory.seen : last]
        for index, block in enumerate(self.blocks):
            features = block(features, memory.keys[index], memory.values[index], memory.seen)
        return self.norm(features), memory._replace(seen=last)


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
        self, inputs: Tensor, keys: Tensor | None = None, values: Tensor | None = None, seen: int = 0
    ) -> Tensor:
        count, length, width = inputs.shape
        parts = self.attention(self.norm_1(inputs)).reshape(count, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind()
        if keys is not None and values is not None:
            keys[:, :, seen : seen + length], values[:, :, seen : seen + length] = key, value
            key, value = keys[:, :, : seen + length], values[:, :, : seen + length]
        # A word looks at itself and at those before it.
        allowed = torch.ones(length, seen + length, dtype=torch.bool, device=inputs.device).tril(seen)
        # Written out: torch's fused attention has no rule for vmap, and gains little on sentences.
        likeness = (query @ key.transpose(2, 3) / math.sqrt(query.shape[3])).masked_fill(~allowed, -torch.inf)
        attended = likeness.softmax(3) @ value
        stream = inputs + self.mix(attended.transpose(1, 2).reshape(count, length, width))
        read: Tensor = stream + self.shrink(F.gelu(self.grow(self.norm_2(stream))))
        return read
