"""Language models that are told the class: what they learn of it, what it is worth in nats, and how they are asked."""

import math
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from aigc_lab.data.base import SPLITS, Dataset
from aigc_lab.data.lines import Lines
from aigc_lab.data.pydoc import PyDoc
from aigc_lab.data.shared.batches import Batches
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.metrics.base import Real
from aigc_lab.metrics.nll import NLL
from aigc_lab.modalities.base import modality
from aigc_lab.nets.decoding import Sampling
from aigc_lab.samples import Text
from aigc_lab.scoring.evidence import score
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.serving.model import Model
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.base import System
from aigc_lab.systems.lstm_lm import LSTMLM
from aigc_lab.systems.shared.language import LanguageModel
from aigc_lab.systems.text_vae import TextVAE
from aigc_lab.systems.transformer_lm import TransformerLM
from aigc_lab.text.likelihood import token_nll
from aigc_lab.text.vocabulary import EOS, PAD, SPECIAL, Vocabulary
from aigc_lab.training.loop import train_one
from aigc_lab.training.state import TrainingState

KINDS: dict[str, tuple[type[System], dict[str, Any]]] = {
    "lstm": (LSTMLM, {"embedding": 8, "hidden": 24}),
    "transformer": (TransformerLM, {"width": 16, "heads": 2, "lr": 5e-3, "dropout": 0.0}),
}
every_kind = pytest.mark.parametrize("name", KINDS)
# Class k draws its words uniformly from its own: nothing is common to two classes but the end of a sentence.
CLASSES = ("animals", "colours", "numbers")
WORDS = {"animals": "dog cat cow", "colours": "red blue pink", "numbers": "one two six"}


@cache
def disjoint(place: Path) -> Lines:
    """Sentences of three words each, all 27 of each class 40 times, but the third class 80 times."""
    rows = []
    for name in CLASSES:
        words = WORDS[name].split()
        every = [f"{name}\t{a} {b} {c}" for a in words for b in words for c in words]
        rows += every * (40 if name != "numbers" else 80)
    path = place / "words.tsv"
    path.write_text("\n".join(rows))
    return Lines(Lines.Config(path=str(path), max_length=4), place)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Lines:
    return disjoint(tmp_path_factory.mktemp("data"))


def fresh(name: str, data: Dataset, **options: Any) -> TrainingState:
    kind, small = KINDS[name]
    config = kind.Config(**({"conditional": "concat"} | small | options))
    return TrainingState.fresh(kind, config, data.shape, seed=0, batch_size=64, device="cpu")


def taught(state: TrainingState, data: Dataset, steps: int) -> Any:
    batches = Batches(data.load("train"), state.batch_size, 0)
    for _ in train_one(state, batches, seed=0, steps=steps, every=steps, decay=0.9, precision="fp32"):
        pass
    return state.average.eval()


@pytest.fixture(scope="module")
def learned(data: Lines) -> dict[tuple[str, str], Any]:
    """Each language model, told the class and not, trained for 150 steps."""
    pairs = [(name, conditional) for name in KINDS for conditional in ("concat", "none")]
    return {(name, told): taught(fresh(name, data, conditional=told), data, 150) for name, told in pairs}


def every_sentence(data: Dataset) -> Text:
    """All splits in one."""
    parts = [data.load(split) for split in SPLITS]
    labels = torch.cat([part.labels for part in parts if part.labels is not None])
    return Text(torch.cat([part.values for part in parts]), labels, vocabulary=data.load("train").vocabulary)  # type: ignore[attr-defined]


def sentence_nll(system: Any, text: Text, labels: Tensor | None) -> float:
    with torch.no_grad():
        return token_nll(system, text.values, labels).double().sum(1).mean().item()


# ---- what is learned


@every_kind
def test_samples_of_a_class_are_of_its_words(learned: dict[tuple[str, str], Any], name: str) -> None:
    system = learned[name, "concat"]
    for label, called in enumerate(CLASSES):
        samples = system.generate(200, "words", labels=torch.full((200,), label))
        assert samples.labels.tolist() == [label] * 200
        words = Counter(word for line in samples.sentences() for word in line.split())
        assert sum(words[word] for word in WORDS[called].split()) / words.total() >= 0.95
        assert min(words[word] for word in WORDS[called].split()) / words.total() > 0.2
    # Every class in turn unless it is said.
    assert system.generate(7, "words").labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert learned[name, "none"].generate(7, "words").labels is None


