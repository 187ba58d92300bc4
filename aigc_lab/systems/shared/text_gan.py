"""GANs of sentences: a language model, pretrained by maximum likelihood, against a critic of whole sentences."""

from abc import abstractmethod
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from aigc_lab.config import Few, Positive, Strict, Times, Weight, Width
from aigc_lab.nets import joined
from aigc_lab.nets.decoding import Sampling
from aigc_lab.nets.recurrent import RecurrentDecoder
from aigc_lab.nets.text_critics import SEQGAN_FILTERS, GRUCritic, TextCNN, WordCritic
from aigc_lab.nets.transformer import TransformerDecoder
from aigc_lab.noise import Draw, Noise
from aigc_lab.optimizers import base as optimizers
from aigc_lab.shape import Shape
from aigc_lab.systems import base
from aigc_lab.systems.shared.language import AutoregressiveSystem
from aigc_lab.text.vocabulary import PAD


class GeneratorConfig(Strict):
    """Keys of the language model."""

    decoder: Literal["lstm", "gru", "transformer"] = "lstm"
    embedding: Width = Field(32, description="of the generator's words; a transformer has hidden channels instead")
    hidden: Width = 32
    layers: Few = 1
    heads: Few = Field(4, description="of a transformer")


class CriticConfig(Strict):
    """Keys of the critic."""

    critic: Literal["cnn", "gru"] = "cnn"
    critic_embedding: Width = Field(64, description="of the critic's words")
    windows: list[Few] | None = Field(
        None, description="of the cnn, in words; null: SeqGAN's, 1 to 10, 15 and 20, that are no longer than a sentence"
    )
    filters: Positive = Field(1.0, description="of each window, over SeqGAN's 100 to 200")
    critic_hidden: Width = Field(64, description="of the gru")
    critic_dropout: float = Field(0.25, ge=0, lt=1, description="of what the critic's last layer reads")
    critic_l2: Weight = Field(0.2, description="weight of half the squares of the critic's last layer")

    @field_validator("windows", mode="after")
    @classmethod
    def _distinct(cls, windows: list[int] | None) -> list[int] | None:
        if windows is not None and len(set(windows)) < max(len(windows), 1):
            raise ValueError(f"{windows}: give at least one window, and each of them once")
        return windows

    @model_validator(mode="after")
    def _has_windows(self) -> Self:
        if self.windows is not None and self.critic == "gru":
            raise ValueError("windows are of convolutions, and critic is gru: leave them out, or choose another critic")
        return self


