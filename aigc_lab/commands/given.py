"""Samples that a user gives, scored and judged, for `aigc-lab evaluate`, `judge collapse` and Python.

Sentences in files are scored without torch; anything else takes seconds to import.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aigc_lab.errors import UsageError
from aigc_lab.scoring.given_sentences import concerns

if TYPE_CHECKING:
    from aigc_lab.statistics.score import Scores
    from aigc_lab.text.tokenizer import Tokenizer
    from aigc_lab.verdicts.conclusion import CollapseVerdict

_OF_IMAGES = {
    "size": "--size",
    "numbers": "--range",
    "neighbours": "--neighbours",
    "weights": "--weights",
    "allow_unverified_weights": "--allow-unverified-weights",
    "skip_broken": "--skip-broken",
}


def scores(
    generated: Any,
    reference: Any,
    *,
    train: Any = None,
    metrics: Sequence[str] | None = None,
    protocol: str | None = None,
    tokenizer: Tokenizer | None = None,
    samples: int | None = None,
    seed: int = 0,
    device: str = "auto",
    home: Path | None = None,
    **images: Any,
) -> Scores:
    """The scores of what was given: folders, files, arrays, samples, lists of sentences, datasets, runs and models.

    `images` are further options of `commands.evaluate.scores`. Raises `UsageError` for one of these with sentences,
    which take `features` alone of them.
    """
    generated, reference, train = map(_named, (generated, reference, train))
    common: dict[str, Any] = {"train": train, "metrics": metrics, "protocol": protocol, "samples": samples}
    common |= {"seed": seed, "device": device, "home": home}
    if concerns(generated, reference):
        common["features"] = images.pop("features", None)
        if unfit := [option for name, option in _OF_IMAGES.items() if images.get(name) not in (None, False)]:
            raise UsageError(f"{unfit[0]}: is for images, and these are files of sentences")
        from aigc_lab.commands.sentences import sentence_scores

        return sentence_scores(generated, reference, tokenizer=tokenizer or "words", **common)
    from aigc_lab.commands import evaluate

    return evaluate.scores(generated, reference, **common, **images)


def collapse(
    generated: Any,
    reference: Any,
    labels: Any = None,
    *,
    tokenizer: Tokenizer | None = None,
    device: str = "auto",
    home: Path | None = None,
    **options: Any,
) -> CollapseVerdict:
    """The collapse verdict on what was given, as `scores` takes it. Vectors of sentences are made of the reference's
    words. `labels` are classes of the reference's samples (numbers, names or a tensor); `options` are further ones of
    `commands.evaluate.collapse`.
    """
    generated, reference = map(_named, (generated, reference))
    if concerns(generated, reference):
        from aigc_lab.commands.sentences import sentence_sets
        from aigc_lab.host.settings import Settings
        from aigc_lab.scoring.given_sentences import judge_sentences

        settings = Settings.load(home)
        fake, real = sentence_sets((generated, reference), settings, device=device)
        options |= {"tokenizer": tokenizer or "words", "cache": settings.shared_cache}
        return judge_sentences(fake, real, labels, **options)
    if tokenizer is not None:
        raise UsageError("--tokenizer: is for sentences, and these are pictures or numbers")
    from aigc_lab.commands import evaluate

    return evaluate.collapse(generated, reference, labels, device=device, home=home, **options)


def _named(source: Any) -> Any:
    """A path as its text, as commands are given it; anything else as it is."""
    return str(source) if isinstance(source, Path) else source