@every_kind
def test_the_class_is_worth_its_entropy(learned: dict[tuple[str, str], Any], data: Lines, name: str) -> None:
    """The truth, enumerated over all sentences: −log p(x|y) = 3 log 3, and −log p(x) is more by −log p(y), on average
    H(y), because words tell the class. No model has less of either (Gibbs' inequality).
    """
    text = every_sentence(data)
    assert text.labels is not None
    shares = torch.bincount(text.labels).double() / len(text)
    assert shares.tolist() == [0.25, 0.25, 0.5]
    entropy, words = 1.5 * math.log(2), 3 * math.log(3)
    told = sentence_nll(learned[name, "concat"], text, text.labels)
    alone = sentence_nll(learned[name, "none"], text, None)
    assert words <= told < words + 0.1
    assert words + entropy <= alone < words + entropy + 0.1
    # With another class's label its words are improbable.
    assert sentence_nll(learned[name, "concat"], text, (text.labels + 1) % 3) > told + 3


@every_kind
def test_conditional_probabilities_add_up_to_one_for_each_class(name: str) -> None:
    """Over all sentences of three places that have no end."""
    shape = Shape(Modality.TEXT, (3,), 2, Vocabulary((*SPECIAL, "a", "b", "c"), ends=False), ("x", "y"))
    kind, options = KINDS[name]
    torch.manual_seed(0)
    config: Any = kind.Config(**({"conditional": "concat"} | options))
    system: Any = kind(config, shape).eval()
    torch.nn.init.normal_(system.class_embedding.weight)
    every = torch.cartesian_prod(*[torch.arange(3, 6)] * 3)
    both = [system.token_nll(every, labels=torch.full((27,), label)).sum(1).neg().exp() for label in (0, 1)]
    assert [each.sum().item() for each in both] == [pytest.approx(1, abs=1e-5)] * 2
    assert (both[0] - both[1]).abs().max() > 1e-3


@every_kind
def test_the_likelihood_is_that_of_decoding_word_by_word(
    learned: dict[tuple[str, str], Any], data: Lines, name: str
) -> None:
    system, text = learned[name, "concat"], data.load("reference").take(slice(0, 6))
    labels: Any = text.labels
    nll = system.token_nll(text.values, labels=labels)
    for row, label, each in zip(text.values, torch.split(labels, 1), nll, strict=True):
        context = system.context(label)
        memory, word, total = system.decoder.start(1, system.length, context), torch.tensor([[PAD]]), 0.0
        for target in row[row != PAD]:
            features, memory = system.decoder.step(word, memory, context)
            total -= system.output(features[0, -1]).double().log_softmax(0)[target - system.first].item()
            word = target.reshape(1, 1)
        assert each.sum().item() == pytest.approx(total, rel=1e-4)
    loss = fresh(name, data).phases[0].loss
    with pytest.raises(ValueError, match="it is conditional: .* give labels"):
        loss(Text(text.values, vocabulary=text.vocabulary), {}, 0)
    with pytest.raises(ValueError, match="it is conditional: .* give labels"):
        system.token_nll(text.values)


@every_kind
def test_how_words_are_drawn_is_orthogonal_to_the_class(learned: dict[tuple[str, str], Any], name: str) -> None:
    system = learned[name, "concat"]
    labels = torch.tensor([0, 1, 2] * 10)
    likeliest = system.generate(30, "how", labels=labels, sampling=Sampling(temperature=0))
    by_class = [
        {line for line, label in zip(likeliest.sentences(), labels, strict=True) if label == k} for k in range(3)
    ]
    assert [len(each) for each in by_class] == [1, 1, 1]
    begun = system.generate(
        30, "how", labels=labels, sampling=Sampling(top_k=3, top_p=0.9, prefix=system.prefix(["dog"]))
    )
    assert all(line.split()[0] == "dog" for line in begun.sentences())


def test_a_text_vae_is_told_the_class_too(data: Lines) -> None:
    """−ELBO is no less than −log p(x|y) = 3 log 3, and is less than what an unconditional model can reach."""
    kind = TextVAE
    config = kind.Config(conditional="concat", embedding=8, hidden=24, latent_size=2, annealing="none", lr=1e-2)
    state = TrainingState.fresh(kind, config, data.shape, seed=0, batch_size=64, device="cpu")
    system, text = taught(state, data, 150), every_sentence(data)
    for label, called in enumerate(CLASSES):
        words = Counter(" ".join(system.generate(100, "v", labels=torch.full((100,), label)).sentences()).split())
        assert sum(words[word] for word in WORDS[called].split()) / words.total() >= 0.95

    def nelbo(labels: Tensor) -> float:
        with torch.no_grad():
            mean, log_variance = system.encode(text.values, labels=labels)
            drawn = mean + (log_variance / 2).exp() * torch.randn(
                mean.shape, generator=torch.Generator().manual_seed(0)
            )
            divergence = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1)
            both: Tensor = divergence - system.log_likelihood(text.values, drawn, labels=labels)
            return both.mean().item()

    assert text.labels is not None
    told, least = nelbo(text.labels), 3 * math.log(3)
    assert least <= told < least + 0.5 * math.log(2)
    assert nelbo((text.labels + 1) % 3) > told + 3
    codes = system.encode(text.values[:5], labels=text.labels[:5])[0]
    decoded = system.text(system.decode(codes, labels=torch.full((5,), 1))).sentences()
    assert set(" ".join(decoded).split()) <= set(WORDS["colours"].split())
    with pytest.raises(ValueError, match="it is conditional: .* give labels"):
        system.encode(text.values)


