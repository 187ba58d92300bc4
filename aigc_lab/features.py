"""One feature pass for all metrics: extractors by name, real features cached on disk by content."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from aigc_lab import plugins
from aigc_lab.data.base import Dataset
from aigc_lab.errors import UsageError
from aigc_lab.extractors.base import Extractor, Features
from aigc_lab.files import write_atomically
from aigc_lab.samples import Images, Samples

# Part of every key: changes when the stored form does.
_SCHEMA = "1"


class FeatureStore:
    """Extractors are prepared once; features of real samples are kept in `cache/features`, keyed by what they are of:
    sha256(content of the samples | weights and preprocessing | dtype | schema). One changed pixel is another key.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        cache: Path,
        weights_dir: Path | None,
        device: str,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._dataset = dataset
        self._cache = cache
        self._weights_dir = weights_dir
        self._device = device
        self._say = say
        self._extractors: dict[str, Extractor] = {}
        self._memory: dict[tuple[str, int], tuple[Samples, Features]] = {}

    def extractor(self, name: str) -> Extractor:
        if name not in self._extractors:
            kind = plugins.find(Extractor, name)  # type: ignore[type-abstract]
            self._extractors[name] = kind.prepare(
                self._dataset, cache=self._cache, weights_dir=self._weights_dir, device=self._device, say=self._say
            )
        return self._extractors[name]

    def real(self, name: str, samples: Samples) -> Features:
        """Features of a real split: from memory, else from disk, else computed and stored."""
        kept = self._memory.get((name, id(samples)))
        if kept is not None:
            return kept[1]
        extractor = self.extractor(name)
        key = hashlib.sha256(f"{samples.digest()}|{extractor.identity}|float32|{_SCHEMA}".encode()).hexdigest()
        path = self._cache / "features" / f"{key}.safetensors"
        features = self._stored(path)
        if features is None:
            features = self.made(name, samples)
            tensors = {"vectors": features.vectors}
            if features.logits is not None:
                tensors["logits"] = features.logits
            write_atomically(path, save(tensors))
        # The samples are held too: an id is only unique while its object lives.
        self._memory[name, id(samples)] = (samples, features)
        return features

    def _stored(self, path: Path) -> Features | None:
        if not path.is_file():
            return None
        try:
            tensors = load_file(path)
        except SafetensorError:
            self._say(f"the stored features {path} are damaged; they are computed again")
            return None
        return Features(tensors["vectors"], tensors.get("logits"))

    def made(self, name: str, samples: Samples) -> Features:
        """Features of generated samples: computed, never stored."""
        if not isinstance(samples, Images):
            raise UsageError(f"extractor {name} reads images, not {samples.modality}")
        return self.extractor(name).extract(samples)
