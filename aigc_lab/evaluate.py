"""Protocol + (generated, real) -> scores. Nothing here knows how the samples were trained or where scores go."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from aigc_lab import plugins
from aigc_lab.data.base import Dataset, Modes
from aigc_lab.errors import UsageError
from aigc_lab.experiment.experiment import Protocol, load_protocol
from aigc_lab.extractors.base import Extractor, Features, choice, joined
from aigc_lab.extractors.shared import lookup
from aigc_lab.host import content, environment
from aigc_lab.host.files import write_atomically
from aigc_lab.host.settings import Settings
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.metrics import memorisation
from aigc_lab.metrics.base import Autoencoder, Evidence, Game, Metric, Part, Pool, Real, Score, scored
from aigc_lab.pictures import drawing
from aigc_lab.samples import Images, Points, Samples, Text
from aigc_lab.scoring import temperature_curve as quality_diversity
from aigc_lab.scoring.collapse_judge import EXAMPLES, Jury, Pictures, chosen_bins, equal, judged, trivial, with_code
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.scoring.inputs import Given, Pair, Range, Sets, given, numbered, parted
from aigc_lab.scoring.null_cache import known_baseline, remembered, write_baseline
from aigc_lab.shape import Modality
from aigc_lab.systems.shared.language import LanguageSystem
from aigc_lab.text.corpus import Corpus
from aigc_lab.text.likelihood import Likelihood
from aigc_lab.verdicts.collapse import Judge
from aigc_lab.verdicts.conclusion import CollapseVerdict
from aigc_lab.verdicts.missing import MISSING
from aigc_lab.verdicts.sentences import Sentences

ScoringSplit = Literal["reference", "holdout"]
SCORING_SPLITS: tuple[ScoringSplit, ...] = ("reference", "holdout")

# A classifier of given samples learns from one in so many of them, and judges by the others.
_LEARNED = 4
# So many training samples are drawn beside a generated one.
_NEIGHBOURS = 5
# Rows of the picture of what is missing, and real samples in each.
_LACKING, _IN_ROW = 20, 8
# The split that is compared with, and the one that shows what real samples score against it.
_FLOOR: dict[ScoringSplit, ScoringSplit] = {"reference": "holdout", "holdout": "reference"}


class Evaluator:
    """Scores samples under one protocol on one dataset; real features are computed once for all runs."""

    def __init__(self, protocol: Protocol, metrics: list[Metric], dataset: Dataset, features: FeatureStore) -> None:
        self.protocol = protocol
        self.metrics = metrics
        self._dataset = dataset
        self._features = features
        features.keep |= kept(metrics)
        self._baselines: dict[str, float | None] = {}

    def prepare(self) -> None:
        """Loads the real splits, makes or reads the extractors, and fills the cache of real features."""
        for split in SCORING_SPLITS:
            for extractor in sorted({metric.extractor for metric in self.metrics if metric.extractor}):
                self._features.real(extractor, self._reals[split].reference)
        _ = self._reals

    def evaluate(self, generated: Samples, split: ScoringSplit, system: object = None) -> list[Score]:
        """The protocol's scores of generated samples against a real split, in the protocol's order."""
        return self.examine(generated, split, system)[0]

    def examine(
        self, generated: Samples, split: ScoringSplit, system: object = None, *, judged: bool = False
    ) -> tuple[list[Score], CollapseVerdict | None]:
        """The scores, and, where that is asked for and can be said, whether the samples have collapsed: of the same
        features.
        """
        evidence = _evidence(generated, self._reals[split], self._dataset, self._features, split, system, ())
        scores = _scores(self.metrics, evidence)
        if not judged:
            return scores, None
        return scores, with_code(self._jury.collapse(evidence), scores, system, evidence.real.reference)

    def computable(self, generated: Samples, split: ScoringSplit, system: object = None) -> list[Score]:
        """The scores of those metrics that can be computed, of a run of which another metric cannot."""
        evidence = _evidence(generated, self._reals[split], self._dataset, self._features, split, system, ())
        found: list[Score] = []
        for metric in self.metrics:
            with suppress(Exception):  # what was wrong is the reason of the run's failure
                found += _scores([metric], evidence)
        return found

    def judge(self, generated: Samples) -> CollapseVerdict | None:
        """Whether the samples have collapsed, of the same features as their scores would be; None if nobody can say."""
        return self._jury.collapse(
            _evidence(generated, self._reals["reference"], self._dataset, self._features, "reference", None, ())
        )

    def missing(self, bins: Sequence[Mapping[str, Any]]) -> bytes | None:
        """A PNG of real pictures of what is missing, by the bins of a verdict on this dataset: a row of eight for each.
        None where nothing is, or samples are no pictures.
        """
        names = [row["name"] for row in bins if row["state"] == MISSING][:_LACKING]
        if not names or self._dataset.shape.modality != Modality.IMAGES:
            return None
        rows = [self._jury.examples(name, _IN_ROW).canonical().values for name in names]
        width = min(map(len, rows))
        return drawing.png(drawing.grid(Images(torch.cat([row[:width] for row in rows])), columns=width))

    @cached_property
    def _jury(self) -> Jury:
        extractor = next((metric.extractor for metric in self.metrics if metric.extractor), None)
        return Jury(self._dataset, self._features, extractor, self.protocol.samples)

    def baseline(self, objective: str) -> float | None:
        """What a trivial sampler scores on the reference split: the measure of whether anything was learned. None for
        scores of a system and not of its samples, and for those that the trivial sampler does well at (where modes
        are wide, a Gaussian's points lie in all of them alike, and its reverse KL is that of real ones).
        """
        if objective not in self._baselines:
            self._baselines[objective] = self._kept_baseline(objective)
        return self._baselines[objective]

    def _kept_baseline(self, objective: str) -> float | None:
        """It costs as much as an evaluation, and is the same for every sweep of the protocol on the dataset."""
        judges = [self._features.extractor(name).identity for name in sorted(kept(self.metrics))]
        versions = [metric.version for metric in self.metrics]
        told = [objective, self.protocol.model_dump(mode="json"), versions, self._dataset.digest, judges]
        key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]
        path = self._features.cache / "baselines" / f"{key}.json"
        with suppress(OSError, ValueError):
            return known_baseline(path)
        value = self._trivial_score(objective)
        with suppress(OSError):
            write_baseline(path, value)
        return value

    def _trivial_score(self, objective: str) -> float | None:
        metric = next(metric for metric in self.metrics if objective in metric.gives)
        if metric.needs & {"encoder", "game", "likelihood", "labels"}:
            return None
        made = trivial(self._dataset.load("train"), self.protocol.samples)
        found = score([metric], made, self._reals["reference"], self._dataset, self._features, "reference")
        trivially = next(each for each in found if each.name == objective)
        return trivially.value if _tells(trivially) else None

    def temperature_curve(self, system: LanguageSystem, temperatures: Sequence[float], seed: int) -> dict[str, Any]:
        """Quality against diversity of a language model at these temperatures and at 1, against the holdout."""
        real = self._reals["holdout"]
        assert isinstance(real.reference, Text) and isinstance(real.floor, Text), "a language model is of text"
        return quality_diversity.curve(system, real.reference, real.floor, temperatures, self.protocol.samples, seed)

    @cached_property
    def _reals(self) -> dict[ScoringSplit, Real]:
        whole: dict[ScoringSplit, Samples] = {split: self._dataset.load(split) for split in _FLOOR}
        for split, samples in whole.items():
            assert len(samples) >= self.protocol.samples, (
                f"{split}: the experiment's check lets no such protocol through"
            )
        train = self._dataset.load("train")
        n = self.protocol.samples
        return {split: Real.drawn(whole[split], self._pool(whole, split), n, train) for split in _FLOOR}

    def _pool(self, whole: Mapping[ScoringSplit, Samples], split: ScoringSplit) -> Pool:
        return pool_of(whole[split], whole[_FLOOR[split]], self._dataset.exchangeable)


def _tells(trivial: Score) -> bool:
    """Whether a score tells trivial samples from real ones well enough to measure learning by it."""
    if trivial.better == "lower":
        return trivial.low > trivial.floor and trivial.value > 2 * abs(trivial.floor)
    return trivial.high < trivial.floor and trivial.value < 0.75 * trivial.floor


def pool_of(reference: Samples, other: Samples, exchangeable: bool) -> Pool:
    """Where the floor of a score against a split is drawn from: from the other scoring split, or where the two are
    random parts of one set from both together, so that each draw has two new sides.
    """
    if exchangeable:
        return Pool((reference, other), len(other), len(reference))
    return Pool((other,), len(other), against=reference)


def kept(metrics: Sequence[Metric]) -> dict[str, int]:
    """Extractor -> of how many samples its features are kept: what the metric that reads the most of them reads."""
    most: dict[str, int] = {}
    for metric in metrics:
        if metric.extractor:
            most[metric.extractor] = max(metric.keeps, most.get(metric.extractor, 0))
    return most


def score(
    metrics: Sequence[Metric],
    generated: Samples,
    real: Real,
    dataset: Dataset,
    store: FeatureStore,
    split: str,
    system: object = None,
    details: Sequence[str] = (),
) -> list[Score]:
    """The scores of all metrics, with the `details` in their signatures. Each set passes through an extractor once,
    however many metrics read its features.

    Raises `ValueError` for evidence that lacks what a metric needs, before anything is scored.
    """
    return _scores(metrics, _evidence(generated, real, dataset, store, split, system, details))


def _scores(metrics: Sequence[Metric], evidence: Evidence) -> list[Score]:
    for metric in metrics:
        metric.refuse_lacking(evidence)
    return [score for metric in metrics for score in metric.scores(evidence)]


def _evidence(
    generated: Samples,
    real: Real,
    dataset: Dataset,
    store: FeatureStore,
    split: str,
    system: object,
    details: Sequence[str],
) -> Evidence:
    made: dict[str, Features] = {}

    def features(extractor: str, samples: Samples | Part) -> Features:
        if isinstance(samples, Part):
            return _of_part(extractor, samples, real, features)
        if samples is not generated:
            return store.real(extractor, samples)
        if extractor not in made:
            made[extractor] = store.made(extractor, samples)
        return made[extractor]

    return Evidence(
        generated,
        real,
        dataset,
        features,
        lambda extractor: store.extractor(extractor).identity,
        "|".join(
            [
                f"data:{dataset.name}:{dataset.digest[:8]}",
                f"ref:{split}:{len(real.reference)}",
                f"n:{len(generated)}",
                *details,
            ]
        ),
        system if isinstance(system, Autoencoder | Game | Likelihood) else None,
        store.device,
    )


def _of_part(extractor: str, part: Part, real: Real, features: Callable[[str, Samples], Features]) -> Features:
    """Rows of what is known of the whole sets, or, where these are so large that not all is kept, of the samples."""
    if part.rows is None and len(part.wholes) == 1:
        return features(extractor, part.wholes[0])
    known = [(features(extractor, whole), torch.from_numpy(rows)) for whole, rows in part.each()]
    if all(len(every.vectors) == every.count for every, _ in known):
        return joined([every.take(rows) for every, rows in known])
    if real.pool is not None:
        # Only the first draw is made of such sets, and its samples are there.
        for drawn, samples in zip(real.pool.draw(0, len(real.floor)), (real.floor, real.against), strict=True):
            if drawn.rows is not None and part.rows is not None and np.array_equal(drawn.rows, part.rows):
                return features(extractor, samples)
    return features(extractor, part.samples)


# ---- without a sweep


def evaluate(
    generated: Any,
    reference: Any,
    *,
    metrics: Sequence[str] | None = None,
    protocol: str | None = None,
    features: str | None = None,
    train: Any = None,
    size: int | None = None,
    samples: int | None = None,
    numbers: Range | None = None,
    weights: WeightsPolicy | None = None,
    device: str = "auto",
    cache: Path | None = None,
    data_dir: Path | None = None,
    skip_broken: bool = False,
    system: object = None,
    neighbours: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
    leave: Callable[[str, str], None] = lambda metric, reason: None,
    watch: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Score]:
    """Scores of generated samples against real ones, each with its interval, n, floor and signature.

    `generated`, `reference` and `train` (what the generator was trained on, for metrics that ask for it) are each a
    folder of images, a `.npy` or `.npz` file, a tensor or an array (uint8, or floats in [0, 1], [N, C, H, W],
    [N, H, W, C] or [N, D]), `Samples`, or `"mnist:holdout"`: a dataset, the holdout unless a split is named.

    What is measured: `metrics` by name, or those of a `protocol` (a name or a file); else those that the samples allow:
    `leave` is told of each of the others and of the reason, as is `say`. Both sets must be as large as a metric needs.
    `features` names the extractor of all metrics that can choose: `inception`, `classifier`, `random`, a user's own.
    The floor compares samples of the other scoring split of a dataset, or as many of a reference that is no dataset
    with its rest: half of it at the most. Then it is of fewer than are scored, and `at_floor` of a score is the value
    of as few, which the floor is to be held against.

    `neighbours` names a .png file that is written too: ten rows, each a generated image and the five training images
    nearest to it in the features of `memorisation` (else of the first metric that has any), what is closest to a copy
    on top.

    Real features are read from and kept in `cache`. `say` is told of what a user should know, `watch` of progress.
    Raises `UsageError` for what cannot be scored, naming what and why.
    """
    where = Settings.load()
    weights = weights or WeightsPolicy(where.weights_dir)
    options: dict[str, Any] = {"data_dir": data_dir or where.data_dir, "numbers": numbers, "skip_broken": skip_broken}
    real, pair = _paired(generated, reference, size, options, say)
    made = pair.generated
    if samples is not None and samples > len(made):
        raise UsageError(f"{samples:,} samples are to be scored, and {len(made):,} are given")
    if samples is not None and samples < len(made):
        made = made.take(choice(len(made), samples))
    dataset, sets = _real(pair, real, len(made))
    if train is not None:
        known = given(train, name="train", **options)
        sets = replace(sets, train=pair.another(known))
        for note in known.notes:
            say(note)
    store = FeatureStore(
        dataset, cache=cache or where.shared_cache, weights=weights, device=environment.device(device), say=say
    )
    store.watch = watch
    against = real.split[1] if real.split else "set"
    details = [pair.rule] if pair.rule else []
    if len(sets.floor) != len(made) or len(sets.against) != len(sets.reference):
        details.append(f"floor:{len(sets.floor)}:{len(sets.against)}")
    evidence = _evidence(made, sets, dataset, store, against, system, details)
    asked = metrics is not None or protocol is not None

    def leave_out(metric: str, reason: str) -> None:
        say(f"{metric} is left out: {reason}")
        leave(metric, reason)

    wanted = _metrics(metrics, protocol, features, evidence, weights, say, leave_out)
    store.keep |= kept(wanted)
    by = None if neighbours is None else _neighbours_by(neighbours, wanted, evidence)
    if by is not None:
        store.keep.pop(by, None)  # the nearest of a part of the training samples are not the nearest
    found: list[Score] = []
    try:
        for metric in wanted:
            try:
                found += scored(metric, evidence, leave_out)
            except ValueError as error:
                # Features of a user's tell their number of dimensions only once they are there.
                if asked or isinstance(error, UsageError) or len(wanted) == 1:
                    raise
                leave_out(plugins.name_of(type(metric)), str(error))
        if neighbours is not None and by is not None:
            _draw_neighbours(neighbours, by, evidence, say)
    except ValueError as error:
        raise error if isinstance(error, UsageError) else UsageError(str(error)) from None
    if not found:
        raise UsageError("nothing can be scored: every metric is left out")
    return found


def judge(
    generated: Any,
    reference: Any,
    *,
    labels: Sequence[int] | Sequence[str] | Tensor | None = None,
    features: str | None = None,
    size: int | None = None,
    numbers: Range | None = None,
    weights: WeightsPolicy | None = None,
    device: str = "auto",
    cache: Path | None = None,
    data_dir: Path | None = None,
    skip_broken: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> CollapseVerdict:
    """Whether generated samples have collapsed beside real ones, which nothing was trained on and of which there should
    be at least twice as many. Each set is what `evaluate` takes. Bins are the classes of the reference (`labels`, or
    those that it comes with) if the features sort three of four real samples into theirs, the modes of a dataset that
    has them, else clusters. A classifier of given samples learns from a quarter of them, and judges by the others.

    Raises `UsageError` for what cannot be judged, naming what and why.
    """
    where = Settings.load()
    weights = weights or WeightsPolicy(where.weights_dir)
    options: dict[str, Any] = {"data_dir": data_dir or where.data_dir, "numbers": numbers, "skip_broken": skip_broken}
    real, pair = _paired(generated, reference, size, options, say)
    known, names = (pair.reference.labels, real.classes) if labels is None else classes_of(labels)
    if known is not None and known.shape != (len(pair.reference),):
        raise UsageError(f"labels: {len(known):,} are given for {len(pair.reference):,} reference samples")
    classes = None if known is None else int(known.max()) + 1
    reference = replace(pair.reference, labels=known) if isinstance(pair.reference, Images) else pair.reference
    rows, learned = torch.arange(len(reference)), None
    if features == "classifier" and not real.split:
        # What it has learned is sorted right, and says nothing of what is not.
        mine, rows = (each.sort().values for each in parted(reference, len(reference) // _LEARNED))
        learned, reference = reference.take(mine).canonical(), reference.take(rows)
        known = None if known is None else known[rows]
    elif features == "classifier" and real.split and real.split[1] == "train":
        raise UsageError(f"reference: the classifier has learned {real.name}; name another split, or other features")
    dataset = real.split[0] if real.split else Sets(reference, classes, learned)
    names = names or (dataset.class_names if labels is None else None)
    made, modes, sentences, kept = pair.generated, None, None, cache or where.shared_cache
    pictures, network = None, None
    if isinstance(made, Points):
        vectors = [made.canonical().values, reference.canonical().values]
        identity = "points"
        # Labels that were given come before the modes that a dataset has.
        modes = dataset.modes if labels is None else None
    else:
        name = features or "sentences"
        if isinstance(made, Images) and features is None:
            name, why = _best_features(dataset, weights)
            say(why)
        store = FeatureStore(dataset, cache=kept, weights=weights, device=environment.device(device), say=say)
        extractor = lookup.find(name)
        extractor.check(dataset, weights)
        extractor.fetch(weights, say)
        vectors = [store.made(name, made).vectors.cpu(), store.real(name, reference).vectors.cpu()]
        identity = store.extractor(name).identity
        if isinstance(made, Images):
            network = store.extractor(name)
        pictures = Pictures(reference.take, lambda images: store.made(name, images).vectors)
    if isinstance(pair.reference, Text):
        # What a language model has read is not strange to it: not those that others are judged beside.
        train = dataset.load("train") if real.split and real.split[1] != "train" else None
        sentences = known_sentences(pair.reference.corpus, train.corpus if isinstance(train, Text) else None)
    of = f"{identity}|data:{dataset.name}:{dataset.digest[:8]}"

    def called(place: int) -> str:
        return real.called(int(rows[place]))

    known_real = RealSet(vectors[1], of, called, known, names, modes, sentences, equal(reference), pictures, by=network)
    return verdict_on(vectors[0], made, known_real, kept)


@dataclass(frozen=True)
class RealSet:
    """Real samples that others are judged beside: `vectors` [m, d], whose they are, and what a user calls each; their
    classes [m] with names, the modes that they are known to have, the sentences that they are, if any, a number [m]
    that equal ones share, the pictures that they are, and what made their vectors, if they are any.
    """

    vectors: Tensor
    identity: str
    called: Callable[[int], str]
    labels: Tensor | None = None
    names: Sequence[str] | None = None
    modes: Modes | None = None
    sentences: Sentences | None = None
    alike: Tensor | None = None
    pictures: Pictures | None = None
    by: Extractor | None = None


def known_sentences(reference: Corpus, train: Corpus | None) -> Sentences:
    """What real sentences say. Raises `UsageError` where they are too few."""
    try:
        return Sentences(reference, train)
    except ValueError as error:
        raise UsageError(f"reference: {error}") from None


def classes_of(labels: Sequence[int] | Sequence[str] | Tensor) -> tuple[Tensor, Sequence[str] | None]:
    """The numbers of classes, and their names if they have any. Raises `UsageError` for what is neither."""
    if not isinstance(labels, Tensor) and len(labels) and isinstance(labels[0], str):
        return numbered([str(each) for each in labels])
    try:
        found = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"labels: are neither whole numbers nor names ({error})") from None
    if found.ndim != 1 or found.is_floating_point() or found.is_complex():
        raise UsageError(f"labels: are {list(found.shape)} {found.dtype}, not one whole number or name a sample")
    return found.long(), None


def _paired(
    generated: Any, reference: Any, size: int | None, options: Mapping[str, Any], say: Callable[[str], None]
) -> tuple[Given, Pair]:
    """What was given as real, and both sets in one form; says what was done to them and what was not read."""
    real = given(reference, name="reference", **options)
    pair = Pair(given(generated, name="generated", **options), real, size)
    for note in pair.notes:
        say(note)
    return real, pair


def verdict_on(vectors: Tensor, made: object, real: RealSet, cache: Path | None) -> CollapseVerdict:
    """The verdict on generated samples and their vectors [n, d]; each bin that is missing has `examples`, what the real
    samples that are most like its mean are called. What depends on the real ones alone is kept in `cache`.

    Raises `UsageError` for what cannot be judged.
    """
    count = min(len(vectors), len(real.vectors) // 2)
    try:
        bins, kind = chosen_bins(
            real.vectors, count, modes=real.modes, labels=real.labels, names=real.names, by=real.by
        )
        known = Judge(real.vectors, bins, f"{real.identity}|by:{kind}", alike=real.alike)
        with remembered(known, cache) as judge:
            verdict = judged(judge, vectors, real.sentences, made, real.pictures)
        for row in verdict.bins:
            places = judge.examples(row["name"], EXAMPLES).tolist() if row["state"] == MISSING else []
            row["examples"] = [real.called(place) for place in places]
        return verdict
    except ValueError as error:
        raise UsageError(str(error)) from None


def _neighbours_by(path: Path, metrics: Sequence[Metric], evidence: Evidence) -> str:
    """The features that say what is near. Raises `UsageError` where there is nothing to draw."""
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path}: the picture of the neighbours is a PNG; name a file that ends in .png")
    train = evidence.real.train
    if train is None:
        raise UsageError("the neighbours are training samples, which are not known here: name them (train)")
    if len(train) <= _NEIGHBOURS:
        raise UsageError(f"{_NEIGHBOURS} neighbours are drawn, and there are {len(train)} training samples")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writable = os.access(path.parent, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise UsageError(f"{path}: no picture can be written there; name another place")
    extractors = {plugins.name_of(type(metric)): metric.extractor for metric in metrics if metric.extractor}
    if not extractors:
        raise UsageError("the neighbours are found in the features of a metric, and none of these metrics has any")
    return extractors.get("memorisation") or next(iter(extractors.values()))


def _draw_neighbours(path: Path, extractor: str, evidence: Evidence, say: Callable[[str], None]) -> None:
    made, known = (evidence.features(extractor, samples) for samples in (evidence.generated, evidence.train))
    if not isinstance(evidence.generated, Images) or not isinstance(evidence.train, Images):
        raise UsageError("--neighbours: a picture shows images, and these are none")
    tiles = memorisation.look_alikes(evidence.generated, evidence.train, made, known, columns=_NEIGHBOURS)
    try:
        write_atomically(path, drawing.png(drawing.grid(tiles, columns=1 + _NEIGHBOURS)))
    except OSError as error:
        say(f"the picture cannot be written ({error.strerror}: {path}); the scores are not lost for that")


def _real(pair: Pair, real: Given, count: int) -> tuple[Dataset, Real]:
    if real.split is None:
        classes = None if pair.reference.labels is None else int(pair.reference.labels.max()) + 1
        if len(pair.reference) < 2:
            raise UsageError(f"{real.name}: one sample is no reference; give two at the very least")
        pool = Pool((pair.reference,), len(pair.reference) // 2)
        return Sets(pair.reference, classes), Real.drawn(pair.reference, pool, count)
    dataset, split = real.split
    other = dataset.load("holdout" if split != "holdout" else "reference")
    # Systems know the training split, and so do their judges: what is held against it is no part of it.
    pool = pool_of(pair.reference, other, dataset.exchangeable and split != "train")
    return dataset, Real.drawn(pair.reference, pool, count, dataset.load("train"))


def _metrics(
    names: Sequence[str] | None,
    protocol: str | None,
    features: str | None,
    evidence: Evidence,
    weights: WeightsPolicy,
    say: Callable[[str], None],
    leave_out: Callable[[str, str], None],
) -> list[Metric]:
    """The metrics to be scored, each of which can be; `leave_out` is told of those that nobody has asked for."""
    if names is not None and protocol is not None:
        raise UsageError("--metrics and --protocol say the same in two ways; give one of them")
    chosen = features
    if chosen is None and isinstance(evidence.generated, Images):
        chosen, why = _best_features(evidence.dataset, weights)
        say(why)
    asked = names is not None or protocol is not None
    if protocol is not None:
        named = load_protocol(content.find("evaluation", protocol))
        specs, asked = named.metrics, not named.fewer
    else:
        specs = [(name, {}) for name in (names or _panel(evidence.generated.modality, chosen))]
    found, left_out = [], dict[str, str]()
    for name, config in specs:
        # A protocol says itself which features it reads, unless the user does.
        options = {"features": chosen} if chosen and (features or protocol is None) else {}
        try:
            found.append(_metric(name, config, options, evidence, weights, say))
        except ValueError as error:
            if asked:
                raise UsageError(f"metric {name}: {str(error).removeprefix(f'{name} ')}") from None
            left_out[name] = str(error).removeprefix(f"{name} ")
    if not found:
        name, reason = next(iter(left_out.items()))
        raise UsageError(f"nothing can be scored: {name} is left out: {reason}")
    for name, reason in left_out.items():
        leave_out(name, reason)
    return found


def _metric(
    name: str,
    config: Mapping[str, Any],
    options: Mapping[str, Any],
    evidence: Evidence,
    weights: WeightsPolicy,
    say: Callable[[str], None],
) -> Metric:
    kind = plugins.find(Metric, name)  # type: ignore[type-abstract]
    known = {key: value for key, value in options.items() if key in kind.Config.model_fields}
    metric = kind(kind.Config.model_validate({**config, **known}))
    metric.check(evidence.dataset, len(evidence.generated))
    metric.refuse_lacking(evidence)
    metric.refuse_few(evidence)
    if metric.extractor:
        extractor = lookup.find(metric.extractor)
        extractor.check(evidence.dataset, weights)
        extractor.fetch(weights, say)
    return metric


def _best_features(dataset: Dataset, weights: WeightsPolicy) -> tuple[str, str]:
    """Inception where its weights are, else the dataset's own classifier, else random ones; and why."""
    inception: Any = lookup.find("inception")
    lacking = "Inception's weights are not on this machine; --features inception downloads them"
    if inception.published.found(weights) is not None:
        return "inception", "features: inception"
    # Trained on given samples, a classifier would judge the very samples that it knows.
    if not isinstance(dataset, Sets) and dataset.shape.classes is not None:
        return "classifier", f"features: the classifier of {dataset.name} ({lacking})"
    return "random", f"features: a random network's, which rank and mean nothing beyond that ({lacking})"


def _panel(modality: Modality, features: str | None) -> list[str]:
    """What is measured where nobody says."""
    if modality == Modality.TEXT:
        return ["bleu", "self_bleu", "unique", "distinct", "repetition", "rouge_nn", "lm_score", "embedding_fd"]
    if features is None:
        return ["modes"]
    first = ["fid", "inception_score"] if features == "inception" else ["fd"]
    if features == "classifier":
        first.append("classifier_score")
    return [*first, "fd_debiased", "kid", "prdc", "vendi", "memorisation"]
