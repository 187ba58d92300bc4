"""Who judges whether a dataset's generators have collapsed: real samples as vectors, bins, and their nulls."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from aigc_lab import noise
from aigc_lab.data.base import Dataset, Modes
from aigc_lab.features import FeatureStore
from aigc_lab.metrics.base import Evidence, Score
from aigc_lab.nulls import remembered
from aigc_lab.samples import Images, Points, Samples, Text
from aigc_lab.shape import Modality
from aigc_lab.text.vocabulary import EOS, PAD
from aigc_lab.text_metric import corpus_of
from aigc_lab.verdicts.bins import Bins
from aigc_lab.verdicts.collapse import Beside, Judge, alike
from aigc_lab.verdicts.conclusion import Collapse, CollapseVerdict
from aigc_lab.verdicts.missing import MISSING
from aigc_lab.verdicts.sentences import Sentences, of_splits

# Real samples that judge as many generated ones: enough for splits in which both sides are large.
_TIMES, _LEAST = 4, 2000
# Less of its latents is a collapsed posterior.
_ACTIVE = 0.2
# An error of reconstruction so near to that of the mean picture is no better than it.
_BLIND = 0.95
# So many real samples are named of each missing bin.
EXAMPLES = 5
# Training samples that clusters are made of.
_CLUSTERED = 5000
# Up to so many numbers a picture's own covariance is used for a trivial one.
_COVARIED = 1024


class Jury:
    """Judges samples of one dataset by the features of one `extractor`; points by themselves. The pool of real samples
    is the reference and the holdout; bins are known modes, else classes, else clusters of the training split.
    """

    def __init__(self, dataset: Dataset, features: FeatureStore, extractor: str | None, samples: int) -> None:
        self._dataset, self._features, self._samples = dataset, features, samples
        self._extractor = extractor
        if extractor is None and dataset.shape.modality == Modality.TEXT:
            self._extractor = "sentences"

    @property
    def can(self) -> bool:
        """Whether there is anything to judge by."""
        points = self._dataset.shape.modality == Modality.POINTS
        return self._dataset.distinct and self._samples >= 20 and (points or self._extractor is not None)

    def collapse(self, evidence: Evidence) -> CollapseVerdict | None:
        """The verdict on the generated samples; None where this cannot be judged."""
        if not self.can:
            return None
        vectors = self._vectors(evidence, evidence.generated)
        with remembered(self._judge, self._features.cache) as judge:
            verdict = judged(judge, vectors, self._sentences, evidence.generated)
        if self._sentences is not None:  # pictures are drawn of what a finished run lacks
            for row in verdict.bins:
                real = self.examples(row["name"], EXAMPLES) if row["state"] == MISSING else None
                row["examples"] = real.sentences() if isinstance(real, Text) else []
        return verdict

    def examples(self, name: str, count: int) -> Samples:
        """The real samples that are most like the mean of a bin."""
        splits = [self._dataset.load("reference"), self._dataset.load("holdout")]
        judge, first = self._judge, len(splits[0])
        places = self._rows[judge.examples(name, count)].tolist()
        values = [splits[place >= first].values[place - first * (place >= first)] for place in places]
        return replace(splits[0], values=torch.stack(values), labels=None)

    def _vectors(self, evidence: Evidence | None, samples: Samples) -> Tensor:
        if self._dataset.shape.modality == Modality.POINTS:
            return samples.canonical().values
        assert self._extractor is not None
        features = self._features.real(self._extractor, samples) if evidence is None else None
        if features is None:
            assert evidence is not None
            features = evidence.features(self._extractor, samples)
        return features.vectors.cpu()

    @cached_property
    def _sentences(self) -> Sentences | None:
        texts = [self._dataset.load(split) for split in ("reference", "holdout", "train")]
        corpora = [text.corpus for text in texts if isinstance(text, Text)]
        with suppress(ValueError):  # so few sentences say nothing of others
            return of_splits(corpora[:2], corpora[2]) if corpora else None
        return None

    @cached_property
    def _judge(self) -> Judge:
        splits = [self._dataset.load("reference"), self._dataset.load("holdout")]
        pool = torch.cat([self._vectors(None, split) for split in splits])
        most = max(_TIMES * self._samples, _LEAST)
        rows = torch.randperm(len(pool), generator=noise.generator("pool"))[:most].sort().values
        self._rows = rows
        labels = [split.labels for split in splits]
        known = None if labels[0] is None or labels[1] is None else torch.cat([labels[0], labels[1]])[rows]
        pool, modes = pool[rows], self._dataset.modes

        def apart() -> Tensor:
            return self._vectors(None, self._dataset.load("train").take(slice(0, _CLUSTERED)))

        bins, kind = chosen_bins(pool, self._samples, modes=modes, labels=known, apart=apart)
        of = "points" if self._extractor is None else self._features.extractor(self._extractor).identity
        return Judge(pool, bins, f"{of}|data:{self._dataset.name}:{self._dataset.digest[:8]}|by:{kind}")


def chosen_bins(
    pool: Tensor,
    n: int,
    *,
    modes: Modes | None = None,
    labels: Tensor | None = None,
    names: Sequence[str] | None = None,
    apart: Callable[[], Tensor] | None = None,
) -> tuple[Bins, str]:
    """What the mass of real vectors is counted in, and what that is by: modes that are known, else the classes of
    `labels`, else clusters that n samples can decide about, of vectors `apart` from the pool if there are any. One
    class alone tells nothing apart.
    """
    if modes is not None and pool.shape[1] == modes.centres.shape[1]:
        return Bins.of_centres(pool, modes.centres), "modes"
    if labels is not None and len(torch.unique(labels)) > 1:
        return Bins.of_labels(labels, names), "classes"
    bins = Bins.of_clusters(pool, n, None if apart is None else apart())
    why = "there is one class only, so that these are clusters" if labels is not None else ""
    return replace(bins, note=why), "clusters"


def judged(judge: Judge, vectors: Tensor, sentences: Sentences | None, generated: object) -> CollapseVerdict:
    """The verdict on vectors of samples, with what sentences say besides; pictures are copies by their pixels."""
    if isinstance(generated, Images):
        pixels = generated.canonical().values.cpu().flatten(1).numpy()
        return judge.judge(vectors, Beside(alike([each.tobytes() for each in pixels])))
    if sentences is None:
        return judge.judge(vectors)
    corpus, sentences.nulls = corpus_of(generated), judge.nulls
    verdict = judge.judge(vectors, sentences.beside(corpus))
    return sentences.with_phrases(verdict, corpus)


def with_code(
    collapse: CollapseVerdict | None, scores: Sequence[Score], system: object, reference: object = None
) -> CollapseVerdict | None:
    """The verdict, which a collapsed posterior takes the place of where nothing worse was found: proved to use less
    than a fifth of its latents, or to reconstruct pictures of the `reference` no better than their mean does, an
    autoencoder is a decoder that says the same of every code.
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
    units = getattr(getattr(system, "config", None), "latent_size", None)
    if active is None or not units or active.high >= _ACTIVE * units:
        return None
    return active, f"{active.value:.0f} of {units} latents are used (at most {active.high:.0f}, of {active.n} samples)"


