"""Vectors of sentences from word vectors of the training split: singular vectors of PPMI (Levy & Goldberg 2014)."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from aigc_lab.data.base import Dataset
from aigc_lab.extractors import base
from aigc_lab.host.files import locked
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.samples import Text
from aigc_lab.shape import Modality
from aigc_lab.text.corpus import Corpus
from aigc_lab.text.vocabulary import EOS, PAD, SPECIAL

_SIZE = 32
# Words so many places apart say something of each other.
_WINDOW = 4
_RECIPE = f"sentences 1: ppmi, window {_WINDOW}, {_SIZE}"


class _Mean(nn.Module):
    """Mean word vector of a sentence, and mean product of neighbouring vectors, which encodes the order of words."""

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors, requires_grad=False)

    def forward(self, words: Tensor) -> Tensor:
        inside = ((words != PAD) & (words != EOS)).unsqueeze(2)
        vectors = self.vectors[words] * inside
        count = inside.sum(1).clamp_min(1)
        # Turned by one place, the second word's vector differs from the first's: "a b" is not "b a".
        products = vectors[:, :-1] * vectors[:, 1:].roll(1, 2) * (_SIZE**0.5)
        return torch.cat([vectors.sum(1) / count, products.sum(1) / (count - 1).clamp_min(1)], 1)


class SentenceVectors(base.Extractor):
    """Vectors [N, 64] of sentences. Word vectors are fitted once to a dataset's training split and identified by the
    sha256 of the stored file: scores of two files are never compared.
    """

    short = "sentences"
    reads = Modality.TEXT
    dimensions = 2 * _SIZE
    block = 1000

    def __init__(self, weights: bytes, dataset: Dataset, device: str) -> None:
        self.identity = f"sentences:{dataset.name}:{hashlib.sha256(weights).hexdigest()[:8]}"
        self.network = _Mean(load(weights)["vectors"]).to(device).eval()

    @classmethod
    def prepare(
        cls, dataset: Dataset, *, cache: Path, weights: WeightsPolicy, device: str, say: Callable[[str], None]
    ) -> "SentenceVectors":
        """Extractor with the stored word vectors of this dataset; they are fitted and stored first if there are none (a
        second).
        """
        folder = cache / "classifiers"  # with what else judges: whoever clears the cache keeps both, or neither
        recipe = hashlib.sha256(f"{_RECIPE} {dataset.digest}".encode()).hexdigest()
        index = folder / f"{dataset.name}-{recipe[:16]}.json"
        folder.mkdir(parents=True, exist_ok=True)
        with locked(index.with_suffix(".lock")):
            stored = base.addressed(index)
            if stored is None:
                train = dataset.load("train")
                assert isinstance(train, Text)
                stored = save({"vectors": torch.from_numpy(word_vectors(train.corpus))})
                facts = {"dataset": dataset.name, "data": dataset.digest, "recipe": _RECIPE}
                stored = base.keep_addressed(index, stored, facts)
        return cls(stored, dataset, device)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Vectors [N, 64] of sentences, int64 [N, L]."""
        return self.network(images), None


def vectors_of(generated: Corpus, reference: Corpus) -> tuple[Tensor, Tensor]:
    """Vectors [N, 64] of two corpora with the same words, by word vectors of the reference."""
    marks = len(SPECIAL)
    sets = [
        replace(each, tokens=each.tokens + marks, words=(*SPECIAL, *reference.words)) for each in (generated, reference)
    ]
    network = _Mean(torch.from_numpy(word_vectors(sets[1])))
    vectors = []
    for each in sets:
        rows = np.full((len(each), max(2, int(each.lengths.max()))), PAD, dtype=np.int64)
        rows[np.arange(rows.shape[1]) < each.lengths[:, None]] = each.tokens
        vectors.append(network(torch.from_numpy(rows)))
    return vectors[0], vectors[1]


def word_vectors(corpus: Corpus, size: int = _SIZE) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Word vectors, float32 [words, size]: U·√S of the positive pointwise mutual information of words at most 4 places
    apart. They are zero for words that do not occur.
    """
    from scipy.sparse import csr_matrix
    from sklearn.utils.extmath import randomized_svd

    count = len(corpus.words)
    pairs = []
    for apart in range(1, _WINDOW + 1):
        here = np.arange(max(0, len(corpus.tokens) - apart))
        here = here[corpus.owners[here] == corpus.owners[here + apart]]
        pairs.append(np.stack([corpus.tokens[here], corpus.tokens[here + apart]]))
    first, second = np.concatenate(pairs, axis=1)
    together = csr_matrix((np.ones(len(first)), (first, second)), shape=(count, count))
    together = (together + together.T).tocoo()
    words = np.asarray(together.sum(1)).ravel()
    information = np.log(together.data * words.sum() / (words[together.row] * words[together.col]))
    positive = information > 0
    matrix = csr_matrix((information[positive], (together.row[positive], together.col[positive])), shape=(count, count))
    left, values, _ = randomized_svd(matrix, min(size, count), n_iter=5, random_state=0)
    vectors = left * np.sqrt(values)
    padded = np.zeros((count, size), dtype=np.float32)
    padded[:, : vectors.shape[1]] = vectors
    return padded
