"""Text GANs whose generator is trained by the critic's own gradient, through relaxed words (Kusner & Hernández-Lobato
2016).
"""

from abc import abstractmethod
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from aigc_lab.config import Steps
from aigc_lab.nets.relaxed import gumbel_of, relaxed_sentences
from aigc_lab.noise import Draw, Noise
from aigc_lab.objectives.adversarial import LOSSES, AdversarialLoss
from aigc_lab.shape import Shape
from aigc_lab.systems import base
from aigc_lab.systems.shared.text_gan import TextGAN


def annealed(schedule: str, first: float, last: float, done: float) -> float:
    """From `first` to `last` as `done` goes from 0 to 1, `last` from there on: `linear`, or `exponential`, by equal
    factors.

    RelGAN's inverse temperature β_max^(n / N) is `exponential` from 1 to 1 / β_max (Nie, Narodytska & Patel
    2019).

    >>> annealed("linear", 1.0, 0.5, 0.5), annealed("exponential", 1.0, 0.25, 0.5), annealed("linear", 1.0, 0.5, 9.0)
    (0.75, 0.5, 0.5)
    """
    if done >= 1:
        return last
    return first + (last - first) * done if schedule == "linear" else first * (last / first) ** done


class RelaxedGAN(TextGAN):
    """The critic reads relaxed sentences, and the generator its own relaxed words, in both players' turns; `sample`
    draws words as any language model does.

    A subclass says the `temperature` of a step. Its other hooks: `_decoder`, `_critic`, `_judge`, `scores`, and the
    `objective` of both players.
    """

    class Config(TextGAN.Config):
        estimator: Literal["soft", "straight-through"] = Field(
            "soft", description="soft: mixtures of words; straight-through: drawn words, with the mixtures' gradient"
        )
        temperature_steps: Steps = Field(7000, description="adversarial steps until the temperature is at its end")

    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        if config.decoder not in ("lstm", "gru") and config.critic != "gru":
            self.unstackable = None

    @property
    def objective(self) -> AdversarialLoss:
        """What both players minimise of the critic's scores."""
        return LOSSES["nonsaturating"]

    @abstractmethod
    def temperature(self, step: int) -> float:
        """The temperature at a step of training."""

    def annealing(self, step: int) -> float:
        """How much of `temperature_steps` is done at a step; 0 before the adversarial steps."""
        return max(step - self.adversarial_start, 0) / self.config.temperature_steps

    def relaxed(self, uniform: Tensor, step: int) -> Tensor:
        """Weights of all words [N, L, V] in sentences that the generator draws at a step, by uniform numbers [N, L, V −
        first].
        """
        memory, hard = self.decoder.start(len(uniform), self.length), self.config.estimator == "straight-through"
        return relaxed_sentences(
            self.predictor(),
            memory,
            gumbel_of(uniform),
            self.first,
            base.scheduled(step, self.temperature, uniform),
            words=len(self.vocabulary),
            hard=hard,
        )

    def adversarial_phase(self, batch_size: int, generator: list[nn.Module], start: int) -> base.Phase:
        rule = self._rule(self.config.adversarial_lr, self.config.max_norm)
        noise = {"words": self._words(batch_size)}
        return base.Phase("generator", self._generator_loss, generator, rule, noise, start=start)

    def _words(self, count: int) -> Draw:
        return Draw((count, self.length, len(self.vocabulary) - self.first), "unit")

    def _critic_loss(self, batch: Any, noise: Noise, step: int) -> base.Loss:
        with torch.no_grad():
            made = self.relaxed(noise["words"], step)
        for_real, for_made = noise["dropout"].chunk(2) if "dropout" in noise else (None, None)
        of_real, of_made = self.scores(batch.padded(self.length), for_real), self.scores(made, for_made)
        return self._critic_total(self.objective.critic(of_real, of_made), of_real, of_made)

    def _generator_loss(self, batch: Any, noise: Noise, step: int) -> base.Loss:
        of_made = self.scores(self.relaxed(noise["words"], step))
        of_real = of_made
        if self.objective.paired:
            with torch.no_grad():
                of_real = self.scores(batch.padded(self.length))
        temperature = base.scheduled(step, self.temperature, of_made.detach())
        return base.Loss(self.objective.generator(of_real, of_made), dynamics={"temperature": temperature})
