"""Words and pieces as the Python package tokenizers 0.23.3 gives them with BERT's uncased normaliser."""

import string
import unicodedata

import pytest

from aigc_lab.text.wordpiece import WordPiece, words

# Lines and the words of BertNormalizer and BertPreTokenizer.
SPLIT = {
    "Don't stop -- it's 3.5% off!": "don ' t stop - - it ' s 3 . 5 % off !",
    "Ångström naïve CAFÉ Ä": "angstrom naive cafe a",
    "日本語 and 한국어": "日 本 語 and 한국어",
    "a\tb\u00a0c\u200bd\x00e\ufffdf\x1cg\x0bh": "a b cdefgh",
    "$5 + ^caret` ~tilde | <tag>": "$ 5 + ^ caret ` ~ tilde | < tag >",
    "İstanbul ß ſ ﬁ ①²": "istanbul ß ſ ﬁ ①²",
    "«quote» … — “x” ‘y’ €5": "« quote » … — “ x ” ‘ y ’ €5",
    "e\u0301 cafe\u0301": "e cafe",
    "ａｂｃ！？": "ａｂｃ ！ ？",
    "🙂 smile": "🙂 smile",
    "": "",
}
MARKS = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}


@pytest.mark.parametrize("line", SPLIT, ids=ascii)
def test_words(line: str) -> None:
    # Hangul is taken apart into its letters, as the accents of others are.
    assert [unicodedata.normalize("NFC", word) for word in words(line)] == SPLIT[line].split()


def pieces(*more: str, most: int = 256) -> WordPiece:
    return WordPiece(MARKS | {piece: number for number, piece in enumerate(more, start=4)}, most)


def test_the_longest_known_beginning_comes_first() -> None:
    assert pieces("un", "unbe", "##lie", "##l", "##ie", "##vable").encode("unbelievable") == [2, 5, 6, 9, 3]


def test_a_word_whose_rest_is_unknown_is_unknown_as_a_whole() -> None:
    assert pieces("cat", "##s").encode("cats catx dog") == [2, 4, 5, 1, 1, 3]


def test_a_word_of_more_than_100_letters_is_unknown() -> None:
    assert pieces("x", "##x").encode("x" * 100) == [2, 4, *[5] * 99, 3]
    assert pieces("x", "##x").encode("x" * 101) == [2, 1, 3]


def test_the_mark_of_an_unknown_word_is_one_piece() -> None:
    assert pieces("a", "<", "un", "##k", ">").encode("a <unk> a") == [2, 4, 1, 4, 3]
    assert pieces("a").encode("<unk><unk>") == [2, 1, 1, 3]


@pytest.mark.parametrize(("count", "length"), [(0, 2), (5, 7), (6, 8), (7, 8), (100, 8)])
def test_a_long_line_is_cut_and_keeps_its_end(count: int, length: int) -> None:
    numbers = pieces("a", most=8).encode(" ".join(["a"] * count))
    assert len(numbers) == length and (numbers[0], numbers[-1]) == (2, 3)


def test_a_list_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lacks \[UNK\], \[SEP\]"):
        WordPiece({"[PAD]": 0, "[CLS]": 1})


def test_every_letter_of_ascii_is_kept_or_punctuation() -> None:
    assert "".join(words(string.punctuation)) == string.punctuation
    assert len([*words(string.punctuation)]) == len(string.punctuation)
    assert [*words(string.ascii_letters)] == [string.ascii_lowercase * 2]
