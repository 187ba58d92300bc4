"""MaliGAN (Che et al. 2017): maximum likelihood of the generator's own sentences, weighted by the critic's odds."""

from typing import Any

import torch
from pydantic import Field
from torch import nn

from aigc_lab.config import Real
from aigc_lab.nets import joined
from aigc_lab.noise import Draw, Noise
from aigc_lab.objectives.policy import maligan, reinforce
from aigc_lab.systems import base
from aigc_lab.systems.shared.text_gan import TextGAN
from aigc_lab.text.vocabulary import PAD


class MaliGAN(TextGAN):
    """A sentence weighs D / (1 − D) over the sum of these in its batch, minus `baseline` over the size of the batch
    (algorithm 1). With an optimal critic the weights make samples of the generator samples of the data.
    """

    class Config(TextGAN.Config):
        baseline: Real = Field(1.0, description="b: 1 makes the weights of a batch add up to 0")

    config: Config

    def adversarial_phase(self, batch_size: int, generator: list[nn.Module], start: int) -> base.Phase:
        noise = {"words": Draw((batch_size, self.length), "unit")}
        rule = self._rule(self.config.adversarial_lr, self.config.max_norm)
        return base.Phase("policy", self._policy_loss, generator, rule, noise, start=start)

    def _policy_loss(self, batch: Any, noise: Noise, step: int) -> base.Loss:
        with torch.no_grad():
            words = self.made(noise["words"])
            scores = self.scores(words)
            everyone = joined.gather(scores)
            weights = joined.own(len(everyone) * maligan(everyone, self.config.baseline))
        rewards = weights[:, None].expand_as(words).masked_fill(words == PAD, 0)
        # Of how many sentences the weights are: 1 where one of them carries the batch.
        effective = 1 / maligan(everyone).square().sum()
        return base.Loss(reinforce(-self.token_nll(words), rewards), dynamics={"effective_sentences": effective})
