"""Maximum mean discrepancy (Gretton et al. 2012) between two batches of codes, as a term of a loss."""

from typing import Literal

from torch import Tensor

Kernel = Literal["imq", "rbf"]


def kernel(name: Kernel, x: Tensor, y: Tensor, scale: float) -> Tensor:
    """Kernel [n, m] of rows [n, d] and [m, d]: `imq` C/(C + ‖x − y‖²) with C = `scale` (Tolstikhin et al. 2018), `rbf`
    exp(−‖x − y‖²/`scale`).
    """
    # Without a matrix product of single precision, whose squares cancel: equal rows are at distance 0.
    squared = (x[:, None] - y[None]).square().sum(2)
    return scale / (scale + squared) if name == "imq" else (-squared / scale).exp()


def unbiased(name: Kernel, x: Tensor, y: Tensor, scale: float) -> Tensor:
    """MMD² as the U-statistic of rows [n, d] and [m, d], 0-d (Tolstikhin et al. 2018, algorithm 2): its mean is zero
    for two samples of one distribution.
    """
    within = _off_diagonal(kernel(name, x, x, scale)) + _off_diagonal(kernel(name, y, y, scale))
    return within - 2 * kernel(name, x, y, scale).mean()


def biased(name: Kernel, x: Tensor, y: Tensor, scale: float) -> Tensor:
    """MMD² between the two sets themselves, 0-d: never negative, and zero for equal sets."""
    within = kernel(name, x, x, scale).mean() + kernel(name, y, y, scale).mean()
    return within - 2 * kernel(name, x, y, scale).mean()


def _off_diagonal(square: Tensor) -> Tensor:
    n = square.shape[0]
    return (square.sum() - square.diagonal().sum()) / (n * (n - 1))
