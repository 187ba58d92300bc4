"""The SeqGAN benchmark (Yu et al. 2017): sentences of a randomly initialised LSTM, whose likelihood is known."""

import hashlib
import io
import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from aigc_lab import noise
from aigc_lab.config import Count, Seed, Strict, Width
from aigc_lab.data import base
from aigc_lab.errors import UsageError
from aigc_lab.host.files import is_file, write_atomically
from aigc_lab.nets import decoding
from aigc_lab.nets.decoding import Sampling
from aigc_lab.nets.recurrent import RecurrentDecoder
from aigc_lab.samples import Text
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.shared.language import first_word, nll_of, shifted
from aigc_lab.text.vocabulary import SPECIAL, Vocabulary

# How the published weights are named: input, forget, output gate and candidate, each with W of the word, U of the
# memory, and b; `torch.nn.LSTM` has them as input, forget, candidate, output.
_GATES = ("i", "f", "c", "og")
# Exceptions of numpy and zipfile for an archive that is absent, cut off, flipped, encrypted or of another kind.
DAMAGED = (OSError, ValueError, EOFError, LookupError, RuntimeError, TypeError, zipfile.BadZipFile, zlib.error)
_SCHEMA = "oracle 2"
_BLOCK = 500


class Oracle(nn.Module):
    """LSTM language model whose first input is word 0, the start token; all sentences have one length."""

    def __init__(self, weights: dict[str, Tensor], length: int, vocabulary: Vocabulary) -> None:
        super().__init__()
        words, embedding = weights["embeddings"].shape
        hidden = weights["Wo"].shape[0]
        self.length, self.vocabulary, self.first = length, vocabulary, first_word(vocabulary)
        self.decoder = RecurrentDecoder(words, embedding, hidden)
        self.output = nn.Linear(hidden, words)
        biases = torch.cat([weights[f"b{gate}"] for gate in _GATES])
        lstm = {
            "weight_ih_l0": torch.cat([weights[f"W{gate}"].T for gate in _GATES]),
            "weight_hh_l0": torch.cat([weights[f"U{gate}"].T for gate in _GATES]),
            "bias_ih_l0": biases,
            "bias_hh_l0": torch.zeros_like(biases),
        }
        self.decoder.lstm.load_state_dict(lstm)
        self.decoder.embedding.load_state_dict({"weight": weights["embeddings"]})
        self.output.load_state_dict({"weight": weights["Wo"].T, "bias": weights["bo"]})
        self.eval().requires_grad_(False)

    def _own_numbers(self, words: Tensor) -> Tensor:
        """Oracle's own word numbers: 0 for the start, and k − 3 for word k of the vocabulary."""
        return (words - self.first).clamp_min(0)

    @torch.inference_mode()
    def token_nll(self, words: Tensor) -> Tensor:
        """−log p of each word [N, L] in nats; 0 at `<pad>`."""
        logits = self.output(self.decoder(self._own_numbers(shifted(words))))
        return nll_of(logits.float(), words, self.first)

    @torch.inference_mode()
    def sample(self, uniform: Tensor) -> Text:
        """Sentence for each row of uniform numbers [N, length]."""

        def predict(words: Tensor, memory: object) -> tuple[Tensor, object]:
            features, memory = self.decoder.step(self._own_numbers(words), memory)  # type: ignore[arg-type]
            return self.output(features[:, -1]), memory

        memory = self.decoder.start(len(uniform), self.length)
        words = decoding.sentences(predict, memory, uniform, self.vocabulary, self.first, Sampling())
        return Text(words, vocabulary=self.vocabulary)


def random_weights(words: int, embedding: int, hidden: int, seed: int) -> dict[str, Tensor]:
    """Weights and biases drawn from N(0, 1), as in the published benchmark."""
    shapes: dict[str, tuple[int, ...]] = {"embeddings": (words, embedding)}
    for gate in _GATES:
        shapes |= {f"W{gate}": (embedding, hidden), f"U{gate}": (hidden, hidden), f"b{gate}": (hidden,)}
    shapes |= {"Wo": (hidden, words), "bo": (words,)}
    return {name: noise.draw(noise.Draw(shape), "oracle", seed, name) for name, shape in shapes.items()}


def read_weights(path: Path) -> dict[str, Tensor]:
    """Weights of an `.npz` file with the arrays that `random_weights` names. Never unpickles. Raises `UsageError`
    naming the file and the array for anything else.
    """
    if not zipfile.is_zipfile(path):
        raise UsageError(f"data.weights: {path}: is no .npz file, or not all of one")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            weights = {name: torch.from_numpy(np.array(arrays[name], dtype=np.float32)) for name in arrays.files}
    except DAMAGED as error:
        raise UsageError(f"data.weights: {path}: cannot be read as .npz ({error})") from None
    expected = random_weights(1, 1, 1, 0)
    lacking = [name for name in expected if name not in weights]
    if lacking:
        raise UsageError(f"data.weights: {path}: lacks {', '.join(lacking)}; it needs {', '.join(expected)}")
    if weights["embeddings"].ndim != 2 or weights["Wo"].ndim != 2:
        raise UsageError(f"data.weights: {path}: embeddings and Wo have two dimensions")
    (words, embedding), hidden = weights["embeddings"].shape, weights["Wo"].shape[0]
    for name, like in random_weights(words, embedding, hidden, 0).items():
        if weights[name].shape != like.shape:
            raise UsageError(f"data.weights: {path}: {name} is {list(weights[name].shape)}, not {list(like.shape)}")
        if not weights[name].isfinite().all():
            raise UsageError(f"data.weights: {path}: {name} holds NaN or infinity")
    return {name: weights[name] for name in expected}


