"""One feature pass for all metrics: extractors by name, real features cached on disk by content."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from aigc_lab import extractor_files, plugins
from aigc_lab.data.base import Dataset
from aigc_lab.errors import UsageError
from aigc_lab.extractors.base import Extractor, Features
from aigc_lab.files import write_atomically
from aigc_lab.frechet import Gaussian
from aigc_lab.samples import Images, Samples
from aigc_lab.weights import WeightsPolicy

# Part of every key: changes when the stored form does.
_SCHEMA = "2"


class FeatureStore:
    """Extractors are prepared once; features of real samples are kept in `cache/features`, keyed by what they are of:
    sha256(content of the samples | weights and preprocessing | how many vectors | dtype | schema). One changed pixel is
    another key. Without a `cache` nothing is read or written.

    `keep` says of how many samples an extractor's vectors are kept, at most; all where it does not say.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        cache: Path,
        weights: WeightsPolicy,
        device: str,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._dataset = dataset
        self._cache = cache
        self._weights = weights
        self._device = device
        self._say = say
        self._extractors: dict[str, Extractor] = {}
        self._memory: dict[tuple[str, int], tuple[Samples, Features]] = {}
        self.keep: dict[str, int] = {}

    def extractor(self, name: str) -> Extractor:
        if name not in self._extractors:
            kind = extractor_files.find(name)
            made = kind.prepare(
                self._dataset, cache=self._cache, weights=self._weights, device=self._device, say=self._say
            )
            source = plugins.source_of(kind)
            if source is not None:
                made.identity += f":file {hashlib.sha256(source).hexdigest()[:8]}"
            self._extractors[name] = made
        return self._extractors[name]

    def real(self, name: str, samples: Samples) -> Features:
        """Features of real samples: from memory, else from disk, else computed and stored."""
        kept = self._memory.get((name, id(samples)))
        if kept is not None:
            return kept[1]
        path = self._path(name, samples)
        features = self._stored(path)
        if features is None:
            features = self.made(name, samples)
            self._write(path, features)
        # The samples are held too: an id is only unique while its object lives.
        self._memory[name, id(samples)] = (samples, features)
        return features

    def _path(self, name: str, samples: Samples) -> Path:
        keep = self.keep.get(name)
        parts = (
            samples.digest(),
            self.extractor(name).identity,
            f"keep:{keep}" if keep is not None and keep < len(samples) else "all",
            "float32",
            _SCHEMA,
        )
        return self._cache / "features" / f"{hashlib.sha256('|'.join(parts).encode()).hexdigest()}.safetensors"

    def _stored(self, path: Path) -> Features | None:
        if not path.is_file():
            return None
        try:
            return unpacked(path)
        except (SafetensorError, KeyError, ValueError, OSError):
            self._say(f"the stored features {path} are damaged; they are computed again")
            return None

    def _write(self, path: Path, features: Features) -> None:
        """A cache is a convenience: a disk that takes nothing costs the next command its time, and this one nothing."""
        try:
            write_atomically(path, packed(features))
        except OSError as error:
            self._say(f"the features cannot be stored ({error.strerror}: {path}); they are computed again next time")

    def made(self, name: str, samples: Samples) -> Features:
        """Features of samples: computed, never stored. Raises `ValueError` for samples that it must not see."""
        if not isinstance(samples, Images):
            raise UsageError(f"extractor {name} reads images, not {samples.modality}")
        return self.extractor(name).extract(samples, keep=self.keep.get(name))


def packed(features: Features) -> bytes:
    """Features as the bytes of a safetensors file. Where a distance will need them, its moments and their root too:
    at d = 2048 they cost as much as the distance.
    """
    gaussian, facts = features.gaussian, {"count": str(features.count)}
    tensors = {"vectors": features.vectors.contiguous()}
    if features.logits is not None:
        tensors["logits"] = features.logits.contiguous()
    if gaussian.covariance is not None:
        tensors |= {"mean": gaussian.mean, "covariance": gaussian.covariance, "root": gaussian.root.contiguous()}
    return save({name: tensor.cpu() for name, tensor in tensors.items()}, facts)


def unpacked(path: Path) -> Features:
    """What `packed` packed. Raises `SafetensorError`, `KeyError` or `ValueError` for anything else."""
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        count = int((file.metadata() or {})["count"])
    features = Features(tensors["vectors"], tensors.get("logits"))
    if "covariance" in tensors:
        whole = Gaussian(count, tensors["mean"], tensors["covariance"])
        whole.__dict__["root"] = tensors["root"]
        return replace(features, whole=whole)
    if count != len(features.vectors):
        raise ValueError(f"{path}: {len(features.vectors)} vectors of {count}")
    return features
