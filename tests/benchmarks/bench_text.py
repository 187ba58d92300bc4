"""What text scores cost, beside NLTK and rouge-score: `uv run python tests/benchmarks/bench_text.py`.

10,000 captions (`data/text/coco_train.txt` under AIGC_LAB_DATA_DIR, or `text/coco_train.txt` under it), split at
spaces; where there are none, made-up sentences with Zipf's frequencies. Times are seconds of processor time on one
thread, of ours the least of three; memory is the most that a call allocates beyond its corpus. NLTK would take most
of an hour: it scores 20 sentences against all others, and its time is scaled up.
"""

import math
import os
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]
from threadpoolctl import threadpool_limits

from aigc_lab.benchmarks.self_bleu import nltk_scores, numbered
from aigc_lab.benchmarks.self_bleu import sentences as made_up
from aigc_lab.text.bleu import bleu, self_bleu, self_bleu_without
from aigc_lab.text.ngram_model import NgramModel
from aigc_lab.text.rouge import rouge_l, rouge_nn

SENTENCES, NLTK, PAIRS, NEAREST = 10_000, 20, 2_000, 500
Result = TypeVar("Result")


class Spaces:
    """rouge-score's tokenizer, without its stemming and its rule of what a word is."""

    def tokenize(self, text: str) -> list[str]:
        return text.split()


def sentences() -> tuple[str, list[str]]:
    folder = Path(os.environ.get("AIGC_LAB_DATA_DIR", ""))
    for path in (folder / "data" / "text" / "coco_train.txt", folder / "text" / "coco_train.txt"):
        if path.is_file():
            return "captions", path.read_text().splitlines()[:SENTENCES]
    return "made-up sentences", made_up(SENTENCES)


def timed(call: Callable[[], Result], times: int = 3) -> tuple[Result, float]:
    least = math.inf
    for _ in range(times):
        started = time.process_time()
        value = call()
        least = min(least, time.process_time() - started)
    return value, least


def measured(name: str, call: Callable[[], Result]) -> tuple[Result, float]:
    value, seconds = timed(call)
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    print(f"{name:44} {seconds:8.3f} {peak:9.1f}", flush=True)
    return value, seconds


def main() -> None:
    threadpool_limits(1)
    kind, texts = sentences()
    corpus = numbered(texts)
    count, half = len(corpus), len(corpus) // 2
    print(f"{count:,} {kind}, {len(corpus.tokens):,} tokens of {len(corpus.words):,} words")
    print(f"{'':44} {'s':>8} {'peak, MB':>9}")
    ours, seconds = measured("Self-BLEU 2 to 5", lambda: self_bleu(corpus))
    groups = np.random.default_rng(0).permutation(count) % 20
    measured("the same without each of 20 groups", lambda: self_bleu_without(corpus, groups))
    first, second = corpus.take(slice(half)), corpus.take(slice(half, None))
    measured(f"BLEU 2 to 5, {half:,} against {half:,}", lambda: bleu(first, second))
    shuffled = corpus.take(np.random.default_rng(1).permutation(count))
    measured(f"BLEU 2 to 5, {count:,} against {count:,}", lambda: bleu(corpus, shuffled))
    model, _ = measured("4-gram model, training", lambda: NgramModel.fit(corpus))
    measured("4-gram model, scoring", lambda: model.nll(corpus))
    left, right = corpus.take(slice(PAIRS)), corpus.take(slice(-PAIRS, None))
    values, rouge = measured(f"ROUGE-L, {PAIRS:,} pairs", lambda: rouge_l(left, right))
    some = corpus.take(slice(NEAREST))
    measured(f"best ROUGE-L, {NEAREST} in {half:,}", lambda: rouge_nn(some, second))

    rows = np.linspace(0, count - 1, NLTK).astype(int).tolist()
    found, spent = timed(partial(nltk_scores, rows, [text.split() for text in texts]), 1)
    theirs = [scores[-1] for scores in found]
    scaled = spent * count / NLTK
    print(
        f"Self-BLEU 2 to 5, NLTK: {spent:.1f} s for {NLTK} sentences, so {scaled:,.0f} s for all: "
        f"{scaled / seconds:,.0f} times ours; largest difference {np.abs(ours[5][rows] - theirs).max():.1e}"
    )
    scorer = RougeScorer(["rougeL"], tokenizer=Spaces())
    made, targets = texts[:PAIRS], texts[-PAIRS:]
    expected, spent = timed(
        lambda: [scorer.score(target, text)["rougeL"].fmeasure for text, target in zip(made, targets, strict=True)]
    )
    print(
        f"ROUGE-L, rouge-score: {spent:.2f} s, {spent / rouge:.0f} times ours; "
        f"largest difference {np.abs(values - expected).max():.1e}"
    )


if __name__ == "__main__":
    main()