class OracleText(base.Dataset):
    """Sentences of the oracle, all of one length and without an end token, drawn once and kept in the data folder.
    Defaults are the benchmark's: 5,000 words, embedding and hidden size 32, 20 words a sentence (or 40), 10,000
    training sentences.

    Every split is a fresh draw: a small oracle may repeat a sentence, also in two splits. Preventing that would make
    held-out sentences rarer than the oracle's, and their NLL would not be its entropy.
    """

    distinct = False

    class Config(Strict):
        words: Count = Field(5000, ge=2, description="vocabulary of the oracle")
        length: Count = Field(20, description="words of every sentence")
        embedding: Width = 32
        hidden: Width = 32
        train: Count = Field(10_000, ge=100, description="sentences to train on")
        scored: Count = Field(5000, ge=100, description="sentences of the reference and of the holdout, each")
        seed: Seed = Field(0, description="of the oracle's weights and sentences")
        weights: str | None = Field(None, description="an .npz file of published weights, in the place of random ones")

    @property
    def shape(self) -> Shape:
        return Shape(Modality.TEXT, (self.config.length,), vocabulary=self.vocabulary)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Vocabulary of the marks and the oracle's words by number."""
        count = self.config.words if self.config.weights is None else len(self._weights["embeddings"])
        return Vocabulary((*SPECIAL, *map(str, range(count))), "none", ends=False)

    @property
    def fixed(self) -> bool:  # type: ignore[override]
        return self.config.weights is None

    @cached_property
    def _weights(self) -> dict[str, Tensor]:
        config = self.config
        if config.weights is None:
            return random_weights(config.words, config.embedding, config.hidden, config.seed)
        file = Path(config.weights).expanduser()
        path = file if is_file(file) else self.data_dir / file
        if not is_file(path):
            raise UsageError(f"data.weights: {config.weights}: no such file here, nor in {self.data_dir}")
        return read_weights(path)

    @cached_property
    def likelihood(self) -> Oracle:
        return Oracle(self._weights, self.config.length, self.vocabulary)

    def memory(self) -> Mapping[str, int]:
        config = self.config
        sentence = 24 * config.length  # 8 bytes a word, drawn, stored and cut into splits
        # Weights and names of the words, and their probabilities at every place of a block of sentences.
        words = (4 * (config.embedding + config.hidden) + 200 + 8 * _BLOCK * config.length) * config.words
        return {"train": sentence * config.train, "scored": 2 * sentence * config.scored, "words": words}

    def load(self, split: base.Split) -> Text:
        first = {"train": 0, "reference": self.config.train, "holdout": self.config.train + self.config.scored}[split]
        count = self.config.train if split == "train" else self.config.scored
        return Text(self._drawn[first : first + count], vocabulary=self.vocabulary)

    @cached_property
    def _drawn(self) -> Tensor:
        """Sentences of all splits in a row [N, length]."""
        count = self.config.train + 2 * self.config.scored
        key = [_SCHEMA, {**self.config.model_dump(), "weights": self._hash}]
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        path = self.data_dir / "made" / f"oracle-{name}.npz"
        try:
            with np.load(path, allow_pickle=False) as arrays:  # an archive, for its checksum
                stored = torch.from_numpy(arrays["words"].astype(np.int64))
            if stored.shape == (count, self.config.length):
                return stored
        except DAMAGED:
            pass  # none, or one that is not whole: it is drawn again
        sentences = self._draw(count)
        buffer = io.BytesIO()
        np.savez(buffer, words=sentences.numpy().astype(np.int32))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, buffer.getvalue())
        except OSError:
            pass  # a folder that cannot be written costs the drawing again, and nothing else
        return sentences

    @cached_property
    def _hash(self) -> str:
        digest = hashlib.sha256()
        for tensor in self._weights.values():
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    def _draw(self, count: int) -> Tensor:
        blocks = []
        for block in range(math.ceil(count / _BLOCK)):
            uniform = noise.draw(noise.Draw((_BLOCK, self.config.length), "unit"), "oracle", self.config.seed, block)
            blocks.append(self.likelihood.sample(uniform).values)
        return torch.cat(blocks)[:count]

    @property
    def notes(self) -> list[str]:
        holdout = self.load("holdout")
        each = torch.cat(
            [self.likelihood.token_nll(part).mean(1) for part in torch.split(holdout.values, _BLOCK)]
        ).double()
        error = each.std().item() / len(each) ** 0.5
        return [
            f"oracle: {len(self.vocabulary) - len(SPECIAL):,} words, sentences of {self.config.length}, "
            f"{self.config.train:,} to train on; its own NLL {each.mean().item():.4f} ± {1.96 * error:.4f} nats a word "
            f"({len(each):,} sentences); weights {self._hash[:8]}"
        ]
