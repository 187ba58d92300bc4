"""Scores, without torch, and verdicts on collapse of sentences that a user gives, in files or lists."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast

import numpy as np

from aigc_lab import plugins
from aigc_lab.data.shared import sample_note
from aigc_lab.errors import UsageError
from aigc_lab.experiment.protocol import load_protocol
from aigc_lab.experiment.validation import validated
from aigc_lab.host import content
from aigc_lab.host.files import is_file
from aigc_lab.metrics.base import Evidence, Metric, Pool, Real, Score, scored
from aigc_lab.shape import Modality, Shape
from aigc_lab.statistics.score import Scores
from aigc_lab.text.corpus import Corpus, Ints
from aigc_lab.text.labelled_files import read_every_row
from aigc_lab.text.sentence_files import read_every_line
from aigc_lab.text.tokenizer import Tokenizer, tokenize
from aigc_lab.text.tokenizer import named as tokenizer_named

# As many as any protocol: what is checked is the kind of samples, and `least` says how few will do.
_ENOUGH = 10_000
if TYPE_CHECKING:
    from torch import Tensor

    from aigc_lab.samples import Text
    from aigc_lab.verdicts.conclusion import CollapseVerdict

# Files that hold something else than sentences.
_OTHERS = (".npy", ".npz", ".safetensors", ".png", ".jpg", ".jpeg", ".webp", ".zip")


def concerns(*sources: object) -> bool:
    """Whether one of these is a list of sentences or names a file of them: any file but those of arrays, weights and
    pictures; or a folder of sentences that `sample` wrote.
    """
    if any(isinstance(each, list | tuple) and each and isinstance(each[0], str) for each in sources):
        return True
    paths = [_path(source) for source in sources if isinstance(source, str) and source]
    return any(is_file(path) and path.suffix.lower() not in _OTHERS for path in paths)


def scores(
    generated: str | Sequence[str],
    reference: str | Sequence[str],
    *,
    train: str | Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    protocol: str | None = None,
    tokenizer: Tokenizer = "words",
    samples: int | None = None,
) -> Scores:
    """Scores of sentences against real ones, each with its interval, n, floor and signature. Each set is a file, one
    sentence a line, or the sentences themselves. The floor compares half of the reference with the other half, or as
    many as were generated with the rest.

    Raises `UsageError` naming the file or the metric for what cannot be scored.
    """
    given = {"generated": generated, "reference": reference} | ({"train": train} if train is not None else {})
    every = _corpora({name: _lines(source, name) for name, source in given.items()}, tokenizer)
    # Blank lines of a file hold the place of a pair, and are no sentences.
    sets = {name: _sentences_of(given[name], each) for name, each in every.items()}
    fake, real = sets["generated"], sets["reference"]
    if samples is not None and samples > len(fake):
        raise UsageError(f"{samples:,} samples are to be scored, and {len(fake):,} are given")
    if len(real) < 2:
        raise UsageError("reference: one sentence is no reference; give two at the very least")
    evidence = _evidence(_some(fake, samples), real, sets.get("train"))
    in_pairs = _InPairs(every["generated"], every["reference"], samples)
    results = Scores()
    for name, config in _wanted(metrics, protocol):
        try:
            metric = _metric(name, config)
            results.describing |= metric.describing()
            results += _scored(metric, in_pairs.evidence() if getattr(metric, "paired", False) else evidence)
        except ValueError as error:
            if metrics is not None or isinstance(error, UsageError):
                raise UsageError(f"metric {name}: {str(error).removeprefix(f'{name} ')}") from None
            results.left_out[name] = str(error).removeprefix(f"{name} ")
            print(f"{name} is left out: {results.left_out[name]}", file=sys.stderr)
    if not results:
        raise UsageError("nothing can be scored: every metric was left out")
    return results


def as_text(
    generated: str | Sequence[str], reference: str | Sequence[str], tokenizer: Tokenizer, samples: int | None
) -> tuple[Text, Text]:
    """Both sets in the numbers of one vocabulary, as extractors of sentences read them, with their classes where both
    have some. `samples` of the generated ones are those that `scores` takes. Blank lines of a file are left out.
    """
    from aigc_lab.samples import Text
    from aigc_lab.text.vocabulary import Vocabulary

    given = {"generated": generated, "reference": reference}
    read = {name: _read(source, name) for name, source in given.items()}
    every = _corpora({name: each.sentences for name, each in read.items()}, tokenizer)
    sets = {name: _sentences_of(given[name], each, say=False) for name, each in every.items()}
    chosen = _some(sets["generated"], samples), sets["reference"]
    filled = {name: np.flatnonzero(each.lengths) for name, each in every.items()}
    if samples is not None:
        filled["generated"] = filled["generated"][_choice(len(filled["generated"]), samples)]
    of_fake, of_real, _ = _classes(*(read[name].of(filled[name]) for name in given))
    spelt = [[[each.words[token] for token in each.sentence(row)] for row in range(len(each))] for each in chosen]
    vocabulary = Vocabulary.of((sentence for each in spelt for sentence in each), tokenizer)
    longest = max((len(sentence) for each in spelt for sentence in each), default=0)
    fake, real = (Text.of([vocabulary.encode(row) for row in each], longest + 1, vocabulary) for each in spelt)
    if of_fake is None:
        return fake, real
    return replace(fake, labels=of_fake), replace(real, labels=of_real)


def judge_sentences(
    generated: str | Sequence[str],
    reference: str | Sequence[str],
    labels: Sequence[int] | Sequence[str] | None,
    *,
    cache: Path | None = None,
    tokenizer: Tokenizer = "words",
    **options: Any,
) -> CollapseVerdict:
    """The verdict on whether sentences have collapsed beside real ones, by vectors made of the reference's own words,
    in clusters of these or in the classes `labels`. Each set is a file or the sentences themselves.

    Raises `UsageError` for what cannot be judged, and for `options` that are about pictures.
    """
    from aigc_lab.extractors.sentences import vectors_of
    from aigc_lab.scoring.given_collapse import RealSet, known_sentences, verdict_on
    from aigc_lab.verdicts.collapse import alike

    for name, value in options.items():
        if value:
            raise UsageError(
                f"--{name.replace('numbers', 'range').replace('_', '-')}: is for pictures, and these are sentences"
            )
    named = {"generated": generated, "reference": reference}
    read = {name: _read(source, name) for name, source in named.items()}
    filled = {name: np.flatnonzero([bool(line) for line in each.sentences]) for name, each in read.items()}
    lines = {name: [each.sentences[row] for row in filled[name]] for name, each in read.items()}
    sets = _corpora(lines, tokenizer)
    drawn, own = (read[name].of(filled[name]) for name in named)
    of_fake, of_real, names = _classes(drawn, own if labels is None else labels)
    if labels is not None and len(labels) != len(sets["reference"]):
        raise UsageError(f"--labels: {len(labels):,} are given for {len(sets['reference']):,} reference sentences")
    sentences = known_sentences(sets["reference"], None)
    fake, real = vectors_of(sets["generated"], sets["reference"])
    identity = f"sentences|data:given:{sets['reference'].digest()[:8]}|tok:{tokenizer_named(tokenizer)}"
    beside = RealSet(
        real,
        identity,
        lines["reference"].__getitem__,
        labels=of_real,
        names=names,
        asked=of_fake,
        sentences=sentences,
        alike=alike(sets["reference"].texts()),
    )
    return verdict_on(fake, sets["generated"], beside, cache)


def _path(source: str) -> Path:
    """The file that is named, or the one in a folder that `sample` wrote."""
    path = Path(source).expanduser()
    return sample_note.whole_file(path) or path


class _Lines(NamedTuple):
    """Lines of a set, blank ones included, and the class of each where they are known."""

    sentences: list[str]
    classes: list[str] | None = None

    def of(self, rows: Ints) -> list[str] | None:
        """Classes of some lines, by their numbers."""
        return None if self.classes is None else [self.classes[row] for row in rows]


def _lines(source: str | Sequence[str], what: str) -> list[str]:
    return _read(source, what).sentences


def _read(source: str | Sequence[str], what: str) -> _Lines:
    """Lines of a file or a list. A table of class and sentence (.tsv) has classes, and so have the files that `sample`
    wrote of a conditional system.
    """
    if not isinstance(source, str):
        return _Lines(list(source))
    path = _path(source)
    if not is_file(path):
        raise UsageError(f"--{what} {source}: no such file; a set of sentences is a text file, one sentence a line")
    if path.suffix.lower() in _OTHERS:
        raise UsageError(f"--{what} {source}: is no text, and the other set is; compare like with like")
    table = read_every_row(path, f"--{what}")
    if table is not None:
        return _Lines(*table)
    lines = read_every_line(path, f"--{what}")
    return _Lines(lines, sample_note.classes_of(sample_note.note_of_array(path), range(len(lines))))


def _classes(
    generated: list[str] | None, reference: Sequence[int] | Sequence[str] | None
) -> tuple[Tensor | None, Tensor | None, Sequence[str] | None]:
    """Classes of both sets by the numbers of the reference's, int64 [n] and [m], and the names of these if they have
    any. None where a set has none; those of generated ones also, with a note on standard error, where one is no class
    of the reference.
    """
    import torch

    from aigc_lab.scoring.given_collapse import classes_of

    if reference is None:
        return None, None, None
    real, names = classes_of(reference)
    numbers = sorted(set(real.tolist()))
    number = {str(each) if names is None else names[each]: each for each in numbers}
    other = next((name for name in generated or () if name not in number), None)
    if other is not None:
        print(f"the classes of generated are left out, since {other} is no class of reference", file=sys.stderr)
    asked = None if generated is None or other is not None else torch.tensor([number[name] for name in generated])
    return asked, real, names


def _sentences_of(source: str | Sequence[str], lines: Corpus, *, say: bool = True) -> Corpus:
    """Without the blank lines of a file; a sentence of a list may be empty. On standard error it is said how many."""
    blank = lines.lengths == 0
    if not isinstance(source, str) or not blank.any():
        return lines
    count = int(blank.sum())
    lines_are = "1 blank line is" if count == 1 else f"{count:,} blank lines are"
    if say:
        print(f"{source}: {lines_are} no sentence (in pairs of lines: an empty one)", file=sys.stderr)
    return lines.take(~blank)


def _some(sentences: Corpus, samples: int | None) -> Corpus:
    return sentences if samples is None else sentences.take(_choice(len(sentences), samples))


def _choice(of: int, samples: int) -> Ints:
    """Which sentences are scored, of so many: a seeded choice, in their order."""
    return np.sort(np.random.default_rng(0).permutation(of)[:samples])


@dataclass
class _InPairs:
    """The lines of two sets as pairs, blank ones too; `samples` of the pairs."""

    generated: Corpus
    reference: Corpus
    samples: int | None

    def evidence(self) -> Evidence:
        """Raises `ValueError` for sets that are no pairs: a line that is lost shifts all that follow."""
        fake, real = len(self.generated), len(self.reference)
        if fake != real:
            raise ValueError(
                f"it compares line i with line i, and {fake:,} generated lines have {real:,} in the reference; "
                "give as many, with an empty line where nothing was generated"
            )
        rows = np.arange(fake) if self.samples is None else _choice(fake, self.samples)
        return _evidence(self.generated.take(rows), self.reference.take(rows), None)


def _corpora(given: dict[str, list[str]], tokenizer: Tokenizer) -> dict[str, Corpus]:
    """The sets in the numbers of one list of words."""
    numbers: dict[str, int] = {}
    rows = {
        name: [[numbers.setdefault(word, len(numbers)) for word in tokenize(line, tokenizer)] for line in lines]
        for name, lines in given.items()
    }
    words = tuple(numbers)
    return {name: Corpus.of(sentences, words, tokenizer) for name, sentences in rows.items()}


class _Given:
    """The reference in the place of a dataset: its content is its identity."""

    name = "given"
    likelihood = modes = None

    def __init__(self, reference: Corpus) -> None:
        self.shape = Shape(Modality.TEXT, (int(reference.lengths.max()) + 1,))
        self.digest = reference.digest()


def _evidence(fake: Corpus, real: Corpus, train: Corpus | None) -> Evidence:
    few = min(len(fake), len(real) // 2)
    pool = Pool(cast(Any, (real,)), len(real) // 2)

    def refused(*of: object) -> NoReturn:
        raise ValueError("it needs features: name an extractor of sentences, --features minilm, or leave it out")

    dataset = _Given(real)
    details = [f"data:given:{dataset.digest[:8]}", f"ref:set:{len(real)}", f"n:{len(fake)}"]
    return Evidence(
        cast(Any, fake),
        Real.drawn(cast(Any, real), pool, len(fake), cast(Any, train)),
        cast(Any, dataset),
        refused,
        refused,
        "|".join([*details, f"floor:{few}:{len(real) - few}"]),
    )


def _wanted(metrics: Sequence[str] | None, protocol: str | None) -> list[tuple[str, dict[str, Any]]]:
    if metrics is not None and protocol is not None:
        raise UsageError("--metrics and --protocol say the same in two ways; give one of them")
    if metrics is not None:
        return [(name, {}) for name in metrics]
    return load_protocol(content.find_file("evaluation", protocol or "text")).metrics


def _metric(name: str, config: dict[str, Any]) -> Metric:
    kind = plugins.find(Metric, name)  # type: ignore[type-abstract]

    def fail(at: tuple[Any, ...], message: str) -> NoReturn:
        raise UsageError(f"{'.'.join(map(str, at))}: {message}")

    return kind(validated(kind.Config, config, fail))


def _scored(metric: Metric, evidence: Evidence) -> list[Score]:
    least = getattr(metric, "least", 1)
    if len(evidence.generated) < least:
        raise ValueError(f"it needs at least {least} generated sentences, not {len(evidence.generated)}")
    metric.check(evidence.dataset, max(len(evidence.generated), _ENOUGH))
    metric.refuse_lacking(evidence)
    return scored(metric, evidence, lambda name, why: print(f"{name} is left out: {why}", file=sys.stderr))
