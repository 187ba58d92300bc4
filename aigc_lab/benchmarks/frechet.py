"""A Fréchet distance to a reference whose Gaussian is known beside the matrix root of the product of covariances."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aigc_lab.benchmarks.base import Benchmark, Case, Setting, Size, Unmeasured
from aigc_lab.statistics.frechet import Gaussian, distance

# Dimensions, vectors of the reference, vectors that are generated.
_SIZES: Mapping[Size, tuple[int, int, tuple[int, ...]]] = {
    "full": (2048, 5_000, (1_000,)),
    "quick": (512, 2_000, (500, 1_000)),
    "tiny": (16, 64, (32,)),
}
_ROUNDS: Mapping[Size, int] = {"full": 3, "quick": 3, "tiny": 2}


class Frechet(Benchmark):
    """The reference takes NumPy's mean and covariance of the vectors and SciPy's `sqrtm`, as pytorch-fid does."""

    seconds: ClassVar[Mapping[Size, float]] = {"full": 130, "quick": 6, "tiny": 1}

    def cases(self, setting: Setting) -> Iterator[Case | Unmeasured]:
        dimensions, many, counts = _SIZES[setting.size]
        known = Gaussian.of(vectors(many, dimensions, 1, 1.0))
        assert known.covariance is not None
        _ = known.root  # it is kept beside the reference's features, as the covariance is
        mean, covariance = known.mean.numpy(), known.covariance.numpy()
        for count in counts:
            made = vectors(count, dimensions, 2, 1.1)
            yield Case(
                f"{count:,} vectors of {dimensions:,} dimensions",
                "SciPy's sqrtm",
                run=lambda made=made: distance(Gaussian.of(made), known),  # type: ignore[misc]
                beside=lambda made=made: by_sqrtm(made, mean, covariance),  # type: ignore[misc]
                units=1,
                unit="distances",
                rounds=_ROUNDS[setting.size],
                clock="cpu" if setting.threads == 1 else "wall",
            )


def vectors(rows: int, dimensions: int, seed: int, scale: float) -> Tensor:
    """Vectors [rows, dimensions] whose variances fall as i^-1.2, along axes of no feature."""
    source = torch.Generator().manual_seed(seed)
    spectrum = torch.arange(1, dimensions + 1, dtype=torch.float64) ** -0.6
    square = torch.randn(dimensions, dimensions, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turn = torch.linalg.qr(square)[0]
    drawn = torch.randn(rows, dimensions, generator=source, dtype=torch.float64) * spectrum * scale
    made: Tensor = (drawn @ turn + 0.4).float()
    return made


def by_sqrtm(made: Tensor, mean: npt.NDArray[np.float64], covariance: npt.NDArray[np.float64]) -> float:
    """The distance by its formula: ‖μ − μ'‖² + Tr(Σ + Σ' − 2 (ΣΣ')^½)."""
    from scipy import linalg

    rows = made.double().numpy()
    mine = np.cov(rows, rowvar=False)
    root = linalg.sqrtm(mine @ covariance)
    shift = rows.mean(0) - mean
    return float(shift @ shift + np.trace(mine) + np.trace(covariance) - 2 * np.trace(root).real)
