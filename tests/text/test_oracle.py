"""The oracle against SeqGAN's own equations in numpy, against exact enumeration, and its cache on the disk."""

import itertools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.special import chdtrc  # the upper tail of chi-square

from aigc_lab.data.base import SPLITS
from aigc_lab.data.oracle import Oracle, OracleText, random_weights, read_weights
from aigc_lab.errors import UsageError
from aigc_lab.noise import Draw, draw
from aigc_lab.text.vocabulary import SPECIAL, UNK, Vocabulary

Floats = npt.NDArray[np.float64]
Weights = dict[str, npt.NDArray[Any]]

SMALL = {"words": 40, "embedding": 5, "hidden": 7, "length": 6, "train": 120, "scored": 100}


def arrays(words: int, embedding: int, hidden: int, seed: int) -> Weights:
    """Weights that are not ours, of numpy's generator."""
    source = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"embeddings": (words, embedding), "Wo": (hidden, words), "bo": (words,)}
    for gate in ("i", "f", "og", "c"):
        shapes |= {f"W{gate}": (embedding, hidden), f"U{gate}": (hidden, hidden), f"b{gate}": (hidden,)}
    return {name: source.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def sigmoid(x: Floats) -> Floats:
    positive: Floats = 1 / (1 + np.exp(-x))
    return positive


def token_nll(weights: Weights, sentences: npt.NDArray[np.int64]) -> Floats:
    """Nats of each word [N, L] of sentences in the oracle's own numbers, as in SeqGAN's target_lstm.py, in float64."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    count, length = sentences.shape
    hidden = np.zeros((count, w["Wo"].shape[0]))
    cell = np.zeros_like(hidden)
    word = np.zeros(count, dtype=np.int64)  # the start token
    found = np.zeros((count, length))

    def gate(name: str, x: Floats) -> Floats:
        summed: Floats = x @ w[f"W{name}"] + hidden @ w[f"U{name}"] + w[f"b{name}"]
        return summed

    for place in range(length):
        x = w["embeddings"][word]
        entering, forgetting, leaving = sigmoid(gate("i", x)), sigmoid(gate("f", x)), sigmoid(gate("og", x))
        cell = forgetting * cell + entering * np.tanh(gate("c", x))
        hidden = leaving * np.tanh(cell)
        logits = hidden @ w["Wo"] + w["bo"]
        word = sentences[:, place]
        found[:, place] = np.log(np.exp(logits).sum(1)) - logits[np.arange(count), word]
    return found


def vocabulary(words: int) -> Vocabulary:
    return Vocabulary((*SPECIAL, *map(str, range(words))), "none", ends=False)


def oracle(weights: Weights, length: int) -> Oracle:
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    return Oracle(tensors, length, vocabulary(len(weights["embeddings"])))


def made(tmp_path: Path, **options: Any) -> OracleText:
    return OracleText(OracleText.Config(**(SMALL | options)), tmp_path)


# ---- likelihood


@pytest.mark.parametrize(("words", "embedding", "hidden", "length"), [(40, 5, 7, 6), (3, 2, 4, 3), (500, 32, 32, 20)])
def test_each_word_has_the_nats_of_the_published_equations(
    words: int, embedding: int, hidden: int, length: int
) -> None:
    for seed in range(3):
        weights = arrays(words, embedding, hidden, seed)
        sentences = np.random.default_rng(seed).integers(0, words, (50, length))
        ours = oracle(weights, length).token_nll(torch.from_numpy(sentences + len(SPECIAL)))
        assert ours.shape == (50, length)
        np.testing.assert_allclose(ours.numpy(), token_nll(weights, sentences), rtol=2e-5, atol=2e-5)


def test_random_weights_are_all_normal() -> None:
    weights = random_weights(300, 32, 32, 0)
    assert {name: list(each.shape) for name, each in weights.items()} == {
        name: list(each.shape) for name, each in arrays(300, 32, 32, 0).items()
    }
    every = torch.cat([each.flatten() for each in weights.values()]).double()
    for each in weights.values():
        assert abs(each.mean()) < 5 / len(each.flatten()) ** 0.5
    assert every.std().item() == pytest.approx(1, abs=5 / (2 * len(every)) ** 0.5)
    assert (every**4).mean().item() == pytest.approx(3, abs=5 * (96 / len(every)) ** 0.5)


def test_the_dataset_scores_by_its_own_weights(tmp_path: Path) -> None:
    dataset = made(tmp_path, seed=5)
    weights = {name: each.numpy() for name, each in random_weights(40, 5, 7, 5).items()}
    values = dataset.load("holdout").values
    expected = token_nll(weights, values.numpy() - len(SPECIAL))
    assert dataset.likelihood is not None
    np.testing.assert_allclose(dataset.likelihood.token_nll(values).numpy(), expected, rtol=2e-5, atol=2e-5)
    each = expected.mean(1)
    margin = 1.96 * each.std(ddof=1) / 10
    assert f"its own NLL {each.mean():.4f} ± {margin:.4f} nats a word (100 sentences)" in dataset.notes[0]


# ---- a world so small that all of it can be listed


@pytest.fixture(scope="module")
def tiny() -> tuple[Oracle, npt.NDArray[np.int64], Floats]:
    """An oracle of 3 words, its 27 sentences of 3 in its own numbers, and their exact probabilities."""
    weights = arrays(3, 2, 4, 7)
    every = np.array(list(itertools.product(range(3), repeat=3)))
    return oracle(weights, 3), every, np.exp(-token_nll(weights, every).sum(1))


def test_all_sentences_together_have_probability_one(tiny: tuple[Oracle, Any, Floats]) -> None:
    one, every, exact = tiny
    assert exact.sum() == pytest.approx(1, abs=1e-12)
    ours = (-one.token_nll(torch.from_numpy(every + 3)).double().sum(1)).exp().numpy()
    assert ours.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(ours, exact, rtol=1e-5)
    assert exact.max() < 0.5  # else what follows would say little


def test_samples_have_the_exact_probabilities(tiny: tuple[Oracle, Any, Floats]) -> None:
    one, _, exact = tiny
    count = 40_000
    drawn = one.sample(draw(Draw((count, 3), "unit"), "test")).values.numpy() - 3
    assert drawn.min() >= 0 and drawn.max() <= 2
    observed = np.bincount(drawn @ [9, 3, 1], minlength=27).astype(np.float64)
    expected = exact * count
    rare = expected < 5
    observed, expected = (np.append(each[~rare], each[rare].sum()) for each in (observed, expected))
    statistic = ((observed - expected) ** 2 / np.maximum(expected, 1e-9)).sum()
    assert chdtrc(len(expected) - 1, statistic) > 1e-3
    # The test would notice a shift of one part in ten between two common sentences.
    wrong = expected.copy()
    first, second = np.argsort(expected)[-2:]
    wrong[first], wrong[second] = wrong[first] * 1.1, wrong[second] - wrong[first] * 0.1
    assert chdtrc(len(expected) - 1, ((observed - wrong) ** 2 / np.maximum(wrong, 1e-9)).sum()) < 1e-3


def test_its_own_samples_score_its_entropy(tiny: tuple[Oracle, Any, Floats]) -> None:
    one, _, exact = tiny
    entropy = -(exact * np.log(exact)).sum() / 3
    fresh = one.sample(draw(Draw((20_000, 3), "unit"), "fresh")).values
    nats = one.token_nll(fresh).double().mean(1).numpy()
    error = nats.std(ddof=1) / len(nats) ** 0.5
    assert abs(nats.mean() - entropy) < 4 * error
    assert error < 0.01 and entropy < np.log(3) - 8 * error  # it is not merely that of uniform words


def test_what_is_held_out_of_a_tiny_oracle_has_its_entropy(tmp_path: Path) -> None:
    """Kept apart from what is trained on, it would be rarer than what the oracle says."""
    dataset = made(tmp_path, words=3, length=3, train=2000, scored=2000, seed=1)
    weights = {name: each.numpy() for name, each in random_weights(3, 5, 7, 1).items()}
    every = np.array(list(itertools.product(range(3), repeat=3)))
    nats = token_nll(weights, every).sum(1)
    entropy = (np.exp(-nats) * nats).sum()
    for split in SPLITS:
        held = nats[dataset.load(split).values.numpy() @ [9, 3, 1] - 39]
        assert abs(held.mean() - entropy) < 4 * held.std(ddof=1) / 2000**0.5
    first, second, third = (dataset.load(split).values for split in SPLITS)
    assert not torch.equal(first, second) and not torch.equal(second, third)


# ---- weights of a file


def test_weights_of_a_file_are_what_scores(tmp_path: Path) -> None:
    weights = arrays(30, 4, 6, 1)
    wide: dict[str, Any] = {name: array.astype(np.float64) for name, array in weights.items()}
    np.savez(tmp_path / "published.npz", extra=np.zeros(3), **wide)
    dataset = made(tmp_path / "data", weights=str(tmp_path / "published.npz"), words=99)
    values = dataset.load("train").values
    assert values.min() >= 3 and len(dataset.vocabulary) == 33 and not dataset.fixed
    assert dataset.likelihood is not None
    expected = token_nll(weights, values.numpy() - 3)
    np.testing.assert_allclose(dataset.likelihood.token_nll(values).numpy(), expected, rtol=2e-5, atol=2e-5)
    assert "oracle: 30 words" in dataset.notes[0]
    np.savez_compressed(tmp_path / "data" / "packed.npz", **wide)
    assert made(tmp_path / "data", weights="packed.npz").digest == dataset.digest  # found in the data folder
    assert made(tmp_path / "data", weights="packed.npz", seed=1).digest != dataset.digest  # other sentences of the same
    wide["Wo"][0, 0] += 1
    np.savez(tmp_path / "data" / "other.npz", **wide)
    assert made(tmp_path / "data", weights="other.npz").digest != dataset.digest


class Trap:
    """Whoever unpickles it is told."""

    sprung = False

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _spring, ()


def _spring() -> None:
    Trap.sprung = True


def _without(name: str) -> Weights:
    return {key: array for key, array in arrays(9, 2, 3, 0).items() if key != name}


def _with(**changed: Any) -> Weights:
    return arrays(9, 2, 3, 0) | changed


BAD: dict[str, tuple[Weights, str]] = {
    "an array is missing": (_without("Uog"), "FILE: lacks Uog; it needs embeddings, Wi, Ui, bi, "),
    "none of them": ({"weights": np.zeros(3)}, "FILE: lacks embeddings, Wi, "),
    "turned": (_with(Wi=np.zeros((3, 2))), "FILE: Wi is [3, 2], not [2, 3]"),
    "another vocabulary": (_with(bo=np.zeros(8)), "FILE: bo is [8], not [9]"),
    "another memory": (_with(bf=np.zeros(4)), "FILE: bf is [4], not [3]"),
    "flat": (_with(embeddings=np.zeros(18)), "FILE: embeddings and Wo have two dimensions"),
    "not a number": (_with(Uc=np.full((3, 3), np.nan)), "FILE: Uc holds NaN or infinity"),
    "infinity": (_with(bo=np.full(9, np.inf)), "FILE: bo holds NaN or infinity"),
    "words": (_with(bi=np.array(["a", "b", "c"])), "FILE: cannot be read as .npz (could not convert string to float"),
    "objects": (_with(bi=np.array([Trap(), 0, 0], dtype=object)), "FILE: cannot be read as .npz (Object arrays cannot"),
}


@pytest.mark.parametrize(("content", "told"), BAD.values(), ids=BAD)
def test_bad_weights_are_refused_by_file_and_array(tmp_path: Path, content: Weights, told: str) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **content)  # type: ignore[arg-type]
    with pytest.raises(UsageError) as refused:
        read_weights(path)
    assert str(refused.value).replace(str(path), "FILE").startswith(f"data.weights: {told}")
    assert not Trap.sprung


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    whole = tmp_path / "whole.npz"
    np.savez_compressed(whole, **arrays(20, 4, 4, 0))  # type: ignore[arg-type]
    np.save(tmp_path / "one.npy", np.zeros(3))
    raw = whole.read_bytes()
    others = [b"", b"hello", b"PK\x03\x04", pickle.dumps([Trap()]), (tmp_path / "one.npy").read_bytes()]
    for content in (*others, raw[: len(raw) // 2]):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"bad.npz: is no .npz file, or not all of one"):
            read_weights(path)
    assert not Trap.sprung
    same = read_weights(whole)
    refused = []
    for at in range(0, len(raw), 97):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 0xFF]) + raw[at + 1 :])
        try:
            found = read_weights(path)
        except UsageError as error:
            refused.append(str(error))
        else:
            assert all(torch.equal(found[name], same[name]) for name in same)
    assert len(refused) > 20 and all("data.weights" in told and "\n" not in told for told in refused)


def test_a_file_of_weights_that_is_not_there_is_named(tmp_path: Path) -> None:
    for name in ("absent.npz", "x" * 300):
        with pytest.raises(UsageError, match=f"data.weights: {name}: no such file here, nor in {tmp_path}"):
            made(tmp_path, weights=name).load("train")


# ---- sentences on the disk


def rows(dataset: OracleText) -> list[list[list[int]]]:
    return [dataset.load(split).values.tolist() for split in SPLITS]


def stored(folder: Path) -> Path:
    (path,) = (folder / "made").iterdir()
    return path


def test_splits_are_sentences_of_words(tmp_path: Path) -> None:
    dataset = made(tmp_path)
    found = rows(dataset)
    assert list(map(len, found)) == [120, 100, 100]
    every = [tuple(row) for each in found for row in each]
    assert len(set(every)) > 300
    assert {len(row) for row in every} == {6} == {dataset.shape.size[0]}
    assert min(map(min, every)) > UNK and max(map(max, every)) < len(dataset.vocabulary) == 43
    assert dataset.load("train").sentences()[0] == " ".join(str(word - 3) for word in every[0])


def test_everything_depends_on_the_seed_and_the_knobs(tmp_path: Path) -> None:
    first = made(tmp_path / "a")
    digest = first.digest
    assert made(tmp_path / "b").digest == digest and made(tmp_path / "b").notes == first.notes
    others = [{"seed": 1}, {"words": 41}, {"length": 7}, {"hidden": 8}, {"embedding": 6}, {"train": 121}]
    digests = {made(tmp_path / "a", **other).digest for other in others}
    assert len(digests | {digest}) == len(others) + 1
    assert first.notes != made(tmp_path / "a", seed=1).notes


def test_the_second_object_reads_what_the_first_has_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = rows(made(tmp_path))
    monkeypatch.setattr(Oracle, "sample", None)
    assert rows(made(tmp_path)) == expected
    with pytest.raises(TypeError):
        made(tmp_path, seed=1).load("train")  # which is another file


def test_a_damaged_file_is_drawn_again(tmp_path: Path) -> None:
    expected = rows(made(tmp_path))
    path = stored(tmp_path)
    raw = path.read_bytes()
    flipped = [raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :] for at in (0, len(raw) // 2, len(raw) - 400)]
    for content in (b"", b"PK\x03\x04", b"hello", raw[: len(raw) // 2], raw[:-1], pickle.dumps([Trap()]), *flipped):
        path.write_bytes(content)
        assert rows(made(tmp_path)) == expected
        assert path.read_bytes() != content  # and stored again
    for other in ({"words": np.zeros((3, 6), np.int32)}, {"no_words": np.zeros(3)}, {"words": np.array([Trap()])}):
        np.savez(path, **other)
        assert rows(made(tmp_path)) == expected
    assert not Trap.sprung


def test_a_folder_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    expected = rows(made(tmp_path / "good"))
    (tmp_path / "file").write_text("in the way")
    assert rows(made(tmp_path / "file")) == expected
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "made").write_text("in the way")
    assert rows(made(tmp_path / "half")) == expected
    stored(tmp_path / "good").unlink()
    (tmp_path / "good" / "made").rmdir()
    assert rows(made(tmp_path / "good")) == expected
