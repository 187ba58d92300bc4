"""Waveforms, a modality that the package does not know, in one file as a user could have written it: the samples, how
they are drawn, a dataset, a system that learns it and a metric.
"""

import math

import numpy as np
import torch
from torch import Tensor

from aigc_lab import noise
from aigc_lab.config import Strict
from aigc_lab.data.base import Dataset, Modes, Split
from aigc_lab.metrics.base import Evidence, Metric, Part, Score
from aigc_lab.modalities.base import ModalityKind
from aigc_lab.nets.mlp import mlp
from aigc_lab.noise import Draw, Noise
from aigc_lab.pictures.drawing import Pixels
from aigc_lab.samples import Modality, Samples
from aigc_lab.shape import Shape
from aigc_lab.statistics.intervals import jackknife_error
from aigc_lab.systems.base import Loss, OptimizerConfig, Phase, System

WAVEFORM = Modality("waveform")
_LENGTH, _GROUPS = 32, 10


class Waves(Samples):
    """[N, T]: float32, one channel of T values."""

    modality = WAVEFORM

    def canonical(self) -> "Waves":
        self.check()
        return Waves(self.values.float(), self.labels)


class Waveform(ModalityKind):
    """Waveforms drawn below one another, and judged by their values."""

    samples = Waves
    noun = "waveforms"
    is_vector = True
    array_dimensions = frozenset({2})
    overview = "waves.png"

    def picture(self, samples: Samples, modes: Modes | None = None) -> Pixels:
        """The first eight, each a row of 24 pixels, 4 pixels a value."""
        waves = samples.canonical().values[:8].clamp(-1.5, 1.5)
        rows = ((1.5 - waves) / 3 * 23).round().long() + 24 * torch.arange(len(waves))[:, None]
        canvas = np.full((24 * len(waves), 4 * waves.shape[1], 3), 255, np.uint8)
        for shift in range(4):
            canvas[rows, 4 * torch.arange(waves.shape[1]) + shift] = (31, 119, 180)
        return canvas


class Sines(Dataset):
    """Two to four periods of a sine at any phase, with a little noise."""

    class Config(Strict):
        noise: float = 0.05

    @property
    def shape(self) -> Shape:
        return Shape(WAVEFORM, (_LENGTH,))

    def load(self, split: Split) -> Waves:
        source, count = noise.generator("sines", split), 1000 if split == "train" else 400
        periods, phases = torch.rand((2, count, 1), generator=source)
        angles = 2 * math.pi * ((2 + 2 * periods) * torch.arange(_LENGTH) / _LENGTH + phases)
        return Waves(angles.sin() + self.config.noise * torch.randn((count, _LENGTH), generator=source))


class EnergyNet(System):
    """A network that lowers the energy distance (Székely & Rizzo 2013) between its samples and real ones."""

    modality = WAVEFORM

    class Config(Strict):
        hidden: int = 64
        latent_size: int = 4
        lr: float = 3e-3

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        self.decoder = mlp(config.latent_size, config.hidden, 2, shape.size[0])

    def phases(self, batch_size: int) -> list[Phase]:
        draws = {"z": self.latents(batch_size)}
        return [Phase("energy", self.loss, [self], OptimizerConfig(self.config.lr), draws)]

    def loss(self, batch: Waves, drawn: Noise, step: int) -> Loss:
        made, real = self.decoder(drawn["z"]), batch.values
        within = [(a[::2] - a[1::2]).norm(dim=1).mean() for a in (made, real)]
        return Loss(2 * (made - real).norm(dim=1).mean() - within[0] - within[1])

    def samplers(self) -> list[torch.nn.Module]:
        return [self.decoder]

    def latents(self, count: int) -> Draw:
        return Draw((count, self.config.latent_size))

    def sample(self, latents: Tensor, *, labels: Tensor | None = None) -> Waves:
        return Waves(self.decoder(latents).float())


class Spectrum(Metric):
    """The L1 distance of mean power spectra, with a jackknife interval over ten groups of the generated samples."""

    class Config(Strict):
        pass

    @property
    def gives(self):  # type: ignore[no-untyped-def]
        return {"spectrum_error": "lower"}

    def check(self, dataset: Dataset, samples: int) -> None:
        if dataset.shape.modality != WAVEFORM:
            raise ValueError(f"spectra are of waveforms, and dataset {dataset.name} holds {dataset.shape}")
        if samples < 20:
            raise ValueError(f"a mean spectrum needs at least 20 waveforms, not {samples}")

    def scores(self, evidence: Evidence) -> list[Score]:
        signature, n = self.signature(evidence, "spectrum"), len(evidence.generated)
        made, real = _power(evidence.generated), _power(evidence.real.reference).mean(0)
        value = _distance(made.mean(0), real)
        groups = torch.arange(n) % _GROUPS
        error = jackknife_error(
            torch.tensor([_distance(made[groups != group].mean(0), real) for group in range(_GROUPS)])
        )

        def between(floor: Part, against: Part) -> dict[str, float]:
            first, second = (_power(each.samples).mean(0) for each in (floor, against))
            return {"spectrum_error": _distance(first, second)}

        floor = self.floors(evidence, signature, between)["spectrum_error"]
        ends = max(value - 1.96 * error, 0.0), value + 1.96 * error
        return [Score("spectrum_error", value, *ends, n, floor, signature, "lower")]


def _power(samples: Samples) -> Tensor:
    """Power of each frequency, float64 [N, T // 2 + 1]."""
    power: Tensor = torch.fft.rfft(samples.canonical().values.double(), norm="ortho").abs().square()
    return power


def _distance(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().sum())
