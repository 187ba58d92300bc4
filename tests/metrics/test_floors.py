"""What real samples score: fresh ones, taken for generated, lie within floor and interval, of whatever metric."""

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from aigc_lab import plugins
from aigc_lab.config import Strict
from aigc_lab.contracts.stand_ins import Components, Frequencies
from aigc_lab.data.base import Dataset, Split
from aigc_lab.data.digits import Digits
from aigc_lab.data.mnist import MNIST
from aigc_lab.data.pydoc import PyDoc
from aigc_lab.data.ring import Ring
from aigc_lab.data.shared.published_files import TrainAndTest
from aigc_lab.errors import UsageError
from aigc_lab.evaluate import evaluate
from aigc_lab.experiment.protocol import Protocol
from aigc_lab.host.weights import PUBLISHED
from aigc_lab.metrics.base import Evidence, Metric, Pool, Real, Score, scored
from aigc_lab.samples import Images, Points, Text
from aigc_lab.scoring import evidence, given_sentences
from aigc_lab.scoring.evaluator import Evaluator
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.scoring.inputs import GivenDataset
from aigc_lab.shape import Modality, Shape

DRAWS = 20
ALL = Digits(Digits.Config(), Path())._all
IMAGES = [
    *("fd", "kid", "prdc", "improved_precision_recall", "vendi", "memorisation", "ndb", "fd_debiased"),
    *("classifier_score", "label_accuracy", "elbo", "reconstruction"),
]
WITHIN = ["class_fd", "class_diversity"]
SENTENCES = [
    *("bleu", "self_bleu", "unique", "distinct", "repetition", "rouge_nn", "lm_score", "novelty"),
]
PAIRED = ["rouge", "corpus_bleu"]
SLOW = ["cas"]
# Computed by the very pieces that another of the same list has.
SAME = {"fid": "fd", "embedding_fd": "fd", "inception_score": "classifier_score", "text_reconstruction": "elbo"}
# Of the system alone: a game at rest scores 0, and nothing is drawn. Stacks need MNIST. A code's floor is chance.
NONE_DRAWN = ["equilibrium", "stacked_modes", "disentanglement"]


def test_every_metric_is_looked_at() -> None:
    named = [*IMAGES, *WITHIN, *SENTENCES, *PAIRED, *SLOW, "modes", "mode_accuracy", "ms_ssim", "nll"]
    assert sorted([*named, *SAME, *NONE_DRAWN]) == sorted(plugins.names("metrics"))


class Drawn(Digits):
    """Digits in other splits for each seed, and some that are in none of them."""

    digest = "0" * 64

    def __init__(self, seed: int) -> None:
        super().__init__(Digits.Config(), Path())
        self._order = torch.randperm(len(ALL), generator=torch.Generator().manual_seed(seed))

    @lru_cache(maxsize=4)  # noqa: B019
    def load(self, split: Split | str) -> Images:
        first, last = {"train": (0, 900), "reference": (900, 1200), "holdout": (1200, 1500), "fresh": (1500, 1780)}[
            split
        ]
        return ALL.take(self._order[first:last])


class Within:
    """Counts of how many draws a score's floor is within its interval, or no further outside than it goes itself."""

    def __init__(self) -> None:
        self.hits, self.draws = Counter[str](), Counter[str]()
        self.apart: dict[str, list[float]] = {}

    def add(self, scores: Iterable[Score]) -> None:
        for score in scores:
            compared = score.value if score.at_floor is None else score.at_floor
            spread = 2 * (score.floor_sd or 0.0)
            low, high = score.low - score.value + compared, score.high - score.value + compared
            self.hits[score.name] += low - spread <= score.floor <= high + spread
            self.draws[score.name] += 1
            self.apart.setdefault(score.name, []).append(compared - score.floor)

    def refused(self) -> dict[str, Any]:
        """The scores that real samples do not get in nine of ten draws, or that are not the floor on the mean."""
        assert self.draws and set(self.draws.values()) == {DRAWS}
        outside: dict[str, Any] = {name: hits for name, hits in self.hits.items() if hits < 0.9 * DRAWS}
        for name, apart in self.apart.items():
            mean, error = np.mean(apart), np.std(apart, ddof=1) / np.sqrt(DRAWS)
            if abs(mean) > 4 * error:
                outside[name] = f"{mean:.3g} ± {error:.2g} from the floor"
        return outside


