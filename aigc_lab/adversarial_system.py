"""What generative adversarial networks share, whatever their networks: two players, a loss, a penalty, and the knobs
that every variant may turn.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from aigc_lab import augmentation
from aigc_lab.config import Few, Positive, Strict, Times, Weight
from aigc_lab.nets import spectral
from aigc_lab.noise import Draw, Noise
from aigc_lab.objectives import adversarial, penalties
from aigc_lab.precision import halved, single
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.base import Loss, OptimizerConfig, Phase, System

Penalty = Literal[
    "none", "wgan_gp", "dragan", "r1", "r2", "r1_r2", "lecam", "consistency", "consensus", "instance_noise"
]

#: the weights of the papers; of R1 and R2 the γ of Mescheder et al. 2018; of instance noise its standard deviation
WEIGHTS: dict[Penalty, float] = {
    "none": 0.0,
    "wgan_gp": 10.0,
    "dragan": 10.0,
    "r1": 10.0,
    "r2": 10.0,
    "r1_r2": 10.0,
    "lecam": 0.3,
    "consistency": 10.0,
    "consensus": 10.0,
    "instance_noise": 0.1,
}
#: what is said of `penalty`: of what the critic reads, and of what it says of a sample beside the others
PENALTY = "what keeps the critic smooth; of its inputs as they are augmented and packed; batch norm mixes samples in it"
_PAPERS = ", ".join(f"{name} {weight:g}" for name, weight in WEIGHTS.items() if name != "none")
# Of LeCam's anchors (Tseng et al. 2021, section 3.2), and of the published adaptive augmentation (Karras et al. 2020,
# section 3.1): how often its strength is looked at, and after how many images it may have gone from 0 to 1.
_ANCHOR_DECAY = 0.99
_ADAPT_EVERY, _ADAPT_IMAGES = 4, 500_000


class Players(NamedTuple):
    """The two networks as functions: as they are, or with other weights."""

    critic: Any
    generator: Any


class AdversarialSystem(System):
    """A generator against a critic: two phases that alternate, the critic first (Goodfellow et al. 2014, algorithm 1).

    A subclass builds `generator` and `critic`, says what its latents are, how a batch becomes the critic's input, and
    how the generator's output becomes samples. Its `Config` extends this one and carries its own paper's defaults.

    With `packing` m the critic judges m samples at once (Lin et al. 2018, PacGAN), concatenated along dimension 1: it
    must be built for `critic_shape`.
    """

    class Config(Strict):
        loss: adversarial.Name = "nonsaturating"
        penalty: Penalty = Field("none", description=PENALTY)
        penalty_weight: Weight | None = Field(None, description=f"null: the weight of its paper: {_PAPERS}")
        clip: Positive | None = Field(None, description="the critic's weights are kept within ± this")
        lr: Positive = Field(2e-4, description="step of both networks' optimisers")
        critic_lr_ratio: Positive = Field(1.0, description="the critic's step over the generator's (TTUR)")
        beta1: float = Field(0.5, ge=0, lt=1, description="of Adam")
        beta2: float = Field(0.999, ge=0, lt=1, description="of Adam")
        n_critic: Times = Field(1, description="critic updates for one of the generator")
        update: Literal["alternating", "simultaneous"] = "alternating"
        packing: Few = Field(1, description="samples that the critic judges together (PacGAN)")
        augment: Literal["none", "diffaugment", "adaptive"] = Field(
            "none", description="what the critic's inputs go through"
        )
        augment_target: float = Field(0.6, gt=0, lt=1, description="E sign D(x) at which adaptive augmentation rests")

        @model_validator(mode="after")
        def _fits(self) -> Any:
            if self.clip is not None and adversarial.LOSSES[self.loss].saturates:
                raise ValueError(
                    f"clip makes the critic's gradients small, and those of the {self.loss} loss vanish by themselves: "
                    "the generator would hardly move; use loss wasserstein with clip"
                )
            if self.augment == "adaptive" and adversarial.LOSSES[self.loss].relative:
                raise ValueError(
                    f"adaptive augmentation goes by the sign of D(x), which means nothing with the {self.loss} loss, "
                    "whose critic may be shifted by any constant; use augment diffaugment with it"
                )
            if self.augment != "none" and self.penalty == "consistency":
                raise ValueError("penalty consistency changes pictures by itself: leave out augment, or the penalty")
            if self.update == "simultaneous" and self.n_critic > 1:
                raise ValueError(f"simultaneous updates are one of each network, and n_critic is {self.n_critic}")
            return self

    optimizer_only = frozenset({"lr", "critic_lr_ratio", "beta1", "beta2"})

    config: Config
    generator: nn.Module
    critic: nn.Module
    # Buffers, where the penalty or the augmentation has any: the moving averages of the critic's outputs and its last;
    # the strength of the augmentation, E sign D(x) of the last batch (of D(x) − ½ with least squares, whose critic says
    # 1 of what is real and 0 of what is made), their sum and number since a change.
    real_anchor: Tensor
    fake_anchor: Tensor
    real_seen: Tensor
    fake_seen: Tensor
    augment_strength: Tensor
    augment_sign: Tensor
    augment_signs: Tensor
    augment_batches: Tensor

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        if shape.modality != Modality.IMAGES and config.augment != "none":
            raise ValueError(
                f"augment: {config.augment} changes pictures (colour, place, cut-outs), not {shape.modality}"
            )
        if shape.modality != Modality.IMAGES and config.penalty == "consistency":
            raise ValueError(f"penalty: consistency compares mirrored and moved pictures, not {shape.modality}")
        names = ["real_anchor", "fake_anchor", "real_seen", "fake_seen"] if config.penalty == "lecam" else []
        if config.augment == "adaptive":
            names += ["augment_strength", "augment_sign", "augment_signs", "augment_batches"]
        for name in names:
            self.register_buffer(name, torch.zeros(()))

    # ---- what a subclass says

    @abstractmethod
    def real(self, batch: Any) -> Tensor:
        """The batch in the range of the generator's output."""

    def optimizer(self, lr: float) -> OptimizerConfig:
        return OptimizerConfig(lr, (self.config.beta1, self.config.beta2))

    def samplers(self) -> list[nn.Module]:
        return [self.generator]

    @property
    def critic_bias(self) -> bool:
        """Whether the critic's last layer needs a bias: one that no loss can see would be drawn along untrained."""
        return not self._objective.relative or self.config.penalty == "lecam"

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
        if config.penalty == "consensus" and any(isinstance(part, _BatchNorm) for part in self.modules()):
            # Of torch 2.15: the gradient of the gradient of a normalisation's own weights leaves out what it owes to
            # the batch's mean and spread; 0.4 % of the gradient of a convolution before it.
            self.unstackable = "torch's vmap differentiates batch normalisation twice with an error, as consensus does"
        self._augment_step = batch_size * _ADAPT_EVERY / _ADAPT_IMAGES
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
            | self._noise(batch_size),
            repeat=config.n_critic,
            joint=joint,
            after=self._after if self._moves else None,
        )
        noise = latents | self._seen_noise(batch_size, "fake")
        if self._objective.paired or config.penalty == "consensus":
            noise |= self._seen_noise(batch_size, "real")
        generator = Phase(
            "generator", self._generator_loss, [self.generator], self.optimizer(config.lr), noise, joint=joint
        )
        return [critic, generator]

    def _seen_noise(self, count: int, which: str) -> dict[str, Draw]:
        """What `_seen` draws for a batch."""
        match self.config.augment:
            case "diffaugment":
                draws = {f"augment_{which}": Draw((count, augmentation.DIFFERENTIABLE), "unit")}
            case "adaptive":
                draws = {
                    f"augment_{which}": Draw((count, augmentation.ADAPTIVE_UNIFORM), "unit"),
                    f"augment_{which}_normal": Draw((count, augmentation.ADAPTIVE_NORMAL)),
                }
            case _:
                draws = {}
        if self.config.penalty == "instance_noise":
            draws[f"instance_{which}"] = Draw((count, *self.shape.size))
        return draws

    def _noise(self, count: int) -> dict[str, Draw]:
        """What the penalty draws for a batch."""
        packs = count // self.config.packing
        match self.config.penalty:
            case "wgan_gp":
                return {"alpha": Draw((packs,), "unit")}
            case "dragan":
                return {"alpha": Draw((packs,), "unit"), "perturbation": Draw((packs, *self.critic_shape), "unit")}
            case "consistency":
                return {"changes": Draw((count, augmentation.FLIP_AND_SHIFT), "unit")}
        return {}

    @property
    def _objective(self) -> adversarial.AdversarialLoss:
        return adversarial.LOSSES[self.config.loss]

    @property
    def _weight(self) -> float:
        given = self.config.penalty_weight
        return WEIGHTS[self.config.penalty] if given is None else given

    def _weight_at(self, step: int) -> float:
        """The weight of the penalty in the update of `step`."""
        return self._weight

    def _seen(self, samples: Tensor, noise: Noise, which: str) -> Tensor:
        """Samples as the critic gets them: augmented, noisy, packed."""
        match self.config.augment:
            case "diffaugment":
                samples = augmentation.differentiable(samples, noise[f"augment_{which}"])
            case "adaptive":
                drawn = noise[f"augment_{which}"], noise[f"augment_{which}_normal"]
                samples = augmentation.adaptive(samples, *drawn, self.augment_strength)
        if self.config.penalty == "instance_noise":
            samples = samples + self._weight * noise[f"instance_{which}"]
        return self._packed(samples)

    def _packed(self, samples: Tensor) -> Tensor:
        return samples.reshape(-1, *self.critic_shape)

    @staticmethod
    def _scores(critic: Any, seen: Tensor) -> Tensor:
        scores: Tensor = critic(seen)
        return scores if scores.dtype == torch.float64 else scores.float()

    def _critic_loss(self, batch: Any, noise: Noise, step: int) -> Loss:
        with torch.no_grad():
            made = self.generator(noise["latents"])
        seen_real, seen_fake = self._seen(self.real(batch), noise, "real"), self._seen(made, noise, "fake")
        # Separate passes: batch normalisation sees real or made samples, never a mixture.
        real, fake = self._scores(self.critic, seen_real), self._scores(self.critic, seen_fake)
        loss = self._objective.critic(real, fake)
        dynamics = {"real_score": real.mean(), "fake_score": fake.mean()}
        if self.config.augment == "adaptive":
            dynamics["augment_strength"] = self.augment_strength.clone()
            self.augment_sign.copy_((real.detach() - self._objective.boundary).sign().mean())
        if self.config.penalty in ("none", "instance_noise"):
            return Loss(loss, dynamics=dynamics)
        penalty = self._penalty(batch, noise, seen_real, seen_fake, real, fake)
        weighted = self._weight_at(step) * penalty
        return Loss(loss + weighted, {"adversarial": loss, "penalty": penalty}, dynamics)

    def _generator_loss(self, batch: Any, noise: Noise, step: int) -> Loss:
        loss = self._generator_value(Players(self.critic, self.generator), batch, noise)
        if self.config.penalty != "consensus":
            return Loss(loss)
        penalty = self._consensus(batch, noise)
        return Loss(loss + self._weight_at(step) * penalty, {"adversarial": loss, "penalty": penalty})

    def _generator_value(self, players: Players, batch: Any, noise: Noise) -> Tensor:
        fake = self._scores(players.critic, self._seen(players.generator(noise["latents"]), noise, "fake"))
        paired = self._objective.paired
        real = self._scores(players.critic, self._seen(self.real(batch), noise, "real")) if paired else fake
        return self._objective.generator(real, fake)

    def _critic_value(self, players: Players, batch: Any, noise: Noise) -> Tensor:
        real = self._scores(players.critic, self._seen(self.real(batch), noise, "real"))
        fake = self._scores(players.critic, self._seen(players.generator(noise["latents"]), noise, "fake"))
        return self._objective.critic(real, fake)

    # ---- penalties

    def _penalty(
        self, batch: Any, noise: Noise, seen_real: Tensor, seen_fake: Tensor, real: Tensor, fake: Tensor
    ) -> Tensor:
        match self.config.penalty:
            case "wgan_gp":
                return penalties.wgan_gp(self.critic, seen_real, seen_fake, noise["alpha"])
            case "dragan":
                return penalties.dragan(self.critic, seen_real, noise["alpha"], noise["perturbation"])
            case "r1":
                return penalties.zero_centred(self.critic, seen_real)
            case "r2":
                return penalties.zero_centred(self.critic, seen_fake)
            case "r1_r2":
                both = (penalties.zero_centred(self.critic, seen) for seen in (seen_real, seen_fake))
                return sum(both, torch.zeros_like(real.mean()))
            case "lecam":
                self.real_seen.copy_(real.detach().mean())
                self.fake_seen.copy_(fake.detach().mean())
                # Copies: the anchors move before the backward pass of another phase may need them.
                return penalties.lecam(real, fake, self.real_anchor.clone(), self.fake_anchor.clone())
            case "consistency":
                half = halved(seen_real)
                with single(seen_real):
                    changed = self._packed(augmentation.flip_and_shift(self.real(batch), noise["changes"]))
                    of_changed = self.critic(changed)
                    # In single precision both, or the difference would be of roundings.
                    of_real = self.critic(seen_real) if half else real
                return penalties.consistency(of_real, of_changed)
            case "consensus":
                return self._consensus(batch, noise)
        raise AssertionError(self.config.penalty)

    def _consensus(self, batch: Any, noise: Noise) -> Tensor:
        """½ ‖v‖² of both players' gradients, each of its own loss, at their weights as they are."""

        def gradient(player: nn.Module, value: Any) -> tuple[Tensor, ...]:
            def loss(weights: Mapping[str, Tensor]) -> Tensor:
                total: Tensor = value(Players(*(self._with(each, weights, each is player) for each in networks)))
                return total

            return tuple(torch.func.grad(loss)(dict(player.named_parameters())).values())

        networks = (self.critic, self.generator)
        with single(self.real(batch)):
            of_critic = gradient(self.critic, lambda players: self._critic_value(players, batch, noise))
            of_generator = gradient(self.generator, lambda players: self._generator_value(players, batch, noise))
        return penalties.consensus(of_critic, of_generator)

    @staticmethod
    def _with(network: nn.Module, weights: Mapping[str, Tensor], own: bool) -> Any:
        """The network as a function that leaves its buffers alone; with other weights if they are its `own`."""

        def call(x: Tensor) -> Any:
            buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
            return torch.func.functional_call(network, (dict(weights) if own else {}, buffers), (x,))

        return call

    # ---- what moves beside the weights, after each update of the critic

    @property
    def _moves(self) -> bool:
        """Whether there is anything for `_after` to do."""
        config = self.config
        stateful = config.clip is not None or config.penalty == "lecam" or config.augment == "adaptive"
        return stateful or spectral.is_spectral(self.critic)

    def _after(self, step: int) -> None:
        spectral.iterate(self.critic)
        if self.config.clip is not None:
            for weight in self.critic.parameters():
                weight.copy_(weight.clamp(-self.config.clip, self.config.clip))
        if self.config.penalty == "lecam":
            for anchor, seen in ((self.real_anchor, self.real_seen), (self.fake_anchor, self.fake_seen)):
                anchor.mul_(_ANCHOR_DECAY).add_(seen * (1 - _ANCHOR_DECAY))
        if self.config.augment == "adaptive":
            self._adapt()

    def _adapt(self) -> None:
        """Augments more while the critic is surer of real samples than the target, and less while it is not."""
        self.augment_signs.add_(self.augment_sign)
        self.augment_batches.add_(1)
        # A number and not a decision: replicas that are trained as one program do not branch.
        due = (self.augment_batches == _ADAPT_EVERY).to(self.augment_signs.dtype)
        surer = (self.augment_signs / _ADAPT_EVERY - self.config.augment_target).sign()
        strength = (self.augment_strength + due * surer * self._augment_step).clamp(0, 1)
        self.augment_strength.copy_(strength)
        self.augment_signs.mul_(1 - due)
        self.augment_batches.mul_(1 - due)
