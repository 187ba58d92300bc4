"""LeakGAN as a language model: its probabilities, its phases and what is stored of them, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch
from leakgans import LENGTH, SMALL, leakgan, oracle_in

from aigc_lab.data.oracle import OracleText
from aigc_lab.data.shared.batches import Batches
from aigc_lab.nets.decoding import Sampling, chosen
from aigc_lab.nets.rollouts import completions
from aigc_lab.systems.leakgan import LeakGAN
from aigc_lab.training.checkpoint import load_system, restore_state, save_state, save_weights
from aigc_lab.training.loop import train_one
from aigc_lab.training.state import TrainingState


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> OracleText:
    return oracle_in(tmp_path_factory.mktemp("data"))


# ---- the language model


def test_probabilities_of_all_sentences_add_up_to_one_and_are_those_it_draws_by(tmp_path: Path) -> None:
    data = OracleText(OracleText.Config(words=3, length=3, train=100, scored=100), tmp_path)
    system = leakgan(data, horizon=2, filters=0.1)
    with torch.no_grad():
        for weight in system.parameters():
            weight.mul_(3)
        every = torch.cartesian_prod(*[torch.arange(3, 6)] * 3)
        nll = system.token_nll(every)
        # The first word, and each next one given those before it.
        for place in range(3):
            same = [tuple(row[:place].tolist()) for row in every]
            for before in set(same):
                rows = [n for n, each in enumerate(same) if each == before]
                chances = {int(every[n, place]): float(nll[n, place].neg().exp()) for n in rows}
                assert sum(chances.values()) == pytest.approx(1, abs=1e-5) and len(chances) == 3
        expected = nll.sum(1).neg().exp()
        drawn = system.generate(20_000, "drawn").values
    assert expected.sum().item() == pytest.approx(1, abs=1e-5)
    counts = torch.bincount(((drawn - 3) * torch.tensor([9, 3, 1])).sum(1), minlength=27)
    assert expected.max() > 3 * expected.min()
    errors = (expected * (1 - expected) / 20_000).sqrt()
    assert ((counts / 20_000 - expected).abs() < 4.5 * errors).all()


def test_training_samples_at_its_temperature_and_scoring_does_not(oracle: OracleText) -> None:
    cold, hot = leakgan(oracle, temperature=1e-3), leakgan(oracle, temperature=1.5)
    hot.load_state_dict(cold.state_dict())
    uniform = torch.rand(50, LENGTH)
    with torch.no_grad():
        likeliest = cold.sentences(uniform, Sampling(temperature=0))
        assert (cold.made(uniform) == likeliest).float().mean() > 0.8 > (hot.made(uniform) == likeliest).float().mean()
        assert torch.equal(cold.generate(9).values, hot.generate(9).values)
        words = oracle.load("train").values[:5]
        assert torch.equal(cold.token_nll(words), hot.token_nll(words))
        # Rollouts are drawn at it too: those of a cold generator are nearly all the same.
        rolled = completions(
            cold._generator,
            cold._start(5),
            words,
            torch.rand(LENGTH - 1, 5, 2, LENGTH - 1),
            lambda told, at: chosen(cold.output, told, at, cold.output.out_features, cold.first),
        )
    assert (rolled[:, :, 0] == rolled[:, :, 1]).float().mean() > 0.9


# ---- the phases


def test_the_critic_learns_beside_pretraining_and_likelihood_comes_back(oracle: OracleText) -> None:
    def steps(**options: Any) -> dict[str, list[int]]:
        return {each.name: [n for n in range(10) if each.runs(n)] for each in leakgan(oracle, **options).phases(4)}

    assert steps(interleave=3) == {
        "pretraining": [0, 1, 2],
        "critic": list(range(10)),
        "policy": [4, 5, 6, 7, 8, 9],
        "likelihood": [4, 7],
    }
    assert set(steps(interleave=None)) == {"pretraining", "critic", "policy"}
    assert set(steps(pretrain_steps=0)) == {"critic", "policy", "likelihood"}


@pytest.mark.parametrize("stop", [2, 5])
def test_killed_in_either_phase_it_goes_on_to_the_same_bits(oracle: OracleText, tmp_path: Path, stop: int) -> None:
    config, batches = LeakGAN.Config(**SMALL), Batches(oracle.load("train"), 4, 0)

    def fresh(seed: int) -> TrainingState:
        return TrainingState.fresh(LeakGAN, config, oracle.shape, seed=seed, batch_size=4, device="cpu")

    def train(state: TrainingState, **options: Any) -> list[Any]:
        options |= {"steps": 7, "every": 7, "decay": 0.5, "precision": "fp32"}
        return list(train_one(state, batches, seed=0, **options))

    straight, first, second = fresh(0), fresh(0), fresh(1)
    (end,) = train(straight)
    train(first, interrupted=lambda: first.step == stop)
    save_state(first, tmp_path / "state.safetensors")
    restore_state(second, tmp_path / "state.safetensors")
    (resumed,) = train(second)
    assert resumed.scalars == end.scalars
    assert {"loss/pretraining/nll", "loss/policy/total", "loss/likelihood/goals"} <= end.scalars.keys()
    for one, two in ((straight.system, second.system), (straight.average, second.average)):
        assert all(torch.equal(value, two.state_dict()[key]) for key, value in one.state_dict().items())


def test_what_is_stored_draws_the_same_sentences_since_the_critic_is_stored_beside(
    oracle: OracleText, tmp_path: Path
) -> None:
    config = LeakGAN.Config(**SMALL)
    state = TrainingState.fresh(LeakGAN, config, oracle.shape, seed=0, batch_size=4, device="cpu")
    list(train_one(state, Batches(oracle.load("train"), 4, 0), seed=0, steps=6, every=6, decay=0.5, precision="fp32"))
    average: Any = state.average
    assert any(module is average.critic for module in average.samplers())
    save_weights(average, average.state_dict(), tmp_path / "last.safetensors", {"run": "a"})
    drawn = average.generate(20, "drawn").values
    assert torch.equal(load_system(tmp_path / "last.safetensors").generate(20, "drawn").values, drawn)
    with torch.no_grad():
        for weight in average.critic.parameters():
            weight.add_(torch.randn_like(weight))
    assert not torch.equal(average.generate(20, "drawn").values, drawn), "what it says depends on what is leaked"


# ---- bad input


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"horizon": 7}, "horizon: goals of 7 words, and a sentence has 6 places; choose no more"),
        ({"windows": [1, 9]}, "windows: one of 9 words, and a sentence has 6 places"),
        ({"critic": "gru"}, "critic\n.*'cnn'"),
        ({"decoder": "transformer"}, "decoder\n.*'lstm'"),
        ({"heads": 2}, "heads\n.*not permitted"),
        ({"critic_hidden": 8}, "critic_hidden\n.*not permitted"),
        ({"interleave": 0}, "interleave\n.*greater than or equal to 1"),
        ({"temperature": 0}, "temperature\n.*greater than 0"),
    ],
)
def test_what_cannot_be_is_refused(oracle: OracleText, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        leakgan(oracle, **options)


def test_a_baseline_of_others_needs_others(oracle: OracleText) -> None:
    with pytest.raises(ValueError, match="batch_size is 1"):
        leakgan(oracle, baseline="others").phases(1)
