"""What the words of a ranking and of a report mean, and what a good value is: the one place that says it."""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from aigc_lab.display.wording import CONFIDENCE
from aigc_lab.registry.states import RunState
from aigc_lab.verdicts.conclusion import NOTHING, SEVERE_ABOVE, TOTAL_ABOVE, Collapse
from aigc_lab.verdicts.stability import FACTOR, FEWEST, SWING, Stability


class Entry(NamedTuple):
    """A word, its meaning in one or two sentences, and the group that it is listed in."""

    word: str
    text: str
    group: str


_PERCENT = f"{CONFIDENCE:.0%}".replace("%", " %")

#: what stands in a table
TERMS: Mapping[str, str] = MappingProxyType(
    {
        "trial": "One configuration: a system with the values that were chosen for it.",
        "run": "One training of a trial with one seed. Run 2.1 is trial 2 with seed 1.",
        "seed": "The number that all randomness of a run comes from. Several seeds of one trial show how much of a "
        "score is luck.",
        "fresh seed": "A seed that the search did not choose by; in the ranking *, and ** where nobody chose "
        "by it. A value that won is luckier than the same configuration trained again, so fresh seeds are what to "
        "believe.",
        "n": "The number of samples that a score was computed from. Most scores change with n, so compare at "
        "the same n alone.",
        "floor": "What real samples score against other real samples at the same n (of a model's own score, what it "
        "gives its training samples): the goal. A good value is near it, a little above where lower is better (↓), a "
        "little below where higher is better (↑); one that is far better than the floor is a sign of copying.",
        "± of a floor": "One standard deviation of the floor over random draws of real samples.",
        "sampling error": f"What stands behind the ± of one run: drawing other samples of the same model moves its "
        f"score by less than this in {_PERCENT} of all cases. Another seed may move it much more.",
        "range": "The lowest and the highest value of a few seeds, with their median before it. It is no interval: "
        "another seed may well lie outside.",
        "interval": f"The interval [low, high] covers the median over all seeds that could be drawn with {_PERCENT}. "
        "Of a single run it is the sampling error alone.",
        "signature": "How a score was computed: features, n, data, version. Numbers of two signatures do not compare, "
        "so they are ranked in tables of their own.",
        "reference": "The split of real samples that search and ranking choose by.",
        "holdout": "The split of real samples that nothing was chosen by. What is shown is the value on it.",
        "collapse": "The verdict on the samples of a run: how much of the real data is missing among them. A good "
        "value is NONE.",
        "stability": "The verdict on the course of a run's objective over its steps. A good value is STABLE.",
        "front": "Of a search with several objectives: no other trial is as good in all of them and better in one. "
        "Trials that violate a constraint are on no front.",
        "bin": "A class, a known mode or a cluster of the real data, in which generated samples are counted.",
        "latent": "One of the numbers that a sample is made from; the latents of an autoencoder are the code of a "
        "sample. One is inactive where it hardly depends on the sample: the mean that the encoder gives it varies by "
        "0.01 at most (its variance over real samples).",
        "P(A better)": "The chance that a seed of A is better than one of B: the share of all pairs of their seeds "
        "in which it is. At 0.5 neither is better.",
        "cannot tell": "The seeds that are there do not show which is better. That is no proof that both are equally "
        "good; more seeds might tell.",
        "!": "Beside a rank: the samples are so unlike real ones, or lack so much, that the score says little.",
        "?": "Beside a rank: not confirmed on fresh seeds; it may be luck.",
        "~": "Beside a rank: one of the leaders within noise. By their seeds no test finds any of these rows "
        "worse than the first of them, so it is not known to be the best.",
        "×": "Beside a rank: a run has a verdict that its sweep does not allow (objective.subject_to).",
        "^": "Beside a rank: an adaptive sampler chose the trials of this row, or a pruner stopped some. They are no "
        "random draw, so no claim is made of it.",
    }
)


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


