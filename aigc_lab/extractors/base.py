"""Networks that turn images into the features that metrics compare; each is addressed by the hash of its weights."""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import ClassVar, Self

import torch
from safetensors.torch import save
from torch import Tensor, nn

from aigc_lab import noise
from aigc_lab.data.base import Dataset
from aigc_lab.errors import UsageError
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.samples import Samples
from aigc_lab.shape import Modality
from aigc_lab.statistics.frechet import Gaussian, Moments


@dataclass(frozen=True)
class Features:
    """What an extractor makes of `count` samples: float32 `vectors` [k, d], and `logits` [k, classes] where it
    classifies; on the host. k is `count`, or of more samples than were to be kept a seeded choice: then `whole` has the
    moments of all.

    >>> features = Features(torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 8.0]]))
    >>> features.count, features.gaussian.mean.tolist()
    (3, [2.0, 4.0])
    """

    vectors: Tensor
    logits: Tensor | None = None
    whole: Gaussian | None = None

    @property
    def count(self) -> int:
        """How many samples there were."""
        return len(self.vectors) if self.whole is None else self.whole.count

    @cached_property
    def gaussian(self) -> Gaussian:
        """Mean and covariance of all samples."""
        return self.whole or Gaussian.of(self.vectors)

    @property
    def rows(self) -> Tensor:
        """Which of the samples the vectors are of [k]."""
        return torch.arange(self.count) if self.whole is None else choice(self.count, len(self.vectors))

    def take(self, index: Tensor | slice) -> "Features":
        """Those of the kept samples at `index`."""
        return Features(self.vectors[index], None if self.logits is None else self.logits[index])

    def some(self, count: int) -> "Features":
        """Those of `count` of the kept samples, a seeded choice without repetition; of all where there are no more.

        The choice is of all samples: how many vectors another metric made to be kept changes nothing.
        """
        if count >= len(self.vectors):
            return self
        return self.take(torch.searchsorted(self.rows, choice(self.count, count)))


def joined(parts: Sequence[Features]) -> Features:
    """One set of several, none of which was thinned."""
    logits = [part.logits for part in parts]
    known = None if any(each is None for each in logits) else torch.cat([each for each in logits if each is not None])
    return Features(torch.cat([part.vectors for part in parts]), known)


def choice(total: int, count: int) -> Tensor:
    """`count` of the rows 0 … total − 1 without repetition, in order, the same every time."""
    picked: Tensor = torch.randperm(total, generator=noise.generator("choice", total))[:count].sort().values
    return picked


def digest(network: nn.Module) -> str:
    """The first eight digits of the sha256 of a network's weights."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    return hashlib.sha256(save(weights)).hexdigest()[:8]


def addressed(index: Path) -> bytes | None:
    """The weights that an index file points at by their sha256, or None when either file is not what was written."""
    try:
        wanted = json.loads(index.read_text("utf-8"))["sha256"]
        weights = (index.parent / f"{wanted}.safetensors").read_bytes()
    except (OSError, ValueError, KeyError):
        return None
    return weights if hashlib.sha256(weights).hexdigest() == wanted else None


def as_rgb(images: Tensor) -> Tensor:
    """Grey images [N, 1, H, W] three times over, without a copy; others as they are."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


