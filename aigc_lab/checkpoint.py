"""States and weights on disk: safetensors + JSON, written whole or not at all, and no pickle anywhere."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from aigc_lab import plugins
from aigc_lab.errors import UsageError
from aigc_lab.files import write_atomically
from aigc_lab.samples import Modality, Shape
from aigc_lab.systems.base import System
from aigc_lab.trainer import State


def save_weights(system: System, weights: dict[str, Tensor], path: Path, facts: dict[str, Any]) -> None:
    """`path` (safetensors) with the weights to sample from, and the JSON beside it that says how to build the system.

    Of a moving average only the modules that `sample` uses are averaged; the others are the system's own.
    """
    shape = {"modality": system.shape.modality, "size": system.shape.size, "classes": system.shape.classes}
    name = type(system).__module__.rpartition(".")[2]
    description = {"system": name, "config": system.config.model_dump(mode="json"), "shape": shape} | facts
    write_atomically(path, save({key: tensor.contiguous().cpu() for key, tensor in weights.items()}))
    write_atomically(path.with_suffix(".json"), json.dumps(description, indent=2).encode())


def load_system(path: Path, device: str = "cpu") -> System:
    """The system that `save_weights` stored, ready to sample. Raises `UsageError` when a part is missing."""
    beside = path.with_suffix(".json")
    for file in (path, beside):
        if not file.is_file():
            raise UsageError(f"{file}: no such file; a model is a .safetensors file with its .json beside it")
    description = json.loads(beside.read_text("utf-8"))
    shape = description["shape"]
    kind = plugins.find(System, description["system"])  # type: ignore[type-abstract]
    system = kind(
        kind.Config.model_validate(description["config"]),
        Shape(Modality(shape["modality"]), tuple(shape["size"]), shape["classes"]),
    )
    system.load_state_dict(load_file(path))
    return system.to(device).eval()


def save_state(state: State, path: Path) -> None:
    """All that a run is after `state.step` steps: networks, their average, and what the optimisers remember."""
    tensors = {
        f"{part}.{key}": value
        for part, module in (("system", state.system), ("average", state.average))
        for key, value in module.state_dict().items()
    }
    for name, optimizer in state.optimizers.items():
        for index, memory in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{name}.{index}.{key}": value for key, value in memory.items()}
    # Modules that the average shares with the system are one tensor under two names: stored twice, restored alike.
    plain = {key: tensor.detach().cpu().clone() for key, tensor in tensors.items()}
    write_atomically(path, save(plain, {"step": str(state.step)}))


def restore_state(state: State, path: Path) -> None:
    """Puts a freshly built state of the same configuration where the stored one was, to the bit."""
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        state.step = int(file.metadata()["step"])
    for part, module in (("system", state.system), ("average", state.average)):
        prefix = f"{part}."
        module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    for name, optimizer in state.optimizers.items():
        prefix, memory = f"optimizer.{name}.", dict[int, dict[str, Tensor]]()
        for key, value in tensors.items():
            if key.startswith(prefix):
                index, _, entry = key.removeprefix(prefix).partition(".")
                memory.setdefault(int(index), {})[entry] = value
        optimizer.load_state_dict({"state": memory, "param_groups": optimizer.state_dict()["param_groups"]})
