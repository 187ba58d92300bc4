"""GAN of sentences with Gumbel-softmax words (Kusner & Hernández-Lobato 2016; Jang, Gu & Poole 2017)."""

from typing import Literal

from pydantic import Field

from aigc_lab.systems import base
from aigc_lab.systems.shared.relaxed_gan import RelaxedGAN, annealed


class GumbelGAN(RelaxedGAN):
    """A language model against a critic of sentences, with the non-saturating loss: the plain form of a text GAN.
    The default temperature falls as max(½, exp(−r t)) does with r = 10⁻⁴ (Jang, Gu & Poole 2017, section 4).
    """

    class Config(RelaxedGAN.Config):
        temperature: float = Field(1.0, ge=1e-6, le=1e6, description="of the relaxed words; near 0 they are words")
        temperature_end: float | None = Field(
            0.5, ge=1e-6, le=1e6, description="what the temperature comes to; null: it stays"
        )
        temperature_schedule: Literal["linear", "exponential"] = Field("exponential", description="how it comes there")

    reads = (
        *RelaxedGAN.reads,
        *(base.Read(key, "temperature_end", not_of=(None,)) for key in ("temperature_schedule", "temperature_steps")),
    )
    config: Config

    def temperature(self, step: int) -> float:
        """The temperature at a step of training; before the adversarial steps, that of the first of them."""
        config, done = self.config, self.annealing(step)
        if config.temperature_end is None:
            return config.temperature
        return annealed(config.temperature_schedule, config.temperature, config.temperature_end, done)
