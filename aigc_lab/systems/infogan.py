"""InfoGAN (Chen et al. 2016): a generator whose codes can be read from its pictures, found without labels."""

from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from aigc_lab.config import Positive, Weight, Width
from aigc_lab.nets import images
from aigc_lab.nets.classes import one_hot
from aigc_lab.nets.dcgan import initialise
from aigc_lab.nets.spectral import spectral
from aigc_lab.noise import Draw, Noise
from aigc_lab.objectives.information import categorical_bound, uniform_bound
from aigc_lab.shape import Shape
from aigc_lab.systems.base import Loss, Phase
from aigc_lab.systems.shared.image_gan import PictureGAN

_Codes = Annotated[int, Field(ge=0, le=1000)]
# Log variances of Q are kept within ± this: a σ of 0 would make the information infinite.
_LOG_VARIANCE = 10.0


class Inputs(NamedTuple):
    """The generator's: noise [N, latent_size], one-hot categorical codes [N, G, K], continuous codes [N, D]."""

    noise: Tensor
    categorical: Tensor
    continuous: Tensor

    @property
    def joined(self) -> Tensor:
        return torch.cat([self.noise, self.categorical.flatten(1), self.continuous], 1)


class Posterior(NamedTuple):
    """Q(c|x): logits of categorical codes [N, G, K], means and log variances of continuous ones [N, D]."""

    logits: Tensor
    mean: Tensor
    log_variance: Tensor


class InfoGAN(PictureGAN):
    """The generator reads codes c beside its noise, and maximises a bound L_I of what pictures tell of them (eq. 6): it
    minimises its adversarial loss − λ·L_I, in nats a picture, with a weight λ for either kind of code. Q(c|x) is the
    critic's body with outputs of its own. Losses, penalties and augmentation are of the critic's score alone; Q reads
    pictures as they are made, and its σ of a continuous code lies between 0.0067 and 148.

    Phase `information` maximises L_I over Q and the body that it shares, with the critic's step; the generator's share
    is in its own phase, where λ weighs it: Adam would not see the scale of a loss that stands alone. In the published
    code −λ·L_I is added to the critic's loss too. Here λ = 0 is a GAN whose Q looks on (figure 1).

    Defaults are those of the published code for MNIST: 62 uniform noise numbers, a code of 10 classes and two uniform
    in [−1, 1], λ = 1, Adam with β₁ = 0.5 at 10⁻³ for the generator and 2·10⁻⁴ for the critic. It holds the σ of
    continuous codes at 1; here it is learned, as in appendix C, and their λ is ours: the paper asks for a smaller one,
    as their information has no upper end.

    A code as an array [N, code_size] has the K numbers of each categorical code, then the continuous ones.
    """

    class Config(PictureGAN.Config):
        network: images.Network = "infogan"
        # Without any norm, the first outputs of N(0, 0.02) weights are too small to read a code from.
        critic_norm: Literal["batch", "layer", "spectral"] = "batch"
        latent_size: Width = Field(62, description="noise that no code is read from")
        width: Width = Field(64, description="channels at the widest picture")
        categorical: _Codes = Field(1, description="categorical codes, each uniform over its classes")
        categories: int = Field(10, ge=2, le=1000, description="classes of a categorical code")
        continuous: _Codes = Field(2, description="continuous codes, uniform in [−1, 1]")
        information_weight: Weight = Field(1.0, description="λ of the categorical codes' nats in the generator's loss")
        continuous_weight: Weight = Field(0.1, description="λ of the continuous codes' nats")
        lr: Positive = Field(1e-3, description="step of the generator's optimiser")
        critic_lr_ratio: Positive = Field(0.2, description="the critic's step over the generator's (TTUR)")

        @model_validator(mode="after")
        def _has_codes(self) -> Any:
            if not self.categorical + self.continuous:
                raise ValueError("categorical and continuous are both 0, and an InfoGAN without a code is a GAN")
            if self.packing > 1:
                raise ValueError(f"a code is read from one picture, and packing is {self.packing}: leave it 1")
            if self.conditional != "none":
                raise ValueError("its codes are found without labels: leave conditional none, or use another GAN")
            if self.auxiliary_weight != 1:
                raise ValueError(
                    "its codes are found without labels, and auxiliary_weight is of conditional auxiliary: leave it "
                    "out, or use another GAN"
                )
            return self

    loss_only = PictureGAN.loss_only | {"information_weight", "continuous_weight"}
    #: its codes leave out the generator's noise: what it decodes is no copy of what it encoded
    reconstructs = False
    config: Config
    generator: "_Generator"
    critic: "_Critic"

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        network, width = config.network, config.width
        self.generator = _Generator(config, shape.size)
        outputs = 1 + config.categorical * config.categories + 2 * config.continuous
        body = images.encoder(network, outputs, width, self.critic_shape, config.critic_norm, bias=self.critic_bias)
        self.critic = _Critic(config, body)
        initialise(self)
        if config.critic_norm == "spectral":
            spectral(self.critic)

    @property
    def code_size(self) -> int:
        """Numbers of a code."""
        return sum(self.one_hot_sizes) + self.config.continuous

    @property
    def one_hot_sizes(self) -> tuple[int, ...]:
        """Classes of each categorical code, the beginning of a code."""
        return (self.config.categories,) * self.config.categorical

    def latents(self, count: int) -> Draw:
        config = self.config
        return Draw((count, config.latent_size + config.categorical + config.continuous), config.latent_law)

    def inputs(self, latents: Tensor) -> Inputs:
        """Noise and codes of latents, as the generator reads them: the codes by the quantiles of their numbers."""
        return _inputs(self.config, latents)

    def samplers(self) -> list[nn.Module]:
        return [self.generator, self.critic]

    # ---- the code of a picture

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of Q(c|x), each [N, code_size], for float images in [0, 1]: of categorical codes the
        probabilities p of their classes, and log p(1 − p).
        """
        logits, mean, log_variance = self.critic.posterior(images * 2 - 1)
        chances = logits.log_softmax(2).flatten(1)
        # A p that rounds to 1 has a variance all the same.
        others = torch.log1p(-chances.exp().clamp_max(1 - 1e-7))
        return torch.cat([chances.exp(), mean], 1), torch.cat([chances + others, log_variance], 1)

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures of codes [N, code_size], float in [0, 1], with noise 0, the middle of its law. Of a categorical code
        the largest number says the class; continuous ones are brought into [−1, 1].
        """
        count, config = len(latents), self.config
        numbers, continuous = torch.split(latents, [self.code_size - config.continuous, config.continuous], 1)
        classes = numbers.reshape(count, config.categorical, config.categories).argmax(2)
        noise = latents.new_zeros(count, config.latent_size)
        inputs = Inputs(noise, one_hot(classes, config.categories), continuous.clamp(-1, 1))
        pictures: Tensor = (self.generator.network(inputs.joined).float() + 1) / 2
        return pictures

    # ---- the information term

    def phases(self, batch_size: int) -> list[Phase]:
        config, draws = self.config, {"latents": self.latents(batch_size)}
        optimizer = self.optimizer(config.lr * config.critic_lr_ratio)
        after = self._constrain if self._moves else None
        information = Phase("information", self._information_loss, [self.critic], optimizer, draws, after=after)
        return [*super().phases(batch_size), information]

    def _generator_loss(self, batch: Any, noise: Noise, step: int) -> Loss:
        pictures = self._fakes_for_generator(batch, noise["latents"])
        loss = self._generator_loss_of(pictures, batch, noise, step)
        bounds = self._bounds(noise["latents"], pictures)
        categorical, continuous = bounds["categorical"], bounds["continuous"]
        weighted = self.config.information_weight * categorical + self.config.continuous_weight * continuous
        parts = {"adversarial": loss.total, **loss.parts, "information": categorical + continuous}
        return Loss(loss.total - weighted, parts, loss.dynamics)

    def _information_loss(self, batch: Any, noise: Noise, step: int) -> Loss:
        with torch.no_grad():
            fakes = self.generator(noise["latents"])
        bounds = self._bounds(noise["latents"], fakes)
        return Loss(-bounds["categorical"] - bounds["continuous"], bounds)

    def _bounds(self, latents: Tensor, pictures: Tensor) -> dict[str, Tensor]:
        """L_I of both kinds of code, nats a picture, for the pictures in [−1, 1] that were made of the latents."""
        codes, posterior = self.inputs(latents), self.critic.posterior(pictures)
        categorical = categorical_bound(posterior.logits, codes.categorical).mean()
        continuous = uniform_bound(posterior.mean, posterior.log_variance, codes.continuous).mean()
        return {"categorical": categorical, "continuous": continuous}


