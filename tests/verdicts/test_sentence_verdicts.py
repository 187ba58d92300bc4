"""What sentences say of a collapse beside their vectors: strangeness by a language model, and phrases by Self-BLEU."""

import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from aigc_lab.cli import app
from aigc_lab.commands.sentences import collapse
from aigc_lab.data.pydoc import PyDoc
from aigc_lab.errors import UsageError
from aigc_lab.scoring.null_cache import known_nulls
from aigc_lab.text import bleu
from aigc_lab.text.corpus import Corpus
from aigc_lab.verdicts import sentences as sentences_
from aigc_lab.verdicts.conclusion import Collapse, CollapseVerdict
from aigc_lab.verdicts.sentences import Sentences, of_splits

WORDS = tuple(f"w{number}" for number in range(300))
Rows = list[list[int]]


def chain(count: int, seed: int) -> Rows:
    """Sentences of 8 to 14 words of a chain in which each word has six followers."""
    random = np.random.default_rng(seed)
    after = np.random.default_rng(0).integers(len(WORDS), size=(len(WORDS), 6))
    rows = []
    for _ in range(count):
        row = [int(random.integers(40))]
        while len(row) < random.integers(8, 15):
            row.append(int(after[row[-1], random.integers(6)]))
        rows.append(row)
    return rows


def corpus(rows: Rows) -> Corpus:
    return Corpus.of(rows, WORDS)


def noise(count: int, seed: int) -> Rows:
    random = np.random.default_rng(seed)
    return [random.integers(len(WORDS), size=random.integers(8, 15)).tolist() for _ in range(count)]


def changed(rows: Rows, copies: int, seed: int) -> Rows:
    """Copies with one word replaced in each."""
    random = np.random.default_rng(seed)
    made = [row.copy() for row in rows for _ in range(copies)]
    for row in made:
        row[int(random.integers(len(row)))] = int(random.integers(len(WORDS)))
    return made


REAL, TRAIN = corpus(chain(1600, 1)), corpus(chain(3000, 2))


@pytest.mark.parametrize("train", [TRAIN, None])
def test_real_sentences_are_as_strange_as_real_ones(train: Corpus | None) -> None:
    judge = Sentences(REAL, train)
    fresh = judge.strangeness(corpus(chain(4000, 3)))
    assert fresh.min() == 0 and 0.4 < (fresh == 0).mean() < 0.6
    # 2.5 %, of 4,000 fresh ones and by a quantile of 800 at least: three errors of both together.
    assert (fresh > 1).mean() == pytest.approx(0.025, abs=3 * math.sqrt(0.025 * (1 / 4000 + 1 / 800)))
    assert judge.strangeness(corpus(noise(500, 4))).min() > 2
    wrong = judge.strangeness(corpus(changed(chain(500, 5), 1, 6)))
    assert wrong.mean() > 2 * fresh.mean()


def test_what_a_generator_has_by_heart_is_not_strange() -> None:
    assert Sentences(REAL, TRAIN).strangeness(TRAIN).max() < 1


def test_a_half_is_not_judged_by_what_it_was_learned_from() -> None:
    """Without training sentences: were real ones known by heart, all others would be strange."""
    judge = Sentences(REAL)
    assert (judge.strangeness(corpus(chain(2000, 7))) > 1).mean() < 0.06


def verdict(kind: Collapse = Collapse.NONE) -> CollapseVerdict:
    return CollapseVerdict(kind, "as it was", 800, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, [], "of:test")


def test_phrases_of_honest_sentences_change_nothing() -> None:
    judge = Sentences(REAL, TRAIN)
    values = []
    for seed in range(10, 30):
        found = judge.with_phrases(verdict(), corpus(chain(800, seed)))
        assert found.verdict == Collapse.NONE and found.reason == "as it was" and found.phrases is not None
        values.append(found.phrases)
    assert np.mean(values) == pytest.approx(1, abs=0.03)


