"""A relational memory (Santoro et al. 2018) that predicts the next word, as RelGAN has it (Nie et al. 2019).

Not as in RelGAN's published code: likenesses are divided by √(head size), as in the paper, and not by √(3 · head size);
a norm is over one slot, and not over all of them.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from aigc_lab.nets.words import WordEmbedding


class Memory(NamedTuple):
    """The slots of the memory [slots, N, heads · head size]."""

    slots: Tensor


class RelationalDecoder(nn.Module):
    """Next-word features [N, L, slots · heads · head size] of words, all at once or word by word with its memory. Words
    are numbers int64 [N, L], or weights of all words [N, L, V], as `WordEmbedding` reads them.

    `context` [N, embedding] is added to the vector of every word.
    """

    def __init__(self, words: int, embedding: int, slots: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.embedding = WordEmbedding(words, embedding)
        self.core = RelationalMemory(embedding, heads, head_size)
        self.slots = slots
        self.width, self.input_width = slots * heads * head_size, embedding

    def start(self, count: int, length: int, context: Tensor | None = None) -> Memory:
        """Slots before the first word, each another row of the identity. `length` and `context` change nothing here."""
        weight = self.embedding.weight
        rows = torch.eye(self.slots, self.core.width, dtype=weight.dtype, device=weight.device)
        return Memory(rows.unsqueeze(1).expand(-1, count, -1))

    def forward(self, words: Tensor, context: Tensor | None = None) -> Tensor:
        features, _ = self.step(words, self.start(len(words), words.shape[1], context), context)
        return features

    def step(self, words: Tensor, memory: Memory, context: Tensor | None = None) -> tuple[Tensor, Memory]:
        """Features of words [N, k] (or weights [N, k, V]) that follow what the memory has seen, and the memory after
        them.
        """
        inputs = self.embedding(words)
        if context is not None:
            inputs = inputs + context.unsqueeze(1)
        slots, features = memory.slots.transpose(0, 1), []
        for read in zip(*(part.unbind(1) for part in self.core.read(inputs)), strict=True):
            slots = self.core(slots, *read)
            features.append(slots.flatten(1))
        return torch.stack(features, 1), Memory(slots.transpose(0, 1))


class RelationalMemory(nn.Module):
    """Slots that attend over themselves and one input, then pass an MLP, then gates that say what is written and what
    is forgotten, one of each for every unit.
    """

    def __init__(self, inputs: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.heads, self.width = heads, heads * head_size
        width = self.width
        self.input = nn.Linear(inputs, width)
        self.attention, self.attention_norm = nn.Linear(width, 3 * width, bias=False), nn.LayerNorm(3 * width)
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.input_gates = nn.Linear(width, 2 * width, bias=False)
        self.slot_gates = nn.Linear(width, 2 * width, bias=False)

    def read(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What depends on inputs [N, k, inputs] alone: key and value of each [N, k, heads, head size], and its part of
        the gates [N, k, 2 · width].
        """
        entered = self.input(inputs)
        _, key, value = self._projected(entered).unbind(2)
        return key, value, self.input_gates(entered)

    def forward(self, slots: Tensor, key: Tensor, value: Tensor, gates: Tensor) -> Tensor:
        """The slots [N, slots, width] after one input, which is given as `read` leaves it."""
        attended = slots + self._attended(slots, key, value)
        # The row of the input would be dropped: only the slots are computed.
        mixed = self.norm_1(attended)
        mixed = self.norm_2(mixed + self.mlp(mixed))
        write, keep = (gates.unsqueeze(1) + self.slot_gates(slots.tanh())).chunk(2, 2)
        # A bias of 1 begins by keeping, as an LSTM's does.
        after: Tensor = write.sigmoid() * mixed.tanh() + (keep + 1).sigmoid() * slots
        return after

    def _attended(self, slots: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """What each slot reads of all slots and the input [N, slots, width]."""
        query, keys, values = self._projected(slots).unbind(2)
        keys, values = (torch.cat([a, b.unsqueeze(1)], 1).transpose(1, 2) for a, b in ((keys, key), (values, value)))
        likeness = query.transpose(1, 2) @ keys.transpose(2, 3) / math.sqrt(query.shape[3])
        return (likeness.softmax(3) @ values).transpose(1, 2).flatten(2)

    def _projected(self, rows: Tensor) -> Tensor:
        """Query, key and value of rows [N, k, width]: [N, k, 3, heads, head size]."""
        normed: Tensor = self.attention_norm(self.attention(rows))
        return normed.reshape(*rows.shape[:2], 3, self.heads, -1)
