"""Files of a promoted model: our own copy of them, and what MLflow gets."""

import json
import shutil
import tempfile
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from aigc_lab import __version__
from aigc_lab.host.files import umask
from aigc_lab.serving import lookup
from aigc_lab.serving.answering import columns
from aigc_lab.serving.lookup import Weights
from aigc_lab.training.model_code import code_of

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    from aigc_lab.systems.base import System
    from aigc_lab.tracking.model_registry import Package

    Array = numpy.typing.NDArray[Any]


def own_copy(weights: Weights, folder: Path, digest: str) -> Path:
    """Copy of the model's files in a folder of its own, whole or not at all: checkpoints are removed, and a repeated
    run overwrites its own.
    """
    copy = folder / "model.safetensors"
    if lookup.is_whole_copy(copy, weights.origin["sha256"], digest):
        return copy
    description = weights.path.with_suffix(".json")
    code = code_of(json.loads(description.read_text("utf-8")))
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        shutil.copyfile(weights.path, draft / copy.name)
        shutil.copyfile(description, draft / "model.json")
        for source in code:
            shutil.copyfile(weights.path.with_name(source.file), draft / source.file)
        draft.chmod(0o777 & ~umask())
        shutil.rmtree(folder, ignore_errors=True)  # a damaged copy
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return copy


def mlflow_package(folder: Path, sample: "Array", system: "System") -> "Package":
    """Content of the model for MLflow."""
    from aigc_lab.modalities.base import modality_of
    from aigc_lab.tracking.model_registry import Package

    kinds: dict[str, Literal["uint8", "float32", "string"]] = {"u": "uint8", "f": "float32", "U": "string"}
    return Package(
        folder=folder,
        code=Path(__file__).with_name("pyfunc.py"),
        columns=columns(conditional=system.conditional, options=modality_of(system).options),
        dtype=kinds[sample.dtype.kind],
        shape=sample.shape[1:],
        # Given, for MLflow would import everything to find them out. A local build (+cu128) cannot be asked for.
        requirements=[f"aigc-lab=={__version__}", f"torch=={installed('torch').partition('+')[0]}"],
        parameters={"format": "array"},
    )
