"""A language model at several temperatures: quality against diversity, the curve that a text GAN must pass (Caccia et
al. 2020).
"""

import math
from collections.abc import Sequence
from typing import Any

from aigc_lab.metrics.shared.text import corpus_of
from aigc_lab.nets.decoding import Sampling
from aigc_lab.pictures.drawing import Pixels, Plot, panels
from aigc_lab.samples import Samples
from aigc_lab.systems.shared.language import LanguageSystem
from aigc_lab.text.bleu import bleu, self_bleu
from aigc_lab.text.corpus import Corpus
from aigc_lab.text.ngram_model import NgramModel

#: what is drawn against what: diversity along, quality up
AXES = (("self_bleu_4", "bleu_4"), ("lm_reverse", "lm_forward"))
# Sentences of each temperature, at most: the curve is a picture, and should cost no more than one.
_MOST = 500


def curve(
    system: LanguageSystem, reference: Samples, floor: Samples, temperatures: Sequence[float], samples: int, seed: int
) -> dict[str, Any]:
    """BLEU-4 and Self-BLEU-4, forward and reverse n-gram scores (nats a word) of `n` sentences at each temperature and
    at 1, and of as many real ones (`floor`): {"n", "references", "real": {…}, "points": [{"temperature", …}, …]}.
    """
    n = min(samples, _MOST, len(floor))
    words = corpus_of(reference)
    real = words.in_words_of(words)
    learned = NgramModel.fit(real)
    first = corpus_of(floor.take(slice(0, n))).in_words_of(words)
    points = []
    for temperature in sorted({*temperatures, 1.0}):
        fake = system.generate(n, seed, "temperature", sampling=Sampling(temperature=temperature))
        points.append({"temperature": temperature} | _measured(corpus_of(fake).in_words_of(words), real, learned))
    return {"n": n, "references": len(real), "real": _measured(first, real, learned), "points": points}


def _measured(fake: Corpus, real: Corpus, learned: NgramModel) -> dict[str, float]:
    forward, reverse = learned.nll(fake), NgramModel.fit(fake).nll(real)
    return {
        "bleu_4": float(bleu(fake, real, (4,))[4].mean()),
        "self_bleu_4": float(self_bleu(fake, (4,))[4].mean()),
        "lm_forward": float(forward[0].sum() / forward[1].sum()),
        "lm_reverse": float(reverse[0].sum() / reverse[1].sum()),
    }


def picture(curve_data: dict[str, Any]) -> Pixels:
    """Both planes side by side: the curve with its temperatures, the model's own point at 1, real sentences."""
    plots = []
    for across, up in AXES:
        points = curve_data["points"]
        line = [(point[across], point[up], f"{point['temperature']:g}") for point in points]
        own = next((x, y) for x, y, at in line if at == "1")
        real = (curve_data["real"][across], curve_data["real"][up])
        plots.append(Plot(_SAID[across], _SAID[up], line, own, real if all(map(math.isfinite, real)) else None))
    return panels(plots)


_SAID = {
    "self_bleu_4": "Self-BLEU-4 (less: more diverse)",
    "bleu_4": "BLEU-4 (more: better sentences)",
    "lm_reverse": "reverse LM, nats a word (less: more diverse)",
    "lm_forward": "forward LM, nats a word (less: better sentences)",
}
