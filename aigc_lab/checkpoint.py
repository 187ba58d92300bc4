"""States and weights on disk: safetensors + JSON, written whole or not at all, and no pickle anywhere."""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from aigc_lab import plugins
from aigc_lab.errors import UsageError
from aigc_lab.files import sha256, write_atomically
from aigc_lab.samples import Modality, Shape
from aigc_lab.systems.base import System
from aigc_lab.trainer import State


def save_weights(system: System, weights: dict[str, Tensor], path: Path, facts: dict[str, Any]) -> list[Path]:
    """Writes and returns the files of a model: `path` (safetensors) with the weights to sample from, and
    beside it the JSON that says how to build the system, and the code of a system that came from a user's file.

    Of a moving average only the modules that `sample` uses are averaged; the others are the system's own.
    """
    shape = {"modality": system.shape.modality, "size": system.shape.size, "classes": system.shape.classes}
    name, source = plugins.name_of(type(system)), plugins.source_of(type(system))
    description = {"system": name, "config": system.config.model_dump(mode="json"), "shape": shape} | facts
    if source is not None:
        # A user's file may change or go; weights without their code are worth nothing.
        code = path.with_name(f"{name}.py")
        write_atomically(code, source)
        description["source"] = {"file": f"{name}.py", "sha256": hashlib.sha256(source).hexdigest()}
    write_atomically(path, save({key: tensor.contiguous().cpu() for key, tensor in weights.items()}))
    beside = path.with_suffix(".json")
    write_atomically(beside, json.dumps(description, indent=2).encode())
    return [path, beside] if source is None else [path, beside, code]


def load_system(path: Path, device: str = "cpu") -> System:
    """The system that `save_weights` stored, ready to sample; one that came from a user's file runs the stored code.

    Raises `UsageError` when a part is missing or is not what was stored.
    """
    beside = path.with_suffix(".json")
    for file in (path, beside):
        if not file.is_file():
            raise UsageError(f"{file}: no such file; a model is a .safetensors file with its .json beside it")
    try:
        return _built(json.loads(beside.read_text("utf-8")), path).to(device).eval()
    except UsageError:
        raise
    # Whatever else lies there: no JSON, other keys, a Config that has changed, weights of another network.
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"{path}: not a model that this version can load ({type(error).__name__}: {reason})") from None


def _built(description: Any, path: Path) -> System:
    shape, name = description["shape"], description["system"]
    if "source" in description:
        code = path.with_name(description["source"]["file"])
        if not code.is_file() or sha256(code) != description["source"]["sha256"]:
            raise UsageError(f"{code}: missing, or not the code that these weights were trained with")
        name = str(code)
    kind = plugins.find(System, name)  # type: ignore[type-abstract]
    system = kind(
        kind.Config.model_validate(description["config"]),
        Shape(Modality(shape["modality"]), tuple(shape["size"]), shape["classes"]),
    )
    system.load_state_dict(load_file(path))
    return system


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
