"""Features for all metrics: extractors by name, and features of real samples cached on disk by their content."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from aigc_lab import plugins
from aigc_lab.data.base import Dataset
from aigc_lab.errors import UsageError
from aigc_lab.extractors.base import Extractor, Features
from aigc_lab.extractors.shared import lookup
from aigc_lab.host import shared_files
from aigc_lab.host.files import replacing, sha256
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.modalities.base import modality_of
from aigc_lab.samples import Samples
from aigc_lab.statistics.frechet import Gaussian

# Part of every key: changes when the stored form does.
_SCHEMA = "2"


class FeatureStore:
    """Extractors, each prepared once, and features of real samples in `cache/features`. The key of a file is the sha256
    of the samples' content, the extractor's identity, the number of vectors, dtype and schema.

    `keep` is the number of samples, at most, whose vectors an extractor keeps, by its name; the vectors of all without.
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
        self.cache = cache
        self._weights = weights
        self.device = device
        self._say = say
        self._extractors: dict[str, Extractor] = {}
        self._memory: dict[tuple[str, int], tuple[Samples, Features]] = {}
        self.keep: dict[str, int] = {}
        #: told of each pass: what is read, how many of how many samples are done
        self.watch: Callable[[str, int, int], object] = lambda what, done, total: None

    def extractor(self, name: str) -> Extractor:
        if name not in self._extractors:
            kind = lookup.find_extractor(name)
            with plugins.blamed(kind):
                extractor = kind.prepare(
                    self._dataset, cache=self.cache, weights=self._weights, device=self.device, say=self._say
                )
            source = plugins.source_of(kind)
            if source is not None:
                extractor.identity += f":file {hashlib.sha256(source).hexdigest()[:8]}"
            self._extractors[name] = extractor
        return self._extractors[name]

    def real(self, name: str, samples: Samples) -> Features:
        """Features of real samples: from memory, else from disk, else computed and stored."""
        remembered = self._memory.get((name, id(samples)))
        if remembered is not None:
            return remembered[1]
        path = self._path(name, samples)
        features = self._stored(path)
        if features is None:
            features = self.made(name, samples)
            self._write(path, features, self.extractor(name).identity)
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
        return self.cache / "features" / f"{hashlib.sha256('|'.join(parts).encode()).hexdigest()}.safetensors"

    def _stored(self, path: Path) -> Features | None:
        if not shared_files.cached(path).is_file():
            return None
        try:
            return unpacked(path)
        except (SafetensorError, KeyError, ValueError, OSError):
            self._say(f"the stored features {path} are damaged; they are computed again")
            return None

    def _write(self, path: Path, features: Features, identity: str) -> None:
        """Stores features. A disk that takes none is said and no error: they are computed again next time."""
        try:
            pack(features, {"extractor": identity}, path)
            shared_files.publish(path)
        except (OSError, SafetensorError) as error:
            why = getattr(error, "strerror", None) or error
            self._say(f"the features cannot be stored ({why}: {path}); they are computed again next time")

    def made(self, name: str, samples: Samples) -> Features:
        """Features of samples, computed and not stored. Raises `ValueError` for samples that the extractor refuses."""
        if modality_of(samples).is_vector:
            raise UsageError(f"extractor {name} reads images or text, not {samples.modality}")
        total, extractor = len(samples), self.extractor(name)
        what = f"{name} features of {total:,} samples"
        with plugins.blamed(type(extractor)):
            return extractor.extract(samples, keep=self.keep.get(name), seen=lambda done: self.watch(what, done, total))


def pack(features: Features, facts: Mapping[str, str], path: Path) -> None:
    """Writes features as a safetensors file with a digest of all tensors. Moments are stored too where a Fréchet
    distance will need them, with the root of the covariance, which at d = 2048 costs as much as the distance. Raises
    `OSError` or `SafetensorError`.
    """
    gaussian = features.gaussian
    tensors = {"vectors": features.vectors.contiguous()}
    if features.logits is not None:
        tensors["logits"] = features.logits.contiguous()
    if gaussian.covariance is not None:
        tensors |= {"mean": gaussian.mean, "covariance": gaussian.covariance, "root": gaussian.root.contiguous()}
    tensors = {name: tensor.cpu() for name, tensor in tensors.items()}
    metadata = {**facts, "count": features.count, "sha256": _digest(tensors)}
    with replacing(path) as temporary:
        # Under one key: safetensors writes several in any order, and the same features would be other bytes.
        save_file(tensors, temporary, {"facts": json.dumps(metadata, sort_keys=True)})


