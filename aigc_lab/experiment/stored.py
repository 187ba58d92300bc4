"""The experiment of a sweep, rebuilt from its row in the registry."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aigc_lab.experiment.yaml_file import Document
from aigc_lab.host.settings import Settings
from aigc_lab.host.trust import gate
from aigc_lab.host.weights import WeightsPolicy

if TYPE_CHECKING:
    pass
from aigc_lab.experiment.experiment import Experiment


def stored_experiment(row: Mapping[str, Any], settings: Settings, weights: WeightsPolicy | None = None) -> Experiment:
    """The experiment of a sweep, from `name`, `source` and `experiment` of its row. Files of code that it names are run
    only if the home trusts them; `weights` replaces the policy of the settings.
    """
    document = Document(row["source"] or row["name"], row["experiment"])
    return Experiment(row["name"], document, settings.data_dir, weights or settings.weights, gate(settings.home))