def made(name: str, **options: Any) -> Metric:
    kind = plugins.find(Metric, name)  # type: ignore[type-abstract]
    known = {key: value for key, value in options.items() if key in kind.Config.model_fields}
    return kind(kind.Config(**known))


def evaluator_of(dataset: Dataset, n: int, metrics: list[Metric], cache: Path) -> Evaluator:
    store = FeatureStore(dataset, cache=cache, weights=PUBLISHED, device="cpu")
    return Evaluator(Protocol(name="x", samples=n, metrics=["any"]), metrics, dataset, store)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the classifier of all these digits is."""
    return tmp_path_factory.mktemp("judge")


def test_fresh_digits_score_what_real_ones_do(judge: Path, tmp_path: Path) -> None:
    """In a sweep, where the floor is of both scoring splits."""
    within, system = Within(), Components.fitted(Drawn(-1).load("train"))
    metrics = [made(name, features="random", bins=20, splits=4) for name in IMAGES]
    for seed in range(DRAWS):
        dataset = Drawn(seed)
        evaluator = evaluator_of(dataset, 280, metrics, judge)
        within.add(evaluator.evaluate(dataset.load("fresh"), "reference", system))
    assert within.refused() == {}


class Pairs(Drawn):
    """Digits in five classes of two each, so that 280 hold enough of each."""

    digest = "2" * 64

    @property
    def shape(self) -> Shape:
        return Shape(Modality.IMAGES, (1, 16, 16), classes=5)

    @lru_cache(maxsize=4)  # noqa: B019
    def load(self, split: Split | str) -> Images:
        digits = super().load(split)
        assert digits.labels is not None
        return Images(digits.values, digits.labels // 2)


def test_fresh_digits_score_what_real_ones_do_within_their_classes(tmp_path: Path) -> None:
    within, metrics = Within(), [made(name, features="random") for name in WITHIN]
    for seed in range(DRAWS):
        dataset = Pairs(seed)
        within.add(evaluator_of(dataset, 280, metrics, tmp_path).evaluate(dataset.load("fresh"), "reference"))
    assert within.refused() == {}


def test_fresh_digits_score_what_a_given_set_does(judge: Path) -> None:
    """Of a folder or an array there is no second real set: the floor is of half of it, and so is what it is beside."""
    within, names = Within(), [name for name in IMAGES[:6] if name != "improved_precision_recall"]
    for seed in range(DRAWS):
        dataset = Drawn(seed)
        options: dict[str, Any] = {"metrics": names, "features": "random", "train": dataset.load("train")}
        found = evaluate(dataset.load("fresh"), dataset.load("reference"), **options, cache=judge, device="cpu")
        within.add(found)
        of_fd = next(score for score in found if score.name == "fd_rand")
        assert of_fd.floor_n == 150 and of_fd.at_floor is not None and of_fd.at_floor > of_fd.value
    assert within.refused() == {}


@pytest.mark.slow
def test_classifiers_learn_as_much_from_fresh_digits(judge: Path) -> None:
    within = Within()
    for seed in range(DRAWS):
        dataset = Drawn(seed)
        metrics = [made("cas", steps=60)]
        evaluator = evaluator_of(dataset, 280, metrics, judge)
        within.add(evaluator.evaluate(dataset.load("fresh"), "reference"))
    assert within.refused() == {}


class Fields(Dataset):
    """Smooth random pictures, large enough for five scales."""

    digest = "1" * 64

    class Config(Strict):
        pass

    def __init__(self, seed: int) -> None:
        super().__init__(self.Config(), Path())
        self._seed = seed

    @property
    def shape(self) -> Shape:
        return Shape(Modality.IMAGES, (1, 161, 161))

    @lru_cache(maxsize=4)  # noqa: B019
    def load(self, split: Split | str) -> Images:
        source = torch.Generator().manual_seed(4 * self._seed + ["train", "reference", "holdout", "fresh"].index(split))
        coarse = torch.rand(40, 1, 5, 5, generator=source)
        smooth = torch.nn.functional.interpolate(coarse, size=(161, 161), mode="bicubic").clamp(0, 1)
        return Images((smooth * 255).round().to(torch.uint8))


def test_fresh_fields_are_as_diverse_as_real_ones(tmp_path: Path) -> None:
    within = Within()
    for seed in range(DRAWS):
        dataset = Fields(seed)
        evaluator = evaluator_of(dataset, 40, [made("ms_ssim")], tmp_path)
        within.add(evaluator.evaluate(dataset.load("fresh"), "reference"))
    assert within.refused() == {}


def test_fresh_points_are_on_the_modes(tmp_path: Path) -> None:
    within, dataset = Within(), Ring(Ring.Config(points=40_000), tmp_path)
    train = dataset.load("train")
    evaluator = evaluator_of(dataset, 2000, [made("modes"), made("mode_accuracy")], tmp_path)
    for seed in range(DRAWS):
        within.add(evaluator.evaluate(train.take(slice(2000 * seed, 2000 * seed + 2000)), "reference"))
    assert within.refused() == {}


@pytest.fixture(scope="module")
def prose() -> list[str]:
    """Real sentences, without those that are of no use to all of the metrics."""
    dataset = PyDoc(PyDoc.Config(max_length=20, longer="leave out"), Path())
    return [line for split in ("train", "reference", "holdout") for line in dataset.load(split).sentences()]


def sets_of(prose: list[str], sizes: tuple[int, ...]) -> Iterator[list[list[str]]]:
    for seed in range(DRAWS):
        order, first, parts = np.random.default_rng(seed).permutation(len(prose)), 0, []
        for size in sizes:
            parts.append([prose[at] for at in order[first : first + size]])
            first += size
        yield parts


def test_fresh_sentences_score_what_a_given_file_does(prose: list[str]) -> None:
    """Twice as many references as sentences; floors were of half of them, and real sentences beat real ones."""
    within = Within()
    for fresh, reference, train in sets_of(prose, (60, 120, 100)):
        within.add(given_sentences.scores(fresh, reference, train=train, metrics=SENTENCES))
        within.add(given_sentences.scores(fresh, reference[: len(fresh)], metrics=PAIRED))
    assert within.refused() == {}


def test_fresh_words_are_as_likely_as_real_ones(tmp_path: Path) -> None:
    dataset = PyDoc(PyDoc.Config(), tmp_path)
    system, within = Frequencies.fitted(dataset.load("train")), Within()
    words = torch.cat([dataset.load(split).values for split in ("reference", "holdout")])
    vocabulary = dataset.vocabulary

    class Part(PyDoc):
        digest = "2" * 64

        def load(self, split: Split | str) -> Text:
            return parts[split]

    for seed in range(DRAWS):
        order = torch.randperm(len(words), generator=torch.Generator().manual_seed(seed))
        quarters = torch.chunk(words[order], 4)
        names = ("train", "reference", "holdout", "fresh")
        parts = {name: Text(rows, vocabulary=vocabulary) for name, rows in zip(names, quarters, strict=True)}
        part = Part(PyDoc.Config(), tmp_path)
        evaluator = evaluator_of(part, len(quarters[-1]), [made("nll")], tmp_path)
        within.add(evaluator.evaluate(part.load("fresh"), "reference", system))
    assert within.refused() == {}


class Sizes(Metric):
    """Of how many samples each of its scores was computed."""

    class Config(Strict):
        pass

    @property
    def gives(self) -> dict[str, Any]:
        return {"alone": "lower", "between": "lower"}

    def check(self, dataset: Dataset, samples: int) -> None:
        pass

    def scores(self, evidence: Evidence) -> list[Score]:
        n = len(evidence.generated)
        floors = self.floors_alone(evidence, "sizes", lambda part: {"alone": len(part)})
        floors |= self.floors(evidence, "sizes", lambda floor, against: {"between": len(floor)})
        return [Score(name, n, n, n, n, floors[name], "sizes", "lower") for name in self.gives]


def test_each_floor_stands_beside_as_many() -> None:
    """More are scored than there are real ones: one floor is of all of these, another of half of them."""
    reference, made = Points(torch.zeros(300, 2)), Points(torch.zeros(400, 2))
    real = Real.drawn(reference, Pool((reference,), 150), 400)
    evidence = Evidence(made, real, GivenDataset(reference, None), cast(Any, None), str, "")
    found = scored(Sizes(Sizes.Config()), evidence, lambda name, why: pytest.fail(f"{name}: {why}"))
    assert {score.name: (score.value, score.floor, score.floor_n, score.at_floor) for score in found} == {
        "alone": (400, 300, 300, 300),
        "between": (400, 150, 150, 150),
    }


def test_more_points_than_real_ones_are_measured(tmp_path: Path) -> None:
    """Far from all modes, and so many that a floor is of fewer: beside it, too, they are worse than any collapse."""
    noise = Points(100 * torch.randn(30_000, 2, generator=torch.Generator().manual_seed(0)))
    found = {score.name: score for score in evaluate(noise, "ring", metrics=["modes"], data_dir=tmp_path)}
    assert found["rkl"].floor_n == 20_000 and found["rkl"].at_floor is not None
    assert min(found["rkl"].at_floor, found["rkl"].value) > np.log(8)


# ---- where they are drawn from


class Sorted(TrainAndTest):
    """The test part in the order of its writers, of whom each has a brightness of his own; the train part is mixed."""

    published = 12_000

    class Config(Strict):
        pass

    @property
    def shape(self) -> Shape:
        return Shape(Modality.IMAGES, (1, 8, 8))

    def _read(self, train: bool) -> Images:
        count = self.published if train else 400
        source = torch.Generator().manual_seed(int(train))
        brightness = torch.randint(0, 200, (count,), generator=source)
        if not train:
            brightness = brightness.sort().values
        pixels = torch.randint(0, 50, (count, 1, 8, 8), generator=source) + brightness[:, None, None, None]
        return Images(pixels.to(torch.uint8))

    @property
    def name(self) -> str:
        return "sorted"


def test_a_test_set_in_the_order_of_its_writers_is_shuffled(tmp_path: Path) -> None:
    """MNIST's is: the first 5,000 of it score 0.357 where 5,000 of all score 0.070 (`fd_clf`)."""
    dataset = Sorted(Sorted.Config(), tmp_path)
    test = dataset.load("reference")
    assert torch.equal(dataset.load("reference").values, test.values)
    read = dataset._read(train=False).values
    assert sorted(test.values[:, 0, 0, 0].tolist()) == sorted(read[:, 0, 0, 0].tolist())
    halves = [part.float().mean().item() for part in test.values.reshape(2, 200, -1)]
    assert abs(halves[0] - halves[1]) < 25 < abs(read[:200].float().mean() - read[200:].float().mean())
    assert not MNIST.exchangeable and Digits.exchangeable


