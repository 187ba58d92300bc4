"""Sentences of a vocabulary, a line each."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from aigc_lab import noise
from aigc_lab.data.base import Modes
from aigc_lab.metrics.shared.text import corpus_of
from aigc_lab.modalities.base import Lookalikes, ModalityKind
from aigc_lab.modalities.shared import blocks as stored
from aigc_lab.samples import Samples, Text
from aigc_lab.shape import Modality, Shape
from aigc_lab.text.vocabulary import EOS, PAD, SPECIAL, Vocabulary
from aigc_lab.verdicts.collapse import Judge
from aigc_lab.verdicts.conclusion import CollapseVerdict
from aigc_lab.verdicts.sentences import Sentences, of_splits

if TYPE_CHECKING:
    from aigc_lab.modalities.base import Array

# Sentences that a run shows at each evaluation.
_SHOWN = 20
# A column of classes and one of sentences, as a dataset of labelled lines is read.
_TABLE = "samples.tsv"


class TextKind(ModalityKind):
    """Sentences as numbers of words, int64 [N, L]."""

    samples = Text
    noun = "sentences"
    shown_as = "lines"
    example = "pydoc"
    suffix = ".txt"
    overview = "samples.txt"
    options = MappingProxyType({"temperature": "number", "top_k": "whole", "top_p": "number", "prefix": "words"})
    judge_extractor = "sentences"
    stored_dtype = torch.int64

    def picture(self, samples: Samples, modes: Modes | None = None) -> None:
        return None

    def lines(self, samples: Samples) -> list[str]:
        return _text(samples).sentences()

    def shown(self, modes: Modes | None) -> int:
        return _SHOWN

    # ---- written

    def array(self, samples: Samples) -> "Array":
        """Strings [n]."""
        return numpy.array(self.lines(samples))

    def write(self, folder: Path, blocks: "Iterable[Array]", n: int, classes: Sequence[str] = ()) -> dict[str, Any]:
        """Writes `samples.txt`, a sentence a line, and of a conditional system `samples.tsv`, each behind its class."""
        if not classes:
            stored.write_lines(folder / self.overview, blocks)
            return {"files": [self.overview]}
        turn = itertools.cycle(" ".join(name.split()) for name in classes)
        with (folder / self.overview).open("wb") as plain, (folder / _TABLE).open("wb") as table:
            for block in blocks:
                plain.write(stored.lines(block))
                table.write(stored.lines([f"{name}\t{line}" for line, name in zip(block, turn, strict=False)]))
        return {"files": [self.overview, _TABLE]}

    def size_on_disk(self, block: "Array", *, in_one_file: bool) -> int:
        return len(stored.lines(block))

    # ---- read

    def mismatch(self, generated: Samples, reference: Samples, names: tuple[str, str]) -> str | None:
        """Sentences of different lengths can be compared, and not those of different vocabularies."""
        if _text(generated).vocabulary == _text(reference).vocabulary:
            return None
        return (
            f"{names[0]} and {names[1]} have different vocabularies; compare them as text: "
            "aigc-lab sample RUN -o samples.txt, and --generated samples.txt"
        )

    # ---- scored

    def panel(self, features: str | None) -> list[str]:
        return ["bleu", "self_bleu", "unique", "distinct", "repetition", "rouge_nn", "lm_score", "embedding_fd"]

    def trivial(self, train: Samples, count: int) -> Text:
        """Words drawn by their frequency, in sentences as long as real ones."""
        train = _text(train)
        words, source = train.values, noise.generator("trivial")
        counted = torch.bincount(words[(words != PAD) & (words != EOS)], minlength=len(train.vocabulary)).double()
        lengths = words[torch.randint(len(words), (count,), generator=source)]
        drawn = torch.multinomial(counted, count * words.shape[1], replacement=True, generator=source)
        tokens = drawn.reshape(count, -1)
        tokens = torch.where((lengths == PAD) | (lengths == EOS), lengths, tokens)
        return Text(tokens, vocabulary=train.vocabulary)

    def noise(self, like: Samples, count: int, *key: str) -> Text:
        """Words drawn uniformly, any of which may end a sentence that has an end."""
        like = _text(like)
        drawn = noise.draw(noise.Draw((count, *like.values.shape[1:]), "unit"), *key)
        first = max(like.vocabulary.impossible) + 1
        words = (drawn * (len(like.vocabulary) - first)).long() + first
        return replace(like, values=words, labels=None).canonical()

    def unscorable(self, samples: Samples) -> Iterator[tuple[Samples, str]]:
        values = samples.values.clone()
        values[3, 0] = len(_text(samples).vocabulary)
        yield replace(samples, values=values), "a number that is no word"

    # ---- judged

    def content(self, samples: Samples) -> list[bytes]:
        return [sentence.encode() for sentence in _text(samples).corpus.texts()]

    def sentences(self, real: Sequence[Samples], train: Samples | None) -> Sentences:
        corpora = [_text(each).corpus for each in real]
        read = None if train is None else _text(train).corpus
        return Sentences(corpora[0], read) if len(corpora) == 1 else of_splits(corpora, read)

    def judged(
        self,
        judge: Judge,
        vectors: Tensor,
        generated: Any,
        *,
        copies: object,
        sentences: Sentences | None,
        real: Lookalikes | None,
    ) -> CollapseVerdict:
        """The verdict on vectors, and on how strange and how varied the sentences are beside real ones."""
        if sentences is None:
            return judge.judge(vectors)
        corpus, sentences.nulls = corpus_of(generated), judge.nulls
        verdict = judge.judge(vectors, sentences.beside(corpus))
        return sentences.with_phrases(verdict, corpus)

    # ---- counted and checked

    def blank(self, shape: Shape, count: int, labels: Tensor | None) -> Text:
        assert shape.vocabulary is not None
        words = torch.full((count, *shape.size), len(shape.vocabulary) - 1)
        return Text(words, labels, vocabulary=shape.vocabulary)

    def example_shape(self) -> Shape:
        return Shape(Modality.TEXT, (5,), vocabulary=Vocabulary((*SPECIAL, "a", "word")))

    def fault_of_stored(self, name: str, samples: Samples, shape: Shape) -> str | None:
        if _text(samples).vocabulary != shape.vocabulary:
            return f"{name} has another vocabulary than the shape: make it once, of the training split"
        if not torch.equal(samples.canonical().values, samples.values):
            return f"{name} holds something behind an <eos>: pad with Text.of(sentences, length, vocabulary)"
        return None

    def fault_of_generated(self, samples: Samples, shape: Shape) -> str | None:
        samples.canonical()
        if _text(samples).vocabulary != shape.vocabulary:
            return "its samples have another vocabulary than its data: make them Text(…, self.vocabulary)"
        return None


def _text(samples: Samples) -> Text:
    assert isinstance(samples, Text)
    return samples
