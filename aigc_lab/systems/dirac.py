"""The Dirac-GAN (Mescheder, Geiger & Nowozin 2018): one point against one slope, where what converges can be seen."""

import copy
import math
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from aigc_lab import plugins
from aigc_lab.config import Positive, Real, Weight
from aigc_lab.noise import Draw, Noise
from aigc_lab.objectives import adversarial
from aigc_lab.optimizers import base as optimizers
from aigc_lab.penalties.base import Penalty
from aigc_lab.pictures import drawing
from aigc_lab.samples import Points
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.base import Phase
from aigc_lab.systems.shared.adversarial import AdversarialSystem

# Of the Gauss–Hermite quadrature behind the expectation over instance noise.
_NODES = 64


class _Point(nn.Module):
    def __init__(self, theta: float) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([theta], dtype=torch.float64))

    def forward(self, latents: Tensor) -> Tensor:
        return self.theta.expand(len(latents), 1)


class _Line(nn.Module):
    """The logit that a point is real, −ψx: the paper's D(x) = ψx is larger for what is made."""

    def __init__(self, psi: float) -> None:
        super().__init__()
        self.psi = nn.Parameter(torch.tensor([psi], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return -self.psi * x


class _PenaltyOfTheGame(plugins.Named):
    """The penalties that have a vector field in this game."""

    __slots__ = ()

    @property
    def options(self) -> list[str]:
        return [name for name in super().options if plugins.find(Penalty, name).dirac_weight is not None]

    def check(self, name: str) -> str:
        if plugins.find(Penalty, super().check(name)).dirac_weight is None:
            raise ValueError(f"{name} has no vector field in this game; use {', '.join(self.options)}")
        return name


_OF_THE_GAME = _PenaltyOfTheGame("penalties")


class DiracGAN(AdversarialSystem):
    """All data lie at 0, the generator is a point θ, the critic D(x) = ψx; the game rests at θ = ψ = 0 (with
    least squares wherever ψ = 0: a line through the data can say nothing of them). In float64, by
    plain gradient descent of step 0.2 from (1, 1); *alternating* moves θ first, and ψ with the new θ.

    Conventions of the paper, with f(t) = −log(1 + e^−t): the minimax game moves along θ̇ = −ψ f′(θψ), ψ̇ = θ f′(θψ).
    `penalty_weight` is its γ: WGAN-GP is γ/2 (|ψ| − 1)², R1 is γ/2 ψ², consensus γ/2 ‖v‖². Instance noise is the exact
    expectation over independent Gaussian noise of that standard deviation on both sides: in closed form for the hinge,
    by Gauss–Hermite quadrature of 64 × 64 nodes for the others.
    """

    modality = Modality.POINTS
    deterministic = True

    class Config(AdversarialSystem.Config):
        loss: adversarial.Name = "minimax"
        penalty: Annotated[str, _OF_THE_GAME, AfterValidator(_OF_THE_GAME.check)] = Field(
            "none", description="what keeps the critic smooth"
        )
        penalty_weight: Weight | None = Field(0.3, description="γ, or the noise's standard deviation")
        lr: Positive = Field(0.2, description="step of plain gradient descent")
        optimizer: optimizers.Name = Field("sgd", description=optimizers.NAME)
        theta: Real = Field(1.0, description="where the generator starts")
        psi: Real = Field(1.0, description="where the critic starts")

    config: Config
    generator: _Point
    critic: _Line

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        if shape.size != (1,) or config.packing > 1:
            raise ValueError(f"it plays with single points on a line, dataset dirac's, not {shape}")
        if config.share_fakes:
            raise ValueError("its generator moves first, and draws nothing: there are no fakes to share; leave it out")
        self.generator = _Point(config.theta)
        self.critic = _Line(config.psi)

    def phases(self, batch_size: int) -> list[Phase]:
        return super().phases(batch_size)[::-1]

    def real(self, batch: Any) -> Tensor:
        values: Tensor = batch.values.double()
        return values

    def latents(self, count: int) -> Draw:
        return Draw((count, 1))

    def sample(self, latents: Tensor, *, labels: Tensor | None = None) -> Points:
        return Points(self.generator(latents).float())

    def position(self) -> Tensor:
        """(θ, ψ), float64 [2]."""
        return torch.cat([self.generator.theta, self.critic.psi]).detach()

    def summary(self) -> Mapping[str, float]:
        position = self.position()
        return {"theta": position[0].item(), "psi": position[1].item(), "norm": position.norm().item()}

    # ---- instance noise, without noise

    def _seen_noise(self, count: int, which: str) -> dict[str, Draw]:
        return {}

    @property
    def _weight(self) -> float:
        return super()._weight * (self._penalty.dirac_weight or 1.0)

    def _seen(self, samples: Tensor, noise: Noise, which: str) -> Tensor:
        if not self._penalty.gaussian_noise:
            return samples
        nodes, _ = _quadrature()
        # Every node of the real side meets every node of the made one: the noises are independent.
        nodes = nodes.repeat_interleave(_NODES) if which == "real" else nodes.repeat(_NODES)
        return samples[:1] + self._weight * nodes[:, None].to(samples.device)

    @property
    def _objective(self) -> adversarial.AdversarialLoss:
        plain = super()._objective
        if not self._penalty.gaussian_noise:
            return plain
        _, weights = _quadrature()
        pairs = torch.outer(weights, weights).flatten()
        if self.config.loss == "hinge":
            return plain._replace(
                critic=lambda real, fake: _rectified(1 - real, pairs.to(real)) + _rectified(1 + fake, pairs.to(fake))
            )

        def expected(loss: Any) -> Any:
            return lambda real, fake: torch.func.vmap(loss)(real, fake) @ pairs.to(real)

        return plain._replace(critic=expected(plain.critic), generator=expected(plain.generator), paired=True)

    # ---- what it looks like

    def portrait(self) -> drawing.Pixels:
        """The vector field (θ̇, ψ̇) on [−2, 2]², the path from the start as gradient descent takes it, and the end."""
        game = copy.deepcopy(self).cpu().requires_grad_(True)
        points = Points(torch.zeros(1, 1))
        phases = game.phases(1)
        noise = {name: torch.zeros(what.size) for phase in phases for name, what in phase.noise.items()}
        players = {"generator": game.generator.theta, "critic": game.critic.psi}

        def put(at: tuple[float, float]) -> None:
            with torch.no_grad():
                for weight, value in zip(players.values(), at, strict=True):
                    weight.fill_(value)

        def slope(phase: Phase) -> float:
            weight = players[phase.name]
            return -torch.autograd.grad(phase.loss(points, noise, 0).total, weight)[0].item()

        def velocity(at: tuple[float, float]) -> tuple[float, float]:
            put(at)
            generator, critic = (slope(phase) for phase in phases)
            return generator, critic

        def path(steps: int) -> list[tuple[float, float]]:
            put((self.config.theta, self.config.psi))
            positions = [(self.config.theta, self.config.psi)]
            for _ in range(steps):
                turns = [phases] if self.config.update == "simultaneous" else [[phase] for phase in phases]
                for turn in turns:
                    moves = [(players[phase.name], slope(phase)) for phase in turn]
                    for (weight, along), phase in zip(moves, turn, strict=True):
                        with torch.no_grad():
                            weight.add_(phase.optimizer.lr * along)
                        if phase.after is not None:
                            with torch.no_grad():
                                phase.after(0)
                positions.append((game.generator.theta.item(), game.critic.psi.item()))
            return positions

        end = self.position().tolist()
        drawn: drawing.Pixels = drawing.vector_field(
            velocity, path(200), (end[0], end[1]), extent=2.0, labels=("theta", "psi")
        )
        return drawn


def _rectified(values: Tensor, weights: Tensor) -> Tensor:
    """E max(0, v) of a normal v, whose mean and spread the values at the nodes [K, 1] have exactly."""
    values = values[:, 0]
    mean = values @ weights
    variance = (values - mean).square() @ weights
    spread = torch.where(variance > 0, torch.where(variance > 0, variance, 1).sqrt(), 1e-300)
    ratio = (mean / spread).clamp(-40, 40)  # beyond, both ends of the normal law are 0 or 1 to the last digit
    density = (-0.5 * ratio.square()).exp() / math.sqrt(2 * math.pi)
    expected: Tensor = mean * torch.special.ndtr(ratio) + spread * density
    return expected


@cache
def _quadrature() -> tuple[Tensor, Tensor]:
    """Nodes and weights [64] of the expectation over N(0, 1), exact for polynomials of degree 127."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    return torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())
