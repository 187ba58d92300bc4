"""A small LeakGAN on sentences of an oracle."""

from pathlib import Path
from typing import Any

import torch

from aigc_lab.data.oracle import OracleText
from aigc_lab.systems.leakgan import LeakGAN

SMALL: dict[str, Any] = {
    "embedding": 6,
    "hidden": 8,
    "manager_hidden": 7,
    "goal_size": 5,
    "critic_embedding": 5,
    "filters": 0.03,
    "rollouts": 3,
    "pretrain_steps": 3,
    "critic_steps": 1,
    "n_critic": 1,
    "interleave": 2,
}
LENGTH = 6


def oracle_in(folder: Path) -> OracleText:
    return OracleText(OracleText.Config(words=12, length=LENGTH, train=300, scored=100), folder)


def leakgan(oracle: OracleText, **options: Any) -> LeakGAN:
    torch.manual_seed(0)
    return LeakGAN(LeakGAN.Config(**SMALL | options), oracle.shape)
