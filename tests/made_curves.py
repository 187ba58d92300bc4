"""Curves over temperatures of models that never were, whose errors are known."""

from typing import Any

import numpy as np

from aigc_lab.statistics.planes import PLANES

NAMES = [name for plane in PLANES for name in (plane.diversity, plane.quality)]
# Self-BLEU-4, BLEU-4, reverse and forward language model by temperature.
CURVE = {0.5: (0.6, 0.8, 6.0, 3.0), 0.8: (0.45, 0.7, 5.5, 3.3), 1.0: (0.4, 0.6, 5.2, 3.6), 1.4: (0.2, 0.2, 5.0, 4.4)}


def made_curve(
    points: dict[float, tuple[float, float, float, float]] = CURVE, error: float = 0.001, **facts: Any
) -> dict[str, Any]:
    """A curve of points whose every score has about this standard error, by replicates of 20 groups."""
    shifts = error * np.random.default_rng(0).choice([-1, 1], (20, 4)) / np.sqrt(19)
    told = [
        {"temperature": at}
        | dict(zip(NAMES, values, strict=True))
        | {"without": {name: (values[k] + shifts[:, k]).tolist() for k, name in enumerate(NAMES)}}
        for at, values in points.items()
    ]
    real = dict(zip(NAMES, (0.3, 0.9, 4.0, 2.0), strict=True))
    return {"n": 100, "references": 200, "data": "digest", "real": real, "points": told} | facts
