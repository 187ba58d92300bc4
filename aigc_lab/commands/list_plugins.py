"""What there is to choose from, in full: of each plugin its paper, its knobs, their defaults and what they may be."""

import inspect
import re
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from aigc_lab import plugins
from aigc_lab.augmentations.base import Augmentation
from aigc_lab.data.base import Dataset
from aigc_lab.executors.base import Executor
from aigc_lab.metrics.base import Metric
from aigc_lab.modalities.base import ModalityKind
from aigc_lab.optimizers.base import Optimizer
from aigc_lab.penalties.base import Penalty
from aigc_lab.pruners.base import Pruner
from aigc_lab.systems.base import System

_BASES: dict[str, type[Any]] = {
    "systems": System,
    "data": Dataset,
    "metrics": Metric,
    "penalties": Penalty,
    "augmentations": Augmentation,
    "pruners": Pruner,
    "optimizers": Optimizer,
    "executors": Executor,
    "modalities": ModalityKind,
}
_NAME = r"[A-Z][\w'’-]+"
# "Radford, Metz & Chintala 2016", "Miyato et al. 2018"
_PAPER = re.compile(rf"{_NAME}(?:, {_NAME})*(?: & {_NAME}| et al\.)? (?:19|20)\d\d")
# How pydantic's bounds are written.
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
# A bound like this says what memory holds and arithmetic survives, and nothing about the knob.
_TECHNICAL = 10_000


def catalogue(folder: str) -> list[dict[str, Any]]:
    """The plugins of a folder, in order: `name`, `description`, `paper` (authors and year, of the first that the
    description or the class names; None without), `about` (what the class says of itself), `knobs`.
    """
    rows = []
    for name, description in plugins.describe(folder).items():
        kind = plugins.find(_BASES[folder], name)
        about = inspect.cleandoc(kind.__dict__.get("__doc__") or "")
        paper = _PAPER.search(f"{description} {about}")
        rows.append(
            {
                "name": name,
                "description": description,
                "paper": paper and paper[0],
                "about": about,
                "knobs": _knobs(kind),
            }
        )
    return rows


def _knobs(kind: type[Any]) -> list[dict[str, Any]]:
    if issubclass(kind, Penalty):
        about = "of its term, or of what it adds; null means this one"
        return [{"name": "penalty_weight", "default": kind.weight, "values": "number ≥ 0", "description": about}]
    if issubclass(kind, (Augmentation, Pruner, ModalityKind)):
        return []
    return [_knob(key, field) for key, field in kind.Config.model_fields.items()]


def _knob(name: str, field: FieldInfo) -> dict[str, Any]:
    named = plugins.named(field)
    return {
        "name": name,
        "default": None if field.is_required() else field.get_default(call_default_factory=True),
        "values": " ".join([" | ".join(named.options) if named else _values(field.annotation), *_bounds(field)]),
        "description": field.description or "",
    }


def _values(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        return _values(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return " | ".join(map(str, get_args(annotation)))
    if get_origin(annotation) is list:
        return f"list[{_values(get_args(annotation)[0])}]"
    parts = [part for part in get_args(annotation) if part is not type(None)]
    if parts and type(None) in get_args(annotation):
        return f"{' | '.join(map(_values, parts))} | null"
    return getattr(annotation, "__name__", str(annotation)).replace("float", "number").replace("int", "whole number")


def _bounds(field: FieldInfo) -> list[str]:
    # Those of `Positive | None` stand at the part that is not null.
    inner = [part for part in get_args(field.annotation) if get_origin(part) is Annotated]
    metadata = [
        bound for part in inner for info in part.__metadata__ for bound in getattr(info, "metadata", ())
    ] + field.metadata
    # A type's own bound, and the closer one of its field.
    bounds: dict[str, float] = {}
    for bound in metadata:
        for key in _BOUNDS:
            if (limit := getattr(bound, key, None)) is not None:
                pick = max if key in ("ge", "gt") else min
                bounds[key] = limit if key not in bounds else pick(bounds[key], limit)
    return [f"{_BOUNDS[key]} {limit:g}" for key, limit in bounds.items() if abs(limit) < _TECHNICAL]