class _Generator(nn.Module):
    """Latents [N, …] -> pictures in [−1, 1], through the codes that they are."""

    def __init__(self, config: Any, size: tuple[int, ...]) -> None:
        super().__init__()
        numbers = config.latent_size + config.categorical * config.categories + config.continuous
        self.network = images.decoder(config.network, numbers, config.width, size).append(nn.Tanh())
        self._config = config

    def forward(self, latents: Tensor) -> Tensor:
        pictures: Tensor = self.network(_inputs(self._config, latents).joined)
        return pictures


class _Critic(nn.Module):
    """Pictures in [−1, 1] -> the score [N, 1], the first of the body's outputs; the others are those of Q."""

    def __init__(self, config: Any, body: nn.Module) -> None:
        super().__init__()
        self.body, self._config = body, config

    def forward(self, pictures: Tensor) -> Tensor:
        outputs: Tensor = self.body(pictures)
        return outputs[:, :1]

    def posterior(self, pictures: Tensor) -> Posterior:
        config = self._config
        sizes = [1, config.categorical * config.categories, config.continuous, config.continuous]
        outputs = self.body(pictures)
        outputs = outputs if outputs.dtype == torch.float64 else outputs.float()
        _, logits, mean, log_variance = torch.split(outputs, sizes, 1)
        shape = (len(pictures), config.categorical, config.categories)
        return Posterior(logits.reshape(shape), mean, log_variance.clamp(-_LOG_VARIANCE, _LOG_VARIANCE))


def _inputs(config: Any, latents: Tensor) -> Inputs:
    sizes = [config.latent_size, config.categorical, config.continuous]
    noise, categorical, continuous = torch.split(latents, sizes, 1)
    classes = (_quantile(config, categorical) * config.categories).long().clamp_max(config.categories - 1)
    one_of = one_hot(classes, config.categories, latents.dtype)
    return Inputs(noise, one_of, (2 * _quantile(config, continuous) - 1).to(latents.dtype))


def _quantile(config: Any, drawn: Tensor) -> Tensor:
    """Quantiles in [0, 1] of numbers that were drawn by the law of the latents."""
    return torch.special.ndtr(drawn.double()) if config.latent_law == "normal" else (drawn + 1) / 2
