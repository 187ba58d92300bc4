"""The Dirac-GAN through the real loop, against the map of two numbers that its paper (Mescheder et al. 2018) iterates.

The formulas here are derived by hand: f(t) = −log(1 + e^−t), so that f′(t) = σ(−t); the critic's output is the logit
that a point is real, −ψx; all data lie at 0. A velocity is (θ̇, ψ̇), each player's own descent.
"""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.integrate
import scipy.special
import torch
from pydantic import ValidationError

from aigc_lab.data.dirac import Dirac
from aigc_lab.data.shared.batches import Batches
from aigc_lab.pictures import drawing
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.dirac import DiracGAN
from aigc_lab.training.loop import train_one
from aigc_lab.training.state import TrainingState

GAMMA, STEP = 0.3, 0.2
LOSSES = ("minimax", "nonsaturating", "least_squares", "wasserstein", "hinge", "relativistic")
PENALTIES = ("none", "wgan_gp", "r1", "consensus", "instance_noise")
UPDATES = ("simultaneous", "alternating")

Point = tuple[Any, Any]
Velocity = Callable[[Any, Any], Point]


# ---- the vector fields, by hand


def sigmoid(t: Any) -> Any:
    """1 / (1 + e^−t), of complex numbers too."""
    return 1 / (1 + np.exp(-t))


def minimax(theta: Any, psi: Any) -> Point:
    """L = f(ψθ) + f(0), which θ minimises and ψ maximises."""
    return -psi * sigmoid(-theta * psi), theta * sigmoid(-theta * psi)


def nonsaturating(theta: Any, psi: Any) -> Point:
    """θ maximises f(−ψθ) instead."""
    return -psi * sigmoid(theta * psi), theta * sigmoid(-theta * psi)


def least_squares(theta: Any, psi: Any) -> Point:
    """ψ minimises ½ (0 − 1)² + ½ (ψθ)², θ minimises ½ (−ψθ − 1)²."""
    return -psi * (psi * theta + 1), -psi * theta**2


def wasserstein(theta: Any, psi: Any) -> Point:
    """ψ minimises −ψθ, θ minimises ψθ."""
    return -psi, theta


def hinge(theta: Any, psi: Any) -> Point:
    """ψ minimises max(0, 1 − 0) + max(0, 1 − ψθ), θ minimises ψθ; at the kink itself ψ rests."""
    return -psi, theta if (theta * psi).real < 1 else 0 * theta


def relativistic(theta: Any, psi: Any) -> Point:
    """ψ maximises f(ψθ), θ maximises f(−ψθ): the real output is 0 whatever ψ is."""
    return -psi * sigmoid(theta * psi), theta * sigmoid(-theta * psi)


PLAIN: dict[str, Velocity] = {
    "minimax": minimax,
    "nonsaturating": nonsaturating,
    "least_squares": least_squares,
    "wasserstein": wasserstein,
    "hinge": hinge,
    "relativistic": relativistic,
}

# The trapezoidal rule converges as fast as any on what falls like a normal density.
GRID = np.linspace(-12, 12, 2001)
DENSITY = np.exp(-(GRID**2) / 2) * (GRID[1] - GRID[0]) / math.sqrt(2 * math.pi)


def noisy(loss: str, theta: float, psi: float) -> Point:
    """The expectation with N(0, γ²) added to the real point and, independently, to θ."""
    real, fake = GAMMA * GRID, theta + GAMMA * GRID
    match loss:
        case "minimax" | "nonsaturating":
            # ψ minimises E log(1 + e^ψx) + E log(1 + e^−ψy).
            critic = (fake * sigmoid(-psi * fake) - real * sigmoid(psi * real)) @ DENSITY
            side = -1 if loss == "minimax" else 1
            return -psi * (sigmoid(side * psi * fake) @ DENSITY), critic
        case "least_squares":
            # E (−ψx − 1)² = γ²ψ² + 1, E (ψy)² = ψ² (θ² + γ²).
            return -psi * (psi * theta + 1), -psi * (theta**2 + 2 * GAMMA**2)
        case "wasserstein":
            return wasserstein(theta, psi)
        case "relativistic":
            # y − x is normal around θ, with twice the variance.
            apart = theta + math.sqrt(2) * GAMMA * GRID
            return -psi * (sigmoid(psi * apart) @ DENSITY), (apart * sigmoid(-psi * apart)) @ DENSITY
        case "hinge":
            # E max(0, m + sn) = m Φ(m/s) + s φ(m/s), whose slopes are Φ(m/s) in m and φ(m/s) in s.
            s, m = abs(psi) * GAMMA, 1 - psi * theta
            bell = [math.exp(-((mean / s) ** 2) / 2) / math.sqrt(2 * math.pi) for mean in (1, m)]
            return -psi, theta * scipy.special.ndtr(m / s) - math.copysign(GAMMA, psi) * sum(bell)
    raise AssertionError(loss)


