"""Stand-ins for the systems whose samples a metric scores: models small enough that the right answer is known."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from aigc_lab.data.base import Dataset, Modes, Split
from aigc_lab.objectives.likelihood import gaussian_nll
from aigc_lab.samples import Samples, Text
from aigc_lab.shape import Shape
from aigc_lab.text.likelihood import Likelihood
from aigc_lab.text.vocabulary import PAD


class WithoutFirst(Dataset):
    """A dataset without its first `n` training samples."""

    def __init__(self, whole: Dataset, n: int) -> None:
        super().__init__(whole.config, whole.data_dir)
        self._whole, self._n = whole, n
        # The same data: what is scored is named by it.
        self.digest = whole.digest

    @property
    def name(self) -> str:
        return self._whole.name

    @property
    def shape(self) -> Shape:
        return self._whole.shape

    @property
    def modes(self) -> Modes | None:
        return self._whole.modes

    @property
    def likelihood(self) -> Likelihood | None:
        return self._whole.likelihood

    @lru_cache(maxsize=3)  # noqa: B019 -- real features are kept by object
    def load(self, split: Split) -> Samples:
        samples = self._whole.load(split)
        return samples.take(slice(self._n, None)) if split == "train" else samples


@dataclass(frozen=True)
class FixedGame:
    """A game (`metrics.base.Game`) that stands still, with both of its numbers at `place`."""

    place: float

    def position(self) -> torch.Tensor:
        return torch.full((2,), self.place, dtype=torch.float64)


@dataclass(frozen=True)
class Frequencies:
    """A unigram language model: words are independent, with the probabilities `share` [V]."""

    share: Tensor

    @classmethod
    def fitted(cls, samples: Samples) -> "Frequencies":
        """The relative frequencies of words in the samples, each count raised by 1 (Laplace); 0 for `<pad>`."""
        assert isinstance(samples, Text)
        counts = torch.bincount(samples.values.flatten(), minlength=len(samples.vocabulary)).double() + 1
        counts[PAD] = 0
        return cls(counts / counts.sum())

    @classmethod
    def uniform(cls, like: Samples) -> "Frequencies":
        assert isinstance(like, Text)
        return cls(torch.full((len(like.vocabulary),), 1 / len(like.vocabulary), dtype=torch.float64))

    def token_nll(self, words: Tensor) -> Tensor:
        return torch.where(words == PAD, 0.0, -self.share[words].log())


class NaNFrequencies(Frequencies):
    """The same, with NaN as the likelihood of the fourth sentence of a batch."""

    def token_nll(self, words: Tensor) -> Tensor:
        return super().token_nll(words).index_fill(0, torch.tensor([3]), math.nan)


@dataclass(frozen=True)
class Codebook:
    """An autoencoder that stores `sentences` [N, L]: the code of one is its index, and that of an unknown one is 0."""

    sentences: Tensor

    def encode(self, words: Tensor) -> tuple[Tensor, Tensor]:
        same = (words[:, None, : self.sentences.shape[1]] == self.sentences).all(2)
        mean = same.double().argmax(1, keepdim=True).double()
        return mean, torch.zeros_like(mean)

    def decode(self, latents: Tensor) -> Tensor:
        return self.sentences[latents[:, 0].long()]

    def log_likelihood(self, words: Tensor, latents: Tensor) -> Tensor:
        return -(self.decode(latents) != words).double().sum(1)


@dataclass(frozen=True)
class NaNCodebook(Codebook):
    """The same, with NaN as the code of the fourth sentence of a batch."""

    def encode(self, words: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = super().encode(words)
        return mean.index_fill(0, torch.tensor([3]), math.nan), log_variance


@dataclass(frozen=True)
class Components:
    """The linear autoencoder whose posterior is exact: p(x|z) = N(Wz + μ, σ²), probabilistic principal components
    (Tipping & Bishop 1999).
    """

    weight: Tensor
    mean: Tensor
    sigma: float
    size: tuple[int, ...]

    @classmethod
    def fitted(cls, samples: Samples, latents: int = 8) -> "Components":
        """The maximum-likelihood model with this number of latents, from the eigenvectors of the covariance."""
        rows = _pixels(samples)
        values, vectors = torch.linalg.eigh(torch.cov(rows.T))
        variance = values[:-latents].mean()
        weight = vectors[:, -latents:] * (values[-latents:] - variance).clamp_min(0).sqrt()
        return cls(weight, rows.mean(0), variance.sqrt().item(), tuple(samples.values.shape[1:]))

    @classmethod
    def blind(cls, like: Samples, latents: int = 8) -> "Components":
        """A model that ignores its input: the code is the prior, and the reconstruction is grey."""
        size = tuple(like.values.shape[1:])
        grey = torch.full((math.prod(size),), 0.5, dtype=torch.float64)
        return cls(grey.new_zeros(len(grey), latents), grey, 1.0, size)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        # WᵀW is diagonal, so the posterior's covariance is too.
        precision = self.weight.square().sum(0) / self.sigma**2 + 1
        mean = (images.flatten(1).double() - self.mean) @ self.weight / self.sigma**2 / precision
        return mean, (-precision.log()).expand_as(mean)

    def decode(self, latents: Tensor) -> Tensor:
        return self._centres(latents).clamp(0, 1).float().reshape(-1, *self.size)

    def log_likelihood(self, images: Tensor, latents: Tensor) -> Tensor:
        return -gaussian_nll(self._centres(latents), torch.tensor(self.sigma).log(), images.flatten(1).double())

    def _centres(self, latents: Tensor) -> Tensor:
        return latents.double() @ self.weight.T + self.mean


@dataclass(frozen=True)
class NaNComponents(Components):
    """The same, with NaN as the code of the fourth image of a batch."""

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = super().encode(images)
        return mean.index_fill(0, torch.tensor([3]), math.nan), log_variance


def _pixels(samples: Samples) -> Tensor:
    return samples.as_inputs().flatten(1).double()
