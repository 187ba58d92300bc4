"""Gaussian mixture in the space of latents, fitted to the codes of real samples after training (Ghosh et al. 2020)."""

import warnings

import torch
from torch import Tensor

from aigc_lab.systems.shared.samplers import LatentSampler, given_labels


def component(weights: Tensor, normal: Tensor) -> Tensor:
    """The component [N] that standard normal numbers [N] pick by their quantile, with the probabilities `weights`: [K],
    or [N, K] of each row.
    """
    quantile = torch.special.ndtr(normal.double())
    if weights.ndim == 2:
        quantile = quantile[:, None]
    picked = torch.searchsorted(weights.double().cumsum(-1), quantile, right=True)
    return picked.reshape(-1).clamp_max(weights.shape[-1] - 1)


class GaussianMixture(LatentSampler):
    """K Gaussians with full covariances over latents [D]."""

    extra = 1

    weights: Tensor
    means: Tensor
    scales: Tensor

    def __init__(self, components: int, size: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.eye(components)[0])
        self.register_buffer("means", torch.zeros(components, size))
        self.register_buffer("scales", torch.eye(size).repeat(components, 1, 1))

    def forward(self, normal: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents [N, D] of standard normal numbers [N, D + 1]: the last of a row picks the component."""
        picked = component(self.weights, normal[:, -1])
        drawn: Tensor = self.means[picked] + (self.scales[picked] @ normal[:, :-1, None]).squeeze(2)
        return drawn

    @torch.no_grad()
    def fit(self, codes: Tensor, labels: Tensor | None = None) -> None:
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


class ClassMixtures(LatentSampler):
    """A Gaussian mixture of latents [D] for each class, each fitted to the codes of its own class."""

    extra = 1

    weights: Tensor
    means: Tensor
    scales: Tensor

    def __init__(self, classes: int, components: int, size: int) -> None:
        super().__init__()
        for name, buffer in GaussianMixture(components, size).named_buffers():
            self.register_buffer(name, buffer.expand(classes, *buffer.shape).clone())

    def forward(self, normal: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents [N, D] of classes int64 [N], of standard normal numbers [N, D + 1]: the last of a row picks the
        component of its class.
        """
        of = given_labels(labels).to(normal.device)
        picked = component(self.weights[of], normal[:, -1])
        drawn: Tensor = self.means[of, picked] + (self.scales[of, picked] @ normal[:, :-1, None]).squeeze(2)
        return drawn

    @torch.no_grad()
    def fit(self, codes: Tensor, labels: Tensor | None = None) -> None:
        """Fits each class's mixture to its codes, of [n, D] with classes int64 [n]; a class without codes keeps N(0,
        I). Codes that are not finite leave all as they are.
        """
        labels = given_labels(labels).to(codes.device)
        if not codes.isfinite().all():
            return
        _, components, size = self.means.shape
        for label in range(len(self.means)):
            mixture = GaussianMixture(components, size)
            if len(own := codes[labels == label]):
                mixture.fit(own)
            for name, buffer in mixture.named_buffers():
                getattr(self, name)[label].copy_(buffer)
