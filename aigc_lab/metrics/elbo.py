"""ELBO, importance-weighted likelihood (Burda et al. 2016), KL, active units and mutual information of a VAE's code."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from aigc_lab import noise
from aigc_lab.config import Count, Strict, Times
from aigc_lab.data.base import Dataset
from aigc_lab.errors import NotFinite
from aigc_lab.metrics import base
from aigc_lab.metrics.shared.conditioning import conditions, given_labels
from aigc_lab.samples import Samples
from aigc_lab.shape import Modality
from aigc_lab.statistics.intervals import Z95

_ACTIVE = 0.01
# Images of a block, and latents of each that are decoded together: part of the draws' key, so part of the numbers.
_BLOCK, _LATENTS = 100, 10
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Codes:
    """Posteriors of n samples, float64 on the host: mean and log variance of q(z|x), each [n, d], and log p(x, z) − log
    q(z|x) of K latents drawn from each q [n, K]. A system with its own prior has log p(z) − log q(z|x) of them too.
    """

    mean: Tensor
    log_variance: Tensor
    log_weights: Tensor
    log_ratios: Tensor | None = None

    @property
    def elbo(self) -> Tensor:
        """ELBO [n] in nats. The KL term is that of the drawn latents: with the exact posterior every draw gives log
        p(x) itself.
        """
        return self.log_weights.mean(1)

    @property
    def nll(self) -> Tensor:
        """Upper bound of −log p(x) [n] in nats, which falls to it as K grows (Burda et al. 2016, theorem 1)."""
        return math.log(self.log_weights.shape[1]) - torch.logsumexp(self.log_weights, 1)

    @property
    def kl(self) -> Tensor:
        """KL(q(z|x) ‖ p(z)) [n] in nats: in closed form for N(0, I), of the drawn latents for another prior."""
        if self.log_ratios is not None:
            return -self.log_ratios.mean(1)
        return 0.5 * (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance).sum(1)


@torch.inference_mode()
def codes(system: base.Autoencoder, samples: Samples, latents: int) -> Codes:
    """Codes of the samples with `latents` draws of each. Raises `NotFinite` if a code or a likelihood is NaN or
    infinite.
    """
    samples.check()
    device, parts = base.device_of(system), []
    for first in range(0, len(samples), _BLOCK):
        part = samples.take(slice(first, first + _BLOCK)).to(device)
        block = part.as_inputs()
        mean, log_variance = given_labels(system, part).encode(block)
        # Drawn as they are used: K may be large.
        draws = (drawn[: len(block)].to(device) for drawn in _draws(first // _BLOCK, latents, mean.shape[1]))
        if isinstance(system, base.OwnPrior):
            pairs = [_log_weights_and_ratios(system, block, drawn) for drawn in draws]
            weighed = [torch.cat(each, 1) for each in zip(*pairs, strict=True)]
        else:
            weights = (
                _log_weights(given_labels(system, part, drawn.shape[1]), block, mean, log_variance, drawn)
                for drawn in draws
            )
            weighed = [torch.cat(list(weights), 1)]
        parts.append([each.double().cpu() for each in (mean, log_variance, *weighed)])
    all_codes = Codes(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
    whole = torch.cat([all_codes.mean, all_codes.log_variance, all_codes.log_weights], 1).isfinite().all(1)
    if not whole.all():
        bad = int((~whole).sum())
        raise NotFinite(f"{bad} of {len(whole)} samples are encoded, or their likelihood is, as NaN or infinity")
    return all_codes


def _draws(block: int, latents: int, size: int) -> Iterator[Tensor]:
    """Standard normal [_BLOCK, up to _LATENTS, size]: more latents, or more images, begin with the same draws."""
    for part, first in enumerate(range(0, latents, _LATENTS)):
        drawn = noise.draw(noise.Draw((_BLOCK, _LATENTS, size)), "elbo", block, part)
        yield drawn[:, : latents - first]


def _log_weights(system: base.Autoencoder, images: Tensor, mean: Tensor, log_variance: Tensor, drawn: Tensor) -> Tensor:
    """Log of p(x|z) p(z) / q(z|x), float64 [n, k], at z = mean + σ·drawn."""
    latents = mean.unsqueeze(1) + (0.5 * log_variance).exp().unsqueeze(1) * drawn
    repeated = images.repeat_interleave(drawn.shape[1], 0)
    likelihood = system.log_likelihood(repeated, latents.flatten(0, 1)).double().reshape(drawn.shape[:2])
    # The constants of the two normal densities cancel.
    prior = -0.5 * latents.double().square().sum(2)
    posterior = -0.5 * (drawn.double().square().sum(2) + log_variance.double().sum(1, keepdim=True))
    weights: Tensor = likelihood + prior - posterior
    return weights


def _log_weights_and_ratios(system: base.Autoencoder, images: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Log of p(x|z) p(z) / q(z|x) and of p(z) / q(z|x), float64 [n, k], as the system draws its own latents."""
    assert isinstance(system, base.OwnPrior)
    repeated = images.repeat_interleave(drawn.shape[1], 0)
    latents, ratios = system.draw_posterior(repeated, drawn.flatten(0, 1))
    ratio = ratios.double().reshape(drawn.shape[:2])
    return system.log_likelihood(repeated, latents).double().reshape(drawn.shape[:2]) + ratio, ratio


