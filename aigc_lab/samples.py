"""What systems emit and metrics eat: typed batches that know their value range."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from aigc_lab.errors import NotFinite
from aigc_lab.shape import Modality as Modality  # a system of a user's imports both from here
from aigc_lab.text.corpus import Corpus
from aigc_lab.text.tokenizer import untokenize
from aigc_lab.text.vocabulary import EOS, PAD, Vocabulary


@dataclass(frozen=True)
class Samples:
    """N samples along dimension 0 of `values`, with int64 class labels [N] where they are known."""

    values: Tensor
    labels: Tensor | None = None

    modality: ClassVar[Modality]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: Tensor | slice) -> Self:
        """The samples at `index`, in that order."""
        return replace(self, values=self.values[index], labels=None if self.labels is None else self.labels[index])

    def to(self, device: torch.device | str) -> Self:
        return replace(
            self, values=self.values.to(device), labels=None if self.labels is None else self.labels.to(device)
        )

    def check(self) -> None:
        """Raises `NotFinite`, a `ValueError`, for samples with NaN or infinity in them, with their count."""
        if self.values.is_floating_point() and not torch.isfinite(self.values).all():
            bad = int((~torch.isfinite(self.values)).flatten(1).any(1).sum())
            raise NotFinite(f"{bad} of {len(self)} samples hold NaN or infinity")

    def canonical(self) -> Self:
        """The form that metrics and digests read; raises `ValueError` for values that no metric may see."""
        raise NotImplementedError

    def digest(self) -> str:
        """sha256 over the canonical values and labels: the identity of this content, in this order."""
        form = self.canonical()
        digest = hashlib.sha256(f"{form.modality} {form.values.dtype} {tuple(form.values.shape)}".encode())
        for tensor in (form.values, form.labels):
            # The buffer itself, not a copy: memory-mapped samples may be larger than memory.
            digest.update(b"-" if tensor is None else tensor.contiguous().cpu().numpy().data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Images(Samples):
    """[N, C, H, W]: uint8 in 0…255 when stored, float in [0, 1] as systems emit them.

    >>> pictures = Images(torch.full((16, 3, 32, 32), 0.5), labels=torch.arange(16) % 10)
    >>> len(pictures), pictures.canonical().values.dtype, pictures.canonical().values.max().item()
    (16, torch.uint8, 128)
    >>> pictures.take(slice(0, 4)).signed().abs().max().item()
    0.0
    """

    modality = Modality.IMAGES

    def __post_init__(self) -> None:
        if self.values.ndim != 4:
            raise ValueError(f"images are [N, C, H, W], not {list(self.values.shape)}")

    def unit(self) -> Tensor:
        """float32 in [0, 1]."""
        return self.values.float() / 255 if self.values.dtype == torch.uint8 else self.values

    def signed(self) -> Tensor:
        """float32 in [−1, 1]: the range of a generator that ends in tanh."""
        return self.values.float() / 127.5 - 1 if self.values.dtype == torch.uint8 else self.values * 2 - 1

    def canonical(self) -> "Images":
        """uint8 by round(clamp(x)·255)."""
        if self.values.dtype == torch.uint8:
            return self
        self.check()
        return replace(self, values=(self.values.clamp(0, 1) * 255).round().to(torch.uint8))


@dataclass(frozen=True)
class Points(Samples):
    """[N, D], float32, unbounded.

    >>> Points(torch.tensor([[0.0, float("nan")], [1.0, 2.0]])).check()
    Traceback (most recent call last):
    aigc_lab.errors.NotFinite: 1 of 2 samples hold NaN or infinity
    """

    modality = Modality.POINTS

    def __post_init__(self) -> None:
        if self.values.ndim != 2:
            raise ValueError(f"points are [N, D], not {list(self.values.shape)}")

    def canonical(self) -> "Points":
        self.check()
        return replace(self, values=self.values.float())


@dataclass(frozen=True)
class Text(Samples):
    """[N, L] int64, numbers of the `vocabulary`: the words of a sentence, `<eos>` where there is room, then `<pad>`."""

    vocabulary: Vocabulary = field(kw_only=True)

    modality = Modality.TEXT

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype != torch.int64:
            raise ValueError(f"text is int64 [N, L], not {self.values.dtype} {list(self.values.shape)}")

    @classmethod
    def of(cls, sentences: Sequence[Sequence[int]], length: int, vocabulary: Vocabulary) -> Self:
        """Sentences of numbers, each of less than `length` words (or of as many, where none is ended)."""
        values = np.full((len(sentences), length), PAD, dtype=np.int64)
        for row, sentence in enumerate(sentences):
            values[row, : len(sentence)] = sentence
            if vocabulary.ends and len(sentence) < length:
                values[row, len(sentence)] = EOS
        return cls(torch.from_numpy(values), vocabulary=vocabulary)

    @cached_property
    def places(self) -> Tensor:
        """How many places each sentence takes [N], its `<eos>` included."""
        return (self.values != PAD).sum(1)

    def canonical(self) -> "Text":
        """Nothing behind the first `<eos>`. Raises `ValueError` for numbers that are no words."""
        bad = int(((self.values < 0) | (self.values >= len(self.vocabulary))).any(1).sum())
        if bad:
            raise ValueError(f"{bad} of {len(self)} sentences hold numbers that are no words of the vocabulary")
        ended = (self.values == EOS).cumsum(1) - (self.values == EOS).long() > 0
        return replace(self, values=self.values.masked_fill(ended, PAD))

    @cached_property
    def corpus(self) -> Corpus:
        """The sentences as text metrics read them, without `<eos>` and `<pad>`; on the host."""
        values = self.canonical().values.cpu().numpy()
        inside = (values != PAD) & (values != EOS)
        starts = np.zeros(len(values) + 1, dtype=np.int64)
        np.cumsum(inside.sum(1), out=starts[1:])
        return Corpus(values[inside], starts, self.vocabulary.words, self.vocabulary.tokenizer)

    def sentences(self) -> list[str]:
        """A line for each."""
        words, how, corpus = self.vocabulary.words, self.vocabulary.tokenizer, self.corpus
        return [untokenize([words[token] for token in corpus.sentence(row)], how) for row in range(len(self))]

    def digest(self) -> str:
        """sha256 over the numbers and the words that they stand for."""
        words = hashlib.sha256(json.dumps(self.vocabulary.dump()).encode()).hexdigest()
        return hashlib.sha256(f"{words} {super().digest()}".encode()).hexdigest()
