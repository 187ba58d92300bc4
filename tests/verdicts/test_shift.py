"""A shift of all pictures is no collapse: blur, codecs and colours on pictures of which every class is there."""

import math
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from conftest import program
from torch import Tensor

from aigc_lab import noise
from aigc_lab.data.shapes import Shapes
from aigc_lab.extractors.lite0 import Lite0
from aigc_lab.extractors.shared.small_classifier import fit
from aigc_lab.host.weights import PUBLISHED
from aigc_lab.samples import Images
from aigc_lab.scoring.collapse_judge import Pictures, chosen_bins, judged
from aigc_lab.verdicts import shift
from aigc_lab.verdicts.collapse import Judge
from aigc_lab.verdicts.conclusion import FOUND, Collapse, CollapseVerdict

COUNT = 500


class Known(NamedTuple):
    """Generated colour pictures of ten textures, and what judges them."""

    textures: Any
    judge: Judge
    real: Images
    network: Any

    def vectors(self, images: Images) -> Tensor:
        with torch.inference_mode():
            return torch.cat([self.network(part)[0] for part in torch.split(images.values, 350)])

    def said(self, made: Images) -> CollapseVerdict:
        return judged(self.judge, self.vectors(made), None, made, Pictures(self.real.take, self.vectors))


@cache
def known(kind: str, labelled: bool) -> Known:
    textures = program("calibration.pictures")
    source = noise.generator("textures of a test")
    train, real = textures.pictures(2000, source), textures.pictures(2 * COUNT, source)
    made = Known(textures, None, real, textures._features(kind, train))  # type: ignore[arg-type]
    pool = made.vectors(real)
    labels = real.labels if labelled else None
    bins, _ = chosen_bins(
        pool,
        COUNT,
        labels=labels,
        names=textures.CLASSES,
        apart=lambda: made.vectors(train),
        by=textures.Random() if kind == "random" else textures._Trained(),
    )
    return made._replace(judge=Judge(pool, bins, kind, splits=20))


def draw(name: str, of: tuple[int, ...] | None = None) -> Images:
    found: Images = program("calibration.pictures").pictures(COUNT, noise.generator("drawn", name), of)
    return found


def test_blur_is_in_the_way_and_classes_that_are_gone_are_gone() -> None:
    by = known("trained", True)
    assert by.judge.bins.noun[0] == "class" and by.judge.accuracy is not None and by.judge.accuracy > 0.9
    assert by.said(draw("honest")).verdict == Collapse.NONE
    for sigma in (1.0, 3.0):
        found = by.said(by.textures.blurred(draw("blurred"), sigma))
        assert found.verdict == Collapse.INCONCLUSIVE and "a shift of all samples" in found.reason, found.reason
        # The evidence: of real pictures with the same blur fewer are sorted right, and nothing is called missing.
        assert found.accuracy == by.judge.accuracy and found.accuracy_shifted is not None
        assert found.accuracy_shifted < 0.9 * found.accuracy and found.missing_low == 0
        assert "fine checks" in found.reason and not [row for row in found.bins if row["state"] == "missing"]
    gone = by.said(draw("gone", (0, 1, 3, 4, 6, 7, 8)))
    names = {row["name"] for row in gone.bins if row["state"] == "missing"}
    assert gone.verdict == Collapse.SEVERE and names == {"level stripes", "fine checks", "slanted stripes"}
    assert gone.accuracy_shifted == pytest.approx(gone.accuracy, abs=0.03)
    # Classes that are gone are found in pictures that are a little blurred too.
    both = by.said(by.textures.blurred(draw("both", (0, 1, 3, 7, 8)), 0.5))
    assert both.verdict == Collapse.SEVERE, both.reason


@pytest.mark.parametrize("labelled", [True, False])
def test_an_untrained_network_neither_misses_colours_nor_says_that_all_is_there(labelled: bool) -> None:
    by = known("random", labelled)
    assert by.judge.bins.noun[0] == "cluster"
    for made in (
        draw("honest"),
        draw("two gone", tuple(range(2, 10))),
        draw("five gone", (0, 2, 4, 6, 8)),
        by.textures.tinted(draw("paler"), (1.0, 1.0, 1.0), colour=0.4),
        by.textures.tinted(draw("darker"), (0.7, 0.7, 0.7)),
        by.textures.blurred(draw("blurred"), 1.0),
        by.textures.compressed(draw("compressed"), 20),
    ):
        found = by.said(made)
        assert found.verdict == Collapse.INCONCLUSIVE, found.reason
        why = "do not show that nothing is" in found.reason or "a shift of all samples" in found.reason
        assert why, found.reason
        if labelled:
            assert found.accuracy is not None and found.accuracy < 0.5
            assert f"the features sort {found.accuracy:.0%} of real samples into their classes" in found.reason
            assert any(class_ in row["name"] for row in found.bins for class_ in by.textures.CLASSES)
        else:
            assert found.accuracy is None
    few = by.said(by.textures._few(noise.generator("few")).take(slice(0, COUNT)))
    assert few.verdict in FOUND, few.reason  # few pictures over and over are no shift


