"""Recurrent networks for sentences: an LSTM (Hochreiter & Schmidhuber 1997) that predicts the next word, or reads all.

`torch.nn.LSTM` and not a loop of our own: its kernels are 1.3 to 3 times as fast on a CPU, and cuDNN's on a GPU.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

# What scales the features that enter, and those that leave.
Keep = tuple[Tensor, Tensor]


class Memory(NamedTuple):
    """Hidden and cell values, each [layers, N, hidden]."""

    hidden: Tensor
    cell: Tensor


class RecurrentDecoder(nn.Module):
    """Next-word features [N, L, hidden] of words [N, L]: all at once, or word by word with its memory.

    `context` is the length of a vector that is given at every place, beside the word; it also sets the first memory.
    """

    def __init__(self, words: int, embedding: int, hidden: int, layers: int = 1, context: int = 0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, embedding)
        self.lstm = nn.LSTM(embedding + context, hidden, layers, batch_first=True)
        self.to_memory = nn.Linear(context, 2 * layers * hidden) if context else None
        self.width, self.input_width = hidden, embedding

    def start(self, count: int, length: int, context: Tensor | None = None) -> Memory:
        """The memory before the first word. `length` is how many may follow: an LSTM does not care."""
        layers, hidden, weight = self.lstm.num_layers, self.lstm.hidden_size, self.embedding.weight
        if self.to_memory is None:
            return Memory(*weight.new_zeros(2, layers, count, hidden).unbind())
        first = self.to_memory(context).tanh().reshape(count, 2, layers, hidden)
        return Memory(first[:, 0].transpose(0, 1).contiguous(), first[:, 1].transpose(0, 1).contiguous())

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
        """Features of words [N, k] that follow what the memory has seen, and the memory after them."""
        inputs = self.embedding(words)
        if keep is not None:
            inputs = inputs * keep[0]
        if context is not None:
            inputs = torch.cat([inputs, context.unsqueeze(1).expand(-1, words.shape[1], -1)], 2)
        features, after = self.lstm(inputs, tuple(memory))
        return (features if keep is None else features * keep[1]), Memory(*after)


class RecurrentEncoder(nn.Module):
    """A vector [N, outputs] of sentences [N, L], read from both ends; what lies behind their end is not read."""

    def __init__(self, words: int, embedding: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, embedding)
        self.forwards = nn.LSTM(embedding, hidden, batch_first=True)
        self.backwards = nn.LSTM(embedding, hidden, batch_first=True)
        self.output = nn.Linear(2 * hidden, outputs)

    def forward(self, words: Tensor, places: Tensor) -> Tensor:
        """`places` [N] is how many of the L places a sentence takes."""
        last = (places - 1).clamp_min(0)
        # Read backwards, a sentence begins with its own last word, and not with padding: rows are turned about it.
        turned = (last.unsqueeze(1) - torch.arange(words.shape[1], device=words.device)).clamp_min(0)
        at = last[:, None, None].expand(-1, 1, self.forwards.hidden_size)
        there, _ = self.forwards(self.embedding(words))
        back, _ = self.backwards(self.embedding(words.gather(1, turned)))
        read: Tensor = self.output(torch.cat([there.gather(1, at), back.gather(1, at)], 2).squeeze(1))
        return read
