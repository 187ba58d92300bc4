"""What is known of samples beside their vectors: an autoencoder's unused code, copies among pictures, classes."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from worlds import NAMES, world

from aigc_lab import noise
from aigc_lab.errors import UsageError
from aigc_lab.extractors.base import choice
from aigc_lab.metrics.base import Score
from aigc_lab.samples import Images, Points
from aigc_lab.scoring.collapse_judge import equal, judged, with_code
from aigc_lab.scoring.given_collapse import classes_of
from aigc_lab.verdicts.bins import Bins
from aigc_lab.verdicts.collapse import Judge
from aigc_lab.verdicts.conclusion import Collapse, CollapseVerdict

TEN = SimpleNamespace(config=SimpleNamespace(latent_size=10))
SAID = CollapseVerdict(Collapse.INCONCLUSIVE, "few", 100, 0, 0, 1, 0.9, 0.8, 1.0, 0, [], "features|v:1")


def active(value: float, high: float) -> list[Score]:
    return [Score("active_units", value, value, high, 150, 10, "elbo|v:2", "higher")]


def test_a_code_of_which_less_than_a_fifth_is_used_is_the_verdict() -> None:
    found = with_code(SAID, active(1, 1), TEN)
    assert found == replace(
        SAID,
        verdict=Collapse.POSTERIOR,
        reason="1 of 10 latents are used (at most 1, of 150 samples); of the samples: few",
    )
    alone = with_code(None, active(0, 0), TEN)
    assert alone is not None and alone.verdict == Collapse.POSTERIOR and alone.signature == "elbo|v:2"


@pytest.mark.parametrize("scores", [active(1, 2), active(5, 9), []])
def test_a_code_that_may_be_used_is_none(scores: list[Score]) -> None:
    assert with_code(SAID, scores, TEN) is SAID
    assert with_code(None, scores, TEN) is None


def test_what_is_reconstructed_no_better_than_by_the_mean_is_the_verdict() -> None:
    pictures = Images(torch.rand((200, 1, 4, 4), generator=torch.Generator().manual_seed(0)))
    some = pictures.take(choice(200, 100)).unit().double().numpy()  # those that were reconstructed
    mean = float(((some - some.mean(0)) ** 2).mean())

    def said(error: float, reference: object = pictures) -> CollapseVerdict | None:
        score = Score("reconstruction_mse", error, 0.9 * error, 1.1 * error, 100, 0.01, "mse|v:1", "lower")
        return with_code(SAID, [*active(9, 10), score], TEN, reference)

    found = said(0.96 * mean)
    assert found is not None and found.verdict == Collapse.POSTERIOR
    errors = f"an error of {0.96 * mean:.3g}, beside {mean:.3g}"
    assert f"no better than by their mean: {errors}; of the samples" in found.reason
    assert said(0.94 * mean) is SAID and said(2 * mean, None) is SAID
    for worse in (Collapse.SEVERE, Collapse.TOTAL):
        score = Score("reconstruction_mse", mean, mean, mean, 100, 0.01, "mse|v:1", "lower")
        assert with_code(replace(SAID, verdict=worse), [score], TEN, pictures) == replace(SAID, verdict=worse)


@pytest.mark.parametrize("worse", [Collapse.PARTIAL, Collapse.SEVERE, Collapse.TOTAL])
def test_what_is_missing_among_the_samples_is_worse(worse: Collapse) -> None:
    said = replace(SAID, verdict=worse)
    assert with_code(said, active(0, 0), TEN) is said


def test_a_system_without_a_code_has_none_to_lose() -> None:
    assert with_code(SAID, active(0, 0), object()) is SAID


# ---- pictures


def test_pictures_are_copies_by_their_pixels() -> None:
    """Vectors of copies may differ by rounding: a last batch of another size is computed in another order."""
    made = world().draw(400, "pictures").double()
    pixels = torch.rand((400, 1, 4, 4), generator=noise.generator("pixels"))
    pixels[40:] = pixels[:40].repeat(9, 1, 1, 1)
    assert judged(world().judge, made, None, Images(pixels)).duplicates == pytest.approx(0.9)
    assert judged(world().judge, made, None, Images((255 * pixels).round().byte())).duplicates == pytest.approx(0.9)
    assert judged(world().judge, made, None, Images(torch.rand((400, 1, 4, 4)))).duplicates == 0


def test_copies_among_real_pictures_are_no_fault_of_generated_ones() -> None:
    """Counted alike on both sides: by pixels, though vectors of copies differ by rounding."""
    source = noise.generator("twice")
    vectors = world().draw(800, "once").double().repeat(2, 1)
    pixels = Images(torch.rand((800, 1, 4, 4), generator=source).repeat(2, 1, 1, 1))
    vectors += 1e-6 * torch.randn(vectors.shape, generator=source)
    bins = Bins.of_labels(world().labelled(800, "once")[1].repeat(2), NAMES)
    some = torch.randperm(1600, generator=source)[:400]
    by_pixels = Judge(vectors, bins, "twice", splits=20, alike=equal(pixels))
    found = judged(by_pixels, vectors[some], None, Images(pixels.values[some]))
    # Of 400 of 800 pairs drawn at random an eighth is there twice.
    assert found.null is not None and found.null["duplicates"] == pytest.approx(0.125, abs=0.03)
    assert found.duplicates < 0.05
    # In whichever order real samples come: the numbers go with them.
    order = torch.randperm(1600, generator=source)
    moved = replace(bins, of=bins.of[order])
    again = Judge(vectors[order], moved, "twice", splits=20, alike=equal(Images(pixels.values[order])))
    assert again.digest == by_pixels.digest and again.null(400) == by_pixels.null(400)
    by_vectors = Judge(vectors, bins, "twice", splits=20)
    assert by_vectors.null(400).duplicates == 0 and by_vectors.digest != by_pixels.digest


def test_equal_samples_of_several_sets_share_a_number() -> None:
    first, second = (torch.rand((700, 1, 2, 2), generator=noise.generator("equal", at)) for at in (0, 1))
    second[3], second[650], first[600] = first[5], first[5], second[0]
    sets = (Images(first), Images((255 * second).round().byte()))
    numbers = equal(*sets)
    assert numbers is not None and len(numbers) == 1400 and len(torch.unique(numbers)) == 1397
    assert numbers[5] == numbers[703] == numbers[1350] and numbers[600] == numbers[700]
    rows = torch.tensor([1350, 5, 600, 700, 9])
    some = equal(*sets, rows=rows)
    assert some is not None and some[0] == some[1] and some[2] == some[3] and len(torch.unique(some)) == 3
    assert equal(Points(first[:, 0, 0])) is None


@pytest.mark.parametrize("kind", [np.uint16, np.int8, bool])
def test_classes_may_be_whole_numbers_of_any_kind(kind: Any) -> None:
    numbers, names = classes_of(np.array([0, 1, 1], kind))  # type: ignore[arg-type]
    assert numbers.tolist() == [0, 1, 1] and names is None and int(numbers.max()) == 1


@pytest.mark.parametrize("labels", [[1, "a"], [[1], [2, 3]], [1.5], [None]])
def test_classes_that_are_neither_numbers_nor_names(labels: Any) -> None:
    with pytest.raises(UsageError, match=r"labels: are (neither whole numbers nor names|.* not one whole number)"):
        classes_of(labels)
