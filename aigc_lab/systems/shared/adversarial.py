"""Generative adversarial networks, whatever their networks: two players, a loss, a penalty, and the knobs that every
variant has.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from aigc_lab import plugins
from aigc_lab.augmentations import base as augmentations
from aigc_lab.config import Few, Positive, Strict, Times, Weight
from aigc_lab.nets import spectral
from aigc_lab.nets.critics import MinibatchStd
from aigc_lab.noise import Draw, Noise
from aigc_lab.objectives import adversarial
from aigc_lab.optimizers import base as optimizers
from aigc_lab.penalties import base as penalties
from aigc_lab.penalties.base import CriticTurn, Players, Turn
from aigc_lab.shape import Shape
from aigc_lab.systems.base import Loss, OptimizerConfig, Phase, System
from aigc_lab.systems.shared.fakes import Fakes

#: the type of `penalty`
Penalty = penalties.Name
#: what is said of `penalty`: of what the critic reads, and of what it says of a sample beside the others
PENALTY = "what keeps the critic smooth; of its inputs as they are augmented and packed; batch norm mixes samples in it"


class Judged(NamedTuple):
    """What the critic says of its input, in single precision: scores, and logits of the classes if it names them."""

    scores: Tensor
    classes: Tensor | None = None


class AdversarialSystem(System):
    """A generator against a critic: two phases that alternate, the critic first (Goodfellow et al. 2014, algorithm 1).

    A subclass builds `generator` and `critic`, says what its latents are, how a batch becomes the critic's input, and
    how the generator's output becomes samples. Its `Config` extends this one and carries its own paper's defaults.

    The generator's update is on fakes of its own, as published. With `share_fakes` it is on those of the critic's last
    update (as many codes do), its latents and its batch: one pass of the generator less in a step. Augmentation, noise
    and packing are applied to them anew, and batch normalisation counts them once.

    With `one_pass` its critic judges the real and the made samples of an update as one batch, which is the same to
    rounding for a critic that takes each sample by itself, and refused for one with batch normalisation.

    With `packing` m the critic judges m samples at once (Lin et al. 2018, PacGAN), concatenated along dimension 1: it
    must be built for `critic_shape`.
    """

    class Config(Strict):
        loss: adversarial.Name = "nonsaturating"
        penalty: Penalty = Field("none", description=PENALTY)
        penalty_weight: Weight | None = Field(
            None, description="null: the weight of its paper, which `aigc-lab list penalties` says"
        )
        clip: Positive | None = Field(None, description="the critic's weights are kept within ± this")
        lr: Positive = Field(2e-4, description="step of both networks' optimisers")
        critic_lr_ratio: Positive = Field(1.0, description="the critic's step over the generator's (TTUR)")
        beta1: float = Field(0.5, ge=0, lt=1, description="of Adam")
        beta2: float = Field(0.999, ge=0, lt=1, description="of Adam")
        optimizer: optimizers.Name = Field("adam", description=optimizers.NAME)
        optimizer_options: optimizers.Options = Field({}, description=optimizers.OPTIONS)
        n_critic: Times = Field(1, description="critic updates for one of the generator")
        update: Literal["alternating", "simultaneous"] = "alternating"
        share_fakes: bool = Field(
            False, description="the generator learns from the fakes of the critic's last update, which are made once"
        )
        one_pass: bool = Field(
            False, description="the critic judges real and made samples in one pass; not with batch norm"
        )
        packing: Few = Field(1, description="samples that the critic judges together (PacGAN)")
        augment: augmentations.Name = Field("none", description="what the critic's inputs go through")
        augment_target: float = Field(0.6, gt=0, lt=1, description="E sign D(x) at which adaptive augmentation rests")

        @model_validator(mode="after")
        def _fits(self) -> Any:
            if self.clip is not None and adversarial.LOSSES[self.loss].saturates:
                raise ValueError(
                    f"clip makes the critic's gradients small, and those of the {self.loss} loss vanish by themselves: "
                    "the generator would hardly move; use loss wasserstein with clip"
                )
            _augmentation(self.augment).check_options(self)
            _penalty(self.penalty).check_options(self)
            if self.update == "simultaneous" and self.n_critic > 1:
                raise ValueError(f"simultaneous updates are one of each network, and n_critic is {self.n_critic}")
            return self

    optimizer_only = frozenset({"lr", "critic_lr_ratio", "beta1", "beta2"})
    loss_only = frozenset({"penalty_weight", "clip"})

    config: Config
    generator: nn.Module
    critic: nn.Module

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        self._penalty, self._augmentation = _penalty(config.penalty), _augmentation(config.augment)
        self._kept_fakes = Fakes()
        self.named = {**self.named, "penalty": type(self._penalty), "augment": type(self._augmentation)}
        self._penalty.check_shape(shape)
        self._augmentation.check_shape(shape)
        # What each of them remembers, as buffers of this system: a stack of replicas puts others in their place.
        self._remembered: dict[str, tuple[str, ...]] = {}
        for key, plugin in (("penalty", self._penalty), ("augment", self._augmentation)):
            memory = plugin.memory()
            self._remembered[key] = tuple(memory)
            for name, value in memory.items():
                self.register_buffer(name, value)

    @classmethod
    def loss_only_of(cls, config: Any) -> frozenset[str]:
        kind = plugins.find(penalties.Penalty, config.penalty)
        return cls.loss_only - (frozenset() if kind.takes_any_weight() else {"penalty_weight"})

    # ---- what a subclass says

    @abstractmethod
    def real(self, batch: Any) -> Tensor:
        """The batch in the range of the generator's output."""

    def optimizer(self, lr: float) -> OptimizerConfig:
        return OptimizerConfig.of(self.config, lr, (self.config.beta1, self.config.beta2))

    def samplers(self) -> list[nn.Module]:
        return [self.generator]

    @property
    def critic_bias(self) -> bool:
        """Whether the critic's last layer needs a bias; a relative loss does not depend on it, nor train it."""
        return not self._objective.relative or self._penalty.sees_constant

    @property
    def critic_shape(self) -> tuple[int, ...]:
        """What the critic reads: a sample's shape, `packing` times as long in its first dimension."""
        first, *others = self.shape.size
        return (first * self.config.packing, *others)

    # ---- the phases

    def phases(self, batch_size: int) -> list[Phase]:
        config = self.config
        if batch_size % config.packing:
            raise ValueError(
                f"packing {config.packing} does not divide the batch of {batch_size}; "
                f"set training.batch_size to {max(batch_size // config.packing, 1) * config.packing}"
            )
        if config.one_pass and any(isinstance(part, _BatchNorm | MinibatchStd) for part in self.critic.modules()):
            raise ValueError(
                "one_pass would give the critic's batch statistics a mixture of real and made samples: leave it out, "
                "or take a critic without batch norm and minibatch_std"
            )
        reason = self._penalty.unstackable(self)
        if reason is not None:
            self.unstackable = reason
        self._batch_size = batch_size
        latents = {"latents": self.latents(batch_size)}
        joint = "both" if config.update == "simultaneous" else None
        critic = Phase(
            "critic",
            self._critic_loss,
            [self.critic],
            self.optimizer(config.lr * config.critic_lr_ratio),
            latents
            | self._seen_noise(batch_size, "real")
            | self._seen_noise(batch_size, "fake")
            | self._penalty.noise(batch_size, batch_size // config.packing, self.critic_shape),
            repeat=config.n_critic,
            joint=joint,
            after=self._after if self._moves else None,
        )
        noise = latents | self._seen_noise(batch_size, "fake")
        if self._objective.paired or self._penalty.both_players:
            noise |= self._seen_noise(batch_size, "real")
        generator = Phase(
            "generator",
            self._generator_loss,
            [self.generator],
            self.optimizer(config.lr),
            noise,
            joint=joint,
            shares={"latents": "critic"} if config.share_fakes else {},
        )
        return [critic, generator]

    def _seen_noise(self, count: int, which: str) -> dict[str, Draw]:
        """The noise that `_seen` draws for `count` samples of one side."""
        size = self.shape.size
        return self._augmentation.noise(which, count) | self._penalty.sample_noise(which, count, size)

    @property
    def _objective(self) -> adversarial.AdversarialLoss:
        return adversarial.LOSSES[self.config.loss]

    @property
    def _weight(self) -> float:
        given = self.config.penalty_weight
        return self._penalty.weight if given is None else given

    def _weight_at(self, step: int, loss: Tensor) -> float | Tensor:
        """The weight of the penalty in the update of `step`, by which it is added to the `loss`."""
        return self._weight

    def _seen(self, samples: Tensor, noise: Noise, which: str) -> Tensor:
        """Samples as the critic gets them: augmented, noisy, packed."""
        samples = self._augmentation.changed(samples, noise, which, self._memory("augment"))
        return self._packed(self._penalty.changed(samples, noise, which, self._weight))

    def _packed(self, samples: Tensor) -> Tensor:
        return samples.reshape(-1, *self.critic_shape)

    @staticmethod
    def _scores(critic: Any, seen: Tensor) -> Tensor:
        scores: Tensor = critic(seen)
        return scores if scores.dtype == torch.float64 else scores.float()

    def _critic_loss(self, batch: Any, noise: Noise, step: int) -> Loss:
        players = self._players(batch)
        fakes = self._fakes_for_critic(players, noise["latents"])
        samples = self.real(batch)
        seen_real, seen_fake = self._seen(samples, noise, "real"), self._seen(fakes, noise, "fake")
        said = self._said(batch, seen_real, seen_fake)
        real, fake = said["real"].scores, said["fake"].scores
        loss = self._objective.critic(real, fake)
        terms, accuracy = self._class_terms(batch, said)
        dynamics = {"real_score": real.mean(), "fake_score": fake.mean(), **accuracy}
        dynamics |= self._augmentation.seen(real, self._objective.boundary, self._memory("augment"))
        turn = CriticTurn(
            **self._turn(batch, samples, noise),
            seen_real=seen_real,
            seen_fake=seen_fake,
            real_scores=real,
            fake_scores=fake,
        )
        return self._penalised(loss, self._penalty.value(turn), step, dynamics, terms)

    def _said(self, batch: Any, real: Tensor, fake: Tensor) -> dict[str, Judged]:
        """What the critic says of real and of made samples."""
        if not self.config.one_pass:
            # Separate passes: batch normalisation sees real or made samples, never a mixture.
            critic = self._players(batch).critic
            return {"real": self._judged(critic, real), "fake": self._judged(critic, fake)}
        labels = None if batch.labels is None else torch.cat([batch.labels, batch.labels])
        said = self._judged(self._players(replace(batch, labels=labels)).critic, torch.cat([real, fake]))
        scores, classes = said.scores.chunk(2), (None, None) if said.classes is None else said.classes.chunk(2)
        return {which: Judged(scores[side], classes[side]) for side, which in enumerate(("real", "fake"))}

    def _fakes_for_critic(self, players: Players, latents: Tensor) -> Tensor:
        """The generator's output, through which no gradient passes."""
        if not self.config.share_fakes:
            with torch.no_grad():
                return players.generator(latents)
        fakes = players.generator(latents)
        self._kept_fakes.keep(latents, fakes)
        return fakes.detach()

    def _fakes_for_generator(self, batch: Any, latents: Tensor) -> Tensor:
        """The generator's output with its graph: where fakes are shared, that of the critic's turn if it is at hand."""
        generator: Any = self._players(batch).generator
        if not self.config.share_fakes:
            made: Tensor = generator(latents)
            return made
        kept = self._kept_fakes.take(latents)
        if kept is not None:
            return kept
        # What batch normalisation remembers has seen them in the critic's turn.
        buffers = {name: buffer.clone() for name, buffer in generator.named_buffers()}
        again: Tensor = torch.func.functional_call(generator, buffers, (latents,))
        return again

    def _generator_loss(self, batch: Any, noise: Noise, step: int) -> Loss:
        return self._generator_loss_of(self._fakes_for_generator(batch, noise["latents"]), batch, noise, step)

    def _generator_loss_of(self, made: Tensor, batch: Any, noise: Noise, step: int) -> Loss:
        """The generator's loss of what it made of the noise's latents."""
        players = self._players(batch)
        fake = self._judged(players.critic, self._seen(made, noise, "fake"))
        loss = self._generator_objective(players.critic, fake.scores, batch, noise)
        terms, _ = self._class_terms(batch, {"fake": fake})
        if not self._penalty.both_players:
            return self._penalised(loss, None, step, terms=terms)
        turn = Turn(**self._turn(batch, self.real(batch), noise))
        return self._penalised(loss, self._penalty.generator_value(turn), step, terms=terms)

    def _penalised(
        self,
        loss: Tensor,
        penalty: Tensor | None,
        step: int,
        dynamics: Mapping[str, Tensor] = MappingProxyType({}),
        terms: Mapping[str, tuple[float | Tensor, Tensor]] = MappingProxyType({}),
    ) -> Loss:
        """The adversarial loss with the penalty, and with other terms by name, each (weight, value)."""
        terms = ({} if penalty is None else {"penalty": (self._weight_at(step, loss), penalty)}) | dict(terms)
        if not terms:
            return Loss(loss, dynamics=dynamics)
        parts = {name: value for name, (_, value) in terms.items()}
        total = loss
        for weight, value in terms.values():
            total = total + weight * value
        return Loss(total, {"adversarial": loss, **parts}, dynamics)

    def _players(self, batch: Any) -> Players:
        """Both networks as functions of one argument, for this batch."""
        return Players(self.critic, self.generator)

    def _judged(self, critic: Any, seen: Tensor) -> Judged:
        return Judged(self._scores(critic, seen))

    def _class_terms(
        self, batch: Any, said: Mapping[str, Judged]
    ) -> tuple[dict[str, tuple[float, Tensor]], dict[str, Tensor]]:
        """Terms (weight, value) of a player's loss that say how well classes are named, and what is logged of them."""
        return {}, {}

    def _turn(self, batch: Any, samples: Tensor, noise: Noise) -> dict[str, Any]:
        """What a penalty may look at in either player's loss; `samples` are the batch's, as `real` gives them."""
        players = self._players(batch)
        return {
            "critic": players.critic,
            "generator": players.generator,
            "real": samples,
            "noise": noise,
            "memory": self._memory("penalty"),
            "pack": self._packed,
            "critic_loss": lambda players: self._critic_value(players, batch, noise),
            "generator_loss": lambda players: self._generator_value(players, batch, noise),
        }

    def _memory(self, key: str) -> dict[str, Tensor]:
        """The buffers of the penalty (`key` "penalty") or of the augmentation ("augment"), by name."""
        return {name: getattr(self, name) for name in self._remembered[key]}

    def _generator_value(self, players: Players, batch: Any, noise: Noise) -> Tensor:
        fake = self._scores(players.critic, self._seen(players.generator(noise["latents"]), noise, "fake"))
        return self._generator_objective(players.critic, fake, batch, noise)

    def _generator_objective(self, critic: Any, fake: Tensor, batch: Any, noise: Noise) -> Tensor:
        paired = self._objective.paired
        real = self._scores(critic, self._seen(self.real(batch), noise, "real")) if paired else fake
        return self._objective.generator(real, fake)

    def _critic_value(self, players: Players, batch: Any, noise: Noise) -> Tensor:
        real = self._scores(players.critic, self._seen(self.real(batch), noise, "real"))
        fake = self._scores(players.critic, self._seen(players.generator(noise["latents"]), noise, "fake"))
        return self._objective.critic(real, fake)

    # ---- what moves beside the weights, after each update of the critic

    @property
    def _moves(self) -> bool:
        """Whether `_after` does anything: a clipped or spectral critic, or a plugin with memory."""
        config = self.config
        stateful = config.clip is not None or any(self._remembered.values())
        return stateful or spectral.is_spectral(self.critic)

    def _constrain(self, step: int) -> None:
        """What keeps a critic Lipschitz after an update of its weights: a power iteration, clipping."""
        spectral.iterate(self.critic)
        if self.config.clip is not None:
            for weight in self.critic.parameters():
                weight.copy_(weight.clamp(-self.config.clip, self.config.clip))

    def _after(self, step: int) -> None:
        self._constrain(step)
        if memory := self._memory("penalty"):
            self._penalty.after(memory)
        if memory := self._memory("augment"):
            self._augmentation.after(memory, self.config, self._batch_size)


def _penalty(name: str) -> penalties.Penalty:
    """The penalty of a name, or of a user's file. Raises `UsageError` for none."""
    return plugins.find(penalties.Penalty, name)()


def _augmentation(name: str) -> augmentations.Augmentation:
    """The augmentation of a name, or of a user's file. Raises `UsageError` for none."""
    return plugins.find(augmentations.Augmentation, name)()