def _blind(scores: Sequence[Score], reference: object) -> tuple[Score, str] | None:
    error = next((score for score in scores if score.name == "reconstruction_mse"), None)
    if error is None or not isinstance(reference, Images):
        return None
    pixels = reference.take(slice(0, error.n)).unit().double()
    mean = (pixels - pixels.mean(0)).square().mean().item()
    if error.value < _BLIND * mean:
        return None
    errors = f"an error of {error.value:.3g}, beside {mean:.3g}"
    return error, f"pictures are reconstructed no better than by their mean: {errors}"


def trivial(train: Samples, count: int) -> Samples:
    """What the simplest sampler makes: a Gaussian of the training samples' moments, of pictures with more than 1,024
    numbers pixel by pixel; for text words drawn by their frequency, in sentences as long as real ones.
    """
    if isinstance(train, Text):
        words, source = train.values, noise.generator("trivial")
        counted = torch.bincount(words[(words != PAD) & (words != EOS)], minlength=len(train.vocabulary)).double()
        lengths = words[torch.randint(len(words), (count,), generator=source)]
        drawn = torch.multinomial(counted, count * words.shape[1], replacement=True, generator=source)
        made = drawn.reshape(count, -1)
        made = torch.where((lengths == PAD) | (lengths == EOS), lengths, made)
        return Text(made, vocabulary=train.vocabulary)
    values = train.unit() if isinstance(train, Images) else train.canonical().values
    rows = values[:20_000].flatten(1).double()
    noise_ = noise.draw(noise.Draw((count, rows.shape[1])), "trivial").double()
    mean = rows.mean(0)
    if rows.shape[1] <= _COVARIED:
        spread, axes = torch.linalg.eigh(torch.cov(rows.T).reshape(rows.shape[1], -1))
        made = mean + (noise_ * spread.clamp_min(0).sqrt()) @ axes.T
    else:
        made = mean + noise_ * rows.std(0)
    shaped = made.float().reshape(count, *values.shape[1:])
    return Images(shaped.clamp(0, 1)) if isinstance(train, Images) else Points(shaped)