#: words of the verdict on a collapse
COLLAPSE: Mapping[str, str] = MappingProxyType(
    {
        Collapse.NONE: f"It is shown that no more than {_percent(NOTHING)} of the real data is missing.",
        Collapse.PARTIAL: f"More than {_percent(NOTHING)} of the real data is missing for certain, or samples vary "
        "less than half as much as real ones somewhere.",
        Collapse.SEVERE: f"More than {_percent(SEVERE_ABOVE)} of the real data is missing for certain.",
        Collapse.TOTAL: f"More than {_percent(TOTAL_ABOVE)} of the real data is missing for certain, or the samples "
        "are one thing over and over.",
        Collapse.INCONCLUSIVE: "It cannot be told whether anything is missing: the samples are too few, or a blur is "
        "in the way. The run's reason says which.",
        Collapse.UNMEASURABLE: "The samples are too unlike real ones for anything to be counted.",
        Collapse.POSTERIOR: "A VAE's code carries nothing: its decoder ignores it.",
    }
)
#: words of the verdict on the stability
STABILITY: Mapping[str, str] = MappingProxyType(
    {
        Stability.STABLE: "None of the faults below was found.",
        Stability.WITHHELD: f"Fewer than {FEWEST} evaluations: too few for a verdict.",
        Stability.DIVERGED: "A loss, gradient, weight or score was not a finite number.",
        Stability.NEVER_LEARNED: "The best value is not below half of what a trivial sampler scores.",
        Stability.REGRESSED: f"It ended much worse than its best value was: at {FACTOR:g} times that or more.",
        Stability.OSCILLATING: f"Over the last half it swings around its trend by more than {_percent(SWING)}.",
    }
)
#: states of a run that is not FINISHED
STATES: Mapping[str, str] = MappingProxyType(
    {
        RunState.QUEUED: "The run has not begun.",
        RunState.RUNNING: "The run is going on.",
        RunState.PRUNED: "The run was stopped by the pruner of its sweep; its reason says why.",
        RunState.DIVERGED: "The run ended since its numbers were not finite; it counts as the worst of its seeds.",
        RunState.FAILED: "The run ended by an error.",
        RunState.KILLED: "The run's process was ended from outside.",
    }
)

# ---- scores

_NEAR = "a good value is near the floor"
# Scores whose floor is what chance gives, and no goal.
_OVER_CHANCE = {"mig", "sap", "dci_disentanglement", "dci_completeness", "dci_informativeness"}
# Name without its features -> what it is. The direction and the features are added.
_SCORES: Mapping[str, str] = MappingProxyType(
    {
        "fid": "The Fréchet Inception distance: how far the generated samples as a whole lie from real ones",
        "fd": "A Fréchet distance: how far the generated samples as a whole lie from real ones",
        "fd_debiased": "A Fréchet distance without the part that is due to a finite n alone",
        "kid": "A kernel distance: how far generated samples lie from real ones, without bias at any n; 0 is equal",
        "inception_score": "How decided Inception is on each picture and undecided on all; it never looks at real ones",
        "classifier_score": "How decided the dataset's classifier is on each picture and undecided on all",
        "precision": "The share of generated samples that lie where real ones do: how good they look",
        "recall": "The share of real samples that lie where generated ones do: how varied these are",
        "improved_precision": "The share of generated samples that lie where real ones do: how good they look",
        "improved_recall": "The share of real samples that lie where generated ones do: how varied these are",
        "density": "How many real neighbourhoods each generated sample lies in: how good they look; 1 is usual",
        "coverage": "The share of real samples with a generated one nearby: how varied these are",
        "vendi": "How many different samples there are, as a ratio to as many real ones; 1 is as varied as real",
        "ndb": "The number of clusters whose share differs from the real one by more than chance",
        "jsd": "The Jensen–Shannon divergence of the shares of the clusters; 0 is equal",
        "modes": "The number of modes of the data that the samples hold",
        "hq": "The share of samples that lie within 3σ of a mode; a perfect sampler in two dimensions gets 0.989",
        "rkl": "The reverse Kullback–Leibler divergence, in nats, of the samples' shares of the modes; 0 is equal",
        "auth_pct": "The percentage of samples that are no near copy of a training sample; far below the floor is a "
        "sign of copying",
        "fd_gap": "The Fréchet distance to training samples less that to unseen ones; far below the floor is a sign "
        "of copying",
        "elbo": "The lower bound of the likelihood that the model gives unseen samples, in nats",
        "iw_nll": "The negative log-likelihood of unseen samples, in nats, by importance samples",
        "kl": "How much a VAE's code says of a sample, in nats",
        "active_units": "The number of a VAE's latents that carry anything",
        "mig": "How far one latent alone tells each factor behind the pictures, by mutual information; 1 is perfect",
        "sap": "How far one latent alone tells each factor behind the pictures, by prediction; 1 is perfect",
        "dci_disentanglement": "Whether each latent is of use for one factor behind the pictures only; 1 is perfect",
        "dci_completeness": "Whether one latent only is of use for each factor behind the pictures; 1 is perfect",
        "dci_informativeness": "How well the factors behind the pictures can be told from the code; 1 is perfect",
        "mutual_information": "What a VAE's code and a sample have in common, in nats",
        "reconstruction_mse": "The mean squared error of pixels after a way through the code; 0 is equal",
        "label_accuracy": "The share of generated pictures that a classifier of real ones sorts into the class that "
        "was asked for",
        "label_accuracy_worst": "The same share for the class with the smallest one",
        "mode_accuracy": "The share of generated points whose nearest mode is the one that was asked for",
        "mode_accuracy_worst": "The same share for the mode with the smallest one",
        "class_fd": "The mean over classes of the Fréchet distance of the samples asked for as a class to the real "
        "ones of it (intra-FID)",
        "class_fd_worst": "That distance for the class that is farthest away",
        "class_diversity": "How many different samples there are within a class, as a ratio to as many real ones, mean "
        "over classes; 1 is as varied as real",
        "class_diversity_worst": "That ratio for the least varied class",
        "cas_accuracy": "The accuracy on real samples of a classifier that was trained on generated ones alone",
        "augmentation_gain": "What generated samples add to the accuracy of a classifier trained on real ones",
        "ms_ssim": "How much pairs of generated pictures look alike; near 1 they are all the same",
        "bleu": "How many phrases of up to so many words occur in real sentences too",
        "self_bleu": "How many phrases the sentences share with one another; near 1 they are all the same",
        "corpus_bleu": "How many phrases pairs of sentences have in common, over the whole set (sacreBLEU)",
        "rouge": "How many words or phrases pairs of sentences have in common",
        "rouge_nn": "How many words each sentence shares with the nearest real one",
        "distinct": "The share of phrases of so many words that are different ones",
        "unique": "The share of sentences that occur once",
        "novelty": "The share of sentences that are not in the training data",
        "repetition": "How much sentences repeat their own phrases",
        "nll_gen": "What the model takes unseen real sentences for: negative log-likelihood in nats a word",
        "nll_div": "What the model takes its own sentences for, in nats a word; low values are a lack of variety",
        "nll_oracle": "What the model that made the data takes the sentences for, in nats a word; one good sentence "
        "over and over scores well, so read it beside nll_gen",
        "lm_forward": "What a model of real sentences takes generated ones for, in nats a word",
        "lm_reverse": "What a model of generated sentences takes real ones for, in nats a word",
        "embedding_fd": "A Fréchet distance of the vectors of sentences",
        "reconstruction_bleu": "How many phrases come back through the code of a VAE",
        "reconstruction_rouge_l": "How many words come back through the code of a VAE, in their order",
        "norm": "The distance of the game's two numbers from where it rests; 0 is at rest",
    }
)
# What a name of features stands for.
_FEATURES: Mapping[str, str] = MappingProxyType(
    {
        "clf": "a small classifier that was trained on this dataset (no FID: compare within this dataset alone)",
        "rand": "a network that was never trained, which ranks and means nothing beyond that",
        "stacked": "a classifier of stacked digits",
        "sentences": "the words of the reference",
        "lite0": "EfficientNet-Lite0, trained on ImageNet",
        "dinov2": "DINOv2",
        "clip": "CLIP",
        "inception": "Inception",
    }
)


