"""Normalising flow in the space of latents, fitted to codes of real samples after training (Dinh et al. 2017)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from aigc_lab import noise
from aigc_lab.nets.classes import one_hot
from aigc_lab.systems.base import cosine
from aigc_lab.systems.shared.samplers import LatentSampler, given_labels

# Width of a coupling's network; updates, and codes of each.
_HIDDEN, _STEPS, _BATCH = 64, 600, 256
# AdamW's first step size, which falls to 0 along a cosine. Its weight decay goes by how few codes each latent has: at
# 150, of digits in a RAE, a fit without any is 0.7 nats worse on the holdout's codes.
_LR, _DECAY = 5e-3, 100.0
# One code in so many is held out of the fit, and every so many updates they tell which flow is kept.
_HELD, _EVERY = 10, 50
# The most that a coupling multiplies a latent by is exp(_BOUND).
_BOUND = 2.0
# Added to the variances, so that latents without any have a density.
_FLOOR = 1e-6


class Flow(LatentSampler):
    """z = m + L·(c_K ∘ … ∘ c_1)(u) for u ~ N(0, I): affine couplings, and the mean and Cholesky factor of the codes.

    A coupling multiplies and shifts half of the numbers by a function of the other half, so that its inverse and its
    Jacobian's determinant are known; which half goes by a binary digit of the index, another every two layers. A single
    latent has no other half, and its flow is a Gaussian.

    The couplings maximise the likelihood of nine tenths of the codes, from the identity, and those updates are kept
    that give the held-out tenth the highest likelihood: with few codes the flow stays the Gaussian it began as.

    With `classes` it is a density of latents given their class: each coupling's network reads the one-hot class beside
    the other half, so that classes with few codes share what is learned of all. m and L are those of all classes.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, layers: int, size: int, classes: int = 0) -> None:
        super().__init__()
        self.classes = classes
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.eye(size))
        shapes = {"1": (_HIDDEN, size + classes), "2": (_HIDDEN, _HIDDEN), "3": (2 * size, _HIDDEN)}
        for name, (outputs, inputs) in shapes.items():
            self.register_buffer(f"weight_{name}", torch.zeros(layers, outputs, inputs))
            self.register_buffer(f"bias_{name}", torch.zeros(layers, outputs))

    def forward(self, normal: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents [N, D] of standard normal numbers [N, D], given their classes (int64 [N]) if it has classes."""
        values, given = normal, self._given(normal, labels)
        for layer, weights in enumerate(self._layers(self._couplings())):
            shift, log_scale = _coupling(layer, weights, values, given)
            values = values * log_scale.exp() + shift
        return self.mean + values @ self.scale.T

    def log_density(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Log-density [N] in nats, at latents [N, D], given their classes (int64 [N]) if it has classes."""
        given = self._given(latents, labels)
        density = self._log_density(self._standardised(latents), given, self._couplings())
        return density - self.scale.diagonal().log().sum()

    def inverse(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """The normal numbers [N, D] that `forward` makes these latents of, given the same classes."""
        return self._inverse(self._standardised(latents), self._given(latents, labels), self._couplings())[0]

    def _given(self, values: Tensor, labels: Tensor | None) -> Tensor:
        """One-hot classes [N, classes] of the rows of `values`; [N, 0] without classes."""
        if not self.classes:
            return values.new_zeros(len(values), 0)
        return one_hot(given_labels(labels).to(values.device), self.classes, values.dtype)

    def _standardised(self, latents: Tensor) -> Tensor:
        solved: Tensor = torch.linalg.solve_triangular(self.scale, (latents - self.mean).T, upper=False)
        return solved.T

    def _couplings(self) -> list[Tensor]:
        """Weights and biases of all couplings' networks, each [layers, …]."""
        return [getattr(self, f"{kind}_{name}") for name in "123" for kind in ("weight", "bias")]

    @staticmethod
    def _layers(couplings: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        return list(zip(*(tensor.unbind() for tensor in couplings), strict=True))

    def _inverse(self, values: Tensor, given: Tensor, couplings: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The numbers [N, D] that the couplings make `values` of, and the log-determinant [N] of their Jacobian."""
        log_determinant = values.new_zeros(len(values))
        for layer, weights in reversed(list(enumerate(self._layers(couplings)))):
            shift, log_scale = _coupling(layer, weights, values, given)
            values = (values - shift) * (-log_scale).exp()
            log_determinant = log_determinant - log_scale.sum(1)
        return values, log_determinant

    def _log_density(self, values: Tensor, given: Tensor, couplings: Sequence[Tensor]) -> Tensor:
        normal, log_determinant = self._inverse(values, given, couplings)
        return log_determinant - 0.5 * (normal.square() + math.log(2 * math.pi)).sum(1)

    # ---- the fit

    @torch.no_grad()
    def fit(self, codes: Tensor, labels: Tensor | None = None) -> None:
        if not codes.isfinite().all():
            return
        order = torch.randperm(len(codes), generator=noise.generator("flow", "order"))
        codes, given = codes.detach().float().cpu()[order], self._given(codes, labels).float().cpu()[order]
        held = len(codes) // _HELD
        mean, scale = moments(codes[held:])
        self.mean.copy_(mean)
        self.scale.copy_(scale)
        whiten = torch.linalg.inv(scale).T
        fitted, apart = (((codes[part] - mean) @ whiten, given[part]) for part in (slice(held, None), slice(held)))
        best = self._learned(fitted, apart)
        for buffer, values in zip(self._couplings(), best, strict=True):
            buffer.copy_(values)

    def _learned(self, fitted: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor]) -> list[Tensor]:
        """The couplings under which `held` is likeliest, of those met while fitting: standardised codes [n, D] with
        their one-hot classes, each.
        """
        codes, given = fitted
        with torch.enable_grad():
            couplings = [tensor.requires_grad_() for tensor in self._initial()]
            optimizer = torch.optim.AdamW(couplings, _LR, weight_decay=min(10.0, _DECAY * codes.shape[1] / len(codes)))
            best, least = [tensor.detach().clone() for tensor in couplings], _mean_nll(self, *held, couplings)
            for step in range(_STEPS):
                rows = torch.randint(len(codes), (_BATCH,), generator=noise.generator("flow", step))
                loss = -self._log_density(codes[rows], given[rows], couplings).mean()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.param_groups[0]["lr"] = cosine(_LR, 0, step / _STEPS)
                optimizer.step()
                if (step + 1) % _EVERY == 0 and (nll := _mean_nll(self, *held, couplings)) < least:
                    best, least = [tensor.detach().clone() for tensor in couplings], nll
        return best

    def _initial(self) -> list[Tensor]:
        """Couplings that are the identity: their last layers give zeros, the others are drawn by fan-in."""
        drawn = []
        for number, buffer in enumerate(self._couplings()):
            inputs = buffer.shape[-1]
            keyed = noise.draw(noise.Draw(tuple(buffer.shape)), "flow", "weights", number)
            drawn.append(keyed * inputs**-0.5 if buffer.ndim == 3 and number < 4 else torch.zeros_like(keyed))
        return drawn


def moments(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [D] and Cholesky factor [D, D] of the covariance of codes [n, D]: the likeliest Gaussian."""
    codes = codes.double()
    mean = codes.mean(0)
    centred = codes - mean
    covariance = centred.T @ centred / len(codes)
    floor = _FLOOR * (1 + covariance.diagonal().mean())
    return mean.float(), torch.linalg.cholesky(covariance + floor * torch.eye(len(mean), dtype=torch.float64)).float()


def _coupling(layer: int, weights: Sequence[Tensor], values: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
    """Shift and log scale [N, D] of coupling `layer`, 0 for the numbers that they are functions of, beside the one-hot
    classes `given` [N, C].
    """
    size = values.shape[1]
    digit = (layer // 2) % max(1, (size - 1).bit_length())
    moved = (torch.arange(size, device=values.device) >> digit) % 2 == layer % 2
    weight_1, bias_1, weight_2, bias_2, weight_3, bias_3 = weights
    hidden = F.silu(F.linear(torch.cat([values.masked_fill(moved, 0), given], 1), weight_1, bias_1))
    shift, raw = F.linear(F.silu(F.linear(hidden, weight_2, bias_2)), weight_3, bias_3).chunk(2, dim=1)
    log_scale = _BOUND * (raw / _BOUND).tanh()
    return shift.masked_fill(~moved, 0), log_scale.masked_fill(~moved, 0)


@torch.no_grad()
def _mean_nll(flow: Flow, codes: Tensor, given: Tensor, couplings: Sequence[Tensor]) -> float:
    """Mean negative log-likelihood of standardised codes; NaN for none."""
    return -flow._log_density(codes, given, couplings).mean().item()  # noqa: SLF001