def active_units(mean: Tensor) -> tuple[int, int, int]:
    """Number of latents with Var_x E[z|x] > 0.01 (Burda et al. 2016), and its lower and upper end.

    The ends count the latents whose variance is significantly above, and is not significantly below, the threshold: by
    its standard error, Bonferroni-corrected over the latents.
    """
    n, units = mean.shape
    centred = mean - mean.mean(0)
    variance = centred.square().sum(0) / (n - 1)
    error = ((centred**4).mean(0) - variance.square()).clamp_min(0).sqrt() / math.sqrt(n)
    margin = float(torch.special.ndtri(torch.tensor(1 - 0.025 / units, dtype=torch.float64))) * error
    count = int((variance > _ACTIVE).sum())
    return count, int((variance - margin > _ACTIVE).sum()), int((variance + margin > _ACTIVE).sum())


def mutual_information(mean: Tensor, log_variance: Tensor, rows: int = 500) -> tuple[float, float]:
    """I(x; z) under q in nats, and its standard error, from means and log variances [n, d] (Hoffman & Johnson 2016).

    The estimate is the mean of log q(z|x) − log 1/n Σ_j q(z|x_j) over one draw of z for each image, and never exceeds
    ln n. Each image is also a term in the sum of all others, so the standard error is that of its whole influence
    (delta method). `rows` images are compared with all at a time.
    """
    n, size = mean.shape
    precision = (-log_variance).exp()
    drawn = noise.draw(noise.Draw((n, size)), "elbo", "information").double()
    latents = mean + (0.5 * log_variance).exp() * drawn
    constant = -0.5 * ((mean.square() * precision).sum(1) + log_variance.sum(1)) - size * _HALF_LOG_2PI
    gains, pull = torch.empty(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    for first in range(0, n, rows):
        part = latents[first : first + rows]
        log_q = part @ (mean * precision).T - 0.5 * part.square() @ precision.T + constant
        gains[first : first + rows] = log_q.diagonal(first) - torch.logsumexp(log_q, 1) + math.log(n)
        pull += log_q.softmax(1).sum(0)
    return gains.mean().item(), (gains - pull).std().item() / math.sqrt(n)


class ELBO(base.Metric):
    """Scores of a system, not of its samples: n is the number of real samples scored, a seeded choice. The floor is the
    same score of as many training samples, which measures overfitting.

    `elbo`, `iw_nll` and `kl` are in nats a sample, means ± 1.96 standard errors. `elbo` and `iw_nll` share K drawn
    latents, so −iw_nll is never below elbo. K is a part of the number: published tables use K = 5000. Nats of two
    likelihoods are not comparable, so the signature names the likelihood. Of a conditional system they are of log
    p(x|y) with the classes y of the real samples, which the signature says (`given:class`).

    Three scores tell whether the code is used: `kl` (exact for the prior N(0, I), else of the K latents);
    `active_units` (Var_x E[z_i] > 0.01, with an interval over units that are proved active and units not proved
    inactive); and `mutual_information` (the part of kl that tells images apart, ±1.96 standard errors at this n).
    Mutual information cannot exceed ln n; near that it only says that n is too small. Higher is better, since a
    collapsed posterior has none of them, but none is an objective: a worse model can raise them too.
    """

    needs: ClassVar[frozenset[base.Need]] = frozenset({"encoder", "train"})
    describes: ClassVar[frozenset[str]] = frozenset({"kl", "active_units", "mutual_information"})

    version: ClassVar[int] = 2  # a seeded choice of the split, not its first

    class Config(Strict):
        limit: Count = Field(1000, ge=100, description="real samples that are scored, at most")
        importance: Times = Field(20, description="K: latents drawn for each sample")

    @property
    def gives(self) -> dict[str, base.Better]:
        return {
            "elbo": "higher",
            "iw_nll": "lower",
            "kl": "higher",
            "active_units": "higher",
            "mutual_information": "higher",
        }

    def check(self, dataset: Dataset, samples: int) -> None:
        base.check_autoencoded(dataset, samples, "an ELBO", Modality.IMAGES, Modality.TEXT)

    def meaningless(self, evidence: base.Evidence) -> dict[str, str]:
        return dict.fromkeys(self.gives, base.SEEN) if base.seen(evidence) else {}

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        system, reference, train = base.autoencoded(evidence, self.config.limit)
        assert isinstance(system, base.Autoencoder)
        reference_codes, train_codes = (codes(system, images, self.config.importance) for images in (reference, train))
        n = len(reference)
        details = [f"scored:{n}≤{self.config.limit}", f"K:{self.config.importance}", f"cap:{math.log(n):.3f}"]
        details += [f"likelihood:{base.likelihood_of(system)}", *conditions(system)]
        signature = self.signature(evidence, *details)

        def score(name: str, value: float, low: float, high: float, floor: float) -> base.Score:
            return base.Score(name, value, low, high, n, floor, signature, self.gives[name])

        units, low, high = active_units(reference_codes.mean)
        information, error = mutual_information(reference_codes.mean, reference_codes.log_variance)
        return [
            *(
                score(
                    name,
                    *base.mean_interval(getattr(reference_codes, key)),
                    base.Floor.measured(getattr(train_codes, key)),
                )
                for name, key in (("elbo", "elbo"), ("iw_nll", "nll"), ("kl", "kl"))
            ),
            score("active_units", units, low, high, active_units(train_codes.mean)[0]),
            score(
                "mutual_information",
                information,
                information - Z95 * error,
                information + Z95 * error,
                base.Floor.known(*mutual_information(train_codes.mean, train_codes.log_variance)),
            ),
        ]