def test_where_splits_are_two_populations_the_floor_is_of_both(tmp_path: Path) -> None:
    """A model of the training samples cannot come nearer to others' than real training samples do."""
    source = torch.Generator().manual_seed(0)
    near, far = (Points(torch.randn(1000, 2, generator=source) + shift) for shift in (0, 1))
    apart = evidence.pool_of(near, far, exchangeable=False)
    mixed = evidence.pool_of(near, far, exchangeable=True)
    for pool, wanted in ((apart, 1.0), (mixed, 0.0)):
        floor, against = pool.draw(3, 400)
        assert len(floor) == 400 and len(against) == 1000
        shift = floor.samples.values.mean() - against.samples.values.mean()
        assert shift.item() == pytest.approx(wanted, abs=0.15)


def test_a_spread_is_that_of_a_draw(tmp_path: Path) -> None:
    """Points of a known law: means of n of them go as far as 1/√n."""

    class Mean(Metric):
        class Config(Strict):
            pass

        @property
        def gives(self) -> dict[str, Any]:
            return {"mean": "lower"}

        def check(self, dataset: Dataset, samples: int) -> None:
            pass

        def scores(self, evidence: Any) -> list[Score]:
            def of(part: Any) -> dict[str, float]:
                return {"mean": part.samples.values.mean().item()}

            floor = self.floors_alone(evidence, "mean", of)["mean"]
            value = evidence.generated.values.mean().item()
            return [Score("mean", value, value, value, len(evidence.generated), floor, "mean", "lower")]

    Mean.draws = 200
    source = torch.Generator().manual_seed(0)
    reference, fresh = (Points(torch.randn(count, 1, generator=source)) for count in (20_000, 100))
    pool = Pool((reference,), 10_000)
    real = Real.drawn(reference, pool, 100)
    dataset = GivenDataset(reference, None)
    evidence = Evidence(fresh, real, dataset, cast(Any, None), str, "")
    (score,) = scored(Mean(Mean.Config()), evidence, lambda name, why: pytest.fail(f"{name}: {why}"))
    assert score.floor_sd == pytest.approx(0.1, rel=0.2) and abs(score.floor) < 0.03
    assert score.floor_n is None and score.at_floor is None