def field(loss: str, penalty: str) -> Velocity:
    """The velocity of a loss with a penalty of weight γ."""
    plain = PLAIN[loss]

    def energy(theta: Any, psi: Any) -> Any:
        along = plain(theta, psi)
        return (along[0] ** 2 + along[1] ** 2) / 2

    def velocity(theta: Any, psi: Any) -> Point:
        along = plain(theta, psi)
        match penalty:
            case "none":
                return along
            case "wgan_gp":
                # Of γ/2 (|ψ| − 1)².
                return along[0], along[1] - GAMMA * (abs(psi) - 1) * np.sign(psi)
            case "r1":
                # Of γ/2 ψ².
                return along[0], along[1] - GAMMA * psi
            case "consensus":
                # Of γ/2 ‖v‖², by a step along the imaginary axis, which is exact to rounding.
                tiny = 1e-30
                of_theta, of_psi = energy(theta + 1j * tiny, psi + 0j), energy(theta + 0j, psi + 1j * tiny)
                return along[0] - GAMMA * of_theta.imag / tiny, along[1] - GAMMA * of_psi.imag / tiny
            case "instance_noise":
                return noisy(loss, theta, psi)
        raise AssertionError(penalty)

    return velocity


def orbit(velocity: Velocity, update: str, steps: int, start: tuple[float, float] = (1.0, 1.0)) -> list[list[float]]:
    """Where plain gradient descent goes; alternating: θ first, then ψ with the new θ."""
    theta, psi = start
    found = [[theta, psi]]
    for _ in range(steps):
        moved = theta + STEP * velocity(theta, psi)[0]
        psi = psi + STEP * velocity(moved if update == "alternating" else theta, psi)[1]
        theta = moved
        found.append([float(theta), float(psi)])
    return found


# ---- the system


def fresh(**config: Any) -> TrainingState:
    dataset = Dirac(Dirac.Config(), Path())
    chosen = DiracGAN.Config(**config)
    return TrainingState.fresh(DiracGAN, chosen, dataset.shape, seed=0, batch_size=2, device="cpu")


def trained(steps: int, **config: Any) -> DiracGAN:
    state = fresh(**config)
    batches = Batches(Dirac(Dirac.Config(), Path()).load("train"), 2, 0)
    for _ in train_one(state, batches, seed=0, steps=steps, every=steps, decay=0.0, precision="fp32"):
        pass
    assert isinstance(state.system, DiracGAN)
    return state.system


def test_the_defaults_are_those_that_are_compared() -> None:
    config = DiracGAN.Config()
    assert (config.penalty_weight, config.lr, config.theta, config.psi) == (GAMMA, STEP, 1, 1)
    assert (config.loss, config.penalty, config.update) == ("minimax", "none", "alternating")


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_real_loop_is_the_map_of_the_paper(loss: str, penalty: str, update: str) -> None:
    system = trained(60, loss=loss, penalty=penalty, update=update)
    truth = orbit(field(loss, penalty), update, 60)[-1]
    exact = 1e-9
    assert system.position().tolist() == pytest.approx(truth, rel=0, abs=exact)
    assert system.summary() == {
        "theta": system.generator.theta.item(),
        "psi": system.critic.psi.item(),
        "norm": pytest.approx(math.hypot(*system.position().tolist()), rel=1e-12),
    }
    assert math.dist(truth, (1, 1)) > 0.1


def expected(function: Callable[[float], float], low: float = -12, high: float = 12) -> float:
    """E of a function of a standard normal number, by adaptive quadrature; nought outside of `low` to `high`."""

    def weighted(n: float) -> float:
        return function(n) * math.exp(-n * n / 2) / math.sqrt(2 * math.pi)

    ends = [min(max(end, -12), 12) for end in (low, high)]
    value: float = scipy.integrate.quad(weighted, *ends, epsabs=1e-13, epsrel=1e-13)[0]
    return value


