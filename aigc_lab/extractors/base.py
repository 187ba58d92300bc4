"""Feature extractors, whose features metrics compare; each is identified by the hash of its weights."""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors.torch import save
from torch import Tensor, nn

from aigc_lab import noise
from aigc_lab.data.base import Dataset
from aigc_lab.errors import UsageError
from aigc_lab.host import shared_files
from aigc_lab.host.files import write_atomically
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.samples import Samples
from aigc_lab.shape import Modality
from aigc_lab.statistics.frechet import Gaussian, Moments


@dataclass(frozen=True)
class Features:
    """Features of `count` samples on the host: float32 `vectors` [k, d], and `logits` [k, classes] if the extractor
    classifies.

    k is `count`, or less if only a seeded choice of the samples was kept: `whole` then holds the moments of all.

    >>> features = Features(torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 8.0]]))
    >>> features.count, features.gaussian.mean.tolist()
    (3, [2.0, 4.0])
    """

    vectors: Tensor
    logits: Tensor | None = None
    whole: Gaussian | None = None

    @property
    def count(self) -> int:
        """Number of samples, kept or not."""
        return len(self.vectors) if self.whole is None else self.whole.count

    @cached_property
    def gaussian(self) -> Gaussian:
        """Gaussian fitted to all samples."""
        return self.whole or Gaussian.of(self.vectors)

    @property
    def rows(self) -> Tensor:
        """Indices of the kept samples [k]."""
        return torch.arange(self.count) if self.whole is None else choice(self.count, len(self.vectors))

    def take(self, index: Tensor | slice) -> "Features":
        """Features of the kept samples at `index`, which indexes the vectors."""
        return Features(self.vectors[index], None if self.logits is None else self.logits[index])

    def some(self, count: int) -> "Features":
        """Features of a seeded choice of `count` kept samples without repetition; all if there are no more.

        Indices are drawn over all samples, so the selection does not depend on how many vectors were kept.
        """
        if count >= len(self.vectors):
            return self
        return self.take(torch.searchsorted(self.rows, choice(self.count, count)))


def joined(parts: Sequence[Features]) -> Features:
    """Features of several sets in a row, of all of which every sample was kept."""
    parts_logits = [part.logits for part in parts]
    logits = (
        None
        if any(each is None for each in parts_logits)
        else torch.cat([each for each in parts_logits if each is not None])
    )
    return Features(torch.cat([part.vectors for part in parts]), logits)


def choice(total: int, count: int) -> Tensor:
    """Seeded choice of `count` indices from 0 … total − 1 without repetition, ascending [count]."""
    picked: Tensor = torch.randperm(total, generator=noise.generator("choice", total))[:count].sort().values
    return picked


def digest(network: nn.Module) -> str:
    """First eight digits of the sha256 of a network's weights."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    return hashlib.sha256(save(weights)).hexdigest()[:8]


def addressed(index: Path) -> bytes | None:
    """Stored weights to which an index file points by their sha256; None if either file is missing or damaged."""
    try:
        sha256 = json.loads(shared_files.cached(index).read_text("utf-8"))["sha256"]
        weights = shared_files.cached(index.parent / f"{sha256}.safetensors").read_bytes()
    except (OSError, ValueError, KeyError):
        return None
    return weights if hashlib.sha256(weights).hexdigest() == sha256 else None


def keep_addressed(index: Path, weights: bytes, facts: Mapping[str, Any]) -> bytes:
    """Stores weights and the index file that points to them, with `facts`. Returns the weights that it points to: of
    homes that share a store, one is the first, and all others take its weights.
    """
    digest = hashlib.sha256(weights).hexdigest()
    path = index.parent / f"{digest}.safetensors"
    # The weights first: an index that exists points at a file that exists.
    write_atomically(path, weights)
    write_atomically(index, json.dumps({**facts, "sha256": digest}, indent=2).encode())
    shared_files.publish(path)
    shared_files.publish_first(index)
    return addressed(index) or weights


def as_rgb(images: Tensor) -> Tensor:
    """RGB images: grey ones [N, 1, H, W] repeated without a copy, others as they are."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