# ---- questions that make no sense


def test_what_is_measured_on_unseen_samples_is_left_out_of_seen_ones(judge: Path) -> None:
    """Against what a system was trained on, the gap of two distances is 0 by construction."""
    dataset, said = Drawn(0), list[str]()
    known, fresh = dataset.load("train"), dataset.load("fresh")
    options: dict[str, Any] = {"metrics": ["memorisation"], "features": "random", "cache": judge, "device": "cpu"}
    apart = evaluate(fresh, dataset.load("reference"), train=known, **options, say=said.append)
    assert [score.name for score in apart] == ["auth_pct_rand", "fd_gap_rand"] and said == []
    found = evaluate(fresh, known, train=Images(known.values.clone(), known.labels), **options, say=said.append)
    assert [score.name for score in found] == ["auth_pct_rand"]
    assert said == [
        "fd_gap_rand is left out: it is 0 by construction: the reference is what the generator was trained on, and "
        "nothing of it is unseen"
    ]


def test_of_a_reconstruction_of_what_was_learnt_nothing_is_left(judge: Path) -> None:
    dataset, said = Drawn(0), list[str]()
    known = dataset.load("train")
    system = Components.fitted(known)
    options: dict[str, Any] = {"train": known, "system": system, "cache": judge, "device": "cpu", "say": said.append}
    with pytest.raises(UsageError, match="every metric is left out"):
        evaluate(dataset.load("fresh"), known, metrics=["reconstruction"], features="random", **options)
    assert said[0].startswith("reconstruction_mse is left out: the reference is what the generator was trained on")


