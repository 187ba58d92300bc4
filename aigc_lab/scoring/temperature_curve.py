"""A language model at several temperatures: quality against diversity, the curve that a text GAN must pass (Caccia et
al. 2020).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from aigc_lab.metrics.shared.text import corpus_of, groups_of
from aigc_lab.nets.decoding import Sampling
from aigc_lab.pictures.drawing import Pixels, Plot, panels
from aigc_lab.samples import Samples
from aigc_lab.statistics.planes import PLANES, axis_title
from aigc_lab.systems.shared.language import LanguageSystem
from aigc_lab.text.bleu import bleu, self_bleu, self_bleu_without
from aigc_lab.text.corpus import Corpus
from aigc_lab.text.ngram_model import NgramModel

# Sentences of each temperature, at most: the curve is a picture, and should cost no more than one.
_MOST = 500


def curve(
    system: LanguageSystem,
    reference: Samples,
    floor: Samples,
    temperatures: Sequence[float],
    samples: int,
    seed: int,
    labels: Tensor | None = None,
) -> dict[str, Any]:
    """BLEU-4 and Self-BLEU-4, forward and reverse n-gram scores (nats a word) of `n` sentences at each temperature and
    at 1 (of the first `labels`, of a conditional model), and of as many real ones (`floor`): {"n", "references",
    "real": {…}, "points": [{"temperature", …, "without"}, …]}. `without` are the scores without each group of
    sentences, for the error of what is computed of the points (`verdicts.beside_likelihood`).
    """
    n = min(samples, _MOST, len(floor))
    words = corpus_of(reference)
    real = words.in_words_of(words)
    learned = NgramModel.fit(real)
    first = corpus_of(floor.take(slice(0, n))).in_words_of(words)
    points = []
    for temperature in sorted({*temperatures, 1.0}):
        fake = system.generate(n, seed, "temperature", labels=labels, sampling=Sampling(temperature=temperature))
        corpus = corpus_of(fake).in_words_of(words)
        points.append({"temperature": temperature} | point(corpus, real, learned))
    return {"n": n, "references": len(real), "real": _measured(first, real, learned), "points": points}


def point(fake: Corpus, real: Corpus, learned: NgramModel) -> dict[str, Any]:
    """The scores of generated sentences against real ones, and under `without` their values [G] without each group of
    generated sentences, the same groups at all temperatures: replicates of a delete-group jackknife, None of fewer than
    three sentences. `learned` is the model of the real ones.
    """
    return _measured(fake, real, learned) | {"without": _without(fake, real, learned) if len(fake) > 2 else None}


def _measured(fake: Corpus, real: Corpus, learned: NgramModel) -> dict[str, float]:
    forward = learned.nll(fake)
    return {
        "bleu_4": float(bleu(fake, real, (4,))[4].mean()),
        "self_bleu_4": float(self_bleu(fake, (4,))[4].mean()),
        "lm_forward": float(forward[0].sum() / forward[1].sum()),
        "lm_reverse": _reverse(fake, real),
    }


def _without(fake: Corpus, real: Corpus, learned: NgramModel) -> dict[str, list[float]]:
    groups = groups_of(len(fake))
    left = [np.flatnonzero(groups != group) for group in range(int(groups.max()) + 1)]
    quality, (nll, tokens) = bleu(fake, real, (4,))[4], learned.nll(fake)
    return {
        "bleu_4": [float(quality[rows].mean()) for rows in left],
        "self_bleu_4": self_bleu_without(fake, groups, (4,))[4].tolist(),
        "lm_forward": [float(nll[rows].sum() / tokens[rows].sum()) for rows in left],
        "lm_reverse": [_reverse(fake.take(rows), real) for rows in left],
    }


def _reverse(fake: Corpus, real: Corpus) -> float:
    nll, tokens = NgramModel.fit(fake).nll(real)
    return float(nll.sum() / tokens.sum())


def picture(curve_data: dict[str, Any]) -> Pixels:
    """Both planes side by side: the curve with its temperatures, the model's own point at 1, real sentences."""
    plots = []
    for plane in PLANES:
        across, up = plane.diversity, plane.quality
        points = curve_data["points"]
        line = [(point[across], point[up], f"{point['temperature']:g}") for point in points]
        own = next((x, y) for x, y, at in line if at == "1")
        real = (curve_data["real"][across], curve_data["real"][up])
        plots.append(Plot(_said(across), _said(up), line, own, real if all(map(math.isfinite, real)) else None))
    return panels(plots)


def _said(score: str) -> str:
    """`BLEU-4 (more: better sentences)`."""
    plane = next(plane for plane in PLANES if score in (plane.diversity, plane.quality))
    if score == plane.diversity:
        return f"{axis_title(score)} (less: more diverse)"
    return f"{axis_title(score)} ({'more' if plane.sign > 0 else 'less'}: better sentences)"