# ---- who reads labels


def test_scores_of_likelihood_are_given_the_class_and_say_so(
    learned: dict[tuple[str, str], Any], data: Lines, tmp_path: Path
) -> None:
    reference, train = data.load("reference"), data.load("train")
    real = Real(reference, data.load("holdout"), reference, train)
    store = FeatureStore(data, cache=tmp_path, weights=WeightsPolicy(), device="cpu")
    scores = {}
    for told in ("concat", "none"):
        system = learned["lstm", told]
        made = system.generate(len(reference), "scored")
        found = score([NLL(NLL.Config())], made, real, data, store, "reference", system)
        scores[told] = {each.name: each for each in found}
        # Of the reference with its own classes, and of the samples with those that they were drawn of.
        for name, text in (("nll_gen", reference), ("nll_div", made)):
            nll = sentence_nll(system, text, text.labels) * len(text) / int((text.values != PAD).sum())
            assert scores[told][name].value == pytest.approx(nll, rel=1e-5)
    for name, given in scores["concat"].items():
        assert "given:class" in given.signature and "given:class" not in scores["none"][name].signature
        assert given.value < scores["none"][name].value - 0.15


def test_a_model_is_asked_for_classes(learned: dict[tuple[str, str], Any], data: Lines) -> None:
    words = Counter(" ".join(Model(learned["lstm", "concat"], "words").sample(8, labels=[1] * 8)).split())
    assert sum(words[word] for word in WORDS["colours"].split()) > 0.8 * words.total()


def test_a_conditional_model_needs_classes() -> None:
    plain = PyDoc(PyDoc.Config(max_length=8, max_words=30), Path())
    with pytest.raises(ValueError, match="it is conditional, and the dataset has no labels; .*set conditional to none"):
        LSTMLM(LSTMLM.Config(conditional="concat"), plain.shape)


def test_own_networks_that_read_no_labels_are_refused(data: Lines) -> None:
    class Decoder(nn.Module):
        input_width, width = 4, 4

        def forward(self, words: torch.Tensor, keep: Any = None) -> torch.Tensor:
            return nn.functional.one_hot(words % 4, 4).float()

    class Own(LanguageModel):
        def __init__(self, config: Any, shape: Any) -> None:
            super().__init__(config, shape)
            self.decoder = Decoder()
            self.output = self.head()

    with pytest.raises(ValueError, match="its own network reads no labels"):
        Own(Own.Config(conditional="concat"), data.shape).phases(8)
    # One that is not conditional has no place for a class.
    system, text = Own(Own.Config(), data.shape), data.load("train").take(slice(0, 8))
    loss = system.phases(8)[0].loss(text, {}, 0).total
    nll = system.token_nll(text.values)
    assert loss.item() == pytest.approx((nll.sum() / (text.values != PAD).sum()).item(), rel=1e-5)


def test_sentences_without_classes_are_not_scored_given_them(
    learned: dict[tuple[str, str], Any], data: Lines, tmp_path: Path
) -> None:
    reference, train = data.load("reference"), replace(data.load("train"), labels=None)
    real = Real(reference, data.load("holdout"), reference, train)
    store = FeatureStore(data, cache=tmp_path, weights=WeightsPolicy(), device="cpu")
    system = learned["lstm", "concat"]
    with pytest.raises(ValueError, match="nll needs labels, and the train samples come without their classes"):
        score([NLL(NLL.Config())], system.generate(50, "few"), real, data, store, "reference", system)


def test_lines_are_shown_by_class() -> None:
    vocabulary = Vocabulary((*SPECIAL, "a", "b"))
    words = torch.tensor([[3, EOS], [4, EOS], [3, 3], [4, 4]])
    text, kind = Text(words, torch.tensor([1, 0, 0, 1]), vocabulary=vocabulary), modality("text")
    assert kind.lines_by_class(text, ("x", "y")) == ["x | b", "x | a a", "y | a", "y | b b"]
    assert kind.lines_by_class(text, None) == ["0 | b", "0 | a a", "1 | a", "1 | b b"]
    assert kind.lines_by_class(Text(words, vocabulary=vocabulary), ("x", "y")) == kind.lines(text)
    assert kind.lines(text) == ["a", "b", "a a", "b b"]
