"""Scores and verdicts of samples that a user gives, without a sweep."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aigc_lab import plugins
from aigc_lab.data.base import Dataset
from aigc_lab.errors import UsageError
from aigc_lab.extractors.base import Extractor, choice
from aigc_lab.extractors.shared import lookup
from aigc_lab.host import environment
from aigc_lab.host.settings import Settings
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.metrics.base import Metric, Pool, Real, Score, scored
from aigc_lab.modalities.base import modality_of
from aigc_lab.modalities.shared.inputs import Input, Range
from aigc_lab.samples import Samples
from aigc_lab.scoring.asked_evidence import AskedEvidence, asked_evidence
from aigc_lab.scoring.collapse_judge import Pictures, equal
from aigc_lab.scoring.evidence import kept, pool_of
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.scoring.given_collapse import RealSet, classes_of, verdict_on
from aigc_lab.scoring.inputs import GivenDataset, Pair, of_size, parted, read_input
from aigc_lab.scoring.metric_choice import best_features, chosen_metrics, reads_features
from aigc_lab.scoring.neighbours_picture import draw_neighbours, neighbours_by
from aigc_lab.statistics.score import Scores
from aigc_lab.verdicts.conclusion import CollapseVerdict
from aigc_lab.verdicts.sentences import Sentences

# A classifier of given samples learns from one in so many of them, and judges by the others.
_LEARNED = 4


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
) -> Scores:
    """Scores of generated samples against real ones, each with its interval, n, floor and signature.

    `generated`, `reference` and `train` (what the generator was trained on, for metrics that need it) are each a folder
    of images, a `.npy` or `.npz` file, a tensor or an array (uint8, or floats in [0, 1], [N, C, H, W], [N, H, W, C] or
    [N, D]), `Samples`, or `"mnist:holdout"`: a dataset, the holdout unless a split is named.

    The metrics are those of `metrics` by name or of a `protocol` (a name or a file). Without either they are those of
    the modality that can be computed: `leave` and `say` are told of each of the others and the reason. Both sets must
    be as large as a metric needs. `features` is the extractor of all metrics that can choose: `inception`,
    `classifier`, `lite0`, `random`, or a user's file. Without it these are Inception where its weights are, else a
    classifier of the reference's classes where it passes its test, else `lite0`, and `say` is told which and why.

    A classifier of given samples learns from a quarter of them; scores are against the others.

    The floor compares real samples with real ones: of a dataset, samples of the other scoring split; of any other
    reference, a random part with the rest, at most half of it. Where that part is smaller than the generated set,
    `at_floor` is the score of as few generated samples, to be held against the floor.

    `neighbours` is a .png file to write: ten rows, each a generated image and the five training images nearest to it in
    the features of `memorisation` (else of the first metric that has any), the closest to a copy on top.

    Features of real samples are kept in `cache`. `say` is told of what a user should know, `watch` of progress. Raises
    `UsageError` for what cannot be scored, naming what and why.

    >>> source = torch.Generator().manual_seed(0)
    >>> real, made = torch.rand(2, 400, 3, 8, 8, generator=source)
    >>> (score,) = evaluate(made, real, metrics=["vendi"], features="random", device="cpu")
    >>> score.name, score.n, score.low < score.value < score.high
    ('vendi_rand', 400, True)
    """
    weights, cache, data_dir = _places(weights, cache, data_dir)
    options: dict[str, Any] = {"data_dir": data_dir, "numbers": numbers, "skip_broken": skip_broken}
    real, pair = _paired(generated, reference, size, options, say)
    fake = _drawn(pair.generated, samples)
    stores = partial(FeatureStore, cache=cache, weights=weights, device=environment.device(device), say=say)
    if reads_features(metrics, protocol) and features is None:
        dataset: Dataset = real.split[0] if real.split else _candidate(pair.reference, real.classes)
        features = best_features(dataset, stores(dataset), weights, say)
    dataset, sets = _real(pair, real, len(fake), features, say)
    if train is not None:
        sets = replace(sets, train=_training_set(train, pair, options, say))
    store = stores(dataset)
    store.watch = watch
    split = real.split[1] if real.split else "set"
    details = partial(_signature_parts, pair, len(fake))
    asked = asked_evidence(fake, sets, dataset, store, split, system, details)

    left_out: dict[str, str] = {}

    def leave_out(metric: str, reason: str) -> None:
        left_out[metric] = reason
        say(f"{metric} is left out: {reason}")
        leave(metric, reason)

    chosen = chosen_metrics(metrics, protocol, features, asked, weights, say, leave_out)
    note = asked.note(chosen)
    if note is not None:
        say(note)
    store.keep |= kept(chosen)
    by = None if neighbours is None else neighbours_by(neighbours, chosen, asked.whole)
    if by is not None:
        store.keep.pop(by, None)  # the nearest of a part of the training samples are not the nearest
    try:
        scores = _scores(chosen, asked, leave_out, strict=metrics is not None or protocol is not None)
        if neighbours is not None and by is not None:
            draw_neighbours(neighbours, by, asked.whole, say)
    except ValueError as error:
        raise error if isinstance(error, UsageError) else UsageError(str(error)) from None
    if not scores:
        raise UsageError("nothing can be scored: every metric is left out")
    return Scores(scores, left_out, chain.from_iterable(metric.describing() for metric in chosen))


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
    """The verdict on whether generated samples have collapsed beside real ones. Each set is what `evaluate` takes. The
    real samples are none that the generator was trained on, and should be twice as many at least.

    Bins are the classes of the reference (`labels`, or those that it comes with) if its features sort three of four
    real samples into theirs, the modes of a dataset that has them, else clusters. A classifier of given samples learns
    from a quarter of them and judges by the others. Raises `UsageError` for what cannot be judged, naming what and why.

    >>> source = torch.Generator().manual_seed(0)
    >>> corners = torch.tensor([[0.0, 0.0], [0.0, 9.0], [9.0, 0.0], [9.0, 9.0]])
    >>> real = corners.repeat(200, 1) + torch.randn(800, 2, generator=source)
    >>> made = corners[0] + torch.randn(400, 2, generator=source)
    >>> judge(made, real, labels=[0, 1, 2, 3] * 200).verdict.value
    'SEVERE'
    """
    weights, cache, data_dir = _places(weights, cache, data_dir)
    options: dict[str, Any] = {"data_dir": data_dir, "numbers": numbers, "skip_broken": skip_broken}
    real, pair = _paired(generated, reference, size, options, say)
    classes, names = (pair.reference.labels, real.classes) if labels is None else classes_of(labels)
    if classes is not None and classes.shape != (len(pair.reference),):
        raise UsageError(f"labels: {len(classes):,} are given for {len(pair.reference):,} reference samples")
    kind = modality_of(pair.reference)
    reference = replace(pair.reference, labels=classes) if kind.learns_labels else pair.reference
    stores = partial(FeatureStore, cache=cache, weights=weights, device=environment.device(device), say=say)
    if features is None and not kind.is_vector:
        if real.split is None:
            dataset: Dataset = _candidate(reference, names)
        elif real.split[1] == "train":  # which the dataset's classifier has learned
            dataset = GivenDataset(reference, _count(reference))
        else:
            dataset = real.split[0]
        features = best_features(dataset, stores(dataset), weights, say) or kind.judge_extractor
    elif features == "classifier" and real.split and real.split[1] == "train":
        raise UsageError(f"reference: the classifier has learned {real.name}; name another split, or other features")
    dataset, reference, rows = _dataset(reference, real, names, features, say)
    if kind.is_vector:
        vectors = _Vectors(kind.vectors(pair.generated), kind.vectors(reference), str(pair.generated.modality))
    else:
        vectors = _extracted(pair.generated, reference, stores(dataset), dataset, features, weights, say)
    real_set = RealSet(
        vectors.real,
        f"{vectors.identity}|data:{dataset.name}:{dataset.digest[:8]}",
        lambda place: real.called(int(rows[place])),
        labels=None if classes is None else classes[rows],
        names=names or (dataset.class_names if labels is None else None),
        # Labels that were given come before the modes that a dataset has.
        modes=dataset.modes if labels is None and kind.is_vector else None,
        sentences=_sentences(pair.reference, dataset, real) if kind.shown_as == "lines" else None,
        alike=equal(reference),
        pictures=vectors.pictures,
        asked=pair.asked if labels is None else None,
        by=vectors.network,
    )
    return verdict_on(vectors.fake, pair.generated, real_set, cache)


# ---- the sets


def _places(
    weights: WeightsPolicy | None, cache: Path | None, data_dir: Path | None
) -> tuple[WeightsPolicy, Path, Path]:
    """Policy of weights, folder of kept features and folder of datasets: as given, else as the environment says."""
    if weights is None or cache is None or data_dir is None:
        where = Settings.load()
        weights = weights or WeightsPolicy(where.weights_dir)
        cache, data_dir = cache or where.shared_cache, data_dir or where.data_dir
    return weights, cache, data_dir


def _paired(
    generated: Any, reference: Any, size: int | None, options: Mapping[str, Any], say: Callable[[str], None]
) -> tuple[Input, Pair]:
    """The reference, a dataset that is named at the size of the generated pictures where it has that, and both sets in
    one form. Tells `say` how they were read.
    """
    given = read_input(reference, name="reference", **options)
    fake = read_input(generated, name="generated", like=given.modality, **options)
    real = of_size(given, size or _side(fake)) if isinstance(reference, str) else given
    if real is not given:
        say(f"{real.name}: read at {real.common}×{real.common} pixels, as what is compared with it")
    pair = Pair(fake, real, size)
    for note in pair.notes:
        say(note)
    return real, pair


def _side(given: Input) -> int | None:
    """The one side, in pixels, that all pictures have; None where there is none."""
    return given.sides[0] if given.sides is not None and given.sides[0] == given.sides[1] else None


def _drawn(generated: Samples, samples: int | None) -> Samples:
    """The generated samples to score: all, or so many. Raises `UsageError` for more than there are."""
    if samples is not None and samples > len(generated):
        raise UsageError(f"{samples:,} samples are to be scored, and {len(generated):,} are given")
    if samples is None or samples == len(generated):
        return generated
    return generated.take(choice(len(generated), samples))


def _training_set(train: Any, pair: Pair, options: Mapping[str, Any], say: Callable[[str], None]) -> Samples:
    """What the generator was trained on, in the form of the pair. Tells `say` how it was read."""
    given = read_input(train, name="train", like=pair.generated.modality, **options)
    if isinstance(train, str) and modality_of(given).is_image:
        given = of_size(given, pair.reference.values.shape[-1])
    samples = pair.another(given)
    for note in given.notes:
        say(note)
    return samples


def _real(
    pair: Pair, real: Input, count: int, features: str | None, say: Callable[[str], None]
) -> tuple[Dataset, Real]:
    if real.split is None:
        dataset, reference, _ = _dataset(pair.reference, real, real.classes, features, say)
        if len(reference) < 2:
            raise UsageError(f"{real.name}: one sample is no reference; give two at the very least")
        pool = Pool((reference,), len(reference) // 2)
        return dataset, Real.drawn(reference, pool, count)
    dataset, split = real.split
    other = dataset.load("holdout" if split != "holdout" else "reference")
    # Systems know the training split, and so do their judges: what is held against it is no part of it.
    pool = pool_of(pair.reference, other, dataset.exchangeable and split != "train")
    return dataset, Real.drawn(pair.reference, pool, count, dataset.load("train"))


def _dataset(
    reference: Samples,
    real: Input,
    names: Sequence[str] | None,
    features: str | None,
    say: Callable[[str], None],
) -> tuple[Dataset, Samples, Tensor]:
    """The dataset of the reference, the samples to compare with, and their places [n] among all. A classifier of given
    samples learns from a part that is put aside: it sorts what it has learned right, which says nothing of others.
    """
    if real.split:
        return real.split[0], reference, torch.arange(len(reference))
    if features == "classifier" and reference.labels is not None:
        dataset, rest, rows = _put_aside(reference, names)
        count = len(reference) - len(rest)
        say(f"{real.name}: {count:,} of {len(reference):,} pictures train the classifier, and the others are compared")
        return dataset, rest, rows
    return GivenDataset(reference, _count(reference)), reference, torch.arange(len(reference))


def _candidate(reference: Samples, names: Sequence[str] | None) -> GivenDataset:
    """The dataset of given samples by which it is tried whether a classifier of their classes can serve."""
    return GivenDataset(reference, None) if reference.labels is None else _put_aside(reference, names)[0]


def _put_aside(reference: Samples, names: Sequence[str] | None) -> tuple[GivenDataset, Samples, Tensor]:
    """A dataset of labelled samples whose train split is a quarter of them, the others, and their places [n]."""
    learned, rows = (each.sort().values for each in parted(reference, len(reference) // _LEARNED))
    rest, known = reference.take(rows), reference.take(learned).canonical()
    return GivenDataset(rest, _count(reference), known, names), rest, rows


def _count(reference: Samples) -> int | None:
    """The number of classes of given samples; None without labels."""
    return None if reference.labels is None else int(reference.labels.max()) + 1


# ---- scores


def _signature_parts(pair: Pair, count: int, sets: Real) -> list[str]:
    """What a signature says beyond the usual: the rule by which pixels were read, and the sizes of an uneven floor."""
    parts = [pair.rule] if pair.rule else []
    if len(sets.floor) != count or len(sets.against) != len(sets.reference):
        parts.append(f"floor:{len(sets.floor)}:{len(sets.against)}")
    return parts


def _scores(
    metrics: Sequence[Metric], evidence: AskedEvidence, leave_out: Callable[[str, str], None], *, strict: bool
) -> list[Score]:
    """Scores of all metrics. Raises `ValueError` for one that cannot be computed if it is the only one or `strict`, and
    else tells `leave_out` of it.
    """
    scores: list[Score] = []
    for metric in metrics:
        try:
            scores += scored(metric, evidence.of(metric), leave_out)
        except ValueError as error:
            # Features of a user's tell their number of dimensions only once they are there.
            if strict or isinstance(error, UsageError) or len(metrics) == 1:
                raise
            leave_out(plugins.name_of(type(metric)), str(error))
    return scores


# ---- vectors


@dataclass(frozen=True)
class _Vectors:
    """Vectors of generated [n, d] and real samples [m, d], the `identity` of what they are, and of extracted ones the
    `network` of image features and what makes `pictures` of real samples comparable.
    """

    fake: Tensor
    real: Tensor
    identity: str
    network: Extractor | None = None
    pictures: Pictures | None = None


def _extracted(
    fake: Samples,
    reference: Samples,
    store: FeatureStore,
    dataset: Dataset,
    name: str | None,
    weights: WeightsPolicy,
    say: Callable[[str], None],
) -> _Vectors:
    """Vectors by the extractor of a name. Raises `UsageError` where there is none, or it cannot read the samples."""
    kind = modality_of(reference)
    if name is None:
        raise UsageError(f"{fake.modality} are judged by features of yours: name an extractor with --features")
    extractor = lookup.find_extractor(name)
    extractor.check(dataset, weights)
    extractor.fetch(weights, say)
    vectors = store.made(name, fake).vectors.cpu(), store.real(name, reference).vectors.cpu()
    network = store.extractor(name)
    pictures = Pictures(reference.take, lambda images: store.made(name, images).vectors)
    return _Vectors(*vectors, network.identity, network if kind.is_image else None, pictures)


def _sentences(reference: Samples, dataset: Dataset, real: Input) -> Sentences | None:
    """The judge of sentences beside the reference, which is text. Raises `UsageError` for too few."""
    # What a language model has read is not strange to it: not those that others are judged beside.
    train = dataset.load("train") if real.split and real.split[1] != "train" else None
    try:
        return modality_of(reference).sentences([reference], train)
    except ValueError as error:
        raise UsageError(f"reference: {error}") from None
