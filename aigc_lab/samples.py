"""Batches of samples, one class for each modality: systems generate them, metrics score them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aigc_lab.errors import NotFinite
from aigc_lab.shape import Modality as Modality  # users' systems import both from here
from aigc_lab.shape import Shape
from aigc_lab.text.corpus import Corpus
from aigc_lab.text.tokenizer import untokenize
from aigc_lab.text.vocabulary import EOS, PAD, Vocabulary


@dataclass(frozen=True)
class Samples:
    """N samples along dimension 0 of `values`, with int64 class labels [N] where they are known.

    A subclass names its `modality` and defines `canonical`; how the samples of a modality are drawn, written and judged
    is said by its object in `aigc_lab.modalities`.
    """

    values: Tensor
    labels: Tensor | None = None

    modality: ClassVar[Modality]
    #: whether all samples of a dataset have the size of its shape; sentences may be longer or shorter
    fixed_size: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: Tensor | slice) -> Self:
        """The samples at `index` (row numbers, a mask or a slice), in that order."""
        return replace(self, values=self.values[index], labels=None if self.labels is None else self.labels[index])

    def to(self, device: torch.device | str) -> Self:
        """The samples with values and labels on a device."""
        return replace(
            self, values=self.values.to(device), labels=None if self.labels is None else self.labels.to(device)
        )

    def check(self) -> None:
        """Raises `NotFinite`, a `ValueError` with their count, where samples hold NaN or infinity."""
        if self.values.is_floating_point() and not torch.isfinite(self.values).all():
            bad = int((~torch.isfinite(self.values)).flatten(1).any(1).sum())
            raise NotFinite(f"{bad} of {len(self)} samples hold NaN or infinity")

    def canonical(self) -> Self:
        """The form that metrics and digests read. Raises `ValueError` for values that have no score, such as NaN."""
        raise NotImplementedError

    def as_inputs(self) -> Tensor:
        """The values as networks read them: images as float32 in [0, 1], all others as they are."""
        return self.values

    def shape(self, classes: int | None = None) -> Shape:
        """The shape that a dataset of these samples has."""
        return Shape(self.modality, tuple(self.values.shape[1:]), classes)

    @property
    def lengths(self) -> Tensor | None:
        """How many entries of dimension 1 each sample fills, int64 [N]: a batch may be cut to its longest. None where
        every sample fills all of them.
        """
        return None

    def padded(self, length: int) -> Tensor:
        """The values, filled up to `length` in their last dimension where samples may be cut (see `lengths`)."""
        return self.values

    def digest(self) -> str:
        """sha256 (hexadecimal) over canonical values and labels, in this order."""
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
        # In place: a copy that is nobody else's.
        return self.values.float().div_(127.5).sub_(1) if self.values.dtype == torch.uint8 else self.values * 2 - 1

    def as_inputs(self) -> Tensor:
        return self.unit()

    def canonical(self) -> "Images":
        """uint8 by round(clamp(x)·255)."""
        if self.values.dtype == torch.uint8:
            return self
        self.check()
        return replace(self, values=(self.values.clamp(0, 1) * 255).round().to(torch.uint8))


@dataclass(frozen=True)
class Points(Samples):
    """[N, D]: float32, unbounded.

    >>> Points(torch.tensor([[0.0, float("nan")], [1.0, 2.0]])).check()
    Traceback (most recent call last):
    aigc_lab.errors.NotFinite: 1 of 2 samples hold NaN or infinity
    """

    modality = Modality.POINTS

    def __post_init__(self) -> None:
        if self.values.ndim != 2:
            raise ValueError(f"points are [N, D], not {list(self.values.shape)}")

    def canonical(self) -> "Points":
        """float32. Raises `NotFinite` for NaN and infinity."""
        self.check()
        return replace(self, values=self.values.float())


@dataclass(frozen=True)
class Text(Samples):
    """[N, L]: int64, the numbers in `vocabulary` of a sentence's words, then `<eos>` if there is room, then `<pad>`."""

    vocabulary: Vocabulary = field(kw_only=True)

    modality = Modality.TEXT
    fixed_size = False

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype != torch.int64:
            raise ValueError(f"text is int64 [N, L], not {self.values.dtype} {list(self.values.shape)}")

    @classmethod
    def of(cls, sentences: Sequence[Sequence[int]], length: int, vocabulary: Vocabulary) -> Self:
        """Sentences, each the numbers of at most `length` words; those that are shorter get their `<eos>`, where the
        vocabulary has one.
        """
        values = np.full((len(sentences), length), PAD, dtype=np.int64)
        for row, sentence in enumerate(sentences):
            values[row, : len(sentence)] = sentence
            if vocabulary.ends and len(sentence) < length:
                values[row, len(sentence)] = EOS
        return cls(torch.from_numpy(values), vocabulary=vocabulary)

    @cached_property
    def places(self) -> Tensor:
        """The tokens of each sentence, its `<eos>` included: int64 [N]."""
        return (self.values != PAD).sum(1)

    @property
    def lengths(self) -> Tensor | None:
        return self.places if self.vocabulary.ends else None

    def padded(self, length: int) -> Tensor:
        return F.pad(self.values, (0, length - self.values.shape[-1]), value=PAD)

    def shape(self, classes: int | None = None) -> Shape:
        return replace(super().shape(classes), vocabulary=self.vocabulary)

    def canonical(self) -> "Text":
        """`<pad>` behind the first `<eos>`. Raises `ValueError` for numbers outside the vocabulary."""
        bad = int(((self.values < 0) | (self.values >= len(self.vocabulary))).any(1).sum())
        if bad:
            raise ValueError(f"{bad} of {len(self)} sentences hold numbers that are no words of the vocabulary")
        ended = (self.values == EOS).cumsum(1) - (self.values == EOS).long() > 0
        return replace(self, values=self.values.masked_fill(ended, PAD))

    @cached_property
    def corpus(self) -> Corpus:
        """The sentences on the host, without `<eos>` and `<pad>`: what text metrics read."""
        values = self.canonical().values.cpu().numpy()
        inside = (values != PAD) & (values != EOS)
        starts = np.zeros(len(values) + 1, dtype=np.int64)
        np.cumsum(inside.sum(1), out=starts[1:])
        return Corpus(values[inside], starts, self.vocabulary.words, self.vocabulary.tokenizer)

    def sentences(self) -> list[str]:
        """Each sentence as a line of text, its tokens joined."""
        words, how, corpus = self.vocabulary.words, self.vocabulary.tokenizer, self.corpus
        return [untokenize([words[token] for token in corpus.sentence(row)], how) for row in range(len(self))]

    def digest(self) -> str:
        """sha256 (hexadecimal) over the numbers and the vocabulary."""
        words = hashlib.sha256(json.dumps(self.vocabulary.dump()).encode()).hexdigest()
        return hashlib.sha256(f"{words} {super().digest()}".encode()).hexdigest()