# ---- names and words


def test_a_score_says_its_features_where_they_are_not_inceptions() -> None:
    for name in ("kid", "prdc", "improved_precision_recall", "vendi", "memorisation", "ndb"):
        plain, own = made(name, features="inception").gives, made(name, features="classifier").gives
        assert list(own) == [f"{each}_clf" for each in plain]
        assert made(name, features="classifier").describing() <= own.keys()
    assert list(made("kid", features="inception").gives) == ["kid"]


JUNK = " ".join(f"junk{number}" for number in range(3000))


def test_a_language_model_knows_the_words_of_the_reference(prose: list[str]) -> None:
    """Neither a third set nor what was generated changes how many words share what is left for unseen ones."""
    fresh, reference, train = prose[:40], prose[40:120], prose[120:200]
    (forward, reverse), with_train = (
        given_sentences.scores(fresh, reference, train=known, metrics=["lm_score"]) for known in (None, train)
    )
    assert [vars(score) for score in with_train] == [vars(forward), vars(reverse)]
    words = sum(1 for part in forward.signature.split("|") if part.startswith("words:"))
    assert words == 1
    with_junk = given_sentences.scores([*fresh, JUNK], reference, metrics=["lm_score"])
    for score, clean in zip(with_junk, (forward, reverse), strict=True):
        # A sentence more: another n, and a floor of as many.
        assert score.floor == pytest.approx(clean.floor, abs=0.05), score.name
    same = given_sentences.scores([*fresh[1:], JUNK], reference, metrics=["lm_score"])
    assert [score.floor for score in same] == [forward.floor, reverse.floor]