def unpacked(path: Path) -> Features:
    """The features that `pack` wrote. Raises `SafetensorError`, `KeyError` or `ValueError` for any other file."""
    tensors = load_file(path)
    facts = described(path)
    if _digest(tensors) != facts["sha256"]:
        raise ValueError(f"{path}: its bytes are not those that were written")
    features = Features(tensors["vectors"], tensors.get("logits"))
    if "covariance" not in tensors:
        return features
    whole = Gaussian(facts["count"], tensors["mean"], tensors["covariance"])
    whole.__dict__["root"] = tensors["root"]
    return replace(features, whole=whole)


def described(path: Path) -> dict[str, Any]:
    """The facts in the header of stored features: `count`, `extractor`, `sha256`; empty without a header. Raises
    `SafetensorError` or `ValueError`.
    """
    with safe_open(path, "pt") as file:
        facts: dict[str, Any] = json.loads((file.metadata() or {}).get("facts", "{}"))
    return facts


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().data)
    return digest.hexdigest()


# ---- the cache as a user sees it

_FEATURES, _CLASSIFIERS = "features", "classifiers"
# What verdicts rest on: small, and computed again.
_NULLS, _BASELINES = "nulls", "baselines"


def cached(cache: Path) -> list[dict[str, Any]]:
    """The files of a cache as rows, the largest first: kind, what, samples, bytes, age in seconds, file."""
    rows = []
    for kind in (_FEATURES, _CLASSIFIERS, _NULLS, _BASELINES):
        ends = ("*.safetensors", "*.json") if kind in (_NULLS, _BASELINES) else ("*.safetensors",)
        for path in sorted(each for end in ends for each in (cache / kind).glob(end)):
            what, samples = "", None
            with suppress(SafetensorError, KeyError, ValueError, OSError):
                facts = described(path)
                what, samples = facts.get("extractor", ""), facts.get("count")
            stat = path.stat()
            row = {"kind": kind, "what": what, "samples": samples, "bytes": stat.st_size}
            rows.append(row | {"age": time.time() - stat.st_mtime, "file": str(path)})
    return sorted(rows, key=lambda row: -row["bytes"])


def damaged(cache: Path) -> list[tuple[Path, str]]:
    """The files of a cache whose bytes are not those that were written, each with what is wrong. Reads all of them."""
    from aigc_lab.scoring.null_cache import known_baseline, known_nulls, neighbours

    broken = []
    for path in sorted((cache / _FEATURES).glob("*.safetensors")):
        try:
            unpacked(path)
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            broken.append((path, str(error)))
    lists, nulls, baselines = (_NULLS, "*.safetensors"), (_NULLS, "*.json"), (_BASELINES, "*.json")
    for (kind, end), read in ((lists, neighbours), (nulls, known_nulls), (baselines, known_baseline)):
        for path in sorted((cache / kind).glob(end)):
            try:
                read(path)
            except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
                broken.append((path, str(error)))
    judges = sorted((cache / _CLASSIFIERS).glob("*.safetensors"))
    return broken + [
        (path, "its bytes are not those that were written") for path in judges if sha256(path) != path.stem
    ]


def clear(cache: Path, *, classifiers: bool = False) -> tuple[int, int]:
    """Removes stored features, nulls and baselines, and returns how many files and bytes these were. Classifiers are
    removed if asked for: scores by a new one cannot be compared with the old. What is published of these goes, too.
    """
    count = size = 0
    for kind in (_FEATURES, _NULLS, _BASELINES, *([_CLASSIFIERS] if classifiers else [])):
        for path in (cache / kind).glob("*"):
            size += path.stat().st_size
            path.unlink(missing_ok=True)
            count += 1
        shared_files.remove(cache / kind)
    return count, size
