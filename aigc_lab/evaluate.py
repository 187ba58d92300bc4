"""Protocol + (generated, real) -> scores. Nothing here knows how the samples were trained or where scores go."""

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
from aigc_lab.samples import Images, Points, Text
from aigc_lab.scoring.collapse_judge import Pictures, equal
from aigc_lab.scoring.evidence import evidence_of, kept, pool_of
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.scoring.given_collapse import RealSet, classes_of, known_sentences, verdict_on
from aigc_lab.scoring.inputs import GivenDataset, Input, Pair, Range, parted, read_input
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
        known = read_input(train, name="train", **options)
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
    """Whether generated samples have collapsed beside real ones, which nothing was trained on and of which there should
    be at least twice as many. Each set is what `evaluate` takes. Bins are the classes of the reference (`labels`, or
    those that it comes with) if the features sort three of four real samples into theirs, the modes of a dataset that
    has them, else clusters. A classifier of given samples learns from a quarter of them, and judges by the others.

    Raises `UsageError` for what cannot be judged, naming what and why.

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
    reference = replace(pair.reference, labels=known) if isinstance(pair.reference, Images) else pair.reference
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
    if isinstance(made, Points):
        vectors = [made.canonical().values, reference.canonical().values]
        identity = "points"
        # Labels that were given come before the modes that a dataset has.
        modes = dataset.modes if labels is None else None
    else:
        name = features or "sentences"
        if isinstance(made, Images) and features is None:
            name, why = best_features(dataset, weights)
            say(why)
        store = FeatureStore(dataset, cache=kept, weights=weights, device=environment.device(device), say=say)
        extractor = lookup.find_extractor(name)
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


def _paired(
    generated: Any, reference: Any, size: int | None, options: Mapping[str, Any], say: Callable[[str], None]
) -> tuple[Input, Pair]:
    """What was given as real, and both sets in one form; says what was done to them and what was not read."""
    real = read_input(reference, name="reference", **options)
    pair = Pair(read_input(generated, name="generated", **options), real, size)
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
