"""How far a game of two numbers is from where it rests: the Dirac-GAN's distance from its equilibrium."""

import math

from aigc_lab.config import Strict
from aigc_lab.data.base import Dataset
from aigc_lab.errors import NotFinite
from aigc_lab.metrics import base


class Equilibrium(base.Metric):
    """Norm ‖(θ, ψ)‖ of the system's parameters, in float64. Nothing is sampled, so the interval is the value; the floor
    is 0.
    """

    needs = frozenset({"game"})

    class Config(Strict):
        pass

    @property
    def gives(self) -> dict[str, base.Better]:
        return {"norm": "lower"}

    def check(self, dataset: Dataset, samples: int) -> None:
        if dataset.name != "dirac":
            raise ValueError(f"it measures games that rest at 0, as with dataset dirac, and not with {dataset.name}")
        if samples < 100:
            raise ValueError(f"it wants at least 100 samples beside the position, not {samples}")

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        game = evidence.system
        assert isinstance(game, base.Game)
        norm = game.position().norm().item()
        if not math.isfinite(norm):
            raise NotFinite(f"the game's position is not finite: {game.position().tolist()}")
        n = len(evidence.generated)
        return [base.Score("norm", norm, norm, norm, n, 0.0, self.signature(evidence, "exact"), "lower")]
