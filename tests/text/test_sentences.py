"""Datasets of sentences: what a vocabulary knows, which split a sentence is in, and what is said of bad files."""

import re
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng

from aigc_lab.data.base import SPLITS
from aigc_lab.data.lines import Lines
from aigc_lab.data.pydoc import PyDoc
from aigc_lab.errors import UsageError
from aigc_lab.samples import Text
from aigc_lab.text.tokenizer import tokenize
from aigc_lab.text.vocabulary import EOS, PAD, SPECIAL, UNK, Vocabulary

Make = Callable[..., Lines]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """The dataset of a file with this text (and of a scored one), in a working directory of its own."""
    monkeypatch.chdir(tmp_path)

    def of(text: str | bytes | list[str], against: list[str] | None = None, **options: Any) -> Lines:
        raw = text if isinstance(text, bytes) else (text if isinstance(text, str) else "\n".join(text)).encode()
        Path("mine.txt").write_bytes(raw)
        if against is not None:
            Path("scored.txt").write_text("\n".join(against), "utf-8")
            options["scored"] = "scored.txt"
        return Lines(Lines.Config(**({"path": "mine.txt"} | options)), tmp_path / "data")

    return of


def drawn(count: int, words: str = "abcdefghij", longest: int = 9, seed: int = 0) -> list[str]:
    source = default_rng(seed)
    return [" ".join(source.choice(list(words), source.integers(1, longest + 1))) for _ in range(count)]


def all_of(dataset: Lines) -> dict[str, list[str]]:
    return {split: dataset.load(split).sentences() for split in SPLITS}


def every_line(dataset: Lines) -> list[str]:
    return [line for each in all_of(dataset).values() for line in each]


def refused(dataset: Lines) -> str:
    with pytest.raises(UsageError) as told:
        dataset.load("train")
    assert "\n" not in str(told.value)
    return str(told.value)


# ---- vocabulary


def test_words_are_counted_the_most_frequent_first_and_ties_by_spelling() -> None:
    sentences = [["b", "c", "c"], ["a", "b", "d"], ["c", "é", "Z"]]
    assert Vocabulary.of(sentences, "words").words == (*SPECIAL, "c", "b", "Z", "a", "d", "é")
    assert Vocabulary.of(sentences, "words", least=2).words == (*SPECIAL, "c", "b")
    assert Vocabulary.of(sentences, "words", most=3).words == (*SPECIAL, "c", "b", "Z")
    assert Vocabulary.of(sentences[::-1], "words").words == Vocabulary.of(sentences, "words").words
    assert Vocabulary.of([], "none").words == SPECIAL


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", *SPECIAL]), max_size=5), max_size=6), st.integers(1, 3))
def test_a_word_is_known_where_it_occurs_so_often(sentences: list[list[str]], least: int) -> None:
    counts = Counter(word for sentence in sentences for word in sentence)
    known = Vocabulary.of(sentences, "none", least=least)
    assert set(known.words) - set(SPECIAL) == {word for word in "abc" if counts[word] >= least}
    for sentence in sentences:
        decoded = [known.words[number] for number in known.encode(sentence)]
        assert decoded == [word if word in set(known.words) - set(SPECIAL) else "<unk>" for word in sentence]


def test_a_mark_that_is_spelt_out_is_an_unknown_word() -> None:
    known = Vocabulary.of([["<pad>", "<eos>", "<unk>", "a", "a"]] * 3, "none")
    assert known.words == (*SPECIAL, "a")
    assert known.encode(["<pad>", "a", "<eos>", "<unk>", "b", ""]) == [UNK, 3, UNK, UNK, UNK, UNK]


def test_a_vocabulary_comes_back_and_a_wrong_one_is_refused() -> None:
    for known in (Vocabulary.of([["a", "é"]], "characters"), Vocabulary((*SPECIAL, "0"), "none", ends=False)):
        assert Vocabulary.load(known.dump()) == known
        assert len(known) == len(known.words)
    assert Vocabulary(SPECIAL).impossible == (PAD,)
    assert Vocabulary(SPECIAL, ends=False).impossible == (PAD, EOS, UNK)
    with pytest.raises(ValueError, match="begins with <pad>, <eos>, <unk>"):
        Vocabulary(("a", *SPECIAL))
    with pytest.raises(ValueError, match="holds a word twice"):
        Vocabulary((*SPECIAL, "a", "a"))