class Extractor(ABC):
    """Base class of feature extractors. `identity` names the weights and the preprocessing: features of one identity
    may be compared and cached.

    An extractor of one's own is a file with one subclass, named in a protocol as `fd: {features: ./mine.py}`. Its score
    is `fd_mine`, and its identity has the sha256 of the file and of the weights:

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

    #: its name in scores, `fd_<short>`; by default the name of its file
    short: ClassVar[str]
    #: kind of samples that it reads
    reads: ClassVar[Modality] = Modality.IMAGES
    #: samples that pass through the network at once
    block: int = 256
    #: whether its weights are random: its clusters then do not reflect the content of samples
    untrained: ClassVar[bool] = False
    #: length of its vectors, if that is known without loading it
    dimensions: ClassVar[int | None] = None
    identity: str
    network: nn.Module

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "short" not in cls.__dict__:
            cls.short = re.sub(r"\W", "_", cls.__module__.rpartition(".")[2])

    @classmethod
    def check(cls, dataset: Dataset, weights: WeightsPolicy) -> None:
        """Raises `UsageError` if the extractor cannot serve this dataset here. Loads and downloads nothing."""
        if dataset.shape.modality != cls.reads:
            raise UsageError(f"{cls.short} features need {cls.reads}, and dataset {dataset.name} holds {dataset.shape}")

    @classmethod
    def fetch(cls, weights: WeightsPolicy, say: Callable[[str], None]) -> None:
        """Downloads the files that `prepare` needs, so that a failure comes before anything else is done."""
        return None

    @classmethod
    def prepare(
        cls, dataset: Dataset, *, cache: Path, weights: WeightsPolicy, device: str, say: Callable[[str], None]
    ) -> Self:
        """Extractor on the device, ready to use. One that is trained on the dataset is trained first if it is not
        stored, which is reported through `say`.
        """
        cls.check(dataset, weights)
        extractor = cls()
        extractor.network.to(device).eval().requires_grad_(False)
        if not hasattr(extractor, "identity"):
            extractor.identity = f"{cls.short}:{digest(extractor.network)}"
        return extractor

    @abstractmethod
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Vectors [N, d], and logits or None, of uint8 images [N, C, H, W] on the device, or of the canonical values
        [N, …] of the kind of samples that it `reads`.
        """

    @torch.inference_mode()
    def extract(
        self,
        images: Samples,
        block: int | None = None,
        keep: int | None = None,
        seen: Callable[[int], object] = lambda count: None,
    ) -> Features:
        """Features of any number of samples, in blocks of `block`.

        Of more than `keep` samples the vectors of a seeded choice are kept, with the moments of all: memory does not
        grow with the count. `seen` is called with the number of samples done. Raises `ValueError` for vectors that are
        NaN or infinite, and for another number of rows than samples.
        """
        images.check()
        count, block = len(images), block or self.block
        selected = None if keep is None or count <= keep else choice(count, keep)
        weight = next(chain(self.network.parameters(), self.network.buffers()), torch.empty(0))
        device, moments = weight.device, Moments()
        # One table each, filled as they come: a list of parts would be in memory twice when it is put together.
        vectors_of: Tensor | None = None
        logits_of: Tensor | None = None
        filled = 0
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
            if selected is not None:
                moments.add(vectors)
                rows = selected[(selected >= first) & (selected < first + len(vectors))].to(device) - first
            seen(first + len(vectors))
            vectors = vectors[rows]
            if vectors_of is None:
                size = count if selected is None else len(selected)
                vectors_of = torch.empty(size, *vectors.shape[1:])
                logits_of = None if logits is None else torch.empty(size, *logits.shape[1:])
            places = slice(filled, filled + len(vectors))
            vectors_of[places] = vectors
            if logits_of is not None and logits is not None:
                logits_of[places] = logits[rows]
            filled += len(vectors)
        assert vectors_of is not None
        return Features(vectors_of, logits_of, None if selected is None else moments.gaussian())
