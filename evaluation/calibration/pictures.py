"""Colour pictures with texture of ten known classes, made by code, and what cameras and codecs do to all of them."""

import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Set
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from aigc_lab.extractors.base import Extractor
from aigc_lab.extractors.lite0 import Lite0
from aigc_lab.extractors.random import Random
from aigc_lab.extractors.shared.small_classifier import Network, fit
from aigc_lab.host.weights import PUBLISHED
from aigc_lab.noise import generator
from aigc_lab.samples import Images
from aigc_lab.scoring.collapse_judge import Pictures, chosen_bins, judged
from aigc_lab.scoring.inputs import GivenDataset
from aigc_lab.shape import Modality, Shape
from aigc_lab.verdicts.collapse import Judge
from aigc_lab.verdicts.conclusion import FOUND, Collapse
from calibration.bounds import Bound

SHOWN = [each for each in Collapse if each is not Collapse.POSTERIOR]

CLASSES = (
    *("plain", "upright stripes", "level stripes", "upright bars", "level bars"),
    *("fine checks", "coarse checks", "dots", "rings", "slanted stripes"),
)
SIZE = 32


def pictures(count: int, source: torch.Generator, of: tuple[int, ...] | None = None) -> Images:
    """So many labelled pictures [count, 3, 32, 32] of all classes, or of these alone, in equal shares on average: a
    texture in two colours, at any place and turned a little, over a gradient and under grain. Colours say next to
    nothing of the class, and the fine textures are a few pixels wide, so that blur takes them away.
    """
    allowed = torch.tensor(of or tuple(range(len(CLASSES))))
    labels = allowed[torch.randint(len(allowed), (count,), generator=source)]

    def uniform(low: float, high: float, *size: int) -> Tensor:
        return low + (high - low) * torch.rand((count, *size, 1, 1), generator=source)

    grid = torch.arange(SIZE) - (SIZE - 1) / 2
    down, across = (each[None] for each in torch.meshgrid(grid, grid, indexing="ij"))
    slant = uniform(-0.15, 0.15) + (labels == 9)[:, None, None] * math.pi / 4
    x = across * slant.cos() + down * slant.sin() + uniform(-4, 4)
    y = down * slant.cos() - across * slant.sin() + uniform(-4, 4)
    period = torch.where(
        torch.isin(labels, torch.tensor([1, 2, 5, 9]))[:, None, None], uniform(2.8, 3.6), uniform(7, 11)
    )
    waves = [(2 * math.pi * each / period).cos() for each in (x, y)]
    kinds = torch.stack(
        [
            torch.zeros_like(waves[0]),
            *(waves[0], waves[1], waves[0], waves[1]),
            *(waves[0] * waves[1], waves[0] * waves[1]),
            2 * ((waves[0] + waves[1]) / 2).clamp_min(0).square() - 0.5,
            (2 * math.pi * (x.square() + y.square()).sqrt() / period).cos(),
            waves[0],
        ],
        1,
    )
    texture = kinds[torch.arange(count), labels][:, None]
    base, other = uniform(0.15, 0.85, 3), uniform(-0.35, 0.35, 3)
    tilt = uniform(-0.01, 0.01, 3) * across + uniform(-0.01, 0.01, 3) * down
    grain = uniform(0.01, 0.05, 1) * torch.randn((count, 3, SIZE, SIZE), generator=source)
    values = base + tilt + other * texture + grain
    return Images((255 * values).round().clamp(0, 255).byte(), labels)


def blurred(images: Images, sigma: float) -> Images:
    """A Gaussian filter of each channel, `sigma` in pixels."""
    away = torch.arange(-9.0, 10.0)
    line = torch.exp(-away.square() / (2 * sigma**2))
    line, channels = line / line.sum(), images.values.shape[1]
    wide = F.pad(images.unit(), (9, 9, 9, 9), mode="reflect")
    rows = F.conv2d(wide, line.expand(channels, 1, 1, 19), groups=channels)
    values = F.conv2d(rows, line[:, None].expand(channels, 1, 19, 1), groups=channels)
    return Images((255 * values).round().clamp(0, 255).byte(), images.labels)


def compressed(images: Images, quality: int) -> Images:
    """As JPEG of this quality shows them."""
    shown = []
    for picture in images.values.permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality)
        shown.append(np.asarray(Image.open(file)))
    return Images(torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2).contiguous(), images.labels)


def tinted(images: Images, gains: tuple[float, float, float], offset: float = 0.0, colour: float = 1.0) -> Images:
    """Each channel times its gain and brighter by `offset` (white is 1), with so much of its `colour`."""
    pixels = images.unit()
    grey = pixels.mean(1, keepdim=True)
    values = (grey + colour * (pixels - grey)) * torch.tensor(gains)[:, None, None] + offset
    return Images((255 * values).round().clamp(0, 255).byte(), images.labels)


# ---- what the collapse verdict says of them

#: samples that are judged at a time, beside twice as many real ones
N = 800
#: by which features, and whether the classes of the real ones are known; a network of few steps is often wrong
BENCHES = {
    "textures": ("trained", True),
    "textures-unlabelled": ("trained", False),
    "textures-weak": ("weak", True),
    "textures-weak-unlabelled": ("weak", False),
    "textures-random": ("random", True),
    "textures-random-unlabelled": ("random", False),
    "textures-lite0": ("lite0", True),
    "textures-lite0-unlabelled": ("lite0", False),
}
_STEPS = {"trained": 150, "weak": 75}
# Pictures that pass through a network at once.
_AT_ONCE = {"lite0": Lite0.block}
_EVERYTHING = tuple(range(len(CLASSES)))
Made = Callable[[torch.Generator], Images]


