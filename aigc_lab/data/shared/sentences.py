"""Datasets of sentences: tokens, splits, and a vocabulary of the training split, whatever the source of the lines."""

import hashlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import ClassVar, Literal, NamedTuple, TypeVar

import torch
from pydantic import Field

from aigc_lab.config import Count, Strict
from aigc_lab.data import base
from aigc_lab.errors import UsageError
from aigc_lab.samples import Text
from aigc_lab.shape import Modality, Shape
from aigc_lab.text.tokenizer import Tokenizer, tokenize
from aigc_lab.text.vocabulary import UNK, Vocabulary

# The words of a sentence, or their numbers, and its class, 0 without labels.
Words = tuple[tuple[str, ...], int]
Numbers = tuple[tuple[int, ...], int]
Row = TypeVar("Row", Words, Numbers)


class _Parts(NamedTuple):
    texts: dict[base.Split, Text]
    vocabulary: Vocabulary
    class_names: tuple[str, ...] | None
    notes: list[str]


class Sentences(base.Dataset):
    """Dataset of lines of text, each a sentence. The hash of its tokens decides its split, so equal sentences are in
    one.

    A word that occurs less than `min_count` times in the training split is `<unk>` in all splits: a model that never
    met `<unk>` would give unknown words no probability. Training sentences whose word numbers equal those of a scored
    one are left out, whatever their classes. A sentence that occurs under several classes is kept under each.
    """

    fixed: ClassVar[bool] = False

    class Config(Strict):
        tokenizer: Tokenizer = Field("words", description="words parts punctuation; none takes what white space parts")
        lowercase: bool = Field(False, description="all letters small, before the tokens are counted")
        max_length: Count = Field(40, description="tokens of a sentence, at most")
        longer: Literal["leave out", "cut"] = Field("leave out", description="what is done with longer sentences")
        repeated: Literal["keep", "drop"] = Field("keep", description="what is done with sentences that repeat another")
        min_count: Count = Field(2, description="a rarer word of the training split is <unk>")
        max_words: Count | None = Field(None, description="so many words are known, the most frequent")
        reference: float = Field(0.1, gt=0, lt=0.5, description="share of the sentences")
        holdout: float = Field(0.1, gt=0, lt=0.5, description="share of the sentences")

    @abstractmethod
    def lines(self) -> tuple[list[str], list[str]]:
        """Sentences, and those of a second file that is only scored against. Without the latter, scored splits are
        shares of the first.
        """

    def labels(self) -> tuple[list[str], list[str]] | None:
        """Names of the class of each of the `lines`; None without classes, as by default."""
        return None

    @property
    def shape(self) -> Shape:
        # A place for <eos> beside the words: a sentence of the greatest length ends like any other.
        names = self._parts.class_names
        classes = None if names is None else len(names)
        return Shape(Modality.TEXT, (self.config.max_length + 1,), classes, self.vocabulary, names)

    @property
    def vocabulary(self) -> Vocabulary:
        """Vocabulary of the training split, with the marks."""
        return self._parts.vocabulary

    def load(self, split: base.Split) -> Text:
        return self._parts.texts[split]

    @property
    def notes(self) -> list[str]:
        return self._parts.notes

    @cached_property
    def _parts(self) -> _Parts:
        config = self.config
        lines, scored = self.lines()
        names, classes, other_classes = self._classes(len(lines), len(scored))
        (sentences, long), (others, long_others) = self._tokens(lines, classes), self._tokens(scored, other_classes)
        for raw, tokenised in ((lines, sentences), (scored, others)):
            if raw and not tokenised:
                raise UsageError(
                    f"{self.name}: all {len(raw):,} sentences are longer than {config.max_length} tokens; "
                    "raise data.max_length, or set data.longer: cut"
                )
        repeated = sum(len(each) - len(set(each)) for each in (sentences, others))
        if config.repeated == "drop":
            sentences, others = list(dict.fromkeys(sentences)), list(dict.fromkeys(others))
        splits = self._split(sentences, others)
        empty = [split for split, members in splits.items() if not members]
        if empty:
            different = len({words for words, _ in others or sentences})
            raise UsageError(
                f"{self.name}: {different:,} different sentences are too few for "
                f"{'a reference and a holdout' if others else 'three splits'} ({empty[0]} would be empty); "
                "give more lines"
            )
        left_out = self._disjoint(splits)
        words = [words for words, _ in splits["train"]]
        vocabulary = Vocabulary.of(words, config.tokenizer, least=config.min_count, most=config.max_words)
        if len(vocabulary) <= UNK + 1:
            raise UsageError(
                f"{self.name}: no word occurs {config.min_count} times in the training split; lower data.min_count"
            )
        rows: dict[base.Split, list[Numbers]] = {
            split: [(tuple(vocabulary.encode(words)), label) for words, label in members]
            for split, members in splits.items()
        }
        left_out += self._disjoint(rows)
        texts = {split: _text(rows[split], config.max_length + 1, vocabulary, names) for split in base.SPLITS}
        notes = self._describe(rows, vocabulary, long + long_others, repeated, left_out)
        return _Parts(texts, vocabulary, names, notes if names is None else notes + self._of_classes(rows, names))

    def _classes(self, count: int, others: int) -> tuple[tuple[str, ...] | None, list[int], list[int]]:
        """Names of the classes, and the class of each sentence of both files; whole numbers are in their own order."""
        labels = self.labels()
        if labels is None:
            return None, [0] * count, [0] * others
        names = {name for each in labels for name in each}
        if len(names) < 2:
            raise UsageError(
                f"{self.name}: all sentences are of one class ({', '.join(names)}); give two or more, or a source "
                "without labels"
            )
        if count + others < len(base.SPLITS) * len(names):
            raise UsageError(
                f"{self.name}: {count + others:,} sentences of {len(names):,} classes; each class needs one in each of "
                "three splits (in a table, the label comes before the sentence)"
            )
        whole = all(name.isdecimal() for name in names)
        ordered = tuple(sorted(names, key=lambda name: (int(name) if whole else 0, name)))
        numbers = {name: number for number, name in enumerate(ordered)}
        first, second = ([numbers[name] for name in each] for each in labels)
        return ordered, first, second

    def _of_classes(self, rows: dict[base.Split, list[Numbers]], names: tuple[str, ...]) -> list[str]:
        """Notes on the classes. Raises `UsageError` for a class that a split lacks."""
        counts = {split: Counter(label for _, label in rows[split]) for split in base.SPLITS}
        totals = sum(counts.values(), Counter[int]())
        for split in base.SPLITS:
            lacking = [number for number in range(len(names)) if not counts[split][number]]
            if lacking:
                more = f" (nor have {len(lacking) - 1:,} other classes)" if lacking[1:] else ""
                first, count = names[lacking[0]], totals[lacking[0]]
                raise UsageError(
                    f"{self.name}: class {first!r} has {count:,} sentence{'s' * (count != 1)}, and none in the {split} "
                    f"split{more}; give the class more sentences, or leave it out"
                )
        sizes = [
            f"{names[number]} {totals[number]:,}" for number in sorted(totals, key=lambda each: (-totals[each], each))
        ]
        listed = sizes if len(sizes) < 7 else [*sizes[:3], "…", sizes[-1]]
        notes = [f"{len(names)} classes: {', '.join(listed)} sentences"]
        classes: dict[tuple[int, ...], set[int]] = {}
        for words, label in (row for split in base.SPLITS for row in rows[split]):
            classes.setdefault(words, set()).add(label)
        several = sum(len(each) > 1 for each in classes.values())
        if several:
            notes.append(f"{several:,} sentences occur under several classes: kept under each, in one split")
        return notes

    def _tokens(self, lines: Sequence[str], classes: Sequence[int]) -> tuple[list[Words], int]:
        """Tokens of each sentence with its class, and the number of sentences that were too long."""
        config, sentences, long = self.config, list[Words](), 0
        for line, label in zip(lines, classes, strict=True):
            words = tuple(tokenize(line.lower() if config.lowercase else line, config.tokenizer))
            if len(words) > config.max_length:
                long += 1
                if config.longer == "leave out":
                    continue
            if words:
                sentences.append((words[: config.max_length], label))
        return sentences, long

    def _split(self, sentences: Sequence[Words], others: Sequence[Words]) -> dict[base.Split, list[Words]]:
        """Sentences of each split, in the order of their hashes; equal ones stay together."""
        groups = _grouped(others or sentences)
        total = sum(len(group) for group in groups)
        shares = (0.5, 0.5) if others else (self.config.reference, self.config.holdout)
        splits: dict[base.Split, list[Words]] = {split: [] for split in base.SPLITS}
        names: tuple[base.Split, base.Split] = ("reference", "holdout")
        for split, share in zip(names, shares, strict=True):
            while groups and len(splits[split]) < share * total:
                splits[split] += groups.pop()
        if others:
            splits["holdout"] += [each for group in groups for each in group]
            groups = _grouped(sentences)
        splits["train"] = [each for group in reversed(groups) for each in group]
        return splits

    def _disjoint(self, rows: dict[base.Split, list[Row]]) -> int:
        """Removes from train what a scored split has, and from the holdout what the reference has; returns how many.
        Raises `UsageError` if nothing is left of a split.
        """
        seen, out = set[tuple[str, ...] | tuple[int, ...]](), 0
        order: tuple[base.Split, ...] = ("reference", "holdout", "train")
        for split in order:
            unseen = [row for row in rows[split] if row[0] not in seen]
            if not unseen:
                raise UsageError(
                    f"{self.name}: every sentence of the {split} split is in a scored one too, if not word for word "
                    "then with <unk> for rare words; give other lines, or lower data.min_count"
                )
            out += len(rows[split]) - len(unseen)
            seen.update(words for words, _ in rows[split])
            rows[split] = unseen
        return out

    def _describe(
        self, rows: dict[base.Split, list[Numbers]], vocabulary: Vocabulary, long: int, repeated: int, out: int
    ) -> list[str]:
        config = self.config
        sizes = ", ".join(f"{len(rows[split]):,} {split}" for split in base.SPLITS)
        total = sum(map(len, rows.values()))
        mean = sum(len(words) for split in rows.values() for words, _ in split) / total
        notes = [f"{self.name}: {sizes} sentences of {mean:.1f} tokens (tokenizer {config.tokenizer})"]
        counts = Counter(word == UNK for words, _ in rows["train"] for word in words)
        held = Counter(word == UNK for split in ("reference", "holdout") for words, _ in rows[split] for word in words)
        share, other = (100 * each[True] / max(each.total(), 1) for each in (counts, held))
        notes.append(
            f"vocabulary: {len(vocabulary):,} words of the training split that occur {config.min_count} times or more; "
            f"<unk> stands for {share:.1f} % of its words, and for {other:.1f} % of the others'"
        )
        if long:
            rule = "left out" if config.longer == "leave out" else "cut there"
            notes.append(f"{long:,} sentences are longer than {config.max_length} tokens and {rule} (data.max_length)")
        if repeated:
            rule = "left out (data.repeated)" if config.repeated == "drop" else "kept, equal ones in one split"
            notes.append(f"{repeated:,} sentences repeat another: {rule}")
        if out:
            notes.append(f"{out:,} sentences are left out, for a scored split has the same, <unk> for rare words")
        return notes


def _grouped(sentences: Sequence[Words]) -> list[list[Words]]:
    """Groups of equal sentences, in the order of their hashes; those of a group in the order of their classes."""
    groups: dict[tuple[str, ...], list[Words]] = {}
    for each in sentences:
        groups.setdefault(each[0], []).append(each)
    ordered = sorted(groups, key=lambda words: hashlib.sha256(" ".join(words).encode()).digest())
    return [sorted(groups[words], key=lambda each: each[1]) for words in ordered]


def _text(rows: Sequence[Numbers], length: int, vocabulary: Vocabulary, names: tuple[str, ...] | None) -> Text:
    """Sentences of a split, with their classes where these have names."""
    text = Text.of([words for words, _ in rows], length, vocabulary)
    return text if names is None else replace(text, labels=torch.tensor([label for _, label in rows]))
