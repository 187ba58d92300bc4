"""Whether 95 % intervals hold what they are of: many sets of one source, and what sets of it have on the mean."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from aigc_lab import plugins
from aigc_lab.metrics.base import Evidence, Metric
from aigc_lab.metrics.shared.text import mean_of, ratio_of
from aigc_lab.scoring.given_sentences import _evidence
from aigc_lab.text import bleu, ngrams
from aigc_lab.text.corpus import Corpus
from aigc_lab.text.ngram_model import NgramModel

SENTENCES, SETS, FRESH = 150, 300, 1500
VOCABULARY = 40


def drawn(count: int, *seed: int, words: int = VOCABULARY, shortest: int = 1) -> Corpus:
    """Sentences of up to 7 words, each word with a probability like 1 / rank^1.1."""
    source = np.random.default_rng(seed)
    odds = 1 / np.arange(1, words + 1) ** 1.1
    lengths = source.integers(shortest, 8, count)
    tokens = source.choice(words, lengths.sum(), p=odds / odds.sum())
    return Corpus(tokens, np.append(0, np.cumsum(lengths)), tuple(map(str, range(words))))


REFERENCE, TRAIN = drawn(400, 1), drawn(400, 2)


@cache
def evidence() -> Evidence:
    return _evidence(drawn(SENTENCES, 3), REFERENCE, TRAIN)


def covered(name: str, score: str, options: dict[str, object], expected: float) -> tuple[float, float]:
    """How many of the sets have an interval that holds what is expected, in %; and the mean of their values."""
    kind = plugins.find(Metric, name)  # type: ignore[type-abstract]
    metric = kind(kind.Config.model_validate(options))
    found = []
    for number in range(SETS):
        given = replace(evidence(), generated=drawn(SENTENCES, 4, number))  # type: ignore[arg-type]
        found += [each for each in metric.scores(given) if each.name == score]
    held = [each.low <= expected <= each.high for each in found]
    assert len(held) == SETS
    return 100 * sum(held) / SETS, float(np.mean([each.value for each in found]))


MODEL = NgramModel.fit(REFERENCE, order=3)


def forward(corpus: Corpus) -> float:
    nats, words = MODEL.nll(corpus)
    return float(nats.sum() / words.sum())


# Each is the metric, its options, and the plain value of a set, which has no interval.
VALUES: dict[str, tuple[str, dict[str, object], Callable[[Corpus], float]]] = {
    "self_bleu_3": ("self_bleu", {"orders": [3]}, lambda each: float(bleu.self_bleu(each, (3,))[3].mean())),
    "distinct_2": ("distinct", {"orders": [2]}, lambda each: ngrams.distinct(each, 2)),
    "unique": ("unique", {}, ngrams.unique_sentences),
    "repetition": ("repetition", {"order": 1}, lambda each: float(ngrams.repetition(each, 1).mean())),
    "bleu_3": ("bleu", {"orders": [3]}, lambda each: float(bleu.bleu(each, REFERENCE, (3,))[3].mean())),
    "novelty": ("novelty", {}, lambda each: 1 - float(ngrams.known_sentences(each, TRAIN).mean())),
    "lm_forward": ("lm_score", {"order": 3}, forward),
}


@pytest.mark.parametrize("name", VALUES)
def test_intervals_hold_what_sets_of_the_source_have_on_the_mean(name: str) -> None:
    metric, options, value = VALUES[name]
    fresh = [value(drawn(SENTENCES, 5, number)) for number in range(FRESH)]
    expected, error = float(np.mean(fresh)), float(np.std(fresh)) / FRESH**0.5
    share, mean = covered(metric, name, options, expected)
    assert abs(mean - expected) < 4 * error * (1 + FRESH / SETS) ** 0.5  # the metric's value is the plain one
    assert 88 <= share <= 99


@pytest.mark.parametrize(("words", "shortest"), [(3000, 3), (80, 2), (40, 2)])
def test_rare_repeats_are_held_too(words: int, shortest: int) -> None:
    """Most sets have none of them, and a jackknife of those knows none: its intervals hold the truth in 25 %."""
    unique = plugins.find(Metric, "unique")  # type: ignore[type-abstract]
    metric = unique(unique.Config())
    sets = [drawn(SENTENCES, 6, number, words=words, shortest=shortest) for number in range(SETS)]
    fresh = [drawn(SENTENCES, 7, number, words=words, shortest=shortest) for number in range(600)]
    expected = np.mean([ngrams.unique_sentences(each) for each in fresh])
    assert 0.94 < expected < 1
    real = _evidence(sets[0], sets[1], None)
    found = [metric.scores(replace(real, generated=each))[0] for each in sets]  # type: ignore[arg-type]
    assert sum(score.low <= expected <= score.high for score in found) >= 0.88 * SETS
    assert np.mean([score.high - score.low for score in found]) < 0.15


@pytest.mark.parametrize("name", ["self_bleu_3", "distinct_2", "unique"])
def test_a_sorted_file_has_intervals_as_wide_as_any(name: str) -> None:
    """Were the groups those that stand together, like sentences would be left out together."""
    metric, options, _ = VALUES[name]
    kind = plugins.find(Metric, metric)  # type: ignore[type-abstract]
    widths = []
    for is_sorted in (False, True):
        wide = 0.0
        for number in range(60):
            made = drawn(SENTENCES, 9, number)
            made = made.take(np.argsort(made.lengths, kind="stable")) if is_sorted else made
            (score,) = kind(kind.Config.model_validate(options)).scores(
                replace(evidence(), generated=made)  # type: ignore[arg-type]
            )
            wide += score.high - score.low
        widths.append(wide)
    assert widths[1] == pytest.approx(widths[0], rel=0.15)


def test_a_mean_and_a_ratio_hold_what_is_expected() -> None:
    source = np.random.default_rng(8)
    means = ratios = 0
    for _ in range(1000):
        counts = source.integers(1, 12, 80)
        sums = counts * 1.5 + source.exponential(2.0, 80)  # expected: 1.5 + 2 / 6
        _, low, high = ratio_of(sums, counts)
        ratios += low <= 1.5 + 2 / 6 <= high
        _, low, high = mean_of(sums)
        means += low <= 1.5 * 6 + 2 <= high
    assert 920 <= ratios <= 975 and 920 <= means <= 975
