"""Real samples to hold generated ones against: as many as a run shows, drawn as it draws its own."""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from aigc_lab import plugins
from aigc_lab.errors import UsageError
from aigc_lab.web.embedded_files import Picture, of_png

if TYPE_CHECKING:
    from aigc_lab.data.base import Dataset
    from aigc_lab.experiment.experiment import Experiment
    from aigc_lab.host.settings import Settings
    from aigc_lab.samples import Samples

# The split that they are of: nothing was trained on it, and nothing was chosen by it.
SPLIT: Literal["holdout"] = "holdout"


@dataclass(frozen=True)
class RealSamples:
    """A picture or lines of `n` real samples of `dataset`; where there are none, `missing` says why, in a sentence that
    names no place on this machine, and `cause` in the words of the error.

    `unlike` names the systems whose pictures are no samples, such as a vector field: real samples beside them say
    nothing.
    """

    dataset: str
    picture: Picture | None = None
    n: int = 0
    noun: str = "samples"
    missing: str = ""
    cause: str = ""
    unlike: frozenset[str] = field(default_factory=frozenset)

    @property
    def caption(self) -> str:
        return f"{self.n:,} real {self.noun} ({self.dataset}, {SPLIT})"


def real_samples(row: Mapping[str, Any], signatures: Iterable[str], settings: "Settings") -> RealSamples:
    """The real samples of a sweep, from its row in the registry. Nothing is downloaded, and code that the home does not
    trust is not run. Samples of other data than the `signatures` of the scores name are not shown.

    They are drawn from the holdout by a key of their own, so that the same data give the same ones.
    """
    from aigc_lab.data.shared.published_files import without_downloads
    from aigc_lab.experiment.stored import stored_experiment

    name = str((row["experiment"].get("data") or {}).get("name", "the data"))
    try:
        with without_downloads():
            experiment = stored_experiment(row, settings)
            dataset = experiment.dataset
            _require_same(dataset, signatures)
            return _shown(dataset, _portrayed(experiment))
    except _OtherData as error:
        return RealSamples(name, missing=str(error), cause=str(error))
    except Exception as error:  # noqa: BLE001 -- a dataset of a user's may raise anything, and the report goes on
        cause = str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {error}"
        missing = f"No real samples are shown: the dataset {name} is absent from this machine, or cannot be read here."
        return RealSamples(name, missing=missing, cause=cause)


class _OtherData(UsageError):
    """The data here are not those that were scored."""


def _require_same(dataset: "Dataset", signatures: Iterable[str]) -> None:
    marks = {part for signature in signatures for part in signature.split("|") if part.startswith("data:")}
    if marks and f"data:{dataset.name}:{dataset.digest[:8]}" not in marks:
        raise _OtherData(
            f"No real samples are shown: the data of {dataset.name} on this machine are others than those that the "
            "scores are of."
        )


def _portrayed(experiment: "Experiment") -> frozenset[str]:
    """The systems that draw a picture of their own in the place of samples."""
    from aigc_lab.systems.base import System

    kinds = [experiment.system_class(name) for name in experiment.systems]
    return frozenset(plugins.name_of(kind) for kind in kinds if kind.portrait is not System.portrait)


def _shown(dataset: "Dataset", unlike: frozenset[str]) -> RealSamples:
    from aigc_lab.modalities.base import modality_of
    from aigc_lab.pictures import drawing

    modality = modality_of(dataset.shape)
    samples = _drawn(dataset, modality.shown(dataset.modes))
    pixels = modality.picture(samples, dataset.modes)
    if pixels is None:
        picture = Picture(None, "", lines=tuple(modality.lines(samples) or ()))
    else:
        picture = of_png(None, drawing.png(pixels))
    return RealSamples(dataset.name, picture, len(samples), modality.noun, unlike=unlike)


def _drawn(dataset: "Dataset", most: int) -> "Samples":
    """`most` different samples of the holdout, or all where it has fewer."""
    import torch

    from aigc_lab import noise

    samples = dataset.load(SPLIT)
    order = torch.randperm(len(samples), generator=noise.generator("report", "real samples"))
    return samples.take(order[:most])


def decoded(picture: Picture) -> bytes:
    """The bytes of the PNG file of a picture."""
    return base64.b64decode(picture.uri.partition(",")[2])