@pytest.mark.parametrize(("theta", "psi"), [(1.0, 1.0), (-0.7, 1.8), (0.3, -1.2)])
def test_the_noisy_truth_is_that_of_adaptive_quadrature(theta: float, psi: float) -> None:
    """A second way of integrating, with both noises where both matter, for what the loop is compared with."""

    def fake(n: float) -> float:
        return theta + GAMMA * n

    of_real = expected(lambda n: -GAMMA * n * sigmoid(psi * GAMMA * n))
    of_fake = expected(lambda n: fake(n) * sigmoid(-psi * fake(n)))
    for loss, side in (("minimax", -1), ("nonsaturating", 1)):
        of_theta = expected(lambda n, side=side: -psi * sigmoid(side * psi * fake(n)))  # type: ignore[misc]
        assert noisy(loss, theta, psi) == pytest.approx((of_theta, of_real + of_fake), abs=1e-12)
    of_theta = expected(lambda m: expected(lambda n: -psi * sigmoid(psi * (fake(n) - GAMMA * m))))
    of_psi = expected(lambda m: expected(lambda n: (fake(n) - GAMMA * m) * sigmoid(-psi * (fake(n) - GAMMA * m))))
    assert noisy("relativistic", theta, psi) == pytest.approx((of_theta, of_psi), abs=1e-10)
    # The hinge's slopes are nought beyond the margin: of the real side from −1/ψγ on, of the made one from m/ψγ on.
    real_end, fake_end = -1 / (psi * GAMMA), (1 - psi * theta) / (psi * GAMMA)
    of_real = expected(lambda n: -GAMMA * n, *((real_end, math.inf) if psi > 0 else (-math.inf, real_end)))
    of_fake = expected(fake, *((-math.inf, fake_end) if psi > 0 else (fake_end, math.inf)))
    assert noisy("hinge", theta, psi) == pytest.approx((-psi, of_real + of_fake), abs=1e-11)


def test_the_critic_may_take_more_and_longer_steps() -> None:
    system = trained(20, loss="nonsaturating", n_critic=3, critic_lr_ratio=0.5)
    theta = psi = 1.0
    for _ in range(20):
        theta += STEP * nonsaturating(theta, psi)[0]
        for _ in range(3):
            psi += STEP / 2 * nonsaturating(theta, psi)[1]
    assert system.position().tolist() == pytest.approx([theta, psi], abs=1e-12)


def test_a_slope_may_be_clipped() -> None:
    system = trained(40, loss="wasserstein", clip=0.25, theta=0.3)
    theta, psi = 0.3, 1.0
    for _ in range(40):
        theta -= STEP * psi
        psi = min(max(psi + STEP * theta, -0.25), 0.25)
    assert system.position().tolist() == pytest.approx([theta, psi], abs=1e-12)


# ---- what converges


def test_simultaneous_minimax_moves_outwards_as_it_must() -> None:
    """The velocity is at right angles to the position: ‖·‖² grows by the factor 1 + h² f′(θψ)² in every step."""
    on_the_way = orbit(minimax, "simultaneous", 60)
    squares = 2.0
    for theta, psi in on_the_way[:-1]:
        squares *= 1 + (STEP * sigmoid(-theta * psi)) ** 2
    sizes = [math.hypot(*point) for point in on_the_way]
    assert all(here < there for here, there in itertools.pairwise(sizes))
    assert trained(60, update="simultaneous").summary()["norm"] == pytest.approx(math.sqrt(squares), rel=1e-12)


def test_r1_brings_minimax_to_rest() -> None:
    for update in UPDATES:
        assert math.hypot(*orbit(field("minimax", "r1"), update, 500)[-1]) < 1e-3
    assert trained(500, penalty="r1").summary()["norm"] < 1e-3


# With f′(0) = ½ and f″(0) = −¼, at θ = ψ = 0.
ROTATION = np.array([[0, -0.5], [0.5, 0]])
JACOBIANS: dict[str, npt.NDArray[np.float64]] = {
    "none": ROTATION,
    "r1": ROTATION - np.diag([0, GAMMA]),
    "consensus": ROTATION - GAMMA * ROTATION.T @ ROTATION,
    "instance_noise": ROTATION - np.diag([0, GAMMA**2 / 2]),
}
# As the paper gives them, of the continuous system (lemmas 2.3, 3.1 to 3.5).
EIGENVALUES: dict[str, complex] = {
    "none": 0.5j,
    "r1": -GAMMA / 2 + 1j * math.sqrt(0.25 - GAMMA**2 / 4),
    "consensus": -GAMMA / 4 + 0.5j,
    "instance_noise": -(GAMMA**2) / 4 + 1j * math.sqrt(0.25 - GAMMA**4 / 16),
}


