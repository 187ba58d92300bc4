"""The judge of whether generators of a dataset have collapsed: a pool of real samples as vectors, in bins."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from aigc_lab import noise
from aigc_lab.data.base import Dataset, Modes
from aigc_lab.extractors.base import Extractor, choice
from aigc_lab.metrics.base import Evidence, Score
from aigc_lab.modalities.base import modality_of
from aigc_lab.samples import Images, Samples
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.scoring.null_cache import remembered
from aigc_lab.statistics.neighbours import nearest_others
from aigc_lab.verdicts.asked import asked, with_asked
from aigc_lab.verdicts.bins import ACCURACY, Bins, predicted_bins
from aigc_lab.verdicts.collapse import Judge, K, alike
from aigc_lab.verdicts.conclusion import Collapse, CollapseVerdict
from aigc_lab.verdicts.sentences import Sentences
from aigc_lab.verdicts.shift import blurred, shifted
from aigc_lab.verdicts.states import MISSING

# Real samples that judge as many generated ones: enough for splits in which both sides are large.
_TIMES, _LEAST = 4, 2000
_NOT_PROVED = "clusters of these do not show that nothing is"
# Less of its latents is a collapsed posterior.
_ACTIVE = 0.2
# An error of reconstruction so near to that of the mean picture is no better than it.
_BLIND = 0.95
# So many real samples are named of each missing bin.
EXAMPLES = 5
# Pictures that are looked at together for copies.
_AT_ONCE = 512
# Pictures of either side by which a shift of all generated ones is seen.
_SHIFTED = 1000
# Training samples that clusters are made of.
_CLUSTERED = 5000


def judgeable(dataset: Dataset, extractor: str | None, samples: int) -> bool:
    """Whether samples of a dataset can be judged: they have vectors, by themselves or by the features of an extractor,
    differ, and are at least 20. Equal sentences are no reason against it, since the judge knows which are equal.
    """
    kind = modality_of(dataset.shape)
    has_vectors = kind.is_vector or (extractor or kind.judge_extractor) is not None
    differ = dataset.distinct or dataset.shape.vocabulary is not None
    return differ and samples >= 20 and has_vectors


class CollapseJudge:
    """A judge of samples of one dataset, by the features of one `extractor`; samples that are vectors are judged by
    themselves. Its pool of real samples is the reference and the holdout. Bins are the modes of the dataset if it has
    any, else its classes, else clusters of the training split.
    """

    def __init__(self, dataset: Dataset, features: FeatureStore, extractor: str | None, samples: int) -> None:
        self._dataset, self._features, self._samples = dataset, features, samples
        self._kind = modality_of(dataset.shape)
        self._extractor = extractor or self._kind.judge_extractor

    @property
    def can(self) -> bool:
        """Whether samples of this dataset can be judged."""
        return judgeable(self._dataset, self._extractor, self._samples)

    def collapse(self, evidence: Evidence) -> CollapseVerdict | None:
        """The verdict on the generated samples; None where they cannot be judged."""
        if not self.can:
            return None
        vectors, rows = self._vectors(evidence.generated, evidence)
        # Of many samples the vectors of some are kept.
        fake = evidence.generated if len(rows) == len(evidence.generated) else evidence.generated.take(rows)
        with remembered(self._judge, self._features.cache) as judge:
            verdict = judged(judge, vectors, self._sentences, fake, Pictures(self._real, self._made))
            if fake.labels is not None:  # only a conditional system's samples have any
                verdict = with_asked(verdict, asked(judge, vectors, fake.labels))
        if self._sentences is not None:  # pictures are drawn of what a finished run lacks
            for row in verdict.bins:
                real = self.examples(row["name"], EXAMPLES) if row["state"] == MISSING else None
                row["examples"] = [] if real is None else self._kind.lines(real)
        return verdict

    def examples(self, name: str, count: int) -> Samples:
        """The `count` real samples whose vectors are nearest to the mean of a bin."""
        judge, names = self._judge, self._dataset.class_names
        if name not in judge.bins.names and names is not None and name.isdecimal():
            name = names[int(name)]  # of a verdict from before these classes had names
        return self._real(judge.examples(name, count))

    def _real(self, places: Tensor) -> Samples:
        """The real samples at these places of the pool."""
        splits = [self._dataset.load("reference"), self._dataset.load("holdout")]
        first, rows = len(splits[0]), self._rows[places].tolist()
        values = [splits[row >= first].values[row - first * (row >= first)] for row in rows]
        return replace(splits[0], values=torch.stack(values), labels=None)

    def _made(self, pictures: Images) -> Tensor:
        assert self._extractor is not None
        return self._features.made(self._extractor, pictures).vectors

    def _vectors(self, samples: Samples, evidence: Evidence | None = None) -> tuple[Tensor, Tensor]:
        """Vectors [k, d] of samples, and their row numbers [k]: of many samples an extractor keeps the vectors of some.
        Those of generated samples are the features of their `evidence`.
        """
        if self._kind.is_vector:
            return self._kind.vectors(samples), torch.arange(len(samples))
        assert self._extractor is not None
        extract = evidence.features if evidence is not None else self._features.real
        features = extract(self._extractor, samples)
        return features.vectors.cpu(), features.rows

    @cached_property
    def _sentences(self) -> Sentences | None:
        real = [self._dataset.load(split) for split in ("reference", "holdout")]
        with suppress(ValueError):  # so few sentences say nothing of others
            return self._kind.sentences(real, self._dataset.load("train"))
        return None

    @cached_property
    def _judge(self) -> Judge:
        splits = [self._dataset.load("reference"), self._dataset.load("holdout")]
        vectors, rows = zip(*(self._vectors(split) for split in splits), strict=True)
        pool, places = torch.cat(vectors), torch.cat([rows[0], len(splits[0]) + rows[1]])
        most = max(_TIMES * self._samples, _LEAST)
        chosen = torch.randperm(len(pool), generator=noise.generator("pool"))[:most].sort().values
        pool, modes, self._rows = pool[chosen], self._dataset.modes, places[chosen]
        labels = [split.labels for split in splits]
        classes = None if labels[0] is None or labels[1] is None else torch.cat([labels[0], labels[1]])[self._rows]

        def apart() -> Tensor:
            train = self._dataset.load("train")
            return self._vectors(train.take(choice(len(train), _CLUSTERED)))[0]

        names = self._dataset.class_names
        extractor = None if self._extractor is None else self._features.extractor(self._extractor)
        by = extractor if self._kind.is_image else None
        bins, kind = chosen_bins(pool, self._samples, modes=modes, labels=classes, names=names, apart=apart, by=by)
        of = splits[0].modality if extractor is None else extractor.identity
        signature = f"{of}|data:{self._dataset.name}:{self._dataset.digest[:8]}|by:{kind}"
        return Judge(pool, bins, signature, alike=equal(*splits, rows=self._rows))


def chosen_bins(
    pool: Tensor,
    n: int,
    *,
    modes: Modes | None = None,
    labels: Tensor | None = None,
    names: Sequence[str] | None = None,
    apart: Callable[[], Tensor] | None = None,
    by: Extractor | None = None,
) -> tuple[Bins, str]:
    """The bins that real vectors are counted in, and their kind: the `modes` if they are known, else the classes of
    `labels`, else clusters.

    Classes are used if there are two at least and nearest neighbours sort three of four real samples into theirs.
    Clusters are as many as n samples can decide about, made of vectors `apart` from the pool if there are any. Clusters
    of images do not show that nothing is missing, whatever extractor they are `by`: of ten classes one may be gone.
    """
    if modes is not None and pool.shape[1] == modes.centres.shape[1]:
        bins = Bins.of_centres(pool, modes.centres)
        numbered = labels is not None and float((bins.of == labels).double().mean()) >= ACCURACY
        return (replace(bins, numbers=tuple(range(len(bins.names)))) if numbered else bins), "modes"
    classes = None if labels is None or len(torch.unique(labels)) < 2 else Bins.of_labels(labels, names)
    accuracy = 1.0 if classes is None else _accuracy(pool, classes)
    if classes is not None and accuracy >= ACCURACY:
        return classes, "classes"
    bins = Bins.of_clusters(pool, n, None if apart is None else apart())
    if classes is not None:
        return replace(
            bins,
            names=_mostly(bins, classes),
            note=f"the features sort {accuracy:.0%} of real samples into their classes ({ACCURACY:.0%} are needed), so "
            "that these are clusters",
            withheld=f"nothing is proved to be missing, and {_NOT_PROVED}",
            accuracy=accuracy,
        ), "clusters"
    note = "there is one class only, so that these are clusters" if labels is not None else ""
    withheld = ""
    if by is not None:
        why = (
            "no classes of the real samples are known (--labels), by which it could be measured what the features sort"
        )
        if by.untrained:
            why = "the features are an untrained network's (--features names others)"
        withheld = f"nothing is proved to be missing, and {why}: {_NOT_PROVED}"
    return replace(bins, note=note, withheld=withheld), "clusters"


def _accuracy(pool: Tensor, bins: Bins) -> float:
    """The share of real vectors whose nearest others are of the same bin."""
    if len(pool) <= K:
        return 1.0  # so few are refused anyway
    vectors = pool.double()
    neighbours = nearest_others(vectors, torch.arange(len(vectors)), K)[1]
    return float((predicted_bins(vectors, bins.of, len(bins.names), neighbours)[0] == bins.of).double().mean())


def _mostly(clusters: Bins, classes: Bins) -> tuple[str, ...]:
    """Names of clusters, each with the class of most of its real samples."""
    called = []
    for number, name in enumerate(clusters.names):
        inside = torch.bincount(classes.of[clusters.of == number], minlength=len(classes.names))
        most = int(inside.argmax())
        called.append(f"{name} ({int(inside[most]) / max(int(inside.sum()), 1):.0%} {classes.names[most]})")
    return tuple(called)


def equal(*sets: Samples, rows: Tensor | None = None) -> Tensor | None:
    """A number [n] for each sample of all sets, or of those at `rows` of them together, that equal samples share. None
    where a sample is a vector as it is.
    """
    kind = modality_of(sets[0])
    if kind.is_vector:
        return None
    rows = torch.arange(sum(map(len, sets))) if rows is None else rows
    keys, first = [b""] * len(rows), 0
    for each in sets:
        mine = ((rows >= first) & (rows < first + len(each))).nonzero().flatten()
        for block in torch.split(mine, _AT_ONCE):  # what is on a disk is not in memory all at once
            for at, key in zip(block.tolist(), kind.content(each.take(rows[block] - first)), strict=True):
                keys[at] = key
        first += len(each)
    return alike(keys)


@dataclass(frozen=True)
class Pictures:
    """Real images beside their vectors: `at` gives those at some places of the pool [k], `vectors` the vectors [n, d]
    of any images.
    """

    at: Callable[[Tensor], Samples]
    vectors: Callable[[Images], Tensor]

    def like(self, generated: Images, weights: Tensor, of: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors [k, d] of real images that were changed to look like the generated ones, and their places in the pool
        [k]. Means over the pool are taken by `weights` [m], or evenly where the generated images are more blurred than
        the real ones of any bin `of` [m]: blurred ones are taken for those of other bins, which the weights follow.
        """
        places = choice(len(weights), min(_SHIFTED, len(weights)))
        some = generated.take(choice(len(generated), min(_SHIFTED, len(generated)))).canonical().values.cpu()
        real, parts = self.at(places).canonical().values.cpu(), weights[places]
        if parts.sum() == 0 or blurred(real, some, of[places]):
            parts = torch.ones_like(parts)
        images = shifted(real, some, parts)
        return self.vectors(Images(images)).cpu(), places


