"""RankGAN (Lin et al. 2017): the critic ranks sentences among others by their likeness to real ones."""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from aigc_lab.config import Positive
from aigc_lab.nets import joined
from aigc_lab.noise import Noise
from aigc_lab.objectives.policy import ranked
from aigc_lab.systems import base
from aigc_lab.systems.shared.rollout_gan import RolloutGAN


class RankGAN(RolloutGAN):
    """The ranker lifts real sentences above made ones and pushes made ones below real ones (eq. 1); a made sentence is
    worth its rank among real ones (eq. 5). The first half of a batch of real sentences are the references, the second
    half are ranked and compared with.
    """

    class Config(RolloutGAN.Config):
        sharpness: Positive = Field(1.0, description="γ: what the cosines are multiplied by before they are compared")

    # A ranker has no last layer.
    reads = (*RolloutGAN.reads, base.Read("critic_l2", "critic"))
    config: Config

    def _judge(self) -> None:
        """No logit: features are compared."""

    def compared(self, real: Tensor) -> tuple[Tensor, Tensor]:
        references, others = joined.gather(self._features(real)).chunk(2)
        return references, others

    def worth_of(self, features: Tensor, compared: tuple[Tensor, Tensor]) -> Tensor:
        return ranked(features, *compared, self.config.sharpness).exp()

    def _features(self, words: Tensor, dropout: Tensor | None = None) -> Tensor:
        features = self.critic.features(self.critic.embed(words))
        return features if dropout is None else features * (dropout >= self.config.critic_dropout)

    def _critic_loss(self, batch: Any, noise: Noise, step: int) -> base.Loss:
        with torch.no_grad():
            made = self.made(noise["words"])
        real, sharpness = batch.padded(self.length), self.config.sharpness
        features = self._features(torch.cat([real, made]), noise.get("dropout"))
        references, others = joined.gather(features[: len(real)]).chunk(2)
        of_made = joined.gather(features[len(real) :])
        real_rank = ranked(others, references, of_made, sharpness)
        made_rank = ranked(of_made, references, others, sharpness)
        # log(1 − R) of a log rank; R is below 1, since the compared sentences have a share.
        total = -real_rank.mean() - torch.log(-torch.expm1(made_rank)).mean()
        return base.Loss(total, dynamics={"real_rank": real_rank.exp().mean(), "fake_rank": made_rank.exp().mean()})
