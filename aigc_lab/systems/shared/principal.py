"""Samplers of codes of many numbers, fitted in the space of their first principal components."""

import torch
from torch import Tensor

from aigc_lab.systems.shared.samplers import LatentSampler


class PrincipalComponents(LatentSampler):
    """z = m + V·y with the codes' mean m and first R principal components V [D, R], and y from another sampler.

    A covariance of D numbers takes more than D codes to fit, and D² numbers to store: of codes of thousands of numbers,
    a few thousand tell that of the R directions of largest variance. Along the others z is m. Until `fit`, y is the
    first R numbers of z, and the others are 0.
    """

    mean: Tensor
    basis: Tensor

    def __init__(self, size: int, inner: LatentSampler, components: int) -> None:
        """Of codes of `size` numbers, with a sampler of `components` numbers, which are not more."""
        super().__init__()
        self.inner = inner
        self.extra = inner.extra
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("basis", torch.eye(size, components))

    def forward(self, normal: Tensor, labels: Tensor | None = None) -> Tensor:
        """Codes [N, D] of standard normal numbers [N, R + extra]."""
        drawn: Tensor = self.inner(normal, labels)
        return self.mean + drawn @ self.basis.T

    def project(self, codes: Tensor) -> Tensor:
        """The principal components [N, R] of codes [N, D]."""
        return (codes - self.mean) @ self.basis

    @torch.no_grad()
    def fit(self, codes: Tensor, labels: Tensor | None = None) -> None:
        if not codes.isfinite().all():
            return
        codes = codes.detach().float().cpu()
        centred = codes.double() - codes.double().mean(0)
        vectors = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)[:, : self.basis.shape[1]]
        # A direction has two signs: the one whose largest number is positive is the same whoever computes it.
        largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
        self.mean.copy_(codes.double().mean(0))
        self.basis.copy_(vectors * largest.sign())
        self.inner.fit(self.project(codes.to(self.mean.device)).cpu(), labels)
