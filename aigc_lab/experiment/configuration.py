"""One trial: an experiment whose holes are filled."""

from dataclasses import dataclass
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
    """One trial: an experiment without holes, every part checked by the class that reads it."""

    system: str
    system_class: "type[System]"
    system_config: Any
    dataset: "Dataset"
    training: Training
    protocol: Protocol
    #: what the search chose, by the short name that people read: {"lr": 0.0002, "training.batch_size": 64}
    chosen: dict[str, Any]
    #: the same by hole, for Optuna: {"system.dcgan.lr": 0.0002}
    values: dict[str, Any]
    #: everything, as plain data
    data: dict[str, Any]
    #: what is said of a run that the search's pruner stops
    pruned: str = ""

    @property
    def named_files(self) -> dict[str, str]:
        """The keys of the system that name users' files, as the experiment names them: wherever these lie now."""
        return plugins.keyed_files(self.data["system"])

    @property
    def parameters(self) -> dict[str, Any]:
        """The value of every knob, defaults included, by the name that MLflow shows: `lr`, `data.name` as `data`,
        `training.steps`. Plain data.
        """
        sections: dict[str, BaseModel] = {"data.": self.dataset.config, "": self.system_config}
        found: dict[str, Any] = {"data": self.dataset.name}
        for prefix, section in (sections | {"training.": self.training}).items():
            found |= {f"{prefix}{key}": value for key, value in section.model_dump(mode="json").items()}
        return found | self.named_files