class Extractor(ABC):
    """`identity` names the weights and the preprocessing: features of one identity may be compared and cached.

    One's own is a file with one subclass, named in a protocol as `fd: {features: ./mine.py}`; its score is `fd_mine`,
    and its identity has the sha256 of the file and of the weights:

        \"\"\"Features of my own network.\"\"\"

        from pathlib import Path

        import torch
        from safetensors.torch import load_file

        from aigc_lab.extractors.base import Extractor, as_rgb

        class Mine(Extractor):
            def __init__(self) -> None:
                self.network = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3, 2), torch.nn.ReLU())
                self.network.load_state_dict(load_file(Path(__file__).with_suffix(".safetensors")))

            def __call__(self, images):  # uint8 [N, C, H, W] -> vectors [N, d], and logits or None
                return self.network(as_rgb(images).float() / 127.5 - 1).mean((2, 3)), None

    >>> from aigc_lab.samples import Images
    >>> class MeanColour(Extractor):
    ...     def __init__(self):
    ...         self.network = nn.AdaptiveAvgPool2d(1)
    ...
    ...     def __call__(self, images):
    ...         return self.network(images.float()).flatten(1), None
    >>> MeanColour().extract(Images(torch.full((5, 3, 8, 8), 7, dtype=torch.uint8))).vectors[0].tolist()
    [7.0, 7.0, 7.0]
    """

    #: how scores name it: `fd_<short>`; the name of its file where it does not say
    short: ClassVar[str]
    #: images that pass through the network at once
    block: int = 256
    #: whether its weights were drawn and never learned: what its clusters are of is then not what is shown
    untrained: ClassVar[bool] = False
    #: the length of its vectors, where that is known without loading it
    dimensions: ClassVar[int | None] = None
    identity: str
    network: nn.Module

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "short" not in cls.__dict__:
            cls.short = re.sub(r"\W", "_", cls.__module__.rpartition(".")[2])

    @classmethod
    def check(cls, dataset: Dataset, weights: WeightsPolicy) -> None:
        """Raises `UsageError` when it cannot serve this dataset here. Loads and downloads nothing."""
        if dataset.shape.modality != Modality.IMAGES:
            raise UsageError(f"{cls.short} features need images, and dataset {dataset.name} holds {dataset.shape}")

    @classmethod
    def fetch(cls, weights: WeightsPolicy, say: Callable[[str], None]) -> None:
        """Downloads what `prepare` would, so that it fails before anything else is done."""
        return None

    @classmethod
    def prepare(
        cls, dataset: Dataset, *, cache: Path, weights: WeightsPolicy, device: str, say: Callable[[str], None]
    ) -> Self:
        """The extractor, ready on the device; a stored one is made first where it is missing, and `say` tells so."""
        cls.check(dataset, weights)
        made = cls()
        made.network.to(device).eval().requires_grad_(False)
        if not hasattr(made, "identity"):
            made.identity = f"{cls.short}:{digest(made.network)}"
        return made

    @abstractmethod
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Vectors and logits of uint8 images [N, C, H, W] on the device."""

    @torch.inference_mode()
    def extract(
        self,
        images: Samples,
        block: int | None = None,
        keep: int | None = None,
        seen: Callable[[int], object] = lambda count: None,
    ) -> Features:
        """Features of any number of images, in blocks. Of more than `keep` images the vectors of a seeded choice are
        kept, with the moments of all: memory does not grow with the count. `seen` is told how many are done.

        Raises `ValueError` for images that it turns into NaN or infinity.
        """
        images.check()
        count, block = len(images), block or self.block
        kept = None if keep is None or count <= keep else choice(count, keep)
        weight = next(chain(self.network.parameters(), self.network.buffers()), torch.empty(0))
        device, moments = weight.device, Moments()
        # One table each, filled as they come: a list of parts would be in memory twice when it is put together.
        vectors_of: Tensor | None = None
        logits_of: Tensor | None = None
        done = 0
        for first in range(0, count, block):
            # Canonical by blocks: float images of a run take four times the room of their bytes.
            values = images.take(slice(first, first + block)).canonical().values
            vectors, logits = self(values.to(device))
            vectors = vectors.float()
            for what, rows_of in (("vectors", vectors), ("logits", logits)):
                if rows_of is not None and len(rows_of) != len(values):
                    raise ValueError(f"{self.identity} gives {len(rows_of)} {what} for {len(values)} images")
            if not torch.isfinite(vectors).all():
                raise ValueError(f"{self.identity} turns images into NaN or infinity: its weights are damaged")
            rows: Tensor | slice = slice(None)
            if kept is not None:
                moments.add(vectors)
                rows = kept[(kept >= first) & (kept < first + len(vectors))].to(device) - first
            seen(first + len(vectors))
            vectors = vectors[rows]
            if vectors_of is None:
                size = count if kept is None else len(kept)
                vectors_of = torch.empty(size, *vectors.shape[1:])
                logits_of = None if logits is None else torch.empty(size, *logits.shape[1:])
            places = slice(done, done + len(vectors))
            vectors_of[places] = vectors
            if logits_of is not None and logits is not None:
                logits_of[places] = logits[rows]
            done += len(vectors)
        assert vectors_of is not None
        return Features(vectors_of, logits_of, None if kept is None else moments.done())
