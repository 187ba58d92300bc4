"""Recurrent networks for sentences: an LSTM (Hochreiter & Schmidhuber 1997) or a GRU (Cho et al. 2014) that predicts
the next word, and an LSTM that reads all.

`torch.nn.LSTM` and not a loop of our own: its kernels are 1.3 to 3 times as fast on a CPU, and cuDNN's on a GPU.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from aigc_lab.nets.words import WordEmbedding

# What scales the features that enter, and those that leave.
Keep = tuple[Tensor, Tensor]


class Memory(NamedTuple):
    """Hidden and cell values, each [layers, N, hidden]; a GRU has no cell."""

    hidden: Tensor
    cell: Tensor | None = None


class RecurrentDecoder(nn.Module):
    """Next-word features [N, L, hidden] of words, all at once or word by word with its memory. Words are numbers int64
    [N, L], or weights of all words [N, L, V], as `WordEmbedding` reads them.

    `context` is the length of a vector that is given at every place, beside the word; it also sets the first memory.
    """

    def __init__(
        self,
        words: int,
        embedding: int,
        hidden: int,
        layers: int = 1,
        context: int = 0,
        cell: Literal["lstm", "gru"] = "lstm",
    ) -> None:
        super().__init__()
        self.embedding = WordEmbedding(words, embedding)
        if cell == "lstm":
            self.lstm = nn.LSTM(embedding + context, hidden, layers, batch_first=True)
        else:
            self.gru = nn.GRU(embedding + context, hidden, layers, batch_first=True)
        # How many tensors a memory has.
        self._parts = 2 if cell == "lstm" else 1
        self.to_memory = nn.Linear(context, self._parts * layers * hidden) if context else None
        self.layers, self.width, self.input_width = layers, hidden, embedding

    def start(self, count: int, length: int, context: Tensor | None = None) -> Memory:
        """The memory before the first word. `length` is how many may follow, which matters to a transformer only."""
        layers, hidden, weight = self.layers, self.width, self.embedding.weight
        if self.to_memory is None:
            return Memory(*weight.new_zeros(self._parts, layers, count, hidden).unbind())
        first = self.to_memory(context).tanh().reshape(count, self._parts, layers, hidden)
        return Memory(*(part.transpose(0, 1).contiguous() for part in first.unbind(1)))

    def forward(self, words: Tensor, context: Tensor | None = None, keep: Keep | None = None) -> Tensor:
        """`keep` scales input [N, 1, embedding] and output [N, 1, hidden]: locked dropout (Gal & Ghahramani 2016)."""
        features, _ = self.step(words, self.start(len(words), words.shape[1], context), context, keep)
        return features

    def step(
        self,
        words: Tensor,
        memory: Memory,
        context: Tensor | None = None,
        keep: Keep | None = None,
    ) -> tuple[Tensor, Memory]:
        """Features of words [N, k] (or weights [N, k, V]) that follow what the memory has seen, and the memory after
        them.
        """
        inputs = self.embedding(words)
        if keep is not None:
            inputs = inputs * keep[0]
        if context is not None:
            inputs = torch.cat([inputs, context.unsqueeze(1).expand(-1, words.shape[1], -1)], 2)
        if memory.cell is None:
            features, hidden = self.gru(inputs, memory.hidden)
            after = Memory(hidden)
        else:
            features, pair = self.lstm(inputs, (memory.hidden, memory.cell))
            after = Memory(*pair)
        return (features if keep is None else features * keep[1]), after


class RecurrentEncoder(nn.Module):
    """A vector [N, outputs] of sentences [N, L], read from both ends; what lies behind their end is not read. `context`
    is the length of a vector that is known beside the words.
    """

    def __init__(self, words: int, embedding: int, hidden: int, outputs: int, context: int = 0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, embedding)
        self.forwards = nn.LSTM(embedding, hidden, batch_first=True)
        self.backwards = nn.LSTM(embedding, hidden, batch_first=True)
        self.output = nn.Linear(2 * hidden + context, outputs)

    def forward(self, words: Tensor, places: Tensor, context: Tensor | None = None) -> Tensor:
        """`places` [N] is how many of the L places a sentence takes."""
        last = (places - 1).clamp_min(0)
        # Read backwards, a sentence begins with its own last word, and not with padding: rows are turned about it.
        turned = (last.unsqueeze(1) - torch.arange(words.shape[1], device=words.device)).clamp_min(0)
        at = last[:, None, None].expand(-1, 1, self.forwards.hidden_size)
        there, _ = self.forwards(self.embedding(words))
        back, _ = self.backwards(self.embedding(words.gather(1, turned)))
        both = torch.cat([there.gather(1, at), back.gather(1, at)], 2).squeeze(1)
        read: Tensor = self.output(both if context is None else torch.cat([both, context], 1))
        return read