class TextGAN(AutoregressiveSystem):
    """Phases `pretraining` (the generator's likelihood), then `critic`, then a subclass's `adversarial`.

    In a loop of steps, pretraining ends after `pretrain_steps`; the critic begins there, and the generator's
    adversarial phase `critic_steps` later. A latent is one uniform number for each place, as of a language model.
    """

    unstackable: str | None = "torch's LSTM and GRU have no batching rule under vmap"
    trained_by = "critic"

    class Config(GeneratorConfig, CriticConfig):
        pretrain_steps: int = Field(18_750, ge=0, description="steps of maximum likelihood, before anything else")
        critic_steps: int = Field(500, ge=0, description="steps of the critic alone, after these")
        n_critic: Times = Field(5, description="critic updates for one of the generator")
        lr: Positive = Field(1e-2, description="Adam's step of the pretraining")
        adversarial_lr: Positive = Field(1e-2, description="Adam's step of the generator against the critic")
        critic_lr: Positive = Field(1e-4, description="Adam's step of the critic")
        max_norm: Positive = Field(5.0, description="a longer gradient of the generator is shortened to this")
        optimizer: optimizers.Name = Field("adam", description=optimizers.NAME)
        optimizer_options: optimizers.Options = Field({}, description=optimizers.OPTIONS)

    optimizer_only = frozenset({"lr", "adversarial_lr", "critic_lr", "max_norm"})
    loss_only = frozenset({"critic_dropout", "critic_l2"})
    reads: ClassVar[tuple[base.Read, ...]] = (
        base.Read("embedding", "decoder", ("lstm", "gru")),
        base.Read("heads", "decoder", ("transformer",)),
        base.Read("filters", "critic", ("cnn",)),
        base.Read("critic_hidden", "critic", ("gru",)),
    )
    config: Config
    critic: WordCritic

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        words = len(self.vocabulary)
        self.decoder = self._decoder(config, words)
        self.output = self.head()
        if config.decoder in ("lstm", "gru"):
            for weight in (*self.decoder.parameters(), *self.output.parameters()):
                nn.init.normal_(weight, std=0.1)
        self.critic = self._critic(config, words)
        self.judge = self._judge()

    def _decoder(self, config: Config, words: int) -> nn.Module:
        """The generator's network, with `start` and `step`."""
        if config.decoder == "transformer":
            return TransformerDecoder(words, self.length, config.hidden, config.layers, config.heads)
        return RecurrentDecoder(words, config.embedding, config.hidden, config.layers, cell=config.decoder)

    def _critic(self, config: Config, words: int) -> WordCritic:
        if config.critic == "gru":
            return GRUCritic(words, config.critic_embedding, config.critic_hidden)
        return TextCNN(words, config.critic_embedding, self.length, self._filters(config))

    def _filters(self, config: Any) -> dict[int, int]:
        """Numbers of filters of the cnn, by window."""
        windows = config.windows or [window for window in SEQGAN_FILTERS if window <= self.length]
        published = sorted(SEQGAN_FILTERS)
        return {
            window: max(round(config.filters * SEQGAN_FILTERS[max(k for k in published if k <= window)]), 1)
            for window in windows
        }

    def _judge(self) -> nn.Module | None:
        """The critic's last layers, where it gives a sentence a logit."""
        return nn.Linear(self.critic.width, 1)

    # ---- the phases

    def phases(self, batch_size: int) -> list[base.Phase]:
        config = self.config
        generator: list[nn.Module] = [self.decoder, self.output]
        first = config.pretrain_steps
        pretraining = base.Phase(
            "pretraining", self._likelihood_loss, generator, self._rule(config.lr, config.max_norm), stop=first
        )
        noise = {"words": self._words(batch_size)} | self._dropout(2 * batch_size)
        critic = base.Phase(
            "critic",
            self._critic_loss,
            [self.critic] if self.judge is None else [self.critic, self.judge],
            self._rule(config.critic_lr),
            noise,
            repeat=config.n_critic,
            start=first,
            begins={"pretrain_steps": first},
        )
        adversarial = self.adversarial_phase(batch_size, generator, self.adversarial_start)
        adversarial = adversarial._replace(begins={"pretrain_steps": first, "critic_steps": config.critic_steps})
        return [*([pretraining] if first else []), critic, adversarial]

    @property
    def adversarial_start(self) -> int:
        """The first step of the generator's adversarial phase."""
        return self.config.pretrain_steps + self.config.critic_steps

    @abstractmethod
    def adversarial_phase(self, batch_size: int, generator: list[nn.Module], start: int) -> base.Phase:
        """The generator's phase against the critic, from step `start` on."""

    def _rule(self, lr: float, max_norm: float | None = None) -> base.OptimizerConfig:
        return base.OptimizerConfig.of(self.config, lr, max_norm=max_norm)

    def made(self, uniform: Tensor) -> Tensor:
        """Sentences [N, L] that the generator draws in training, by uniform numbers [N, L]."""
        return self.sentences(uniform, Sampling(), to_the_end=True)

    def _words(self, count: int) -> Draw:
        """What draws `count` sentences in training."""
        return Draw((count, self.length), "unit")

    def _dropout(self, count: int) -> dict[str, Draw]:
        rate = self.config.critic_dropout
        return {"dropout": Draw((count, self.critic.width), "unit")} if rate else {}

    def _likelihood_loss(self, batch: Any, noise: Noise, step: int) -> base.Loss:
        words = batch.values
        return base.Loss(self.token_nll(words).sum() / joined.mean((words != PAD).sum()))

    def _critic_loss(self, batch: Any, noise: Noise, step: int) -> base.Loss:
        with torch.no_grad():
            made = self.made(noise["words"])
        real = batch.padded(self.length)
        scores = self.scores(torch.cat([real, made]), noise.get("dropout"))
        of_real, of_made = scores[: len(real)], scores[len(real) :]
        return self._critic_total(F.softplus(-of_real).mean() + F.softplus(of_made).mean(), of_real, of_made)

    def _critic_total(self, told: Tensor, of_real: Tensor, of_made: Tensor) -> base.Loss:
        """The critic's loss: how well it tells the real from the made, by its scores of both, and its last layer's
        weights.
        """
        total = told
        if self.judge is not None:
            weights = 0.5 * sum(weight.square().sum() for weight in self.judge.parameters())
            total = told + self.config.critic_l2 * weights
        dynamics = {"real_score": of_real.mean(), "fake_score": of_made.mean()}
        return base.Loss(total, {"adversarial": told}, dynamics)

    def scores(self, words: Tensor, dropout: Tensor | None = None) -> Tensor:
        """The critic's logits [N] that sentences are real, of numbers [N, L] or of weights of all words [N, L, V];
        `dropout` are uniform numbers [N, width].
        """
        return self.judged(self.critic.features(self.critic.embed(words)), dropout)

    def judged(self, features: Tensor, dropout: Tensor | None = None) -> Tensor:
        """The critic's logits [N] of its features [N, width]."""
        if dropout is not None:
            rate = self.config.critic_dropout
            features = features * (dropout >= rate) / (1 - rate)
        assert self.judge is not None
        logits: Tensor = self.judge(features)
        return logits.squeeze(-1).float()
