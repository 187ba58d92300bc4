"""From a line to tokens: what is one, in any script, and that a line made of tokens has the same tokens."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aigc_lab.text.tokenizer import TOKENIZERS, Tokenizer, tokenize, untokenize

WORDS = {
    "The cat sat.": "The|cat|sat|.",
    "  white\tspace \u00a0 of\u2003all kinds\u2028": "white|space|of|all|kinds",
    "": "",
    " \t ": "",
    # apostrophes and hyphens within a word are its own, others are not
    "don't don’t rock'n'roll": "don't|don’t|rock'n'roll",
    "the dogs' 'tis": "the|dogs|'|'|tis",
    "e-mail well--known -5 co- op": "e-mail|well|-|-|known|-|5|co|-|op",
    # numbers with their points and commas, not with the full stop behind
    "1,000.50 3.14. 2nd 3.5kg v2": "1,000.50|3.14|.|2nd|3.5kg|v2",
    "12:30 50% $5 1,2,3,": "12|:|30|50|%|$|5|1,2,3|,",
    "covid-19 __init__ x_1": "covid-19|__init__|x_1",
    # punctuation, each mark by itself
    "“quoted”—dash… (a)!?": "“|quoted|”|—|dash|…|(|a|)|!|?",
    "...": ".|.|.",
    # accents, composed and not
    "café": "café",
    "cafe\u0301 nai\u0308ve": "café|naïve",
    "x\u0323\u0302y": "x\u0323\u0302y",  # no single letter is x with two marks
    # other scripts: vowel signs and viramas are marks, joiners stand within words
    "नमस्ते दुनिया।": "नमस्ते|दुनिया|।",
    "क्\u200dष": "क्\u200dष",
    "می\u200cخواهم بروم": "می\u200cخواهم|بروم",
    "Straße ΣΊΣΥΦΟΣ привет": "Straße|ΣΊΣΥΦΟΣ|привет",
    "١٢٣ شمس": "١٢٣|شمس",
    # scripts without spaces: every grapheme, with its vowels and tones, and what stands beside them in other scripts
    "สวัสดี": "ส|วั|ส|ดี",
    "老面包师修理了3台PC机。": "老|面|包|师|修|理|了|3|台|PC|机|。",
    "スーパーでlunchを食べた": "ス|ー|パ|ー|で|lunch|を|食|べ|た",
    "ភាសាខ្មែរ ພາສາລາວ": "ភា|សា|ខ្មែ|រ|ພ|າ|ສ|າ|ລ|າ|ວ",
    "မြန်မာ": "မြ|န်|မ|ာ",
    "한국어 \u1112\u1161\u11ab": "한국어|한",
    "co\u00adoperate": "co\u00adoperate",  # soft hyphen
    # what a model writes for a word that it does not know
    "a <unk>. <unk><unk> <eos>": "a|<unk>|.|<unk>|<unk>|<|eos|>",
    # one emoji is one token, with skin, sex, family and flag
    "👩‍👩‍👧‍👦!": "👩‍👩‍👧‍👦|!",
    "hi👍🏽there": "hi|👍🏽|there",
    "🇩🇪🇫🇷": "🇩🇪|🇫🇷",
    "❤️🏳️‍🌈 1️⃣": "❤️|🏳️‍🌈|1️⃣",
    "😀😀": "😀|😀",
}
NONE = {
    "The cat sat.": "The|cat|sat.",
    "  don't\t\u2003stop\u2028now ": "don't|stop|now",
    "cafe\u0301": "café",
    "": "",
}
CHARACTERS = {
    "a b.": "a|▁|b|.",
    " a\tb\u00a0c ": "a|▁|b|▁|c",
    "cafe\u0301": "c|a|f|é",
    "👩‍👩‍👧🇩🇪x\u0323": "👩‍👩‍👧|🇩🇪|x\u0323",
    "नि": "नि",
    "a▁b": "a|▁|b",
    "a<unk> <unk": "a|<unk>|▁|<|u|n|k",
    "▁": "",
    "": "",
}


def parts(told: str) -> list[str]:
    return told.split("|") if told else []


@pytest.mark.parametrize(("line", "tokens"), WORDS.items(), ids=range(len(WORDS)))
def test_words(line: str, tokens: str) -> None:
    assert tokenize(line) == tokenize(line, "words") == parts(tokens)


@pytest.mark.parametrize(("line", "tokens"), NONE.items(), ids=range(len(NONE)))
def test_what_white_space_parts(line: str, tokens: str) -> None:
    assert tokenize(line, "none") == parts(tokens)


@pytest.mark.parametrize(("line", "tokens"), CHARACTERS.items(), ids=range(len(CHARACTERS)))
def test_characters(line: str, tokens: str) -> None:
    assert tokenize(line, "characters") == parts(tokens)


def test_lines_of_tokens() -> None:
    assert untokenize(["a", "cat", "."], "words") == untokenize(["a", "cat", "."], "none") == "a cat ."
    assert untokenize(["a", "▁", "b"], "characters") == "a b"


# NLTK's changes quotation marks, and knows other white space.
OURS = [how for how in TOKENIZERS if how != "nltk"]


@pytest.mark.parametrize(
    "line",
    [
        "The cat can't sit on the mat.",
        "He said: \"I'm gonna go (today), don't you?\" -- and left...",
        "A man's 3,000.50 dollars; 50% of $6 & more.",
        "Cannot, gimme! 'Tis the dogs' e-mail, U.S.A.",
        "a woman holding a plate of food .",
        "",
    ],
)
def test_nltk_is_word_tokenize(line: str) -> None:
    from nltk import word_tokenize

    assert tokenize(line, "nltk") == word_tokenize(line, preserve_line=True)
    assert tokenize(f"{line} <unk> .", "nltk")[-2:] == ["<unk>", "."]


# What is likely to stand where a rule is wrong: marks, joiners, letters that take the next, halves of flags, controls.
AWKWARD = st.text(
    "\u0600\u200d\u200c\ufe0f\u0301▁ \t\x1c\x85\xa0\u2028\x07🇩🇪👩🏽aé1.,'-_क्षि\u0bc6\u0bbe\u1100\u1161\xad\ufeff\r\n"
)


@pytest.mark.parametrize("how", OURS)
@settings(max_examples=300, deadline=None)
@given(line=st.one_of(AWKWARD, st.text(), st.lists(st.one_of(AWKWARD, st.text()), max_size=4).map(" ".join)))
@example(line="\u0600\x07")  # a grapheme may take the space behind it
@example(line="▁a▁")
@example(line="a\t\u0301b")
@example(line="\u094d🏽\u0937")
@example(line="👩\u200d")
@example(line="<unk>\u0301 <<unk>>")
def test_a_line_of_tokens_has_the_same_tokens(how: Tokenizer, line: str) -> None:
    tokens = tokenize(line, how)
    assert tokenize(untokenize(tokens, how), how) == tokens
    assert all(token and not any(each.isspace() for each in token) for token in tokens)


@pytest.mark.parametrize("how", OURS)
@settings(max_examples=200, deadline=None)
@given(line=st.text())
def test_nothing_but_white_space_is_lost(how: Tokenizer, line: str) -> None:
    from unicodedata import normalize

    def bare(text: str) -> str:
        return "".join("" if each.isspace() or each == "▁" else each for each in text)

    assert bare("".join(tokenize(line, how))) == bare(normalize("NFC", line))