def test_clusters_of_pictures_do_not_show_that_nothing_is_missing() -> None:
    """Of a network whose accuracy nobody can measure, for no classes are known."""
    by = known("trained", False)
    honest = by.said(draw("honest"))
    assert honest.verdict == Collapse.INCONCLUSIVE and "no classes of the real samples are known" in honest.reason
    assert by.said(draw("one gone", tuple(range(1, 10)))).verdict != Collapse.NONE
    assert by.said(draw("five gone", (0, 3, 5, 6, 7))).verdict in FOUND
    for sigma in (1.0, 3.0):
        assert by.said(by.textures.blurred(draw("blurred"), sigma)).verdict == Collapse.INCONCLUSIVE


# ---- real pictures that look as generated ones do


def spectrum(images: Tensor) -> Tensor:
    """The mean logarithm of each frequency's power in luminance."""
    grey = images.double().mean(1)
    found: Tensor = (torch.fft.rfft2(grey, norm="ortho").abs().square() + 1 / 12).log().mean(0)
    return found


@pytest.mark.parametrize("sigma", [0.6, 1.0])
def test_the_filter_of_a_blur_is_found(sigma: float) -> None:
    """By other pictures that are blurred: the real ones are made to have the power that they have blurred themselves,
    which is near the closed form, a gain of exp(−(2πσf)² / 2), where rounding to bytes is not seen.
    """
    textures = program("calibration.pictures")
    real, other = textures.pictures(800, noise.generator("real")), textures.pictures(800, noise.generator("other"))
    made = shift.shifted(real.values, textures.blurred(other, sigma).values, torch.ones(800))
    found, before = spectrum(made), spectrum(real.values)
    wanted = spectrum(textures.blurred(real, sigma).values)
    assert (found - wanted).abs().mean() < 0.1 * (before - wanted).abs().mean()
    frequencies = (torch.fft.fftfreq(32)[:, None] ** 2 + torch.fft.rfftfreq(32)[None] ** 2).double()
    gain = -2 * (math.pi * sigma) ** 2 * frequencies
    strong = (frequencies > 0.005) & (gain > -0.3)
    assert ((found - before) / 2 - gain)[strong].abs().mean() < 0.1


def test_colours_are_moved_as_those_of_the_generated_pictures_are() -> None:
    textures = program("calibration.pictures")
    real, other = textures.pictures(1500, noise.generator("real")), textures.pictures(1500, noise.generator("other"))
    change = partial(textures.tinted, gains=(1.1, 0.9, 0.7), offset=0.05, colour=0.6)
    made = shift.shifted(real.values, change(other).values, torch.ones(1500)).double().mean((2, 3))
    wanted = change(real).values.double().mean((2, 3))
    assert (made.mean(0) - wanted.mean(0)).abs().max() < 4
    assert torch.allclose(torch.cov(made.T), torch.cov(wanted.T), rtol=0.15, atol=60)
    assert (made - wanted).norm(dim=1).median() < 12  # of 255, and each picture is moved as itself


def test_what_is_alike_is_not_changed() -> None:
    textures = program("calibration.pictures")
    real = textures.pictures(600, noise.generator("real"))
    other = textures.pictures(600, noise.generator("other"))
    away = (shift.shifted(real.values, other.values, torch.ones(600)).double() - real.values.double()).square()
    assert away.mean().sqrt() < 6
    # Weights say of which of the real pictures the means are: of some alone others are no measure.
    plain = real.values[real.labels == 0]
    weights = (real.labels == 0).double()
    again = shift.shifted(real.values, plain, weights)
    assert (again.double() - real.values.double()).square().mean().sqrt() < 1


