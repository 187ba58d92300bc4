"""Every text GAN on real prose: what becomes of its sentences, and whether the verdict says so."""

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from aigc_lab import plugins
from aigc_lab.commands.sentences import collapse
from aigc_lab.data.oracle import OracleText
from aigc_lab.data.pydoc import PyDoc
from aigc_lab.data.shared.batches import Batches
from aigc_lab.experiment.protocol import Protocol
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.metrics.unique import Unique
from aigc_lab.nets.decoding import Sampling
from aigc_lab.samples import Text
from aigc_lab.scoring.evaluator import Evaluator
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.shape import Modality
from aigc_lab.systems.base import System
from aigc_lab.systems.shared.text_gan import TextGAN
from aigc_lab.training.loop import train_one
from aigc_lab.training.state import TrainingState
from aigc_lab.verdicts.conclusion import Collapse

STEPS = {"pretrain_steps": 200, "critic_steps": 20, "n_critic": 1, "lr": 5e-3}
SIZES = {"embedding": 32, "hidden": 64, "critic_embedding": 16, "filters": 0.1}
SIZES |= {"head_size": 32, "representations": 8}  # of relgan
OPTIONS = STEPS | SIZES | {"rollouts": 2, "adversarial_lr": 1e-3, "critic_lr": 1e-3}

TEXT_GANS = [
    name
    for name in plugins.names("systems")
    if plugins.find(System, name).modality == Modality.TEXT  # type: ignore[type-abstract]
    and issubclass(plugins.find(System, name), TextGAN)  # type: ignore[type-abstract]
]


@cache
def prose() -> PyDoc:
    return PyDoc(PyDoc.Config(max_length=20), Path())


def trained(name: str) -> Any:
    """After maximum likelihood and forty steps against the critic."""
    kind: Any = plugins.find(System, name)
    config = kind.Config(**{key: value for key, value in OPTIONS.items() if key in kind.Config.model_fields})
    state = TrainingState.fresh(kind, config, prose().shape, seed=0, batch_size=32, device="cpu")
    batches = Batches(prose().load("train"), 32, 0)
    for _ in train_one(state, batches, seed=0, steps=260, every=260, decay=0.0, precision="fp32"):
        pass
    return state.system


def judged(made: Text) -> Collapse:
    real = prose().load("reference").sentences() + prose().load("holdout").sentences()
    return collapse(made.sentences(), real, None).verdict


@pytest.mark.parametrize("name", TEXT_GANS)
def test_a_generator_of_one_sentence_is_judged_collapsed(name: str) -> None:
    """At temperature 0 there is one sentence, whatever its words."""
    kind: Any = plugins.find(System, name)
    config = kind.Config(**{key: value for key, value in SIZES.items() if key in kind.Config.model_fields})
    torch.manual_seed(0)
    made = kind(config, prose().shape).generate(130, "judged", sampling=Sampling(temperature=0.0))
    assert most_frequent(made) == 1
    assert judged(made) is Collapse.TOTAL


def test_one_sentence_is_judged_on_an_oracle_too_and_what_it_says_twice_itself_is_no_collapse(tmp_path: Path) -> None:
    """A run's own judge: an oracle of 12 words repeats itself, which its other sentences show."""
    oracle = OracleText(OracleText.Config(words=12, length=6, train=300, scored=500), tmp_path)
    store = FeatureStore(oracle, cache=tmp_path / "cache", weights=WeightsPolicy(), device="cpu")
    protocol = Protocol(name="oracle", samples=200, metrics=["any"])
    evaluator = Evaluator(protocol, [Unique(Unique.Config())], oracle, store)
    evaluator.prepare()
    real = oracle.load("train").take(slice(0, 200))
    assert len(set(map(tuple, real.values.tolist()))) < 200
    verdicts = [evaluator.judge(made) for made in (real, real.take(slice(0, 1)).take(torch.zeros(200).long()))]
    found = [verdict.verdict for verdict in verdicts if verdict is not None]
    assert found in ([Collapse.NONE, Collapse.TOTAL], [Collapse.INCONCLUSIVE, Collapse.TOTAL])


def most_frequent(made: Text) -> float:
    """Share of the sentence that occurs most often."""
    return Counter(made.sentences()).most_common(1)[0][1] / len(made)


@pytest.mark.nightly
@pytest.mark.parametrize("name", TEXT_GANS)
def test_no_text_gan_comes_to_one_sentence_unsaid(name: str) -> None:
    """Its sentences are many, or the verdict is a collapse; those of its likeliest words are one, and judged so."""
    system = trained(name)
    made = system.generate(200, "judged")
    share, verdict = most_frequent(made), judged(made)
    print(f"{name}: the most frequent of 200 sentences is {share:.1%} of them; {verdict.value}")
    if share > 0.5:
        assert verdict in (Collapse.SEVERE, Collapse.TOTAL)
    else:
        assert verdict is not Collapse.TOTAL
    greedy = system.generate(200, "judged", sampling=Sampling(temperature=1e-3))
    assert most_frequent(greedy) > 0.5
    assert judged(greedy) in (Collapse.SEVERE, Collapse.TOTAL)