def test_spelt_out_marks_in_a_file_do_not_end_sentences(make: Make) -> None:
    dataset = make([f"{line} <eos> <pad> z" for line in drawn(60)], tokenizer="none", max_length=12)
    assert set(dataset.vocabulary.words) == {*SPECIAL, *"abcdefghijz"}
    for line in all_of(dataset)["train"]:
        assert line.endswith("<unk> <unk> z")


# ---- what a file becomes


def test_numbers_are_the_words_then_the_end_then_nothing(make: Make) -> None:
    dataset = make(drawn(50), max_length=9)
    train, words = dataset.load("train"), dataset.vocabulary.words
    assert train.values.dtype == torch.int64 and train.values.shape[1] == 10 == dataset.shape.size[0]
    assert train.vocabulary is dataset.vocabulary == dataset.shape.vocabulary
    for row, line in zip(train.values.tolist(), train.sentences(), strict=True):
        length = len(line.split())
        assert [words[number] for number in row[:length]] == line.split()
        assert row[length:] == [EOS] + [PAD] * (9 - length)
    assert max(len(line.split()) for line in train.sentences()) == 9  # the longest ends like any other
    assert train.places.tolist() == [len(line.split()) + 1 for line in train.sentences()]
    assert train.corpus.texts() == train.sentences()


def test_every_sentence_is_in_one_split_and_equal_ones_together(make: Make) -> None:
    lines = drawn(300, "abc", 4)
    dataset = make(lines, min_count=1)
    found = all_of(dataset)
    assert sum((Counter(each) for each in found.values()), Counter()) == Counter(lines)
    for first, second in combinations(SPLITS, 2):
        assert not set(found[first]) & set(found[second])
    for split in ("reference", "holdout"):
        assert 30 <= len(found[split]) < 30 + max(Counter(lines).values())
    different = len(set(lines))
    assert f"{300 - different} sentences repeat another: kept, equal ones in one split" in dataset.notes


def test_splits_are_disjoint_in_the_numbers_of_the_vocabulary(make: Make) -> None:
    """Rare words are all <unk>: sentences that differ in them alone are one to a model."""
    lines = drawn(150, "ab", 3) + [f"a rare{number} b" for number in range(40)] + drawn(100, seed=1)
    dataset = make(lines)
    found = all_of(dataset)
    for first, second in combinations(SPLITS, 2):
        assert not set(found[first]) & set(found[second])
    assert "a <unk> b" in found["reference"] and found["reference"].count("a <unk> b") > 1
    left_out = len(lines) - sum(map(len, found.values()))
    assert left_out > 0
    assert f"{left_out} sentences are left out, for a scored split has the same, <unk> for rare words" in dataset.notes


def test_the_vocabulary_is_of_the_training_split_alone(make: Make) -> None:
    lines = [f"{line} word{number % 25}" for number, line in enumerate(drawn(200))]
    for least, most in ((1, None), (2, None), (6, None), (1, 9)):
        dataset = make(lines, min_count=least, max_words=most)
        whole = make(lines, min_count=1)  # the same splits, with every word of train
        train = Counter(word for line in all_of(whole)["train"] for word in line.split())
        assert "<unk>" not in train
        expected = sorted((word for word, count in train.items() if count >= least), key=lambda w: (-train[w], w))
        assert dataset.vocabulary.words == (*SPECIAL, *expected[:most])


def test_a_word_of_a_scored_split_alone_is_unknown(make: Make) -> None:
    dataset = make(drawn(40), ["a unheard b", "b unheard c", "c unheard d e", "d unheard"])
    assert "unheard" not in dataset.vocabulary.words
    assert {line.split()[1] for split in ("reference", "holdout") for line in all_of(dataset)[split]} == {"<unk>"}
    unknown, words = 4, 3 + 3 + 4 + 2
    assert f"and for {100 * unknown / words:.1f} % of the others'" in dataset.notes[1]