@pytest.mark.parametrize("penalty", list(JACOBIANS))
def test_the_eigenvalues_at_rest_are_those_of_the_paper(penalty: str) -> None:
    """Of one step of the real loop, from a tiny distance along each axis."""
    tiny = 1e-6

    def columns(update: str) -> npt.NDArray[np.float64]:
        starts = ({"theta": tiny, "psi": 0.0}, {"theta": 0.0, "psi": tiny})
        ends = [trained(1, penalty=penalty, update=update, **start).position().numpy() / tiny for start in starts]
        return np.stack(ends, axis=1)

    matrix, jacobian = columns("simultaneous"), JACOBIANS[penalty]
    np.testing.assert_allclose(matrix, np.eye(2) + STEP * jacobian, atol=1e-9)
    found = max(np.linalg.eigvals(matrix), key=lambda value: value.imag)
    assert found == pytest.approx(1 + STEP * EIGENVALUES[penalty], abs=1e-9)
    # Alternating: first the row of θ, then that of ψ.
    first, second = np.eye(2), np.eye(2)
    first[0] += STEP * jacobian[0]
    second[1] += STEP * jacobian[1]
    alternating = columns("alternating")
    np.testing.assert_allclose(alternating, second @ first, atol=1e-9)
    size = abs(np.linalg.eigvals(alternating)).max()
    # Simultaneous steps end at rest if they are short: below 4γ for R1, and below 2σ² = 0.18 for noise, which h is not.
    assert (abs(found) < 1) == (penalty in ("r1", "consensus"))
    assert size == pytest.approx(1, abs=1e-9) if penalty == "none" else size < 1


# ---- what it looks like


@pytest.mark.parametrize(
    ("loss", "penalty", "update"),
    [
        ("minimax", "none", "simultaneous"),
        ("minimax", "r1", "alternating"),
        ("hinge", "wgan_gp", "alternating"),
        ("least_squares", "consensus", "simultaneous"),
        ("relativistic", "none", "alternating"),
    ],
)
def test_the_portrait_is_drawn_of_the_same_field(
    monkeypatch: pytest.MonkeyPatch, loss: str, penalty: str, update: str
) -> None:
    drawn: dict[str, Any] = {}

    def draw(velocity: Velocity, path: list[Point], end: Point, **options: Any) -> drawing.Pixels:
        drawn.update(path=path, end=end, options=options)
        drawn["found"] = {at: velocity(at) for at in ((1.5, 0.5), (-0.7, 1.2), (0.4, -1.9))}  # type: ignore[call-arg]
        return np.zeros((2, 2, 3), np.uint8)

    monkeypatch.setattr(drawing, "vector_field", draw)
    system = fresh(loss=loss, penalty=penalty, update=update).system
    assert isinstance(system, DiracGAN)
    with torch.no_grad():
        system.critic.psi.fill_(-0.25)
    system.portrait()
    truth = field(loss, penalty)
    for at, along in drawn["found"].items():
        assert along == pytest.approx([float(part) for part in truth(*at)], abs=1e-9)
    # From where the configuration starts it to where the system is, which is left as it was.
    assert drawn["end"] == (1, -0.25) and system.position().tolist() == [1, -0.25]
    steps = len(drawn["path"]) - 1
    assert steps >= 100
    np.testing.assert_allclose(drawn["path"], orbit(truth, update, steps), atol=1e-9)
    assert drawn["options"]["labels"] == ("theta", "psi")


def test_a_portrait_shows_the_penalty() -> None:
    portraits = {}
    for penalty in ("none", "r1", "wgan_gp"):
        system = fresh(penalty=penalty).system
        pixels = system.portrait()
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
        portraits[penalty] = pixels.astype(int)
    grey = np.all([pixels.max(axis=2) == pixels.min(axis=2) for pixels in portraits.values()], axis=0)
    # Arrows are grey; the path and its ends are not.
    arrows = {penalty: pixels[grey][:, 0] for penalty, pixels in portraits.items()}
    assert all(len(np.unique(shades)) > 20 for shades in arrows.values())
    for here, there in (("none", "r1"), ("none", "wgan_gp"), ("r1", "wgan_gp")):
        assert (abs(arrows[here] - arrows[there]) > 20).mean() > 0.01


# ---- what it refuses


def test_it_plays_with_single_points_on_a_line() -> None:
    shape = Dirac(Dirac.Config(), Path()).shape
    with pytest.raises(ValueError, match="single points"):
        DiracGAN(DiracGAN.Config(packing=2), shape)
    with pytest.raises(ValueError, match="single points"):
        DiracGAN(DiracGAN.Config(), Shape(Modality.POINTS, (2,)))
    with pytest.raises(ValidationError, match="penalty"):
        DiracGAN.Config.model_validate({"penalty": "lecam"})
