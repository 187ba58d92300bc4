"""A protocol of evaluation: what is measured of every run, and how its file is read."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationInfo, field_validator

from aigc_lab.config import Count, Strict
from aigc_lab.experiment.yaml_file import read_yaml, shown

if TYPE_CHECKING:
    pass
from aigc_lab.experiment.validation import validated

#: as `features`: the dataset's own classifier where it passes its test, else lite0; decided before the first run
AUTO = "auto"


class Protocol(Strict):
    """What is measured: the number of generated samples, and metrics as names with their configuration.

    `features` takes the place of those that the metrics name; `auto` is decided by `sweeps.feature_choice` before the
    first run, and the features that were chosen are what the sweep stores.
    """

    name: str
    samples: Count
    features: str | None = Field(
        None,
        max_length=4096,
        description="in place of those that metrics name; auto: the data's own classifier, or lite0",
    )
    metrics: list[tuple[str, dict[str, Any]]] = Field(min_length=1, max_length=100)
    fewer: bool = Field(
        False, description="where a scored split has fewer samples, all of it; metrics that need more are left out"
    )
    chosen: str = Field("", description="why these features were chosen; is written here, and changes no result")
    left_out: dict[str, str] = Field({}, description="metrics that the data were too few for, and why; is written here")
    temperatures: list[float] = Field(
        [],
        max_length=100,
        description="a finished language model is sampled at these too: its curve of quality against diversity",
    )

    @field_validator("temperatures")
    @classmethod
    def _warm(cls, values: list[float]) -> list[float]:
        cold = [value for value in values if not 0 < value < 100]
        if cold:
            raise ValueError(f"a temperature is above 0, like 0.8, not {cold[0]:g}")
        return values

    @field_validator("metrics", mode="before")
    @classmethod
    def _named(cls, items: Any) -> Any:
        if not isinstance(items, list):
            raise ValueError("metrics is a list of names, or of one name with its configuration: fd: {features: …}")
        named: list[tuple[str, dict[str, Any]]] = []
        for item in items:
            if isinstance(item, str):
                named.append((item, {}))
            elif isinstance(item, dict) and len(item) == 1:
                ((name, config),) = item.items()
                named.append((name, config or {}))
            else:
                raise ValueError(f"a metric is a name, or one name with its configuration, not {shown(item)}")
        return named

    @field_validator("metrics")
    @classmethod
    def _by_one_extractor(
        cls, metrics: list[tuple[str, dict[str, Any]]], info: ValidationInfo
    ) -> list[tuple[str, dict[str, Any]]]:
        features = info.data.get("features")
        if features in (None, AUTO):
            return metrics
        return [(name, config | {"features": features} if "features" in config else config) for name, config in metrics]


def load_protocol(
    path: Path, changes: Mapping[str, Any] | None = None, places: Mapping[str, str] | None = None
) -> Protocol:
    """The protocol of a file with changed keys. Raises `UsageError` that names the place of a wrong key: a line of the
    file, or for a changed key its entry in `places`.
    """
    document = read_yaml(path)
    for key, value in (changes or {}).items():
        document.data[key] = value
        document.overridden[(key,)] = (places or {}).get(key, key)
    document.data["name"] = path.stem
    return validated(Protocol, document.data, document.fail)