def test_repeated_sentences_are_dropped_where_asked(make: Make) -> None:
    lines = drawn(200, "abc", 4)
    dataset = make(lines, repeated="drop", min_count=1)
    assert sorted(every_line(dataset)) == sorted(set(lines))
    assert f"{200 - len(set(lines))} sentences repeat another: left out (data.repeated)" in dataset.notes
    assert not any("repeat" in note for note in make(sorted(set(lines)), min_count=1).notes)


def test_longer_sentences_are_left_out_or_cut(make: Make) -> None:
    lines = [line + f" n{number}" for number, line in enumerate(drawn(120))]
    long = sum(len(line.split()) > 5 for line in lines)
    assert 0 < long < 120
    out = make(lines, max_length=5, min_count=1)
    known = {word for line in lines for word in line.split()}
    kept = every_line(out)
    assert len(kept) == 120 - long
    assert all(set(line.split()) <= {*known, "<unk>"} and len(line.split()) <= 5 for line in kept)
    assert f"{long} sentences are longer than 5 tokens and left out (data.max_length)" in out.notes
    cut = make(lines, max_length=5, longer="cut", repeated="drop", min_count=1)
    heads = {" ".join(line.split()[:5]) for line in lines}
    assert {line for line in all_of(cut)["train"]} <= heads
    assert max(len(line.split()) for line in all_of(cut)["train"]) == 5
    assert f"{long} sentences are longer than 5 tokens and cut there (data.max_length)" in cut.notes
    assert not any("longer" in note for note in make(lines, max_length=10, min_count=1).notes)


def test_small_letters_where_asked(make: Make) -> None:
    lines = [line.upper() if number % 2 else line for number, line in enumerate(drawn(100))]
    assert not set("ABC") & set(make(lines, lowercase=True).vocabulary.words)
    assert set("ABCabc") <= set(make(lines).vocabulary.words)
    small = make(lines, lowercase=True, min_count=1)
    assert Counter(every_line(small)) == Counter(line.lower() for line in lines)


@pytest.mark.parametrize("how", ["words", "none", "characters"])
def test_the_tokenizer_is_the_one_that_is_asked_for(make: Make, how: Any) -> None:
    lines = [f"{line}, e\u0301 {line}." for line in drawn(60, longest=3)]
    dataset = make(lines, tokenizer=how, min_count=1)
    tokens = {" ".join(tokenize(line, how)) for line in lines}
    assert {text for split in SPLITS for text in dataset.load(split).corpus.texts()} <= tokens
    assert dataset.vocabulary.tokenizer == how and f"(tokenizer {how})" in dataset.notes[0]


def test_a_scored_file_is_the_reference_and_the_holdout(make: Make) -> None:
    lines, scored = drawn(80, seed=1), [f"z {line}" for line in drawn(41, seed=2)]
    found = all_of(make([*lines, "z z z"], scored, min_count=1))
    assert Counter(found["train"]) == Counter([*lines, "z z z"])
    assert Counter(found["reference"] + found["holdout"]) == Counter(scored)
    assert abs(len(found["reference"]) - len(found["holdout"])) <= 1 + max(Counter(scored).values())


def test_training_sentences_that_are_scored_ones_too_are_left_out_before_words_are_counted(make: Make) -> None:
    lines = drawn(80, seed=1)
    scored = [f"{line} {line} leak{number}" for number, line in enumerate(drawn(10, seed=2))]
    dataset = make([*lines, *scored, *scored], scored)
    assert Counter(all_of(dataset)["train"]) == Counter(lines)
    assert not any(word.startswith("leak") for word in dataset.vocabulary.words)
    assert "20 sentences are left out, for a scored split has the same, <unk> for rare words" in dataset.notes
    repeated = 10 + len(lines) - len(set(lines))
    assert f"{repeated} sentences repeat another: kept, equal ones in one split" in dataset.notes
    more = make([*lines, *scored, *scored], [*scored, *scored[:3]])
    assert f"{repeated + 3} sentences repeat another: kept, equal ones in one split" in more.notes


