"""Penalties of a critic as pure functions: terms of its loss, in single precision whatever the networks run in.

Each takes a critic [N, …] -> [N, …] and samples [N, …], and returns a 0-d tensor without its weight. The gradient of a
sample is that of its own output: over all of its dimensions, for a critic that reads every sample by itself. A square
root is never taken where its slope is infinite: the norm of a gradient that is zero has the gradient zero.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from aigc_lab.nets import joined
from aigc_lab.nets.precision import single

Critic = Callable[[Tensor], Tensor]


def input_gradient(critic: nn.Module, samples: Tensor) -> Tensor:
    """∂/∂x of the critic's outputs, one for each sample, in the shape of the samples; can be differentiated again.

    Buffers (of batch normalisation, say) are not changed by this pass. Outside of autocast: gradients of gradients
    in bf16 lose most of their digits.
    """

    def total(x: Tensor) -> Tensor:
        # Copies that are made in here may be written to; the module's own may not.
        buffers = {name: buffer.clone() for name, buffer in critic.named_buffers()}
        outputs: Tensor = torch.func.functional_call(critic, buffers, (x,))
        return outputs.sum()

    with single(samples):
        values = samples if samples.dtype == torch.float64 else samples.float()
        gradient: Tensor = torch.func.grad(total)(values)
        return gradient


def squared_norms(gradient: Tensor) -> Tensor:
    """‖·‖² of each sample's gradient [N]."""
    return gradient.flatten(1).square().sum(1)


def norms(gradient: Tensor) -> Tensor:
    """‖·‖ of each sample's gradient [N], exact; its own gradient at zero is zero, not NaN."""
    squares = squared_norms(gradient)
    positive = squares > 0
    return torch.where(positive, torch.where(positive, squares, 1).sqrt(), 0)


def _each(values: Tensor, like: Tensor) -> Tensor:
    """[N] as [N, 1, …], to go with samples."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def wgan_gp(critic: nn.Module, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """E (‖∇D(x̂)‖ − 1)² at x̂ = x + α (G(z) − x), with one α in [0, 1] for each sample, [N] (Gulrajani et al. 2017, eq. 3
    and algorithm 1; weight 10).
    """
    between = real + _each(alpha, real) * (fake - real)
    return (norms(input_gradient(critic, between)) - 1).square().mean()


def dragan(critic: nn.Module, real: Tensor, alpha: Tensor, noise: Tensor) -> Tensor:
    """E (‖∇D(x̂)‖ − 1)² around the data, x̂ = x + α · ½ s · u: u is uniform in [0, 1] and shaped like x, s the standard
    deviation (of mean squares) of all values of the batch, α in [0, 1] one number for each sample, [N] (Kodali et al.
    2017, section 2.3, with the noise of their published code; weight 10).
    """
    near = real + _each(alpha, real) * (0.5 * joined.gather(real).std(correction=0) * noise)
    return (norms(input_gradient(critic, near)) - 1).square().mean()


def zero_centred(critic: nn.Module, samples: Tensor) -> Tensor:
    """½ E ‖∇D(x)‖²: R1 at real samples, R2 at made ones (Mescheder et al. 2018, eq. 9–10; the weight is their γ)."""
    return 0.5 * squared_norms(input_gradient(critic, samples)).mean()


def lecam(real: Tensor, fake: Tensor, real_anchor: Tensor, fake_anchor: Tensor) -> Tensor:
    """E (D(x) − α_F)² + E (D(G(z)) − α_R)², with moving averages of what the critic said before as anchors (Tseng et
    al. 2021, eq. 3; weight 0.3).
    """
    return (real - fake_anchor).square().mean() + (fake - real_anchor).square().mean()


def consistency(scores: Tensor, of_changed: Tensor) -> Tensor:
    """E (D(x) − D(T(x)))² of real samples and of their semantics-preserving changes (Zhang et al. 2020, eq. 4; weight
    10).
    """
    return (scores - of_changed).square().mean()


def consensus(critic_gradient: tuple[Tensor, ...], generator_gradient: tuple[Tensor, ...]) -> Tensor:
    """½ ‖v‖² of the game's vector field v: of each player's gradient of its own loss (Mescheder et al. 2017, eq. 13–14;
    weight 10). Both players add it to their loss.
    """
    total = sum(part.square().sum() for part in (*critic_gradient, *generator_gradient))
    assert isinstance(total, Tensor)
    return 0.5 * total
