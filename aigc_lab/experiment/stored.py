"""The experiment of a sweep, rebuilt from its row in the registry."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aigc_lab.experiment import code_files
from aigc_lab.experiment.experiment import Experiment
from aigc_lab.experiment.yaml_file import Document
from aigc_lab.host import shared_files
from aigc_lab.host.settings import Settings
from aigc_lab.host.trust import gate
from aigc_lab.host.weights import WeightsPolicy


def stored_experiment(row: Mapping[str, Any], settings: Settings, weights: WeightsPolicy | None = None) -> Experiment:
    """The experiment of a sweep, from `id`, `name`, `source` and `experiment` of its row. Files of code that it names
    are run only if the home trusts them, and their copies where they are gone; `weights` replaces the policy of the
    settings.
    """
    document = Document(row["source"] or row["name"], row["experiment"])
    rebuilt = Experiment(row["name"], document, settings.data_dir, weights or settings.weights, gate(settings.home))
    copies = code_files.folder(settings, row["id"])
    if rebuilt.own_names:
        shared_files.fetch_all(shared_files.listed(copies, "*.py"))
    if copies.is_dir() and code_files.needed(rebuilt.own_names, Path(document.file).parent, copies):
        rebuilt.copies = copies
    return rebuilt