def _features(name: str, train: Images) -> Extractor | Network:
    if name == "random":
        return Random()
    if name == "lite0":
        return Lite0.prepare(
            GivenDataset(train, len(CLASSES)), cache=Path(), weights=PUBLISHED, device="cpu", say=print
        )
    return fit(train, Shape(Modality.IMAGES, (3, SIZE, SIZE), len(CLASSES)), _STEPS[name]).eval()


class _Trained(Random):
    """In the place of the extractor that a network of classes would be."""

    untrained = False


def _without(gone: int) -> Made:
    def made(source: torch.Generator) -> Images:
        kept: list[int] = torch.randperm(len(CLASSES), generator=source)[gone:].tolist()
        return pictures(N, source, tuple(kept))

    return made


def _few(source: torch.Generator) -> Images:
    """Forty pictures over and over, with a little noise of their own."""
    some = pictures(40, source)
    values = some.values[torch.randint(40, (N,), generator=source)].float()
    return Images((values + 2 * torch.randn(values.shape, generator=source)).round().clamp(0, 255).byte())


def cases() -> tuple[dict[str, Made], dict[str, Made], dict[str, Made]]:
    """Truth -> what makes a set of it: with a shift of all pictures, of which no class is gone; with classes gone; and
    other ones.
    """
    changes: dict[str, Callable[[Images], Images]] = {
        **{f"blur of {sigma} pixels": partial(blurred, sigma=sigma) for sigma in (0.5, 0.7, 1.0, 1.5, 3.0)},
        **{f"JPEG of quality {quality}": partial(compressed, quality=quality) for quality in (60, 30, 10)},
        "warmer": partial(tinted, gains=(1.2, 1.0, 0.8)),
        "darker": partial(tinted, gains=(0.7, 0.7, 0.7)),
        "brighter": partial(tinted, gains=(1.0, 1.0, 1.0), offset=0.15),
        "paler": partial(tinted, gains=(1.0, 1.0, 1.0), colour=0.4),
    }

    def changed(change: Callable[[Images], Images], source: torch.Generator) -> Images:
        return change(pictures(N, source))

    shifted: dict[str, Made] = {name: partial(changed, change) for name, change in changes.items()}
    gone = {f"{count} of {len(CLASSES)} gone": _without(count) for count in (1, 2, 5)}
    half = gone[f"5 of {len(CLASSES)} gone"]
    return (
        shifted,
        gone,
        {
            "5 gone, blur of 0.5": lambda source: blurred(half(source), 0.5),
            "40 over and over": _few,
        },
    )


def table(name: str, count: int, others: int, seed: int) -> list[Bound]:
    """The confusions by one kind of features."""
    kind, labelled = BENCHES[name]
    source = generator("textures")
    train, real = pictures(3000, source), pictures(2 * N, source)
    network = _features(kind, train)

    @torch.inference_mode()
    def vectors(images: Images) -> Tensor:
        return torch.cat([network(part)[0] for part in torch.split(images.values, _AT_ONCE.get(kind, 500))])

    labels = real.labels if labelled else None
    pool = vectors(real)
    bins, by = chosen_bins(
        pool,
        N,
        labels=labels,
        names=CLASSES,
        apart=lambda: vectors(train),
        by=Random() if kind == "random" else _Trained(),
    )
    judge = Judge(pool, bins, name)
    sorted_ = "" if judge.accuracy is None else f", {judge.accuracy:.0%} of real pictures are sorted right"
    print(f"{name}: {N} samples, pool {len(pool)}, {len(bins.names)} {by}{sorted_}")
    print(f"{'truth, % of which are':32}" + "".join(f"{each:>14}" for each in SHOWN))
    shifted, gone, further = cases()
    said: dict[str, Counter[Collapse]] = {}
    honest: dict[str, Made] = {"honest": partial(pictures, N)}
    for number, (truth, make) in enumerate((honest | shifted | gone | further).items()):
        random, sets = generator("calibrate", name, number, seed), count if truth == "honest" else others
        verdicts = (
            judged(judge, vectors(made), None, made, Pictures(real.take, vectors))
            for made in map(make, [random] * sets)
        )
        said[truth] = Counter(each.verdict for each in verdicts)
        row = "".join(f"{100 * said[truth][each] / sets:14.1f}" for each in SHOWN)
        print(f"{truth:32}{row}", flush=True)
    print()

    def among(truths: Iterable[str], verdicts: Set[Collapse]) -> float:
        sets = [said[truth] for truth in truths]
        return sum(each[verdict] for each in sets for verdict in verdicts) / sum(each.total() for each in sets)

    bounds = [
        Bound(f"{name}, honest: PARTIAL or worse", among(["honest"], FOUND), most=0.01),
        Bound(f"{name}, blurred, compressed, tinted: PARTIAL or worse", among(shifted, FOUND), most=0.01),
        Bound(f"{name}, classes gone: NONE", among(gone, {Collapse.NONE}), most=0.01),
        Bound(f"{name}, 40 over and over: PARTIAL or worse", among(["40 over and over"], FOUND), least=0.99),
    ]
    if bins.withheld:
        bounds.append(Bound(f"{name}, anything: NONE", among(said, {Collapse.NONE}), most=0.0))
    if kind in ("trained", "lite0") and labelled:
        half, grave = [truth for truth in said if truth.startswith("5")], {Collapse.SEVERE, Collapse.TOTAL}
        bounds.append(Bound(f"{name}, honest: NONE", among(["honest"], {Collapse.NONE}), least=0.9))
        bounds.append(Bound(f"{name}, classes gone: PARTIAL or worse", among(gone, FOUND), least=0.99))
        bounds.append(Bound(f"{name}, half gone: SEVERE or TOTAL", among(half, grave), least=0.99))
    return bounds