def score_text(name: str, better: str | None) -> str:
    """What a score is, of which features, in which direction it is better, and what a good value is. `better` is
    `lower`, `higher`, or None for a score that describes a system, which is said without a direction.

    >>> score_text("fd_clf", "lower").partition(",")[0]
    'A Fréchet distance: how far the generated samples as a whole lie from real ones'
    >>> score_text("brightness", "higher")
    'A score of the protocol. Higher is better; a good value is near the floor.'
    >>> score_text("brightness", None)
    'A score of the protocol. A good value is near the floor.'
    """
    base, features = _parts(name)
    # inception_64 is Inception too, at another of its layers.
    whose = _FEATURES.get(features) or _FEATURES.get(features.partition("_")[0], features)
    of = f", in the features of {whose}" if features else ""
    near = "a good value is far above the floor, which is chance" if base in _OVER_CHANCE else _NEAR
    direction = f"{better.capitalize()} is better; {near}" if better else f"{near[0].upper()}{near[1:]}"
    return f"{_SCORES.get(base, 'A score of the protocol')}{of}. {direction}."


def _parts(name: str) -> tuple[str, str]:
    """A score's name without its features or order, and its features: `fd_clf` is (`fd`, `clf`)."""
    if name in _SCORES:
        return name, ""
    parts = name.split("_")
    for count in range(len(parts) - 1, 0, -1):
        base, rest = "_".join(parts[:count]), "_".join(parts[count:])
        if base in _SCORES:
            return base, "" if re.fullmatch(r"\d+|l", rest) else rest
    return name, ""


# ---- the list


def glossary(words: Iterable[str], scores: Mapping[str, str | None]) -> list[Entry]:
    """The entries of those `words` that are known, and of every score (name -> `lower`, `higher`, or None where it only
    describes), by group and there in a fixed order.

    A word that is both a verdict and a state, DIVERGED, is asked for by its group: `stability DIVERGED`.
    """
    asked = set(words)
    entries = [Entry(name, score_text(name, better), "scores") for name, better in scores.items()]
    entries += [Entry(word, text, "words") for word, text in TERMS.items() if word in asked]
    for group, texts in (("collapse", COLLAPSE), ("stability", STABILITY), ("state", STATES)):
        entries += [Entry(str(word), text, group) for word, text in texts.items() if f"{group} {word}" in asked]
    return entries