@pytest.mark.parametrize("forms", [(0, 1), (2, 3), (2,)])
def test_forms_that_are_gone_are_no_noise(forms: tuple[int, ...]) -> None:
    """On a flat ground nothing may be added to real pictures because the power of some hundred is known roughly; noise
    that all pictures have is added as it is.
    """
    real, other = (
        Shapes(Shapes.Config(size=16, channels=1, holdout=3000), Path()).load("holdout").take(rows)
        for rows in (slice(0, 1000), slice(1000, 3000))
    )
    assert real.labels is not None and other.labels is not None
    few = other.take(torch.isin(other.labels, torch.tensor(forms)).nonzero().flatten()[:300])
    weights = torch.isin(real.labels, torch.tensor(forms)).double()
    ground = F.max_pool2d(real.values.float(), 5, 1, 2) == 0  # nothing within two pixels
    assert ground.double().mean() > 0.2
    assert shift.shifted(real.values, few.values, weights)[ground].double().square().mean().sqrt() < 1  # of 255
    grain = 20 * torch.randn(few.values.shape, generator=noise.generator("grain of a test"))
    noisy = (few.values + grain).round().clamp(0, 255).byte()
    added = shift.shifted(real.values, noisy, weights)[ground].double().square().mean().sqrt()
    assert added > 0.6 * noisy[few.values == 0].double().square().mean().sqrt()  # what blacker than black hides is lost


@cache
def forms_by_their_classifier() -> tuple[Judge, Images, Images, Any]:
    """The judge of drawn shapes by a classifier of their forms, the real ones, others, and what makes vectors."""
    dataset = Shapes(Shapes.Config(size=16, channels=1, train=5000, reference=1200, holdout=1000), Path())
    network, real = fit(dataset.load("train"), dataset.shape, 150).eval(), dataset.load("reference")

    @torch.inference_mode()
    def vectors(images: Images) -> Tensor:
        return torch.cat([network(part)[0] for part in torch.split(images.values, 500)])

    pool = vectors(real)
    bins, by = chosen_bins(pool, 600, labels=real.labels, names=dataset.class_names)
    assert by == "classes"
    return Judge(pool, bins, "forms", splits=20), real, dataset.load("holdout"), vectors


@pytest.mark.parametrize(
    ("forms", "sigma", "verdict"),
    [
        ((0, 1, 2, 3), None, {Collapse.NONE}),
        ((0, 1), None, {Collapse.SEVERE}),
        ((2, 3), None, {Collapse.SEVERE}),
        ((0, 1, 3), None, {Collapse.PARTIAL, Collapse.SEVERE}),
        ((0, 1, 2, 3), 0.7, {Collapse.INCONCLUSIVE, Collapse.UNMEASURABLE}),
        ((0, 1, 2, 3), 0.9, {Collapse.INCONCLUSIVE, Collapse.UNMEASURABLE}),
        ((0, 1, 2, 3), 1.2, {Collapse.INCONCLUSIVE, Collapse.UNMEASURABLE}),
    ],
)
def test_of_drawn_shapes_forms_that_are_gone_are_found_and_blur_is_none(
    forms: tuple[int, ...], sigma: float | None, verdict: set[Collapse]
) -> None:
    judge, real, other, vectors = forms_by_their_classifier()
    assert other.labels is not None
    made = other.take(torch.isin(other.labels, torch.tensor(forms)).nonzero().flatten())
    if sigma is not None:
        made = program("calibration.pictures").blurred(made, sigma)
    found = judged(judge, vectors(made), None, made, Pictures(real.take, vectors))
    assert found.verdict in verdict, found.reason


# ---- blur that no class explains


def test_blurred_pictures_have_less_detail_than_any_class_of_real_ones() -> None:
    """Nothing that sharp pictures show has so little: not the plainest class alone, nor a few pictures repeated."""
    textures = program("calibration.pictures")
    real, made = textures.pictures(800, noise.generator("real")), textures.pictures(400, noise.generator("made"))
    plain = textures.pictures(400, noise.generator("plain"), (0,))
    assert real.labels is not None
    for sigma in (0.7, 1.0, 3.0):
        for images in (made, plain):
            assert shift.blurred(real.values, textures.blurred(images, sigma).values, real.labels)
    repeated = plain.take(torch.arange(8).repeat(50))
    for images in (made, plain, repeated, textures.pictures(400, noise.generator("half"), (0, 3, 4, 6, 8))):
        assert not shift.blurred(real.values, images.values, real.labels)
    # Where real pictures have flat grounds, as digits do, nothing has less detail than nothing.
    flat = torch.zeros((40, 1, 8, 8), dtype=torch.uint8)
    assert not shift.blurred(flat, flat, torch.zeros(40, dtype=torch.int64))
    assert not shift.blurred(flat[..., :2], flat[..., :2], torch.zeros(40, dtype=torch.int64))


