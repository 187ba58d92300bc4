"""A key that another key leaves without effect is refused, where it is set and nothing in the experiment reads it."""

from pathlib import Path
from typing import Any

import pytest

from aigc_lab import plugins
from aigc_lab.errors import UsageError
from aigc_lab.experiment.checks import check_experiment
from aigc_lab.experiment.experiment import load_experiment
from aigc_lab.systems.base import System

TEXT: dict[str, Any] = {
    "name": "mine",
    "data": {"name": "oracle", "words": 20, "length": 6, "train": 200, "scored": 100},
    "training": {"steps": 10, "batch_size": 8, "log_every": 10, "evaluate_every": 10},
    "evaluation": {"name": "text-oracle", "samples": 100},
    "objective": {"minimize": "nll_gen"},
}
IMAGES: dict[str, Any] = TEXT | {
    "data": {"name": "digits"},
    "evaluation": {"name": "image-small", "samples": 400},
    "objective": {"minimize": "fd_clf"},
}
FEW: dict[str, Any] = {"pretrain_steps": 4, "critic_steps": 2}
GANS = ("seqgan", "rankgan", "maligan", "gumbel_gan")
VAES = ("vae", "cvae", "iwae", "hvae", "vamp_vae", "beta_tc_vae", "factor_vae", "info_vae", "wae_mmd", "vae_gan")


def checked(system: dict[str, Any], folder: Path) -> None:
    gan = system["name"].endswith("gan") and system["name"] != "vae_gan"
    check_experiment(
        load_experiment((TEXT if gan else IMAGES) | {"system": FEW | system if gan else system}, data_dir=folder)
    )


def test_of_a_text_vae_too(tmp_path: Path) -> None:
    scored = {"evaluation": {"name": "text", "samples": 100}, "objective": {"minimize": "lm_reverse"}}
    system = {"name": "text_vae", "cycles": 2}
    with pytest.raises(UsageError, match="text_vae: cycles is set, and where annealing is linear nothing reads it"):
        check_experiment(load_experiment(TEXT | scored | {"system": system}, data_dir=tmp_path))


@pytest.mark.parametrize(
    ("system", "said"),
    [
        *(
            ({"name": name, key: value, **options}, f"{name}: {key} is set, and where {why} nothing reads it: leave it")
            for name in GANS
            for key, value, options, why in (
                ("heads", 2, {}, "decoder is lstm"),
                ("embedding", 8, {"decoder": "transformer"}, "decoder is transformer"),
                ("critic_hidden", 8, {}, "critic is cnn"),
                ("filters", 0.1, {"critic": "gru"}, "critic is gru"),
            )
        ),
        *(
            ({"name": name, "reward": "constant", key: 0.1 if key == "rollout_rate" else 1}, f"{name}: {key} is set")
            for name in ("seqgan", "rankgan", "leakgan")
            for key in ("rollouts", "rollout_rate")
        ),
        ({"name": "leakgan", "reward": "constant", "sharpness": 2.0}, "leakgan: sharpness is set, and where reward is"),
        ({"name": "rankgan", "critic_l2": 0.1}, "rankgan: critic_l2 is set, and nothing reads it: leave it out"),
        *(
            ({"name": "gumbel_gan", "temperature_end": None, **key}, "and where temperature_end is null nothing reads")
            for key in ({"temperature_steps": 5}, {"temperature_schedule": "linear"})
        ),
        *(
            ({"name": "relgan", key: 2, "decoder": decoder}, f"relgan: {key} is set, and where decoder is {decoder}")
            for key, decoder in (
                *(("slots", "lstm"), ("head_size", "gru"), ("hidden", "relational"), ("layers", "relational")),
                *(("heads", "lstm"), ("embedding", "transformer")),
            )
        ),
        ({"name": "relgan", "critic": "cnn", "representations": 2}, "relgan: representations is set, and where critic"),
        *(
            ({"name": name, key: 2}, f"{name}: {key} is set, and where sampler is prior nothing reads it: leave it out")
            for name in (*VAES, "vq_vae")
            for key in ("mixture", "flow_layers")
        ),
        ({"name": "rae", "flow_layers": 2}, "rae: flow_layers is set, and where sampler is gmm"),
        ({"name": "rae", "regulariser": "none", "regulariser_weight": 1.0}, "rae: regulariser_weight is set"),
        ({"name": "vae", "anneal_steps": 5}, "vae: anneal_steps is set, and where annealing is none"),
        ({"name": "hvae", "cycles": 5}, "hvae: cycles is set, and where annealing is linear"),
        ({"name": "vq_vae", "principal": 5}, "vq_vae: principal is set, and where sampler is prior"),
        *(
            ({"name": "vq_vae", "sampler": "gmm", key: 4}, f"vq_vae: {key} is set, and where sampler is gmm")
            for key in ("hidden", "layers", "heads", "prior_lr")
        ),
    ],
)
def test_a_key_without_effect_is_refused(system: dict[str, Any], said: str, tmp_path: Path) -> None:
    if system["name"] == "vq_vae" and "prior_lr" in system:
        system = system | {"prior_lr": 0.1}
    with pytest.raises(UsageError) as caught:
        checked(system, tmp_path)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "system",
    [
        {"name": "seqgan", "decoder": {"choice": ["lstm", "transformer"]}, "heads": 2, "hidden": 8, "embedding": 8},
        {"name": "vae", "sampler": {"choice": ["prior", "gmm"]}, "mixture": 2},
        {"name": "vae", "annealing": "cyclical", "cycles": 2, "anneal_steps": 5},
        {"name": "seqgan", "heads": 2, "hidden": 8, "decoder": "transformer"},
    ],
)
def test_a_key_that_is_read_somewhere_is_of_use(system: dict[str, Any], tmp_path: Path) -> None:
    checked(system, tmp_path)


def test_each_rule_names_keys_that_there_are() -> None:
    rules = 0
    for name in plugins.names("systems"):
        kind = plugins.find(System, name)  # type: ignore[type-abstract]
        for rule in kind.reads:
            assert {rule.key, rule.by} <= kind.Config.model_fields.keys(), (name, rule)
            rules += 1
    assert rules > 50