def test_counts_are_said(make: Make) -> None:
    dataset = make("\n\n".join(drawn(100, seed=3)) + "\n\n\n")
    sizes = {split: len(dataset.load(split)) for split in SPLITS}
    assert dataset.notes[0].startswith(
        f"lines: {sizes['train']} train, {sizes['reference']} reference, {sizes['holdout']} holdout sentences of "
    )
    assert dataset.notes[-1] == "101 blank lines are left out"
    unknown = sum(line.split().count("<unk>") for line in all_of(dataset)["train"])
    words = sum(len(line.split()) for line in all_of(dataset)["train"])
    assert f"<unk> stands for {100 * unknown / words:.1f} % of its words" in dataset.notes[1]
    assert not any("blank" in note for note in make(drawn(100)).notes)


def test_windows_lines_with_a_mark_are_the_same_sentences(make: Make) -> None:
    lines = [f"{line} 😀" for line in drawn(60)]
    plain = make(lines)
    assert make(b"\xef\xbb\xbf" + "\r\n".join(lines).encode()).digest == plain.digest
    assert make("\r".join(lines) + "\r").digest == plain.digest


def test_one_other_word_is_another_dataset(make: Make) -> None:
    lines = drawn(60)
    before = make(lines)
    assert make(lines).digest == before.digest and make(lines[::-1]).digest == before.digest
    for row in (0, 30, 59):
        assert make([*lines[:row], f"{lines[row]} a", *lines[row + 1 :]]).digest != before.digest
    assert make(lines, tokenizer="none").digest != before.digest
    assert make(lines, lowercase=True).digest == before.digest


# ---- where files are


def test_a_file_is_looked_for_here_then_in_the_data_folder(make: Make, tmp_path: Path) -> None:
    digest = make(drawn(60, seed=1)).digest
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "deep" / "there.txt").write_text("\n".join(drawn(60, seed=2)))
    (tmp_path / "data" / "mine.txt").write_text("\n".join(drawn(60, seed=3)))
    assert make(drawn(60, seed=1)).digest == digest  # not the one in the data folder
    there = make("", path="deep/there.txt")
    assert Counter(every_line(there)) == Counter(drawn(60, seed=2))
    absolute = make("", path=str(tmp_path / "data" / "mine.txt"))
    assert Counter(every_line(absolute)) == Counter(drawn(60, seed=3))


BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "missing": ("", {"path": "absent.txt"}, "data.path: absent.txt: no such file here, nor in the data folder DATA"),
    "too long a name": ("", {"path": "x" * 300}, "no such file here, nor in the data folder DATA"),
    "missing, absolute": ("", {"path": "/no/such.txt"}, "data.path: /no/such.txt: no such file here"),
    "missing, scored": ("a b\nb a\n", {"scored": "absent.txt"}, "data.scored: absent.txt: no such file here"),
    "empty": ("", {}, "data.path: mine.txt: is empty; give one sentence a line"),
    "blank": ("\n \n", {}, "data.path: mine.txt: holds blank lines only"),
    "binary": (b"a\nb\0", {}, "data.path: mine.txt: line 2, byte 4 is a zero byte"),
    "latin 1": (b"a b\r\nb\xe9\r\n", {}, "data.path: mine.txt: line 2, byte 7 (0xe9) is not UTF-8"),
    "one sentence": ("a b a b", {}, "lines: 1 different sentences are too few for three splits"),
    "one sentence, often": ("a b\n" * 9, {}, "lines: 1 different sentences are too few for three splits"),
    "two sentences": ("a b\nb a\n", {}, "lines: 2 different sentences are too few for three splits (train would be"),
    "too long": ("a b c\n" * 9, {"max_length": 2}, "lines: all 9 sentences are longer than 2 tokens; raise data.max_"),
    "rare words": (
        "\n".join(f"a{n} b{n}" for n in range(60)),
        {},
        "lines: no word occurs 2 times in the training split",
    ),
    "alike": (
        "\n".join(["a a b", *(f"a{n} b{n}" for n in range(60)), "b a a"]),
        {},
        "lines: every sentence of the holdout split is in a scored one too, if not word for word then with <unk> for",
    ),
}