def test_phrases_are_a_ratio_of_what_self_bleu_leaves() -> None:
    judge, made = Sentences(REAL, TRAIN), corpus(chain(700, 8))
    kept = made.take(judge.strangeness(made) <= 1)

    def left(rows: Corpus) -> float:
        return 1 - float(bleu.self_bleu(rows, [4])[4].mean())

    fresh = [left(corpus(chain(len(kept), seed))) for seed in range(60, 70)]
    found = judge.with_phrases(verdict(), made).phrases
    assert found == pytest.approx(left(kept) / np.mean(fresh), rel=0.05)
    value, low, high = judge.variety(kept)
    assert low < value < high and value == found


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Collapse.NONE, Collapse.PARTIAL),
        (Collapse.INCONCLUSIVE, Collapse.PARTIAL),
        (Collapse.SEVERE, Collapse.SEVERE),
        (Collapse.UNMEASURABLE, Collapse.UNMEASURABLE),
    ],
)
def test_the_same_phrases_over_and_over_are_a_collapse(before: Collapse, after: Collapse) -> None:
    few = corpus(chain(20, 9) * 40)
    found = Sentences(REAL, TRAIN).with_phrases(verdict(before), few)
    assert found.verdict == after and found.phrases is not None and found.phrases < 0.5
    assert ("phrases vary 0." in found.reason) == (after == Collapse.PARTIAL)


def test_what_is_half_certain_is_no_none() -> None:
    judge = Sentences(REAL, TRAIN)
    for copies in (2, 3, 4, 6, 8):
        made = corpus([row for row in chain(120, 11) for _ in range(copies)])
        value, low, high = judge.variety(made)
        found = judge.with_phrases(verdict(), made)
        expected = Collapse.PARTIAL if high < 0.5 else Collapse.INCONCLUSIVE if low < 0.5 else Collapse.NONE
        assert found.verdict == expected, (value, low, high)


@pytest.mark.parametrize(
    ("before", "variety", "after"),
    [
        (Collapse.NONE, (0.3, 0.2, 0.49), Collapse.PARTIAL),
        (Collapse.NONE, (0.4, 0.3, 0.51), Collapse.INCONCLUSIVE),
        (Collapse.NONE, (0.6, 0.4, 0.8), Collapse.INCONCLUSIVE),
        (Collapse.NONE, (0.7, 0.51, 0.9), Collapse.NONE),
        (Collapse.INCONCLUSIVE, (0.6, 0.4, 0.8), Collapse.INCONCLUSIVE),
        (Collapse.INCONCLUSIVE, (0.3, 0.2, 0.49), Collapse.PARTIAL),
    ],
)
def test_half_as_varied_for_certain_is_a_collapse(
    before: Collapse, variety: tuple[float, float, float], after: Collapse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sentences, "variety", lambda self, made: variety)
    found = Sentences(REAL, TRAIN).with_phrases(verdict(before), corpus(chain(400, 15)))
    assert (found.verdict, found.phrases) == (after, variety[0])
    if before == Collapse.NONE and variety[0] == 0.6:
        # Of twice as narrow an interval the lower end would be a half: four times as many.
        n = int(found.reason.split("(")[-1].split()[0])
        assert 370 < n <= 400 and 4 * n <= int(found.reason.split(" and ")[-1].split()[0].replace(",", "")) < 4.1 * n


def test_where_real_sentences_share_their_phrases_nothing_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sentences, "_null", lambda self, n: (0.019, 0.1))
    assert Sentences(REAL, TRAIN).with_phrases(verdict(), corpus(chain(400, 15))) == verdict()


def test_too_few_sentences_say_nothing_of_phrases() -> None:
    judge = Sentences(REAL, TRAIN)
    for rows in (chain(19, 12), noise(500, 13)):
        found = judge.with_phrases(verdict(), corpus(rows))
        assert found == verdict()


def test_splits_are_judged_together() -> None:
    halves = [REAL.take(slice(0, 800)), REAL.take(slice(800, None))]
    both, made = of_splits(halves, TRAIN), corpus(chain(300, 14))
    assert both.strangeness(made).tolist() == Sentences(REAL, TRAIN).strangeness(made).tolist()


def test_the_order_of_sentences_changes_nothing() -> None:
    made = corpus(chain(300, 15) + noise(60, 16))
    random = np.random.default_rng(0)
    for train in (TRAIN, None):
        first = Sentences(REAL, train)
        again = Sentences(REAL.take(random.permutation(len(REAL))), train)
        assert again.strangeness(made).tolist() == first.strangeness(made).tolist()
        shuffled = made.take(random.permutation(len(made)))
        assert again.with_phrases(verdict(), shuffled) == first.with_phrases(verdict(), made)


# ---- files of sentences


@pytest.fixture
def judged(tmp_path: Path) -> Callable[[Rows], dict[str, Any]]:
    def write(name: str, rows: Rows) -> str:
        path = tmp_path / name
        path.write_text("\n".join(" ".join(WORDS[word] for word in row) for row in rows) + "\n")
        return str(path)

    real = write("real.txt", chain(1600, 1))

    def run(rows: Rows) -> dict[str, Any]:
        made = write("made.txt", rows)
        result = CliRunner().invoke(app, ["judge", "collapse", "--generated", made, "--reference", real, "--json"])
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    return run


