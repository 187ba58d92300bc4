"""Scores and verdicts of samples that a user gives, without a sweep."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aigc_lab import plugins
from aigc_lab.data.base import Dataset
from aigc_lab.errors import UsageError
from aigc_lab.extractors.base import choice
from aigc_lab.extractors.shared import lookup
from aigc_lab.host import environment
from aigc_lab.host.settings import Settings
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.metrics.base import Pool, Real, Score, scored
from aigc_lab.modalities.base import modality_of
from aigc_lab.modalities.shared.inputs import Input, Range
from aigc_lab.scoring.collapse_judge import Pictures, equal
from aigc_lab.scoring.evidence import evidence_of, kept, pool_of
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.scoring.given_collapse import RealSet, classes_of, verdict_on
from aigc_lab.scoring.inputs import GivenDataset, Pair, parted, read_input
from aigc_lab.scoring.metric_choice import best_features, chosen_metrics
from aigc_lab.scoring.neighbours_picture import draw_neighbours, neighbours_by
from aigc_lab.verdicts.conclusion import CollapseVerdict

# A classifier of given samples learns from one in so many of them, and judges by the others.
_LEARNED = 4


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

    `generated`, `reference` and `train` (what the generator was trained on, for metrics that need it) are each a folder
    of images, a `.npy` or `.npz` file, a tensor or an array (uint8, or floats in [0, 1], [N, C, H, W], [N, H, W, C] or
    [N, D]), `Samples`, or `"mnist:holdout"`: a dataset, the holdout unless a split is named.

    The metrics are those of `metrics` by name or of a `protocol` (a name or a file). Without either they are those of
    the modality that can be computed: `leave` and `say` are told of each of the others and the reason. Both sets must
    be as large as a metric needs. `features` is the extractor of all metrics that can choose: `inception`,
    `classifier`, `random`, or a user's file.

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
        known = read_input(train, name="train", like=made.modality, **options)
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
    evidence = evidence_of(made, sets, dataset, store, against, system, details)
    asked = metrics is not None or protocol is not None

    def leave_out(metric: str, reason: str) -> None:
        say(f"{metric} is left out: {reason}")
        leave(metric, reason)

    wanted = chosen_metrics(metrics, protocol, features, evidence, weights, say, leave_out)
    store.keep |= kept(wanted)
    by = None if neighbours is None else neighbours_by(neighbours, wanted, evidence)
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
            draw_neighbours(neighbours, by, evidence, say)
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
    where = Settings.load()
    weights = weights or WeightsPolicy(where.weights_dir)
    options: dict[str, Any] = {"data_dir": data_dir or where.data_dir, "numbers": numbers, "skip_broken": skip_broken}
    real, pair = _paired(generated, reference, size, options, say)
    known, names = (pair.reference.labels, real.classes) if labels is None else classes_of(labels)
    if known is not None and known.shape != (len(pair.reference),):
        raise UsageError(f"labels: {len(known):,} are given for {len(pair.reference):,} reference samples")
    classes = None if known is None else int(known.max()) + 1
    kind = modality_of(pair.reference)
    reference = replace(pair.reference, labels=known) if kind.learns_labels else pair.reference
    rows, learned = torch.arange(len(reference)), None
    if features == "classifier" and not real.split:
        # What it has learned is sorted right, and says nothing of what is not.
        mine, rows = (each.sort().values for each in parted(reference, len(reference) // _LEARNED))
        learned, reference = reference.take(mine).canonical(), reference.take(rows)
        known = None if known is None else known[rows]
    elif features == "classifier" and real.split and real.split[1] == "train":
        raise UsageError(f"reference: the classifier has learned {real.name}; name another split, or other features")
    dataset = real.split[0] if real.split else GivenDataset(reference, classes, learned)
    names = names or (dataset.class_names if labels is None else None)
    made, modes, sentences, kept = pair.generated, None, None, cache or where.shared_cache
    pictures, network = None, None
    if kind.is_vector:
        vectors = [kind.vectors(made), kind.vectors(reference)]
        identity = str(made.modality)
        # Labels that were given come before the modes that a dataset has.
        modes = dataset.modes if labels is None else None
    else:
        best = best_features(dataset, weights) if features is None else None
        if best is not None:
            features, why = best
            say(why)
        name = features or kind.judge_extractor
        if name is None:
            raise UsageError(f"{made.modality} are judged by features of yours: name an extractor with --features")
        store = FeatureStore(dataset, cache=kept, weights=weights, device=environment.device(device), say=say)
        extractor = lookup.find_extractor(name)
        extractor.check(dataset, weights)
        extractor.fetch(weights, say)
        vectors = [store.made(name, made).vectors.cpu(), store.real(name, reference).vectors.cpu()]
        identity = store.extractor(name).identity
        if kind.is_image:
            network = store.extractor(name)
        pictures = Pictures(reference.take, lambda images: store.made(name, images).vectors)
    if kind.shown_as == "lines":
        # What a language model has read is not strange to it: not those that others are judged beside.
        train = dataset.load("train") if real.split and real.split[1] != "train" else None
        try:
            sentences = kind.sentences([pair.reference], train)
        except ValueError as error:
            raise UsageError(f"reference: {error}") from None
    of = f"{identity}|data:{dataset.name}:{dataset.digest[:8]}"

    def called(place: int) -> str:
        return real.called(int(rows[place]))

    known_real = RealSet(vectors[1], of, called, known, names, modes, sentences, equal(reference), pictures, by=network)
    return verdict_on(vectors[0], made, known_real, kept)


def _paired(
    generated: Any, reference: Any, size: int | None, options: Mapping[str, Any], say: Callable[[str], None]
) -> tuple[Input, Pair]:
    """The reference as it was given, and both sets in one form. Tells `say` how they were read."""
    real = read_input(reference, name="reference", **options)
    pair = Pair(read_input(generated, name="generated", like=real.modality, **options), real, size)
    for note in pair.notes:
        say(note)
    return real, pair


def _real(pair: Pair, real: Input, count: int) -> tuple[Dataset, Real]:
    if real.split is None:
        classes = None if pair.reference.labels is None else int(pair.reference.labels.max()) + 1
        if len(pair.reference) < 2:
            raise UsageError(f"{real.name}: one sample is no reference; give two at the very least")
        pool = Pool((pair.reference,), len(pair.reference) // 2)
        return GivenDataset(pair.reference, classes), Real.drawn(pair.reference, pool, count)
    dataset, split = real.split
    other = dataset.load("holdout" if split != "holdout" else "reference")
    # Systems know the training split, and so do their judges: what is held against it is no part of it.
    pool = pool_of(pair.reference, other, dataset.exchangeable and split != "train")
    return dataset, Real.drawn(pair.reference, pool, count, dataset.load("train"))