@pytest.mark.parametrize(("text", "options", "told"), BAD.values(), ids=BAD)
def test_what_cannot_be_learned_from_is_refused(
    make: Make, tmp_path: Path, text: Any, options: dict[str, Any], told: str
) -> None:
    assert told in refused(make(text, **options)).replace(str(tmp_path / "data"), "DATA")


BAD_SCORED = {
    "one": (
        ["a b"],
        {},
        "lines: 1 different sentences are too few for a reference and a holdout (holdout would be empty)",
    ),
    "one, often": (["a b"] * 9, {}, "lines: 1 different sentences are too few for a reference and a holdout"),
    "too long": (["a b c d e f g h i j k"] * 9, {"max_length": 10}, "lines: all 9 sentences are longer than 10 tokens"),
    "the training file": (drawn(60), {}, "lines: every sentence of the train split is in a scored one too"),
}


@pytest.mark.parametrize(("scored", "options", "told"), BAD_SCORED.values(), ids=BAD_SCORED)
def test_what_cannot_be_scored_against_is_refused(
    make: Make, scored: list[str], options: dict[str, Any], told: str
) -> None:
    assert told in refused(make(drawn(60), scored, **options))


def test_three_sentences_are_a_dataset(make: Make) -> None:
    assert sorted(map(len, all_of(make("a b\nb a\na a\n", min_count=1)).values())) == [1, 1, 1]


# ---- prose that Python carries


@pytest.fixture(scope="module")
def pydoc() -> PyDoc:
    return PyDoc(PyDoc.Config(), Path())


def test_pydoc_is_prose(pydoc: PyDoc) -> None:
    lines, _ = pydoc.lines()
    assert len(set(lines)) > 1000
    for line in lines:
        assert line[0].isupper() and line[-1] in ".!?" and len(line.split()) >= 5
        assert line == " ".join(line.split()) and "::=" not in line
    # Of English words: the commonest are those of any English text.
    counts = Counter(word.lower() for line in lines for word in tokenize(line) if word.isalpha())
    assert {word for word, _ in counts.most_common(8)} >= {"the", "a", "of", "is", "to"}


def test_pydoc_quotes_code_as_it_is(pydoc: PyDoc) -> None:
    """Stars that stress a word go; those of powers and arguments stay."""
    source = " ".join(" ".join(topics.values()).split())
    lines, _ = pydoc.lines()
    quoted = {each for line in lines for each in re.findall(r'"[^"]*"', line)}
    # What a hyphen parts at the end of a line is together here.
    assert [each for each in quoted if each not in source and each not in source.replace("- ", "-")] == []
    starred = {each for each in quoted if "*" in each}
    assert len(starred) > 20 and not any(re.search(r"(?<!\S)\*\w+\*(?!\S)", line) for line in lines)


def test_pydoc_has_no_sentence_twice(pydoc: PyDoc) -> None:
    lines, _ = pydoc.lines()
    rows = {split: pydoc.load(split) for split in SPLITS}
    assert all(isinstance(each, Text) and len(each) >= 100 for each in rows.values())
    tokens = {tuple(tokenize(line)) for line in lines}
    assert sum(map(len, rows.values())) <= len({each for each in tokens if len(each) <= 40})
    for first, second in combinations(rows.values(), 2):
        assert not set(first.sentences()) & set(second.sentences())
    kept = [line for each in rows.values() for line in each.sentences() if "<unk>" not in line]
    assert len(set(kept)) == len(kept)


def test_every_pydoc_sentence_ends_like_one(pydoc: PyDoc) -> None:
    for split in SPLITS:
        assert {line[-1] for line in pydoc.load(split).sentences()} <= {".", "!", "?"}
