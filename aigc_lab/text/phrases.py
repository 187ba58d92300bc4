"""What belongs together in a script that writes no spaces: phrases of graphemes, learned from sentences themselves.

A mean over single graphemes says little of a sentence: most of them are in many words. As in word2phrase (Mikolov et
al. 2013), neighbours that are seldom apart become one token, in passes, so that longer ones grow of shorter ones.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import regex

_PASSES = 4  # up to sixteen graphemes
_LEAST = 5  # times that a pair is seen
# Of a pair, the share of the first's places that it is in, times the share of the second's.
_TOGETHER = 0.125
_SPACELESS = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\u30FC\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{M}]+")

Sentence = Sequence[str]


def learned(sentences: Sequence[Sentence]) -> Callable[[Sentence], list[str]]:
    """What joins the graphemes of any sentence that are seldom apart in these; other tokens stay as they are."""
    passes: list[frozenset[tuple[str, str]]] = []
    parts = [list(sentence) for sentence in sentences]
    for _ in range(_PASSES):
        single = Counter(token for part in parts for token in part)
        pairs = Counter(pair for part in parts for pair in pairwise(part) if _may(pair))
        found = frozenset(
            pair
            for pair, count in pairs.items()
            if count >= _LEAST and count**2 >= _TOGETHER * single[pair[0]] * single[pair[1]]
        )
        if not found:
            break
        passes.append(found)
        parts = [_joined(part, found) for part in parts]

    def join(sentence: Sentence) -> list[str]:
        part = list(sentence)
        for pairs_ in passes:
            part = _joined(part, pairs_)
        return part

    return join


def _may(pair: tuple[str, str]) -> bool:
    return all(_SPACELESS.fullmatch(token) for token in pair)


def _joined(part: list[str], pairs: frozenset[tuple[str, str]]) -> list[str]:
    made: list[str] = []
    for token in part:
        if made and (made[-1], token) in pairs:
            made[-1] += token
        else:
            made.append(token)
    return made
