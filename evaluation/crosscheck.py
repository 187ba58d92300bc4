"""Our image scores beside pytorch-fid, torch-fidelity, torchmetrics and their definitions, on the same inputs.

    python evaluation/crosscheck.py                                  # two sets of digits, weights made on the spot
    python evaluation/crosscheck.py --generated A --reference B --weights pt_inception-2015-12-05-6726825d.pth
    python evaluation/crosscheck.py --count 30 --dims 64             # quick: scipy's matrix root takes 10 s at 2048

Prints the difference of each value and the ratio of the times, and exits with 1 when a difference exceeds its bound.
Random weights serve the comparison as well as the published ones: the same network is asked the same question.
"""

import argparse
import contextlib
import io
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_fid import fid_score
from pytorch_fid import inception as theirs
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from torchmetrics.image import MultiScaleStructuralSimilarityIndexMeasure

from aigc_lab.data.digits import Digits
from aigc_lab.extractors.shared import lookup
from aigc_lab.host import environment
from aigc_lab.host.settings import Settings
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.metrics.ms_ssim import ms_ssim
from aigc_lab.metrics.shared.information import exp_mutual_information
from aigc_lab.samples import Images
from aigc_lab.scoring.inputs import Pair, read_input
from aigc_lab.statistics.frechet import Gaussian, distance
from aigc_lab.statistics.mmd import customary_picks, mmd, mmd_of_subsets
from aigc_lab.statistics.neighbours import manifolds


@dataclass(frozen=True)
class Row:
    """One comparison. `bound` is of the difference: relative to theirs, or absolute where `absolute` says so."""

    what: str
    beside: str
    ours: float
    theirs: float
    bound: float
    absolute: bool = False
    seconds: float = math.nan
    their_seconds: float = math.nan

    @property
    def difference(self) -> float:
        away = abs(self.ours - self.theirs)
        return away if self.absolute else away / max(abs(self.theirs), 1e-300)

    @property
    def kept(self) -> bool:
        return self.difference <= self.bound

    def __str__(self) -> str:
        kind = "abs" if self.absolute else "rel"
        ratio = self.their_seconds / self.seconds
        speed = "" if math.isnan(ratio) else f"{self.seconds:9.3f} {self.their_seconds:9.3f} {ratio:7.1f}x"
        mark = "" if self.kept else "   TOO FAR"
        values = f"{self.ours:14.7g} {self.theirs:14.7g} {self.difference:9.1e} {kind} ≤ {self.bound:.0e}"
        return f"{self.what:26} {self.beside:22} {values} {speed}{mark}"


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        made = call()
    return made, time.perf_counter() - begun


def random_weights(path: Path, pictures: Tensor, side: int = 75) -> Path:
    """A file of the right form. Its batch normalisation has seen some pictures of so many pixels: untouched, a random
    Inception lets next to nothing through, and at another size too much.
    """
    torch.manual_seed(0)
    network = theirs._inception_v3(num_classes=1008, aux_logits=False, weights=None)  # noqa: SLF001 -- its own shapes
    with mock.patch.object(theirs, "load_state_dict_from_url", return_value=network.state_dict()):
        whole = theirs.fid_inception_v3()
    for module in whole.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        whole.train()(F.interpolate(pictures.float() / 255, (side, side)) * 2 - 1)
    torch.save(whole.state_dict(), path)
    return path


def digits(count: int) -> tuple[Images, Images]:
    """Digits in colours, and others with some noise on them."""
    data = Digits(Digits.Config(), Path())
    real, other = (data.load(split).take(slice(0, count)) for split in ("train", "reference"))
    noise = torch.randn(other.values.shape, generator=torch.Generator().manual_seed(1))
    made = Images((other.unit() + 0.1 * noise).clamp(0, 1)).canonical()
    first, second = (Images(each.values.expand(-1, 3, -1, -1).contiguous()) for each in (made, real))
    return first, second


def definition(x: Tensor, y: Tensor) -> float:
    """The Fréchet distance in numpy's float64. With A and B the centred rows over √(n − 1), Tr (Σ₁Σ₂)^½ is the sum of
    the singular values of ABᵀ: exact where covariances are singular, too, and roots of eigenvalues are not.
    """
    a, b = x.double().numpy(), y.double().numpy()
    centred = [(each - each.mean(0)) / math.sqrt(len(each) - 1) for each in (a, b)]
    inner = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    traces = sum(float((each**2).sum()) for each in centred)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + traces - 2 * inner)


