"""What a text GAN cannot be trained with is said in one line before any training."""

from pathlib import Path
from typing import Any

import pytest
import torch

from aigc_lab.data.oracle import OracleText
from aigc_lab.errors import UsageError
from aigc_lab.experiment.checks import check_data, check_experiment
from aigc_lab.experiment.experiment import load_experiment
from aigc_lab.systems.seqgan import SeqGAN

EXPERIMENT: dict[str, Any] = {
    "name": "mine",
    "data": {"name": "oracle", "words": 20, "length": 6, "train": 200, "scored": 100},
    "system": {"name": "seqgan", "filters": 0.03, "rollouts": 4, "pretrain_steps": 4, "critic_steps": 2},
    "training": {"steps": 10, "batch_size": 8, "log_every": 10, "evaluate_every": 10},
    "evaluation": {"name": "text-oracle", "samples": 100},
    "objective": {"minimize": "nll_gen"},
}
PYDOC = {"data": {"name": "pydoc"}}
DIGITS = {
    "data": {"name": "digits"},
    "evaluation": {"name": "image-small", "samples": 100},
    "objective": {"minimize": "fd_clf"},
}


def refusal(folder: Path, sections: dict[str, Any]) -> str:
    whole = dict(EXPERIMENT)
    for name, keys in sections.items():
        fresh = name != "training" and "name" in keys and keys["name"] != whole[name].get("name")
        whole[name] = keys if fresh else whole[name] | keys
        if name == "objective":
            whole[name] = keys
    with pytest.raises(UsageError) as caught:
        checked(whole, folder)
    return str(caught.value)


def checked(whole: dict[str, Any], folder: Path) -> None:
    experiment = load_experiment(whole, data_dir=folder)
    check_experiment(experiment)
    check_data(experiment)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"system": {"windows": [1, 7]}},
            "windows: one of 7 words, and a sentence has 6 places; leave out those above 6",
        ),
        ({"system": {"windows": []}}, "system.windows: []: give at least one window, and each of them once"),
        ({"system": {"windows": [2, 3, 2]}}, "system.windows: [2, 3, 2]: give at least one window, and each of them"),
        (
            {"system": {"windows": [2], "critic": "gru"}},
            "windows are of convolutions, and critic is gru: leave them out",
        ),
        ({"data": {"length": 1}, "system": {"windows": [1]}}, "sentences of 1 place are whole at once"),
        (
            {"system": {"reward": "constant", "baseline": "others"}},
            "baseline: others leaves 0 of a constant reward, and nothing is learned: choose none",
        ),
        ({"system": {"rollouts": 0}}, "system.rollouts: it should be greater than or equal to 1, not 0"),
        ({"system": {"rollouts_at_once": 5}}, "rollouts_at_once 5 is more than all rollouts, 4: give fewer, or null"),
        ({"system": {"n_critic": 0}}, "system.n_critic: it should be greater than or equal to 1, not 0"),
        (
            {"system": {"pretrain_steps": 10}},
            "phase policy would never run: starts at 12 of 10 steps; set training.steps above 12, or let it start",
        ),
        (
            {"system": {"critic_steps": 6}},
            "phase policy would never run: starts at 10 of 10 steps; set training.steps above 10, or let it start",
        ),
        ({"system": {"conditional": "concat"}}, "system.conditional: unknown key"),
        (
            {"system": {"baseline": "others"}, "training": {"batch_size": 1}},
            "training.batch_size: it should be greater",
        ),
        (PYDOC, "metric nll: oracle: nobody knows what made the sentences of dataset pydoc"),
        (DIGITS, "seqgan makes text, and dataset digits holds images"),
    ],
)
def test_it_is_refused_in_one_line(sections: dict[str, Any], said: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, sections)
    assert said in message and "\n" not in message


@pytest.mark.parametrize(
    ("name", "phase", "start", "remedy"),
    [
        *(
            (name, phase, 19_250, "pretrain_steps 18750 and critic_steps 500 must add up to less than 10")
            for name, phase in (
                *(("seqgan", "policy"), ("rankgan", "policy"), ("maligan", "policy")),
                *(("leakgan", "policy"), ("gumbel_gan", "generator")),
            )
        ),
        ("relgan", "critic", 23_400, "pretrain_steps 23400 must be less than 10"),
    ],
)
def test_a_bare_name_in_a_short_training_is_told_which_keys_to_set(
    name: str, phase: str, start: int, remedy: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        checked(EXPERIMENT | {"system": {"name": name}}, tmp_path)
    assert str(caught.value) == (
        f"mine: system: {name}: phase {phase} would never run: starts at {start} of 10 steps; set training.steps above "
        f"{start}, or let it start earlier: {remedy}"
    )
    # As it says.
    system = {"name": name, "pretrain_steps": 9, "critic_steps": 0}
    check_experiment(load_experiment(EXPERIMENT | {"system": system}, data_dir=tmp_path))


def test_a_schedule_that_just_ends_in_the_last_step_is_none_of_these(tmp_path: Path) -> None:
    system = EXPERIMENT["system"] | {"critic_steps": 5, "rollouts_at_once": 4, "windows": [6, 1]}
    check_experiment(load_experiment(EXPERIMENT | {"system": system}, data_dir=tmp_path))


def test_without_pretraining_rollouts_begin_with_the_generators_own_weights(tmp_path: Path) -> None:
    data = OracleText(OracleText.Config(words=20, length=6, train=200, scored=100), tmp_path)
    system = SeqGAN(SeqGAN.Config(filters=0.03, pretrain_steps=0), data.shape)
    assert [phase.name for phase in system.phases(8)] == ["critic", "policy"]
    lagging = system.lagging_output_weight
    assert isinstance(lagging, torch.Tensor) and torch.equal(lagging, system.output.weight)


def test_a_baseline_of_the_others_needs_others(tmp_path: Path) -> None:
    data = OracleText(OracleText.Config(words=20, length=6, train=200, scored=100), tmp_path)
    with pytest.raises(
        ValueError, match="baseline: others is a mean over the other sentences of a batch, and batch_size"
    ):
        SeqGAN(SeqGAN.Config(filters=0.03, baseline="others"), data.shape).phases(1)