def judged(
    judge: Judge, vectors: Tensor, sentences: Sentences | None, generated: Any, real: Pictures | None = None
) -> CollapseVerdict:
    """The verdict on vectors [n, d] of generated samples, as their modality judges them: of text with what `sentences`
    say besides, of images with the `real` ones, which show whether a change of all generated ones (blur, a codec) hides
    what is there.
    """
    return modality_of(generated).judged(
        judge, vectors, generated, copies=lambda: equal(generated), sentences=sentences, real=real
    )


def with_code(
    collapse: CollapseVerdict | None, scores: Sequence[Score], system: object, reference: object = None
) -> CollapseVerdict | None:
    """The verdict, or POSTERIOR-COLLAPSED in its place where nothing worse was found and the code of an autoencoder
    carries next to nothing: it is proved to use less than a fifth of its latents, or it reconstructs images of the
    `reference` no better than their mean does.
    """
    worse = (Collapse.PARTIAL, Collapse.SEVERE, Collapse.TOTAL)
    if collapse is not None and collapse.verdict in worse:
        return collapse
    score, reason = _unused(scores, system) or _blind(scores, reference) or (None, "")
    if score is None:
        return collapse
    if collapse is not None:
        return replace(collapse, verdict=Collapse.POSTERIOR, reason=f"{reason}; of the samples: {collapse.reason}")
    return CollapseVerdict(Collapse.POSTERIOR, reason, score.n, 0, 0, 1, None, None, 0, 0, [], score.signature)


def _unused(scores: Sequence[Score], system: object) -> tuple[Score, str] | None:
    active = next((score for score in scores if score.name == "active_units"), None)
    units = getattr(system, "code_size", None) or getattr(getattr(system, "config", None), "latent_size", None)
    if active is None or not units or active.high >= _ACTIVE * units:
        return None
    return active, f"{active.value:.0f} of {units} latents are used (at most {active.high:.0f}, of {active.n} samples)"


def _blind(scores: Sequence[Score], reference: object) -> tuple[Score, str] | None:
    error = next((score for score in scores if score.name == "reconstruction_mse"), None)
    if error is None or not isinstance(reference, Samples):
        return None
    mean = modality_of(reference).error_of_mean(reference.take(choice(len(reference), error.n)))
    if mean is None:
        return None
    if error.value < _BLIND * mean:
        return None
    errors = f"an error of {error.value:.3g}, beside {mean:.3g}"
    return error, f"pictures are reconstructed no better than by their mean: {errors}"