def test_blur_takes_stripes_along_the_axes_away() -> None:
    """By pictures of all classes that are blurred: real stripes lose what they lose blurred themselves, although the
    ends of a picture differ, which a Fourier transform takes for detail along its axes.
    """
    textures = program("calibration.pictures")
    real, other = textures.pictures(300, noise.generator("real")), textures.pictures(500, noise.generator("other"))
    made = shift.shifted(real.values, textures.blurred(other, 3.0).values, torch.ones(300)).double()
    wanted = textures.blurred(real, 3.0).values.double()
    away = (made - wanted).square().mean((1, 2, 3)).sqrt()
    assert real.labels is not None
    for class_ in (1, 2, 3, 4):
        assert away[real.labels == class_].mean() < 7, textures.CLASSES[class_]  # of 255; 10 to 15 by Fourier's


@pytest.mark.parametrize("sigma", [0.7, 1.0, 1.5])
def test_real_pictures_that_were_made_alike_are_sorted_as_blurred_ones_are(sigma: float) -> None:
    """The evidence that is shown, `accuracy_shifted`, beside the truth: the same real pictures, blurred."""
    by = known("trained", True)
    of = by.judge.bins_of(by.vectors(by.textures.blurred(by.real, sigma)).double())
    assert by.real.labels is not None
    truth = (of == by.real.labels).double().mean().item()
    made = by.textures.blurred(draw("alike"), sigma)
    like = partial(Pictures(by.real.take, by.vectors).like, made)
    assert by.judge._shift(by.judge.bins_of(by.vectors(made).double()), like).accuracy == pytest.approx(truth, abs=0.04)


def test_classes_that_blurred_pictures_seem_to_show_say_nothing_of_the_blur() -> None:
    """Blurred pictures are taken for the plainest class: weights of that class alone change nothing then. Of sharp ones
    they say of which real pictures the means are.
    """
    textures = program("calibration.pictures")
    real, other = textures.pictures(400, noise.generator("real")), textures.pictures(300, noise.generator("other"))
    assert real.labels is not None
    pictures = Pictures(real.take, lambda images: images.values.flatten(1).double())
    plain, even = (real.labels == 0).double(), torch.ones(400)
    for made, differ in ((textures.blurred(other, 1.0), False), (textures.blurred(other, 3.0), False), (other, True)):
        by_plain, by_all = (pictures.like(made, weights, real.labels)[0] for weights in (plain, even))
        assert torch.equal(by_plain, by_all) != differ


def test_lite0_sees_blur_and_what_is_gone() -> None:
    """The features of pictures without a classifier of their own, of 64 pixels a side for speed; without labels."""
    textures, count = program("calibration.pictures"), 300
    network = Lite0(Lite0.built(Lite0.published.found(PUBLISHED), 64), "test")

    @torch.inference_mode()
    def vectors(images: Images) -> Tensor:
        return torch.cat([network(part)[0] for part in torch.split(images.values, Lite0.block)])

    real, made = (
        textures.pictures(2 * count, noise.generator("lite0")),
        textures.pictures(count, noise.generator("made")),
    )
    pool = vectors(real)
    bins, by = chosen_bins(pool, count, by=network)
    judge = Judge(pool, bins, "lite0", splits=20)
    assert by == "clusters"
    for sigma in (None, 3.0):
        images = made if sigma is None else textures.blurred(made, sigma)
        found = judged(judge, vectors(images), None, images, Pictures(real.take, vectors))
        assert found.verdict == Collapse.INCONCLUSIVE, found.reason
        assert ("blur" in found.reason) == (sigma is not None)
    gone = textures.pictures(count, noise.generator("gone"), (0, 3, 5, 6, 7))
    assert judged(judge, vectors(gone), None, gone, Pictures(real.take, vectors)).verdict in FOUND


def test_the_cosine_transform_is_orthonormal() -> None:
    """scipy's DCT-II, of which the matrices are the definition."""
    from scipy.fft import dctn

    pictures = (255 * torch.rand((3, 1, 6, 9), generator=noise.generator("cosines"))).byte()
    waves, means = shift._waves(pictures, torch.eye(1))
    assert torch.allclose(waves, torch.from_numpy(dctn(pictures.double().numpy(), axes=(2, 3), norm="ortho")))
    assert torch.allclose(means, pictures.double().mean((2, 3)))
    for height, width in ((1, 5), (5, 1)):
        tiny = (255 * torch.rand((9, 3, height, width), generator=noise.generator("tiny"))).byte()
        assert shift.shifted(tiny, tiny, torch.ones(9)).shape == tiny.shape


def test_the_mean_logarithm_of_white_noise_is_corrected_by_what_is_said() -> None:
    grain = torch.randn((4000, 1, 16, 16), generator=noise.generator("grain"), dtype=torch.float64)
    logs = shift._power(1e3 * grain)[:, :, 3:-3, 3:-3].log().mean()
    assert (2 * math.log(1e3) - logs.item()) == pytest.approx(shift._LOG_OF_MEAN, abs=0.003)