def test_files_with_noise_are_not_said_to_have_collapsed(judged: Callable[[Rows], dict[str, Any]]) -> None:
    honest = judged(chain(800, 20))
    assert honest["verdict"] == "NONE" and honest["phrases"] == pytest.approx(1, abs=0.1), honest["reason"]
    half = judged(chain(500, 21) + noise(500, 22))
    assert half["verdict"] in ("NONE", "INCONCLUSIVE") and half["precision"] == pytest.approx(0.5, abs=0.1)
    assert judged(noise(800, 23))["verdict"] == "UNMEASURABLE"
    assert judged(changed(chain(20, 24), 40, 25))["verdict"] in ("PARTIAL", "TOTAL")


def test_sentences_are_judged_from_python() -> None:
    def texts(rows: Rows) -> list[str]:
        return [" ".join(WORDS[word] for word in row) for row in rows]

    found = collapse(texts(changed(chain(20, 24), 40, 25)), texts(chain(1600, 1)), None)
    assert found.verdict in (Collapse.PARTIAL, Collapse.TOTAL) and found.phrases is not None and found.phrases < 0.5


def test_a_dataset_and_a_file_are_judged_by_name_from_python(tmp_path: Path) -> None:
    """As the sentences themselves are. By the names of before too, which are the same function."""
    data = PyDoc(PyDoc.Config(), tmp_path)
    generated, reference = data.load("train").sentences()[:300], data.load("reference").sentences()
    file = tmp_path / "generated.txt"
    file.write_text("\n".join(generated), "utf-8")
    by_name = collapse(str(file), "pydoc:reference", None, home=tmp_path / "home")
    assert by_name == collapse(generated, reference, None)
    for former in ("text_scoring", "scoring.text"):
        assert importlib.import_module(f"aigc_lab.{former}").collapse is collapse


def test_a_name_of_nothing_is_refused_from_python(tmp_path: Path) -> None:
    real = chain(100, 1)
    with pytest.raises(UsageError, match="nowhere: no such file, folder or dataset, and no run or model"):
        collapse("nowhere", [" ".join(WORDS[word] for word in row) for row in real], None, home=tmp_path / "home")


def test_words_that_nobody_knows_are_not_one_thing(judged: Callable[[Rows], dict[str, Any]], tmp_path: Path) -> None:
    """Their vectors are all zero; and near copies of a sentence that is like real ones are one thing."""
    alien = tmp_path / "alien.txt"
    alien.write_text("\n".join(" ".join(f"x{place}y{word}" for word in range(9)) for place in range(200)))
    result = CliRunner().invoke(
        app, ["judge", "collapse", "--generated", str(alien), "--reference", str(tmp_path / "real.txt"), "--json"]
    )
    found = json.loads(result.stdout)
    assert (found["verdict"], found["duplicates"]) == ("UNMEASURABLE", 0)
    assert judged(chain(1, 26) * 300)["verdict"] == "TOTAL"
    assert judged([chain(1, 26)[0]] * 150 + [chain(1, 26)[0][:-1]] * 150)["verdict"] == "TOTAL"


def test_what_is_known_of_real_phrases_is_kept_where_nulls_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = REAL.texts(), corpus(chain(400, 9)).texts()
    first = collapse(made, real, None, cache=tmp_path)
    (nulls,) = (tmp_path / "nulls").glob("*.json")
    assert sum(key.startswith("phrases 3") for key in known_nulls(nulls)) == 1
    asked: list[int] = []

    def different(sentences: Corpus) -> float:
        asked.append(len(sentences))
        return counted(sentences)

    counted = sentences_._different
    monkeypatch.setattr(sentences_, "_different", different)
    assert collapse(made, real, None, cache=tmp_path) == first
    assert len(asked) == 1  # the generated ones', and no draw of real ones


def test_real_sentences_of_the_same_phrases_are_judged_and_kept(tmp_path: Path) -> None:
    """A template: every phrase of four words is in another sentence too, and nothing remains to compare."""
    same = [f"{a} red cats sat on the mat near {b}" for a in "abcdefghij" for b in "klmnopqr"] * 3
    found = collapse(same[:100], same, None, cache=tmp_path)
    assert found.phrases is None and list((tmp_path / "nulls").glob("*.json"))
