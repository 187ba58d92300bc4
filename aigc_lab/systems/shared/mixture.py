"""Gaussian mixture in the space of latents, fitted to the codes of real samples after training (Ghosh et al. 2020)."""

import warnings

import torch
from torch import Tensor, nn

#: the knob `sampler`, and what is said of it
SAMPLER = "where samples' latents come from: the prior, or a mixture fitted to codes of train before each evaluation"
#: codes that a mixture is fitted to, at most
CODES = 10_000


def component(weights: Tensor, normal: Tensor) -> Tensor:
    """The component [N] that standard normal numbers [N] pick by their quantile, with the probabilities `weights`
    [K].
    """
    quantile = torch.special.ndtr(normal.double())
    return torch.searchsorted(weights.double().cumsum(0), quantile, right=True).clamp_max(len(weights) - 1)


class GaussianMixture(nn.Module):
    """K Gaussians with full covariances over latents [D], as buffers. Until `fit` it is N(0, I), the prior."""

    weights: Tensor
    means: Tensor
    scales: Tensor

    def __init__(self, components: int, size: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.eye(components)[0])
        self.register_buffer("means", torch.zeros(components, size))
        self.register_buffer("scales", torch.eye(size).repeat(components, 1, 1))

    def forward(self, normal: Tensor) -> Tensor:
        """Latents [N, D] of standard normal numbers [N, D + 1]: the last of a row picks the component."""
        picked = component(self.weights, normal[:, -1])
        drawn: Tensor = self.means[picked] + (self.scales[picked] @ normal[:, :-1, None]).squeeze(2)
        return drawn

    @torch.no_grad()
    def fit(self, codes: Tensor) -> None:
        """Fits the mixture to codes [n, D] by expectation maximisation from k-means, the same for the same codes.
        Codes that are not finite leave it as it is; with fewer codes than components the others have weight 0.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture as Fitted

        if not codes.isfinite().all():
            return  # the run has diverged, and says so elsewhere
        count = min(len(self.weights), len(codes))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = Fitted(count, random_state=0).fit(codes.double().cpu().numpy())
        scales = torch.linalg.cholesky(torch.from_numpy(found.covariances_))
        self.weights.zero_()
        for buffer, values in zip(
            (self.weights, self.means, self.scales),
            (torch.from_numpy(found.weights_), torch.from_numpy(found.means_), scales),
            strict=True,
        ):
            buffer[:count].copy_(values)
