"""Datasets of sentences: tokens, splits, and a vocabulary of the training split, whatever the source of the lines."""

import hashlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, Literal, TypeVar

from pydantic import Field

from aigc_lab.config import Count, Strict
from aigc_lab.data import base
from aigc_lab.errors import UsageError
from aigc_lab.samples import Text
from aigc_lab.shape import Modality, Shape
from aigc_lab.text.tokenizer import Tokenizer, tokenize
from aigc_lab.text.vocabulary import UNK, Vocabulary

Words = tuple[str, ...]
Row = TypeVar("Row", Words, tuple[int, ...])


class Sentences(base.Dataset):
    """Dataset of lines of text, each a sentence. The hash of its tokens decides its split, so equal sentences are in
    one.

    A word that occurs less than `min_count` times in the training split is `<unk>` in all splits: a model that never
    met `<unk>` would give unknown words no probability. Training sentences whose word numbers equal those of a scored
    one are left out.
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

    @property
    def shape(self) -> Shape:
        # A place for <eos> beside the words: a sentence of the greatest length ends like any other.
        return Shape(Modality.TEXT, (self.config.max_length + 1,), vocabulary=self.vocabulary)

    @property
    def vocabulary(self) -> Vocabulary:
        """Vocabulary of the training split, with the marks."""
        return self._parts[1]

    def load(self, split: base.Split) -> Text:
        return self._parts[0][split]

    @property
    def notes(self) -> list[str]:
        return self._parts[2]

    @cached_property
    def _parts(self) -> tuple[dict[base.Split, Text], Vocabulary, list[str]]:
        config = self.config
        lines, scored = self.lines()
        (sentences, long), (others, long_others) = self._tokens(lines), self._tokens(scored)
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
            raise UsageError(
                f"{self.name}: {len(set(others or sentences)):,} different sentences are too few for "
                f"{'a reference and a holdout' if others else 'three splits'} ({empty[0]} would be empty); "
                "give more lines"
            )
        left_out = self._disjoint(splits)
        vocabulary = Vocabulary.of(splits["train"], config.tokenizer, least=config.min_count, most=config.max_words)
        if len(vocabulary) <= UNK + 1:
            raise UsageError(
                f"{self.name}: no word occurs {config.min_count} times in the training split; lower data.min_count"
            )
        rows = {split: [tuple(vocabulary.encode(each)) for each in members] for split, members in splits.items()}
        left_out += self._disjoint(rows)
        texts = {split: Text.of(rows[split], config.max_length + 1, vocabulary) for split in base.SPLITS}
        return texts, vocabulary, self._describe(rows, vocabulary, long + long_others, repeated, left_out)

    def _tokens(self, lines: Sequence[str]) -> tuple[list[Words], int]:
        """Tokens of each sentence, and the number of sentences that were too long."""
        config, sentences, long = self.config, list[Words](), 0
        for line in lines:
            words = tuple(tokenize(line.lower() if config.lowercase else line, config.tokenizer))
            if len(words) > config.max_length:
                long += 1
                if config.longer == "leave out":
                    continue
            if words:
                sentences.append(words[: config.max_length])
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
        seen, out = set[Row](), 0
        order: tuple[base.Split, ...] = ("reference", "holdout", "train")
        for split in order:
            unseen = [row for row in rows[split] if row not in seen]
            if not unseen:
                raise UsageError(
                    f"{self.name}: every sentence of the {split} split is in a scored one too, if not word for word "
                    "then with <unk> for rare words; give other lines, or lower data.min_count"
                )
            out += len(rows[split]) - len(unseen)
            seen |= set(rows[split])
            rows[split] = unseen
        return out

    def _describe(
        self, rows: dict[base.Split, list[tuple[int, ...]]], vocabulary: Vocabulary, long: int, repeated: int, out: int
    ) -> list[str]:
        config = self.config
        sizes = ", ".join(f"{len(rows[split]):,} {split}" for split in base.SPLITS)
        total = sum(map(len, rows.values()))
        mean = sum(len(row) for split in rows.values() for row in split) / total
        notes = [f"{self.name}: {sizes} sentences of {mean:.1f} tokens (tokenizer {config.tokenizer})"]
        counts = Counter(word == UNK for row in rows["train"] for word in row)
        held = Counter(word == UNK for split in ("reference", "holdout") for row in rows[split] for word in row)
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
    """Groups of equal sentences, in the order of their hashes."""
    groups: dict[Words, list[Words]] = {}
    for each in sentences:
        groups.setdefault(each, []).append(each)
    return [groups[key] for key in sorted(groups, key=lambda key: hashlib.sha256(" ".join(key).encode()).digest())]
