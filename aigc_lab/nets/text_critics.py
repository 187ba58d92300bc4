"""Critics of sentences: convolutions over windows of words behind a highway (Kim 2014, as SeqGAN has them), and a GRU.

A critic reads embedded words [N, L, E] and what of it is a sentence, so that words and mixtures of words go the same
way: `embed` makes them of numbers [N, L] or of weights [N, L, V].
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aigc_lab.nets.words import WordEmbedding

# Windows in words and their numbers of filters (Yu et al. 2017, appendix; published code: sequence_gan.py).
SEQGAN_FILTERS = {1: 100, 2: 200, 3: 200, 4: 200, 5: 200, 6: 100, 7: 100, 8: 100, 9: 100, 10: 100, 15: 160, 20: 160}


class WordCritic(nn.Module, ABC):
    """A critic whose first layer embeds words; a subclass says its `features` [N, width] of embedded words."""

    width: int

    def __init__(self, words: int, embedding: int) -> None:
        super().__init__()
        self.embedding = WordEmbedding(words, embedding)

    def embed(self, words: Tensor) -> Tensor:
        """[N, L, E] of word numbers int64 [N, L], or of weights of all words [N, L, V]."""
        embedded: Tensor = self.embedding(words)
        return embedded

    @abstractmethod
    def features(self, embedded: Tensor) -> Tensor:
        """What is said of a sentence [N, width]."""

    def numbers(self, length: int) -> int:
        """How many numbers it holds while it reads a sentence of `length` places without gradients, at most, about."""
        return 2 * length * self.embedding.embedding_dim + 8 * self.width

    def numbers_of_beginnings(self, length: int) -> int:
        """How many numbers it keeps of a sentence while it reads the completions of its beginnings, about."""
        return 0

    def of_completions(self, words: Tensor, tokens: Tensor) -> Iterator[Tensor]:
        """The features [N·K, width] of completions [T, N, K, L], of each row t that keeps the first t + 1 of words [N,
        L]: a row at a time, since those of all would be the largest thing in memory.
        """
        for row in tokens:
            yield self.features(self.embed(row.flatten(0, 1)))


class Highway(nn.Module):
    """T(x) · ReLU(W x) + (1 − T(x)) · x, T a sigmoid layer whose bias begins at −2, which lets x through (Srivastava,
    Greff & Schmidhuber 2015, eq. 3).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.transform, self.gate = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.constant_(self.gate.bias, -2.0)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(x))
        mixed: Tensor = gate * F.relu(self.transform(x)) + (1 - gate) * x
        return mixed


class TextCNN(WordCritic):
    """For every window of k words: filters, ReLU, the largest over all places; then a highway.

    `filters` gives the number of filters of each window, which read `channels` of a word (None: its whole vector).
    Raises `ValueError` for a window longer than a sentence.
    """

    def __init__(
        self, words: int, embedding: int, length: int, filters: dict[int, int], channels: int | None = None
    ) -> None:
        super().__init__(words, embedding)
        longest = max(filters)
        if longest > length:
            raise ValueError(
                f"windows: one of {longest} words, and a sentence has {length} places; leave out those above {length}"
            )
        channels = channels or embedding
        self.convolutions = nn.ModuleList([nn.Conv1d(channels, count, window) for window, count in filters.items()])
        self._filters = dict(filters)
        self.width = sum(filters.values())
        self.highway = Highway(self.width)

    def features(self, embedded: Tensor) -> Tensor:
        turned = embedded.transpose(1, 2)
        return self._read([convolution(turned).amax(2) for convolution in self.convolutions])

    def of_completions(self, words: Tensor, tokens: Tensor) -> Iterator[Tensor]:
        """As in the base class; windows that lie within the beginning are read once for all of its completions."""
        begun = [each(self.embed(words).transpose(1, 2)).cummax(2).values for each in self.convolutions]
        for kept, row in enumerate(tokens, start=1):
            turned = self.embed(row.flatten(0, 1)).transpose(1, 2)
            highest = []
            for convolution, of_words in zip(self.convolutions, begun, strict=True):
                window = words.shape[1] - of_words.shape[2] + 1
                # From the first window with a word behind the beginning on.
                new = convolution(turned[:, :, max(kept - window + 1, 0) :]).amax(2)
                if kept >= window:
                    new = torch.maximum(new, of_words[:, :, kept - window].repeat_interleave(row.shape[1], 0))
                highest.append(new)
            yield self._read(highest)

    def numbers(self, length: int) -> int:
        return super().numbers(length) + max(self._sizes(length))

    def numbers_of_beginnings(self, length: int) -> int:
        sizes = self._sizes(length)
        return sum(sizes) + 3 * max(sizes)

    def _sizes(self, length: int) -> list[int]:
        """Of what each convolution gives for a sentence."""
        return [count * (length - window + 1) for window, count in self._filters.items()]

    def _read(self, highest: list[Tensor]) -> Tensor:
        """Features [N, width] of the largest values [N, filters] of each window, before ReLU, which keeps the order: a
        tenth of the work.
        """
        read: Tensor = self.highway(F.relu(torch.cat(highest, 1)))
        return read


class ManyViewCNN(TextCNN):
    """A text CNN that reads each of `views` equal parts of the words' vectors alike: features [N, views, width] (the
    embedded representations of RelGAN, Nie et al. 2019).

    Raises `ValueError` where the vectors cannot be shared out.
    """

    def __init__(self, words: int, embedding: int, length: int, filters: dict[int, int], views: int) -> None:
        if embedding % views:
            raise ValueError(
                f"representations: {embedding} channels (critic_embedding) cannot be shared out among {views}; "
                "choose a divisor"
            )
        super().__init__(words, embedding, length, filters, embedding // views)
        self.views = views

    def features(self, embedded: Tensor) -> Tensor:
        count, length, _ = embedded.shape
        parts = embedded.reshape(count, length, self.views, -1).transpose(1, 2)
        return super().features(parts.flatten(0, 1)).reshape(count, self.views, self.width)

    def of_completions(self, words: Tensor, tokens: Tensor) -> Iterator[Tensor]:
        """Features [N·K, views, width] of completions, each read from its first word."""
        return WordCritic.of_completions(self, words, tokens)

    def numbers(self, length: int) -> int:
        return self.views * super().numbers(length)

    def numbers_of_beginnings(self, length: int) -> int:
        return WordCritic.numbers_of_beginnings(self, length)


class GRUCritic(WordCritic):
    """The last hidden values [N, hidden] of a GRU (Cho et al. 2014) that reads the sentence from its first place."""

    def __init__(self, words: int, embedding: int, hidden: int) -> None:
        super().__init__(words, embedding)
        self.gru = nn.GRU(embedding, hidden, batch_first=True)
        self.width = hidden

    def features(self, embedded: Tensor) -> Tensor:
        _, last = self.gru(embedded)
        read: Tensor = last[0]
        return read

    def numbers(self, length: int) -> int:
        return super().numbers(length) + 5 * length * self.width
