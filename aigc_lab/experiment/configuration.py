"""One trial: an experiment whose holes are filled."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from aigc_lab import plugins

if TYPE_CHECKING:
    from aigc_lab.data.base import Dataset
    from aigc_lab.systems.base import System
from aigc_lab.experiment.protocol import Protocol
from aigc_lab.experiment.sections import Training


@dataclass(frozen=True)
class Configuration:
    """One trial: an experiment without holes, each section validated by the class that reads it."""

    system: str
    system_class: "type[System]"
    system_config: Any
    dataset: "Dataset"
    training: Training
    protocol: Protocol
    #: what tells its system from the variants of it in the same choice, and the values of the holes by short name, for
    #: people: {"lr": 0.0002, "training.batch_size": 64}
    chosen: dict[str, Any]
    #: the values by the name of the hole, for Optuna: {"system.dcgan.lr": 0.0002}
    values: dict[str, Any]
    #: the filled experiment, as plain data
    data: dict[str, Any]
    #: the reason that is recorded for a run that the pruner stops
    pruned: str = ""
    #: what of `chosen` is no hole: {"loss": "hinge"} beside an option that is the same system with another loss
    told_apart: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The system, and what tells it from its variants: `dcgan loss=hinge`."""
        return " ".join([self.system, *(f"{key}={value}" for key, value in self.told_apart.items())])

    @property
    def named_files(self) -> dict[str, str]:
        """The keys of the system that name users' files, with the names that the experiment gives."""
        return plugins.keyed_files(self.data["system"])

    @property
    def parameters(self) -> dict[str, Any]:
        """Every knob and its value, defaults included, by the name that MLflow shows: `lr`, `training.steps`, `data`
        (the name of the dataset). Plain data.
        """
        sections: dict[str, BaseModel] = {"data.": self.dataset.config, "": self.system_config}
        parameters: dict[str, Any] = {"data": self.dataset.name}
        for prefix, section in (sections | {"training.": self.training}).items():
            parameters |= {f"{prefix}{key}": value for key, value in section.model_dump(mode="json").items()}
        return parameters | self.named_files
