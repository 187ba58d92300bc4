"""Names that modules had before they got rooms. Code that is stored beside weights, or that users wrote, imports them.

A finder at the end of `sys.meta_path` is asked only for what is found nowhere else: a name that exists costs nothing.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# The names that plugin files import and the README has told of; not every module that was ever moved.
FORMER = {
    "adversarial_system": "systems.shared.adversarial",
    "augmentation": "nets.augmentation",
    "batches": "data.shared.batches",
    "decoding": "nets.decoding",
    "frechet": "statistics.frechet",
    "image_files": "data.shared.image_files",
    "image_gan": "systems.shared.image_gan",
    "information": "metrics.shared.information",
    "kernels": "statistics.mmd",
    "language_system": "systems.shared.language",
    "manifold_metric": "metrics.shared.manifolds",
    "neighbours": "statistics.neighbours",
    "point_system": "systems.shared.point_gan",
    "precision": "nets.precision",
    "pretrained": "extractors.shared.pretrained",
    "scoring.text": "commands.sentences",
    "sentences": "data.shared.sentences",
    "text_metric": "metrics.shared.text",
    "text_scorer": "metrics.shared.lstm_scorer",
    "text_scoring": "commands.sentences",
    "torchvision_files": "data.shared.published_files",
    "weights": "host.weights",
}


class FormerNames(MetaPathFinder, Loader):
    """Imports `aigc_lab.<former name>` as the present module: the same object, so that classes are the same."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        return ModuleSpec(fullname, self) if package == "aigc_lab" and name in FORMER else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(f"aigc_lab.{FORMER[spec.name.partition('.')[2]]}")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Restores the present name: the module has been executed under it."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def install() -> None:
    """Adds the finder; a second time is harmless."""
    if not any(isinstance(finder, FormerNames) for finder in sys.meta_path):
        sys.meta_path.append(FormerNames())