def moments_of(vectors: Tensor) -> tuple[Any, Any]:
    """As pytorch-fid takes them."""
    rows = vectors.double().numpy()
    return rows.mean(0), np.cov(rows, rowvar=False)


def polynomial_mmd(x: Tensor, y: Tensor) -> float:
    """The unbiased MMD² of (x·y/d + 1)³, written out in float64."""
    a, b = x.double(), y.double()

    def kernel(u: Tensor, v: Tensor) -> Tensor:
        return (u @ v.T / u.shape[1] + 1) ** 3

    of_a, of_b = ((k.sum() - k.diagonal().sum()) / len(k) / (len(k) - 1) for k in (kernel(a, a), kernel(b, b)))
    return float(of_a + of_b - 2 * kernel(a, b).mean())


def naeem(fake: Tensor, real: Tensor, k: int = 5) -> tuple[float, float, float, float]:
    """Precision, recall, density, coverage of Naeem et al. 2020, by the four formulas, in float64."""
    a, b = fake.double(), real.double()
    within_fake, within_real, between = torch.cdist(a, a), torch.cdist(b, b), torch.cdist(b, a)
    radius_fake = within_fake.kthvalue(k + 1, 1).values
    radius_real = within_real.kthvalue(k + 1, 1).values
    inside = between < radius_real[:, None]
    precision = inside.any(0).double().mean()
    recall = (between < radius_fake[None]).any(1).double().mean()
    density = inside.double().sum(0).mean() / k
    coverage = (between.min(1).values < radius_real).double().mean()
    return float(precision), float(recall), float(density), float(coverage)


def of_features(x: Tensor, y: Tensor, logits: Tensor) -> Iterator[Row]:
    """What is computed from features alone: both get the same ones."""
    a, b = Gaussian.of(x), Gaussian.of(y)
    _ = b.root  # the reference's, which is cached
    ours, seconds = timed(lambda: distance(Gaussian.of(x), b))
    yield Row("Fréchet distance", "definition, float64", ours, definition(x, y), 1e-8)
    moments = [moments_of(each) for each in (x, y)]
    value, taken = timed(lambda: fid_score.calculate_frechet_distance(*moments[0], *moments[1]))
    yield Row("Fréchet distance", "pytorch-fid", distance(a, b), float(value), 1e-3, True, seconds, taken)
    value, taken = timed(
        lambda: fid_statistics_to_metric(fid_features_to_statistics(x), fid_features_to_statistics(y), False)
    )
    yield Row(
        "Fréchet distance", "torch-fidelity", ours, value["frechet_inception_distance"], 1e-3, True, seconds, taken
    )

    full, seconds = timed(lambda: mmd(x, y))
    yield Row("KID, all pairs", "definition, float64", full.value, polynomial_mmd(x, y), 1e-9)
    size = min(1000, len(x), len(y))
    doubled = (x.double(), y.double())  # in float32 its sums lose what small distances are made of
    theirs_, taken = timed(
        lambda: kid_features_to_metric(*doubled, kid_subsets=100, kid_subset_size=size, verbose=False)
    )
    same = mmd_of_subsets(x, y, customary_picks(len(x), len(y), 100, size))
    mean = theirs_["kernel_inception_distance_mean"]
    yield Row("KID, 100 subsets", "torch-fidelity", same.value, mean, 1e-4, False, seconds, taken)

    ours_, seconds = timed(lambda: manifolds(x, y, 3, closed=True))
    theirs_, taken = timed(
        lambda: prc_features_to_metric(x, y, prc_neighborhood=3, prc_batch_size=10000, verbose=False)
    )
    for name in ("precision", "recall"):
        pair = (getattr(ours_, name).value, theirs_[name])
        yield Row(f"improved {name}", "torch-fidelity", *pair, 1e-4, True, seconds, taken)
    ours_, truth = manifolds(x, y, 5), naeem(x, y)
    for name, value in zip(("precision", "recall", "density", "coverage"), truth, strict=True):
        yield Row(name, "definition, float64", getattr(ours_, name).value, value, 1e-9)

    order = torch.from_numpy(np.random.RandomState(2020).permutation(len(logits)))
    (ours, _), seconds = timed(lambda: exp_mutual_information(logits, 10, order))
    theirs_, taken = timed(lambda: isc_features_to_metric(logits, splits=10, shuffle=True, rng_seed=2020))
    mean = theirs_["inception_score_mean"]
    yield Row("Inception score", "torch-fidelity", ours, mean, 1e-4, False, seconds, taken)


