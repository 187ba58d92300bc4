"""Sets of samples of which the truth is known, made of real ones, and what the collapse verdict says of them."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from aigc_lab import plugins
from aigc_lab.data.base import Dataset
from aigc_lab.extractors.shared.lookup import find_extractor
from aigc_lab.host.settings import Settings
from aigc_lab.noise import generator
from aigc_lab.samples import Images, Points, Samples, Text
from aigc_lab.scoring.collapse_judge import Pictures
from aigc_lab.statistics.neighbours import assign
from aigc_lab.text.vocabulary import SPECIAL
from aigc_lab.verdicts.bins import Bins
from aigc_lab.verdicts.collapse import Beside, Judge
from aigc_lab.verdicts.conclusion import FOUND, NOTHING, SEVERE_ABOVE, Collapse, needed
from aigc_lab.verdicts.missing import decide, least_missing
from aigc_lab.verdicts.sentences import Sentences, of_splits
from aigc_lab.verdicts.states import MISSING
from calibration import pictures
from calibration.bounds import Bound
from calibration.pictures import SHOWN

NARROW = ("1 bin gone", "1 bin narrow")
# What is judged at a time, by dataset; the others as `MANY`.
ENOUGH = {"digits": 400, "ring": 500, "grid": 1500, "captions": 1000, "stacked": 10_000}
MANY = 1500
SCORED: tuple[Literal["reference"], Literal["holdout"]] = ("reference", "holdout")
CAPTIONS = "text/coco_train.txt"
# Knobs of a dataset that is not judged as its defaults are.
OPTIONS: dict[str, dict[str, object]] = {
    "captions": {"path": CAPTIONS},
    "shapes": {"size": 16, "channels": 1, "train": 20_000, "reference": 4000, "holdout": 4000},
}
Case = Callable[[torch.Generator], Tensor]


@dataclass(frozen=True)
class Bench:
    """Real vectors [m, d] that nothing was judged by, their bins [m], the same ones blurred at several levels, and
    vectors of noise. Of text the last number of each is how strange it is; of images, which of the `images` it is of.
    """

    name: str
    judge: Judge
    n: int
    real: Tensor
    of: Tensor
    blurred: dict[str, Tensor]
    noise: Tensor
    strange: bool = False
    images: Tensor | None = None
    pictures: Pictures | None = None

    def said(self, made: Tensor) -> Collapse:
        if self.width == made.shape[1]:
            return self.judge.judge(made).verdict
        vectors, beside = made[:, :-1], made[:, -1]
        alike = torch.unique(made, dim=0, return_inverse=True)[1]
        if self.images is None or self.pictures is None:
            return self.judge.judge(vectors, Beside(alike, beside)).verdict
        shifted = partial(self.pictures.like, Images(self.images[beside.long()]))
        return self.judge.judge(vectors, Beside(alike, shifted=shifted)).verdict

    @property
    def width(self) -> int:
        """Numbers in a vector, without the one beside."""
        return self.judge.pool.shape[1]

    @property
    def bins(self) -> int:
        return len(self.judge.bins.names)

    def proves_half(self, source: torch.Generator) -> bool:
        """Whether so many samples prove SEVERE where half of the bins are gone: in 20 sets of counts, in the least of
        which what is proved is beyond doubt.
        """
        shares, strays, thresholds = self.judge.shares, self.judge.strays, self.judge.thresholds.tolist()
        proved = []
        for _ in range(20):
            gone = torch.randperm(self.bins, generator=source) < self.bins // 2
            rates = torch.where(gone, strays, (1 - strays[gone].sum()) * shares / shares[~gone].sum())
            drawn = torch.multinomial(rates, self.n, True, generator=source)
            hits: list[int] = torch.bincount(drawn, minlength=self.bins).tolist()
            rows = [{"real": p, "threshold": least} for p, least in zip(shares.tolist(), thresholds, strict=True)]
            decide(rows, hits, self.n)
            named = sum(row["real"] for row in rows if row["state"] == MISSING)
            proved.append(max(named, least_missing(hits, self.n, shares.tolist(), thresholds)))
        return min(proved) > 1.1 * SEVERE_ABOVE

    def draw(self, source: torch.Generator, kept: Tensor | None = None, vectors: Tensor | None = None) -> Tensor:
        """N real vectors without replacement, of those that are `kept` [m]; or the same ones of other `vectors`."""
        places = torch.arange(len(self.real)) if kept is None else kept.nonzero().flatten()
        chosen = places[torch.randperm(len(places), generator=source)[: self.n]]
        return (self.real if vectors is None else vectors)[chosen]

    @property
    def usual(self) -> Tensor:
        """Which vectors are not strange by themselves [m]: of what is, near copies cannot be told from noise."""
        return self.real[:, -1] <= 1 if self.strange else torch.ones(len(self.real), dtype=torch.bool)

    def some(self, source: torch.Generator, count: int) -> Tensor:
        """Which vectors are in `count` of the bins [m]."""
        return torch.isin(self.of, torch.randperm(self.bins, generator=source)[:count])

    def again(self, source: torch.Generator, vectors: Tensor, *, near: bool = False) -> Tensor:
        """N copies, or near copies, of these."""
        made = vectors[torch.randint(len(vectors), (self.n,), generator=source)]
        away = 1e-3 * float(self.real[:, : self.width].std(0).mean()) if near else 0.0
        made[:, : self.width] += away * torch.randn((self.n, self.width), generator=source, dtype=made.dtype)
        return made

    def few(self, source: torch.Generator, count: int) -> Tensor:
        """Near copies of `count` vectors of each bin, of the half of it around its mean."""
        some = []
        for bin_ in range(self.bins):
            members = self.real[self.of == bin_]
            inner = (members - members.mean(0))[:, : self.width].norm(dim=1).argsort()[: max(count, len(members) // 2)]
            some.append(members[inner[torch.randperm(len(inner), generator=source)[:count]]])
        return self.again(source, torch.cat(some), near=True)

    def _of(self, source: torch.Generator, bin_: int, count: int) -> Tensor:
        members = (self.of == bin_).nonzero().flatten()
        return self.real[members[torch.randperm(len(members), generator=source)[:count]]]

    def narrow(self, source: torch.Generator, count: int) -> Tensor:
        """As it is, but in `count` bins one vector stands for all."""
        vectors = self.real.clone()
        for bin_ in torch.randperm(self.bins, generator=source)[:count].tolist():
            one = self._of(source, bin_, 1)
            spread = 1e-3 * (vectors[self.of == bin_] - one)
            spread[:, self.width :] = 0.0
            vectors[self.of == bin_] = self.again(source, one, near=True)[:1] + spread
        return self.draw(source, vectors=vectors)

    def mixed(self, source: torch.Generator, share: float, kept: Tensor | None = None) -> Tensor:
        """Noise in the place of a share of the vectors."""
        count = round(share * self.n)
        far = self.noise[torch.randperm(len(self.noise), generator=source)[:count]]
        return torch.cat([self.draw(source, kept)[: self.n - count], far])

    def thin(self, source: torch.Generator, count: int, share: float) -> Tensor:
        """Of `count` bins only a share of the vectors."""
        stays = torch.rand(len(self.real), generator=source) < share
        return self.draw(source, ~self.some(source, count) | stays)

    def cases(self) -> dict[str, Case]:
        """Truth -> what makes a set of it."""
        third, half = max(1, self.bins // 3), self.bins // 2
        most = self.bins - 1
        return {
            "honest": self.draw,
            "1 bin gone": lambda g: self.draw(g, ~self.some(g, 1)),
            f"{third} bins gone": lambda g: self.draw(g, ~self.some(g, third)),
            f"{half} bins gone": lambda g: self.draw(g, ~self.some(g, half)),
            f"{most} bins gone": lambda g: self.again(g, self.draw(g, ~self.some(g, most)), near=True),
            f"{third} bins at 10 %": lambda g: self.thin(g, third, 0.1),
            f"{third} bins at 25 %": lambda g: self.thin(g, third, 0.25),
            f"{third} bins at 50 %": lambda g: self.thin(g, third, 0.5),
            "each twice": lambda g: self.draw(g)[: self.n // 2].repeat(2, 1),
            "one": lambda g: self.again(g, self.draw(g)[:1]),
            "near one": lambda g: self.again(g, self.draw(g, self.usual)[:1], near=True),
            "near 1 a bin": lambda g: self.few(g, 1),
            "near 3 a bin": lambda g: self.few(g, 3),
            "1 bin narrow": lambda g: self.narrow(g, 1),
            "half noise": lambda g: self.mixed(g, 0.5),
            f"half noise, {half} bins gone": lambda g: self.mixed(g, 0.5, ~self.some(g, half)),
            "noise": lambda g: self.noise[torch.randperm(len(self.noise), generator=g)[: self.n]],
        } | {name: partial(self.draw, vectors=vectors) for name, vectors in self.blurred.items()}


def bench(name: str, settings: Settings, size: int | None = None) -> Bench:
    """Of the training split, judged as a run on the dataset is, `size` samples at a time."""
    n = size or ENOUGH.get(name, MANY)
    kind = plugins.find(Dataset, {"captions": "lines", "stacked": "stacked_mnist"}.get(name, name))  # type: ignore[type-abstract]
    dataset = kind(kind.Config.model_validate(OPTIONS.get(name, {})), settings.data_dir)
    source = generator("bench", name)
    vectors_of = _vectors(dataset, settings)
    splits = [_part(dataset.load(split), max(min(2 * n, 13_000), n), source) for split in SCORED]
    train = _part(dataset.load("train"), max(min(8 * n, 30_000), 3 * n), source)
    apart = vectors_of(_part(dataset.load("train"), 5000, source))
    read = vectors_of
    if isinstance(train, Text):
        # What a language model has read is not strange to it: it is given one half, and the other is what is judged.
        learned, train = train.take(slice(len(train) // 2)), train.take(slice(len(train) // 2, None))
        corpora = [each.corpus for each in (*splits, learned) if isinstance(each, Text)]
        read = partial(_with_strangeness, vectors_of, of_splits(corpora[:2], corpora[2]))
    numbered = _Numbered(vectors_of)
    if isinstance(train, Images):
        read = numbered
    pool, real = torch.cat([vectors_of(split) for split in splits]), read(train)
    labels = [split.labels for split in splits if split.labels is not None]
    if dataset.modes is not None:
        bins = Bins.of_centres(pool, dataset.modes.centres)
        of = assign(real, dataset.modes.centres)
    elif labels and train.labels is not None:
        bins, of = Bins.of_labels(torch.cat(labels)), train.labels
    else:
        bins = Bins.of_clusters(pool, n, apart)
        assert bins.centres is not None
        of = assign(vectors_of(train), bins.centres)
    blurred = {what: read(samples) for what, samples in _blurred(train, dataset, source)}
    made = Bench(name, Judge(pool, bins, name), n, real, of, blurred, read(_noise(train, source)))
    if not isinstance(train, Images):
        return replace(made, strange=isinstance(train, Text))
    every = Images(torch.cat([split.canonical().values for split in splits]))
    return replace(made, images=torch.cat(numbered.images), pictures=Pictures(every.take, vectors_of))


class _Numbered:
    """Vectors of images with a number beside each: its place among all the `images` that were read."""

    def __init__(self, vectors_of: Callable[[Samples], Tensor]) -> None:
        self._vectors_of = vectors_of
        self.images: list[Tensor] = []

    def __call__(self, samples: Samples) -> Tensor:
        first = sum(map(len, self.images))
        self.images.append(samples.canonical().values)
        numbers = torch.arange(first, first + len(samples), dtype=torch.float64)
        return torch.cat([self._vectors_of(samples).double(), numbers[:, None]], 1)


def _with_strangeness(vectors_of: Callable[[Samples], Tensor], sentences: Sentences, samples: Samples) -> Tensor:
    assert isinstance(samples, Text)
    strange = torch.from_numpy(sentences.strangeness(samples.corpus))
    return torch.cat([vectors_of(samples).double(), strange[:, None]], 1)


def _part(samples: Samples, count: int, source: torch.Generator) -> Samples:
    return samples.take(torch.randperm(len(samples), generator=source)[:count])


def _vectors(dataset: Dataset, settings: Settings) -> Callable[[Samples], Tensor]:
    if dataset.modes is not None:
        return lambda samples: samples.canonical().values
    name = {"stacked_mnist": "stacked_digits"}.get(dataset.name, "classifier")
    extractor = find_extractor("sentences" if isinstance(dataset.load("train"), Text) else name).prepare(
        dataset, cache=settings.shared_cache, weights=settings.weights, device="cpu", say=print
    )
    return lambda samples: extractor.extract(samples).vectors


def _blurred(samples: Samples, dataset: Dataset, source: torch.Generator) -> Iterator[tuple[str, Samples]]:
    """The same samples, of which every mode is there, at several levels of what is no longer right."""
    if isinstance(samples, Points):
        assert dataset.modes is not None
        for factor in (1.2, 1.5, 2.0, 3.0):
            width = dataset.modes.sigma * (factor**2 - 1) ** 0.5
            yield (
                f"σ × {factor}",
                Points(samples.values + width * torch.randn(samples.values.shape, generator=source), samples.labels),
            )
    elif isinstance(samples, Images):
        pixels = samples.unit()
        for sigma in (0.5, 0.7, 0.9, 1.2):
            yield f"blur of {sigma} pixels", Images(_smooth(pixels, sigma))
        for sigma in (0.05, 0.1, 0.2, 0.4):
            noisy = pixels + sigma * torch.randn(pixels.shape, generator=source)
            yield f"pixels' noise of {sigma}", Images(noisy.clamp(0, 1))
    else:
        assert isinstance(samples, Text)
        for share in (0.05, 0.1, 0.2):
            other = _words(samples, source)
            wrong = (torch.rand(samples.values.shape, generator=source) < share) & (samples.values >= len(SPECIAL))
            yield (
                f"{share:.0%} of words wrong",
                Text(torch.where(wrong, other, samples.values), vocabulary=samples.vocabulary),
            )


def _smooth(pixels: Tensor, sigma: float) -> Tensor:
    """A Gaussian filter over each channel."""
    away = torch.arange(-4.0, 5.0)
    line = torch.exp(-away.square() / (2 * sigma**2))
    line, channels = line / line.sum(), pixels.shape[1]
    wide = F.pad(pixels, (4, 4, 4, 4), mode="reflect")
    rows = F.conv2d(wide, line.expand(channels, 1, 1, 9), groups=channels)
    return F.conv2d(rows, line[:, None].expand(channels, 1, 9, 1), groups=channels).clamp(0, 1)


def _words(samples: Text, source: torch.Generator) -> Tensor:
    """Words drawn by how often they occur, as many as there are places [N, L]."""
    known = samples.values[samples.values >= len(SPECIAL)]
    return known[torch.randint(len(known), samples.values.shape, generator=source)]


def _noise(samples: Samples, source: torch.Generator) -> Samples:
    """Uniform over thrice the range of points, over all pictures, or over all words."""
    if isinstance(samples, Points):
        reach = 3 * samples.values.abs().max()
        return Points((2 * torch.rand(samples.values.shape, generator=source) - 1) * reach)
    if isinstance(samples, Images):
        return Images(torch.rand(samples.unit().shape, generator=source))
    assert isinstance(samples, Text)
    drawn = torch.randint(len(SPECIAL), len(samples.vocabulary), samples.values.shape, generator=source)
    return Text(torch.where(samples.values >= len(SPECIAL), drawn, samples.values), vocabulary=samples.vocabulary)


# ---- the tables


def collapse(count: int, others: int, seed: int, names: Sequence[str] = (), size: int | None = None) -> list[Bound]:
    """How often each truth gets each verdict, by dataset, and what is promised of it. `count` sets are honest, and of
    each other truth there are as many as said; a set holds `size` samples, or as many as is usual of the dataset.
    """
    settings = Settings.load()
    files = {"mnist": settings.data_dir / "MNIST", "captions": settings.data_dir / CAPTIONS}
    every = ("digits", "shapes", "ring", "grid", *files, *pictures.BENCHES)
    there = [name for name in every if name not in files or files[name].exists()]
    bounds = []
    for name in names or there:
        if name in pictures.BENCHES:
            bounds += pictures.table(name, count, others, seed)
        else:
            bounds += table(bench(name, settings, size), count, others, seed)
    return bounds


def table(bench: Bench, count: int, others: int, seed: int) -> list[Bound]:
    """The confusions of one dataset."""
    powerful = bench.proves_half(generator("power", bench.name, seed))
    print(f"{bench.name}: {bench.n} samples, pool {len(bench.judge.pool)}, {bench.bins} bins")
    how = "prove" if powerful else "do not prove"
    print(f"so many samples {how} that half of the bins are gone, and {needed(bench.bins)} decide about each bin")
    print(f"{'truth, % of which are':32}" + "".join(f"{name:>14}" for name in SHOWN))
    said: dict[str, Counter[Collapse]] = {}
    for number, (truth, make) in enumerate(bench.cases().items()):
        source = generator("calibrate", bench.name, number, seed)
        sets = count if truth == "honest" else others
        said[truth] = Counter(bench.said(make(source)) for _ in range(sets))
        row = "".join(f"{100 * said[truth][each] / sets:14.1f}" for each in SHOWN)
        print(f"{truth:32}{row}", flush=True)
    print()

    def among(truths: Sequence[str], verdicts: Set[Collapse]) -> float:
        sets = [said[truth] for truth in truths]
        return sum(each[verdict] for each in sets for verdict in verdicts) / sum(each.total() for each in sets)

    grave = {Collapse.SEVERE, Collapse.TOTAL}
    half = bench.bins // 2
    bounds = [
        Bound(f"{bench.name}, honest: PARTIAL or worse", among(["honest"], FOUND), most=0.01),
        Bound(f"{bench.name}, blurred: PARTIAL or worse", among([*bench.blurred], FOUND), most=0.01),
        Bound(f"{bench.name}, half noise: PARTIAL or worse", among(["half noise"], FOUND), most=0.01),
        Bound(f"{bench.name}, noise: UNMEASURABLE", among(["noise"], {Collapse.UNMEASURABLE}), least=0.99),
        Bound(f"{bench.name}, one: TOTAL", among(["one", "near one"], {Collapse.TOTAL}), least=0.99),
    ]
    if bench.n >= 20 * bench.bins:  # ten in a bin that look real, at the least: of fewer nothing is said
        each = among(["near 1 a bin"], {Collapse.TOTAL})
        bounds.append(Bound(f"{bench.name}, near 1 a bin: TOTAL", each, least=0.99))
    third = max(1, bench.bins // 3)
    wanting = [f"{third} bins gone", f"{half} bins gone", f"{third} bins at 10 %", "each twice", "near 3 a bin"]
    bounds.append(Bound(f"{bench.name}, something wanting: NONE", among(wanting, {Collapse.NONE}), most=0.01))
    if 1 / bench.bins > NOTHING:  # of less nothing is said
        bounds.append(Bound(f"{bench.name}, 1 bin gone, 1 narrow: NONE", among(NARROW, {Collapse.NONE}), most=0.02))
    if powerful:
        lacking = [f"{half} bins gone", f"{bench.bins - 1} bins gone"]
        bounds.append(Bound(f"{bench.name}, half and more gone: SEVERE or TOTAL", among(lacking, grave), least=0.99))
    return bounds
