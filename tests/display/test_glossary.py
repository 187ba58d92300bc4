"""The glossary: a text for every word that a verdict, a state or a metric that ships can put on a page."""

import pytest

from aigc_lab import plugins
from aigc_lab.display import glossary
from aigc_lab.metrics.base import Metric
from aigc_lab.registry.states import RunState
from aigc_lab.statistics.wording import only_describes
from aigc_lab.verdicts.conclusion import Collapse
from aigc_lab.verdicts.stability import Stability

UNKNOWN = glossary.score_text("brightness", "higher").partition(".")[0]


def test_every_verdict_and_state_has_a_line() -> None:
    assert set(glossary.COLLAPSE) == set(Collapse)
    assert set(glossary.STABILITY) == set(Stability)
    assert set(glossary.STATES) == set(RunState) - {RunState.FINISHED}
    texts = [*glossary.TERMS.values(), *glossary.COLLAPSE.values(), *glossary.STABILITY.values()]
    assert all(text.endswith(".") and "  " not in text for text in [*texts, *glossary.STATES.values()])


def test_the_limits_are_those_of_the_verdicts() -> None:
    assert "2 %" in glossary.COLLAPSE["NONE"] and "25 %" in glossary.COLLAPSE["SEVERE"]
    assert "90 %" in glossary.COLLAPSE["TOTAL"] and "Fewer than 10 evaluations" in glossary.STABILITY["WITHHELD"]
    assert "1.35 times" in glossary.STABILITY["REGRESSED"]


@pytest.mark.parametrize("name", sorted(plugins.describe("metrics")))
def test_every_score_that_ships_is_explained(name: str) -> None:
    kind = plugins.find(Metric, name)  # type: ignore[type-abstract]
    metric = kind(kind.Config())
    for score, better in metric.gives.items():
        text = glossary.score_text(score, better)
        assert not text.startswith(UNKNOWN), score
        assert f"{better.capitalize()} is better" in text
        assert only_describes(score) == (score in metric.describing()), score


def test_a_score_says_whose_features_it_is_of() -> None:
    assert "classifier that was trained on this dataset" in glossary.score_text("fd_clf", "lower")
    assert "never trained" in glossary.score_text("improved_precision_rand", "higher")
    assert "features of" not in glossary.score_text("bleu_4", "higher")
    assert "features of" not in glossary.score_text("rouge_l", "higher")
    assert "features of Inception" in glossary.score_text("fd_inception_64", "lower")


@pytest.mark.parametrize("score", ["kl", "fd_gap_clf", "brightness"])
def test_a_score_that_describes_has_no_direction(score: str) -> None:
    (entry,) = glossary.glossary((), {score: None})
    assert "is better" not in entry.text and entry.text.endswith(". A good value is near the floor.")


def test_a_word_that_is_not_asked_for_is_not_there() -> None:
    entries = glossary.glossary({"floor", "stability DIVERGED", "unheard of"}, {"fid": "lower"})
    assert [(entry.word, entry.group) for entry in entries] == [
        ("fid", "scores"),
        ("floor", "words"),
        ("DIVERGED", "stability"),
    ]
