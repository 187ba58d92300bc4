"""What a language-model score trains is declared for the estimate of a sweep."""

from pathlib import Path
from typing import Any

import pytest
import torch

from aigc_lab.data.oracle import OracleText
from aigc_lab.metrics.lm_score import LMScore
from aigc_lab.metrics.shared import lstm_scorer
from aigc_lab.metrics.shared.text import corpus_of


@pytest.fixture
def data(tmp_path: Path) -> OracleText:
    return OracleText(OracleText.Config(words=12, length=6, train=200, scored=150), tmp_path)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches of all steps that are taken."""
    taken: list[int] = []
    step = lstm_scorer._Learner.step

    def seen(self: Any, batch: torch.Tensor) -> None:
        taken.append(len(batch))
        step(self, batch)

    monkeypatch.setattr(lstm_scorer._Learner, "step", seen)
    return taken


def test_a_network_takes_the_steps_that_are_declared(
    data: OracleText, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    learning = LMScore(LMScore.Config(scorer="lstm")).learning(data)
    assert learning is not None and learning.networks == 2
    corpus = corpus_of(data.load("reference"))
    # Nothing stops it early: what is held out gets ever likelier.
    falling = iter(range(100, 0, -1))
    real = lstm_scorer._likely
    monkeypatch.setattr(
        lstm_scorer,
        "_likely",
        lambda *given: tuple(each * next(falling) if not n else each for n, each in enumerate(real(*given))),
    )
    lstm_scorer.lstm_nll(corpus, corpus)
    assert len(steps) == learning.steps == 12 * 3  # passes over 135 sentences in batches of 64
    steps.clear()
    learning.train(7)
    assert steps == [64, 64, 22, 64, 64, 22, 64]


def test_ngrams_are_counted_in_no_time(data: OracleText) -> None:
    assert LMScore(LMScore.Config()).learning(data) is None