def of_pictures(generated: Images, reference: Images, weights: Path, dims: int) -> Iterator[Row]:
    """What begins with pictures: the network, and the distances between what it makes of two sets, of which the first
    `dims` features are taken.
    """
    data = Digits(Digits.Config(), Path())
    policy = WeightsPolicy(file=weights, allow_unverified=True)
    extractor = lookup.find_extractor("inception").prepare(
        data, cache=Path(), weights=policy, device="cpu", say=lambda text: None
    )
    state = torch.load(weights, weights_only=True)
    with mock.patch.object(theirs, "load_state_dict_from_url", return_value=state):
        network = theirs.InceptionV3([theirs.InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval()

    def asked(images: Images) -> Tensor:
        with torch.inference_mode():
            parts = [network(part.float() / 255)[0].flatten(1) for part in torch.split(images.values, 50)]
        return torch.cat(parts)

    extractor.extract(generated.take(slice(0, 2)))  # both have met their first picture
    asked(generated.take(slice(0, 2)))
    made, seconds = timed(lambda: extractor.extract(generated))
    truth, taken = timed(lambda: asked(generated))
    error = float((made.vectors - truth).norm() / truth.norm())
    yield Row("Inception features", "pytorch-fid", error, 0.0, 1e-4, True, seconds, taken)
    real, true = extractor.extract(reference), asked(reference)
    # Random weights may give features of any size; those of the published ones are about 0.4, and so are the bounds.
    unit = 0.4 / truth[:, :dims].square().mean().sqrt()
    x, y, their_x, their_y = (each[:, :dims] * unit for each in (made.vectors, real.vectors, truth, true))
    moments = [moments_of(each) for each in (their_x, their_y)]
    value = float(fid_score.calculate_frechet_distance(*moments[0], *moments[1]))
    yield Row("FID", "pytorch-fid", distance(Gaussian.of(x), Gaussian.of(y)), value, 1e-3, True)

    other: Any = FeatureExtractorInceptionV3(
        "inception", ["logits_unbiased"], feature_extractor_weights_path=str(weights)
    )
    large = F.interpolate(generated.take(slice(0, 4)).values.float(), (299, 299)).round().to(torch.uint8)
    with torch.inference_mode():
        (logits,) = other(large)
        # At 299 pixels nobody resizes; its (x − 128) / 128 is put in the place of our x / 127.5 − 1.
        _, ours = extractor.network(((large.float() - 128) / 128 + 1) * 127.5)
    yield Row("logits without bias", "torch-fidelity", float((ours - logits).norm() / logits.norm()), 0.0, 1e-4, True)
    assert made.logits is not None
    yield from of_features(x, y, made.logits / made.logits.std())

    big = [F.interpolate(each.take(slice(0, 8)).unit(), (192, 192)) for each in (generated, reference)]
    ours, seconds = timed(lambda: float(ms_ssim(big[0], big[1]).mean()))
    value, taken = timed(lambda: float(MultiScaleStructuralSimilarityIndexMeasure(data_range=1.0)(big[0], big[1])))
    yield Row("MS-SSIM", "torchmetrics", ours, value, 1e-4, False, seconds, taken)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generated", help="a folder, a file or a dataset  [default: noisy digits]")
    parser.add_argument("--reference", help="a folder, a file or a dataset  [default: digits]")
    parser.add_argument("--weights", type=Path, help="Inception's  [default: random ones, made on the spot]")
    parser.add_argument("--count", type=int, default=200, help="images of each set")
    parser.add_argument("--dims", type=int, default=2048, help="of the features, take so many")
    options = parser.parse_args(words)
    environment.settle(None)
    where = Settings.load().data_dir
    with tempfile.TemporaryDirectory() as folder:
        if options.generated and options.reference:
            first, second = (read_input(each, data_dir=where) for each in (options.generated, options.reference))
            pair = Pair(first, second)
            sets = [each.take(slice(0, options.count)) for each in (pair.generated, pair.reference)]
            made, real = (Images(each.canonical().values.expand(-1, 3, -1, -1).contiguous()) for each in sets)
        else:
            made, real = digits(options.count)
        weights = options.weights or random_weights(Path(folder) / "random.pth", real.values[:24])
        print(
            f"{len(made)} images against {len(real)}; weights: {weights.name}; seconds on {environment.cores()} cores"
        )
        print(f"{'':26} {'beside':22} {'ours':>14} {'theirs':>14} {'difference':>20} {'s':>9} {'theirs':>9}   ratio")
        rows = []
        for row in of_pictures(made, real, weights, options.dims):
            rows.append(row)
            print(row, flush=True)
    wrong = [row for row in rows if not row.kept]
    print(f"{len(rows) - len(wrong)} of {len(rows)} within their bounds")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
