"""RelGAN (Nie, Narodytska & Patel 2019): a relational memory against a critic that reads a sentence in many views."""

from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from aigc_lab.config import Few, Positive, Steps, Weight, Width
from aigc_lab.nets.relational import RelationalDecoder
from aigc_lab.nets.text_critics import ManyViewCNN, WordCritic
from aigc_lab.noise import Draw
from aigc_lab.objectives.adversarial import LOSSES, AdversarialLoss
from aigc_lab.systems import base
from aigc_lab.systems.shared.relaxed_gan import RelaxedGAN, annealed

# Of the published code: windows in words, filters of each.
_WINDOWS, _FILTERS = (2, 3, 4, 5), 300


class RelGAN(RelaxedGAN):
    """Words relaxed at the inverse temperature β_max^(n / N) in the n-th of N adversarial steps; each view of a made
    sentence is compared with the same view of a real one, and the loss is the mean over the views. In the paper a
    larger β_max makes sentences more varied, and each of them worse.

    Defaults are those of the published code (weilinie/RelGAN) on the oracle: 150 epochs of maximum likelihood on 10,000
    sentences in batches of 64, then 3000 steps. There 2, 5, 10 and 100 are tried as β_max; on captions and news 100 and
    1000, in 2000 steps.

    Not as there: the generator reads relaxed words where theirs reads the drawn ones; the critic drops nothing in the
    generator's turn; the memory and the embeddings begin as torch's layers do.
    """

    class Config(RelaxedGAN.Config):
        decoder: Literal["relational", "lstm", "gru", "transformer"] = "relational"  # type: ignore[assignment]
        slots: Few = Field(1, description="of the relational memory")
        heads: Few = Field(2, description="of the relational memory, or of a transformer")
        head_size: Width = Field(256, description="channels of a head of the relational memory")
        critic: Literal["views", "cnn", "gru"] = "views"  # type: ignore[assignment]
        representations: Few = Field(64, description="views: equal parts of critic_embedding, each read by itself")
        windows: list[Few] | None = Field(
            None,
            description="of views or cnn, in words; null: 2 to 5, or SeqGAN's, if no longer than a sentence",
        )
        filters: Positive = Field(1.0, description="of each window, over 300 of views, or SeqGAN's 100 to 200 of a cnn")
        critic_hidden: Width = Field(100, description="of the layer below the logit of a view, or of the gru")
        critic_l2: Weight = Field(0.0, description="weight of half the squares of the critic's last layers")
        loss: Literal["relativistic", "nonsaturating", "hinge"] = "relativistic"
        pretrain_steps: int = Field(23_400, ge=0, description="steps of maximum likelihood, before anything else")
        critic_steps: int = Field(0, ge=0, description="steps of the critic alone, after these")
        adversarial_lr: Positive = Field(1e-4, description="Adam's step of the generator against the critic")
        max_norm: Positive = Field(5.0, description="a longer gradient of either network is shortened to this")
        beta_max: float = Field(100.0, ge=1, le=1e6, description="the inverse temperature that the words end at")
        temperature_steps: Steps = Field(3000, description="N: adversarial steps until beta_max is reached")

    reads = (
        base.Read("embedding", "decoder", ("relational", "lstm", "gru")),
        base.Read("heads", "decoder", ("relational", "transformer")),
        *(base.Read(key, "decoder", ("relational",)) for key in ("slots", "head_size")),
        *(base.Read(key, "decoder", ("lstm", "gru", "transformer")) for key in ("hidden", "layers")),
        base.Read("filters", "critic", ("views", "cnn")),
        base.Read("critic_hidden", "critic", ("views", "gru")),
        base.Read("representations", "critic", ("views",)),
    )
    config: Config

    def temperature(self, step: int) -> float:
        return annealed("exponential", 1.0, 1 / self.config.beta_max, self.annealing(step))

    @property
    def objective(self) -> AdversarialLoss:
        return LOSSES[self.config.loss]

    def phases(self, batch_size: int) -> list[base.Phase]:
        rule = self._rule(self.config.critic_lr, self.config.max_norm)
        phases = super().phases(batch_size)
        return [phase._replace(optimizer=rule) if phase.name == "critic" else phase for phase in phases]

    # ---- the networks

    def _decoder(self, config: Any, words: int) -> nn.Module:
        if config.decoder != "relational":
            return super()._decoder(config, words)
        return RelationalDecoder(words, config.embedding, config.slots, config.heads, config.head_size)

    def _critic(self, config: Any, words: int) -> WordCritic:
        if config.critic != "views":
            return super()._critic(config, words)
        windows = config.windows or [window for window in _WINDOWS if window <= self.length] or _WINDOWS[:1]
        filters = dict.fromkeys(windows, max(round(config.filters * _FILTERS), 1))
        return ManyViewCNN(words, config.critic_embedding, self.length, filters, config.representations)

    def _judge(self) -> nn.Module:
        # A constant that is added to all logits changes no relativistic loss: no last bias then. Below it none at all,
        # since nothing lies between the two layers.
        bias, hidden = not self.objective.relative, self.config.critic_hidden
        if self.config.critic != "views":
            return nn.Linear(self.critic.width, 1, bias)
        return nn.Sequential(nn.Linear(self.critic.width, hidden, bias=False), nn.Linear(hidden, 1, bias))

    def _dropout(self, count: int) -> dict[str, Draw]:
        drawn = super()._dropout(count)
        if isinstance(self.critic, ManyViewCNN):
            return {name: Draw((count, self.critic.views, self.critic.width), draw.law) for name, draw in drawn.items()}
        return drawn

    def scores(self, words: Tensor, dropout: Tensor | None = None) -> Tensor:
        """The critic's logits that sentences are real, [N, views] or [N]; `dropout` are uniform numbers [N, views,
        width] or [N, width].
        """
        return super().scores(words, dropout)
