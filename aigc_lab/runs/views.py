"""Views of a system beside its samples: reconstructions, interpolations, traversals of its latents, and its classes.

Each is a function of the system and of real samples alone, so that all steps and all runs of a dataset show the same
pictures, pairs and latents. A system shows those that it can: one with `encode` and `decode` the first three.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from aigc_lab import noise
from aigc_lab.data.base import Dataset
from aigc_lab.metrics.base import Coder, reconstructs
from aigc_lab.modalities.base import modality_of
from aigc_lab.pictures.drawing import Pixels
from aigc_lab.pictures.interpolation import between_latents, linear
from aigc_lab.pictures.labelled_grid import labelled_grid
from aigc_lab.samples import Images, Samples
from aigc_lab.systems.base import System

# The split of the real samples: nothing was trained on it, and nothing was chosen by it.
SPLIT: Literal["holdout"] = "holdout"
# Real samples whose codes say how active a latent is; of the first of them reconstructions and pairs are shown.
_REAL, _ACROSS, _PAIRS = 200, 8, 4
_STEPS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_LATENTS, _CATEGORIES, _CLASSES, _CELLS = 8, 10, 20, 80
# Burda et al. 2016: a latent whose posterior mean varies less over real samples is inactive.
ACTIVE = 0.01
# A code of more numbers is a map of features, of which a single one stands for nothing.
_MOST_LATENTS = 256


class Rows(NamedTuple):
    """Samples [rows × columns], row by row, with a name for each row and each column, and a note."""

    samples: Samples
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    note: str = ""


class View(NamedTuple):
    """A view by the name of its files, the systems that have it, and what it shows of one beside real samples; None
    where there is nothing to see.
    """

    name: str
    applies: Callable[[System], bool]
    draw: Callable[[Any, Samples], Rows | None]


def views_of(system: System) -> list[View]:
    """The views that a system has, in the order of `view_captions.CAPTIONS`."""
    kind = modality_of(system)
    return [view for view in VIEWS if view.applies(system)] if kind.is_image or kind.shown_as == "lines" else []


def real_samples(dataset: Dataset) -> Samples:
    """At most 200 samples of the holdout, a choice by a fixed key."""
    samples = dataset.load(SPLIT)
    return samples.take(torch.randperm(len(samples), generator=noise.generator("views"))[:_REAL])


def picture(rows: Rows) -> Pixels:
    """The rows of images as one picture, uint8 [H, W, 3]."""
    assert isinstance(rows.samples, Images)
    return labelled_grid(rows.samples.to("cpu"), rows.rows, rows.columns, rows.note)


def lines(rows: Rows) -> list[str]:
    """The rows of sentences, each sentence after the names of its row and its column."""
    told = modality_of(rows.samples).lines(rows.samples.to("cpu")) or []
    names = [" ".join(filter(None, (row, column))) for row in rows.rows for column in rows.columns]
    return [f"{name} | {line}" for name, line in zip(names, told, strict=True)] + ([rows.note] if rows.note else [])


@contextmanager
def at_rest(system: System) -> Iterator[None]:
    """Context in which nothing that a system computes changes it, or torch's own stream of random numbers: networks
    that it shares with the training are in evaluation mode for as long.
    """
    training = [module for module in system.modules() if module.training]
    device = next(system.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.inference_mode():
        for module in training:
            module.training = False
        try:
            yield
        finally:
            for module in training:
                module.training = True


# ---- codes


def _encoded(system: Any, real: Samples) -> tuple[Tensor, Tensor]:
    mean, log_variance = system.encode(real.as_inputs(), **_of_classes(system, real.labels))
    return mean, log_variance


def _decoded(system: Any, latents: Tensor, labels: Tensor | None, like: Samples) -> Samples:
    """What the decoder makes of codes [N, D], as samples of the kind of `like`."""
    return replace(like, values=system.decode(latents, **_of_classes(system, labels)), labels=None)


def _of_classes(system: System, labels: Tensor | None) -> dict[str, Tensor]:
    return {"labels": labels} if system.conditional and labels is not None else {}


def _in_rows(values: Tensor, rows: int) -> Tensor:
    """Values [rows × columns, …] as [rows, columns, …]."""
    return values.reshape(rows, -1, *values.shape[1:])


def _arranged(first: Samples, parts: list[Tensor]) -> Samples:
    """Samples of which each row has a part [rows, …] after the other."""
    return replace(first, values=torch.cat(parts, 1).flatten(0, 1), labels=None)


# ---- the views


def reconstructions(system: Any, real: Samples) -> Rows:
    """Real samples, and below each the decoder's mean of its code (Kingma & Welling 2014)."""
    across = min(_ACROSS, len(real)) if modality_of(real).is_image else 1
    groups = min(2 if across > 1 else _ACROSS, len(real) // across)
    shown = real.take(slice(0, groups * across))
    decoded = _decoded(system, _encoded(system, shown)[0], shown.labels, shown)
    both = [_in_rows(values, groups) for values in (shown.as_inputs(), decoded.values)]
    return Rows(_arranged(shown, both), ("real", "decoded") * groups, ("",) * across)


def interpolations(system: Any, real: Samples) -> Rows:
    """Decoded points on the line between the codes of two real samples, themselves at the ends (Bowman et al. 2016)."""
    pairs = _pairs(real, of_one_class=system.conditional)
    start, end = (real.take(pairs[:, side]) for side in (0, 1))
    between = linear(_encoded(system, start)[0], _encoded(system, end)[0], pairs.new_tensor(_STEPS, dtype=torch.float))
    labels = None if start.labels is None else start.labels.repeat_interleave(len(_STEPS))
    decoded = _in_rows(_decoded(system, between.flatten(0, 1), labels, start).values, len(pairs))
    ends = [each.as_inputs()[:, None] for each in (start, end)]
    names = tuple(f"pair {number + 1}" for number in range(len(pairs)))
    note = "straight lines between the codes of two real samples" + (" of one class" if system.conditional else "")
    return Rows(
        _arranged(start, [ends[0], decoded, ends[1]]), names, ("real", *map("{:g}".format, _STEPS), "real"), note
    )


def _pairs(real: Samples, *, of_one_class: bool) -> Tensor:
    """Rows of real samples in up to four pairs [P, 2]: the first ones, or the first two of each class in turn."""
    rows = torch.arange(len(real), device=real.values.device)
    if not of_one_class or real.labels is None:
        return rows[: 2 * min(_PAIRS, len(rows) // 2)].view(-1, 2)
    of_class = [rows[real.labels == label][:2] for label in sorted(set(real.labels.tolist()))]
    return torch.stack([each for each in of_class if len(each) == 2][:_PAIRS])


def latent_interpolations(system: System, real: Samples) -> Rows:
    """Samples between two latents of the prior: along the great circle, on which the norm of normal latents stays near
    that of a draw (White 2016).
    """
    device, law = real.values.device, system.latents(1).law
    drawn = noise.draw(system.latents(2 * _PAIRS), "interpolations", device=device)
    between = between_latents(law, drawn[::2], drawn[1::2], torch.tensor(_STEPS, device=device))
    names, labels = tuple(f"pair {number + 1}" for number in range(_PAIRS)), None
    if system.conditional:
        shown = _shown_classes(system.shape.classes or 1, _PAIRS)
        names = tuple(system.shape.names_of_classes[label] for label in shown)
        between, labels = between[: len(shown)], torch.tensor(shown, device=device).repeat_interleave(len(_STEPS))
    samples = system.sample(between.flatten(0, 1), labels=labels)
    note = "great circles between two latents" + ("" if law == "normal" else " (of their normal quantiles)")
    return Rows(samples, names, tuple(map("{:g}".format, _STEPS)), note)


def traversals(system: Any, real: Samples) -> Rows | None:
    """Decoded codes of one real sample of which one latent is moved to −2…2 standard deviations about its mean over
    real samples, both of the aggregate posterior; the most active latents first.

    A latent's activity is the variance of its posterior mean over real samples (Burda et al. 2016). Categorical codes
    come before all others, with a column for each of their categories.
    """
    mean, log_variance = _encoded(system, real)
    if mean.shape[1] > _MOST_LATENTS:
        return None
    activity = mean.var(0)
    scale = (activity + log_variance.exp().mean(0)).sqrt()
    one_hot, latents = _latents(system, activity)
    # A code that is a point has no scale of its own by which it could be called inactive.
    least = ACTIVE if bool(log_variance.isfinite().all()) else 0.0
    active = sum(value > least for value in activity[latents].tolist())
    shown = latents[: min(max(active, 0 if one_hot else 1), _LATENTS - len(one_hot))]
    deviations = torch.linspace(-2, 2, min(max(map(len, one_hot)), _CATEGORIES) if one_hot else 9, device=mean.device)
    moved = mean[:1].repeat(len(one_hot) + len(shown), len(deviations), 1)
    for row, code in enumerate(one_hot):
        moved[row, :, list(code)] = torch.eye(len(code), device=mean.device)[torch.arange(len(deviations)) % len(code)]
    for row, latent in enumerate(shown, start=len(one_hot)):
        moved[row, :, latent] = mean[:, latent].mean() + deviations * scale[latent]
    labels = None if real.labels is None else real.labels[:1].repeat(moved.shape[0] * moved.shape[1])
    names = [f"c{number}  var {activity[list(code)].sum():.2g}" for number, code in enumerate(one_hot)]
    names += [f"z{latent}  var {activity[latent]:.2g}" for latent in shown]
    heads = [""] * len(deviations) if one_hot else [f"{each:g}" for each in deviations.tolist()]
    said = ["in rows c the categories, in rows z -2 to 2 standard deviations"] if one_hot else []
    note = "; ".join(said + _left_out(len(latents), active, len(shown)))
    return Rows(_decoded(system, moved.flatten(0, 1), labels, real), tuple(names), tuple(heads), note)


def _latents(system: Any, activity: Tensor) -> tuple[list[range], list[int]]:
    """Places of each categorical code, one-hot, and of all other latents, the most active first. A coder with such
    codes says their `one_hot_sizes`; they are the beginning of its code.
    """
    sizes = tuple(getattr(system, "one_hot_sizes", ()))[: _LATENTS - 1]
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    one_hot = [range(start, start + size) for start, size in zip(starts, sizes, strict=True)]
    one_hot.sort(key=lambda code: -activity[list(code)].sum().item())
    first = sum(getattr(system, "one_hot_sizes", ()))
    order = activity[first:].argsort(descending=True, stable=True) + first
    return one_hot, order.tolist()


def _left_out(latents: int, active: int, shown: int) -> list[str]:
    """What is said of the latents that are not shown."""
    inactive = f"{latents - active} of {latents} latents are inactive (variance at most {ACTIVE:g})"
    parts = [f"{inactive} and left out" if shown <= active else inactive] if active < latents else []
    return parts + ([f"{active - shown} more active latents are left out"] if active > shown else [])


def classes(system: System, real: Samples) -> Rows:
    """Samples of up to 20 classes, evenly chosen, a row a class; a column is one latent in all of them."""
    every = system.shape.names_of_classes
    shown = _shown_classes(len(every), _CLASSES)
    columns = min(_ACROSS, _CELLS // len(shown)) if modality_of(real).is_image else 2
    device = real.values.device
    latents = noise.draw(system.latents(columns), "classes", device=device)
    labels = torch.tensor(shown, device=device).repeat_interleave(columns)
    samples = system.sample(latents.repeat(len(shown), *[1] * (latents.ndim - 1)), labels=labels)
    note = f"{len(shown)} of {len(every)} classes, evenly chosen" if len(shown) < len(every) else ""
    return Rows(samples, tuple(every[label] for label in shown), ("",) * columns, note)


def _shown_classes(classes: int, most: int) -> list[int]:
    """At most so many classes, evenly chosen, the first and the last among them."""
    shown = min(classes, most)
    return [round(place * (classes - 1) / max(shown - 1, 1)) for place in range(shown)]


def _is_image(system: System) -> bool:
    return modality_of(system).is_image


def _copies(system: System) -> bool:
    """Whether what it decodes is meant to be what it encoded: InfoGAN's codes leave out a part."""
    return isinstance(system, Coder) and reconstructs(system)


VIEWS = (
    View("reconstructions", _copies, reconstructions),
    View("interpolations", _copies, interpolations),
    View("interpolations", lambda system: _is_image(system) and not _copies(system), latent_interpolations),
    View("traversals", lambda system: _is_image(system) and isinstance(system, Coder), traversals),
    View("classes", lambda system: system.conditional, classes),
)
