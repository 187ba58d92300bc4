"""States and weights on disk: safetensors and JSON, written atomically, without pickle."""

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from aigc_lab import plugins
from aigc_lab.errors import UsageError
from aigc_lab.host import shared_files
from aigc_lab.host.files import replacing, sha256, share, write_atomically
from aigc_lab.host.shared_files import Outbox
from aigc_lab.host.store import Damaged
from aigc_lab.host.trust import Allowed
from aigc_lab.shape import Shape
from aigc_lab.systems.base import System
from aigc_lab.training import model_code
from aigc_lab.training.host_copy import HostCopy
from aigc_lab.training.optimizers import laid_out
from aigc_lab.training.state import TrainingState

_LOG = logging.getLogger(__name__)


def save_weights(
    system: System, weights: dict[str, Tensor], path: Path, facts: dict[str, Any], same: Iterable[Path] = ()
) -> list[Path]:
    """Writes a model and returns its files: `path` (safetensors) with the weights to sample from, beside it the JSON
    that says how to build the system, and the code of users' files.

    Content that one of the models `same` holds already is shared with it. Of a moving average only the modules that
    `sample` uses are averaged; the others are the system's own.
    """
    name, source = plugins.name_of(type(system)), plugins.source_of(type(system))
    description = {"system": name, "config": system.config.model_dump(mode="json")}
    description |= {"shape": system.shape.dump()} | ({"conditional": True} if system.conditional else {}) | facts
    # A user's file may change or go; weights without their code are worth nothing.
    code = []
    if source is not None:
        code.append((path.with_name(f"{name}.py"), source))
        description["source"] = _source(*code[-1])
    for key, kind in system.named.items():
        own = plugins.source_of(kind)
        if own is not None:
            # No system's file is called so: its name has no dot.
            code.append((path.with_name(f"{key}.{plugins.name_of(kind)}.py"), own))
            description["config"][key] = code[-1][0].name
            description.setdefault("config_sources", {})[key] = _source(*code[-1])
    for file, text in code:
        write_atomically(file, text)
    _write(path, save({key: tensor.contiguous().cpu() for key, tensor in weights.items()}), same)
    beside = path.with_suffix(".json")
    _write(beside, json.dumps(description, indent=2).encode(), [each.with_suffix(".json") for each in same])
    return [path, beside, *(file for file, _ in code)]


def _source(file: Path, text: bytes) -> dict[str, str]:
    return {"file": file.name, "sha256": hashlib.sha256(text).hexdigest()}


def _write(path: Path, content: bytes, same: Iterable[Path]) -> None:
    digest = hashlib.sha256(content).hexdigest()
    for other in same:
        if other != path and other.is_file() and other.stat().st_size == len(content) and sha256(other) == digest:
            share(other, path)
            return
    write_atomically(path, content)


def take(path: Path, folder: Path) -> Path:
    """Model at `path` with the files beside it in another folder, shared without copying if that is possible."""
    folder.mkdir(parents=True, exist_ok=True)
    model_code.fetch(path)
    for file in (path, path.with_suffix(".json"), *path.parent.glob("*.py")):
        target = folder / file.name
        if file.is_file() and not target.exists():
            share(file, target)
    return folder / path.name


def load_system(path: Path, device: str = "cpu", allowed: Allowed | None = None) -> System:
    """System that `save_weights` stored, on the device and in evaluation mode. Code of users' files is the stored code,
    and runs only if `allowed` lets it pass.

    Raises `UsageError` if a part is missing or is not what was stored.
    """
    beside = path.with_suffix(".json")
    for file in (path, beside):
        if not file.is_file():
            raise UsageError(f"{file}: no such file; a model is a .safetensors file with its .json beside it")
    try:
        return _built(json.loads(beside.read_text("utf-8")), path, allowed).to(device).eval()
    except UsageError:
        raise
    # Whatever else lies there: no JSON, other keys, a Config that has changed, weights of another network.
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"{path}: not a model that this version can load ({type(error).__name__}: {reason})") from None


def _built(description: Any, path: Path, allowed: Allowed | None) -> System:
    name = description["system"]
    if plugins.is_file(name):  # `save_weights` never writes it: the code would lie anywhere, under no digest
        raise UsageError(
            f'{path.with_suffix(".json")}: "system" is {name!r:.100}, a file, and must be a name: the code of a '
            'system lies beside its weights, and "source" says which file it is'
        )
    if "source" in description:
        code = path.with_name(description["source"]["file"])
        if not code.is_file() or sha256(code) != description["source"]["sha256"]:
            raise UsageError(f"{code}: missing, or not the code that these weights were trained with")
        name = str(code)
    kind = plugins.find(System, name, allowed=allowed)  # type: ignore[type-abstract]
    config = description["config"]
    system = kind(
        kind.Config.model_validate(config | _keyed_code(description, path, allowed)),
        Shape.load(description["shape"]),
    )
    system.load_state_dict(load_file(path))
    return system


def _keyed_code(description: Any, path: Path, allowed: Allowed | None) -> dict[str, str]:
    """Paths of the code that keys of a stored configuration name, beside the weights, verified by their digests."""
    files = {}
    for key, name in plugins.keyed_files(description["config"]).items():
        source = dict(description.get("config_sources") or {}).get(key)
        if source is None or source["file"] != name:
            raise UsageError(
                f'{path.with_suffix(".json")}: "config.{key}" is {name!r:.100}, a file that "config_sources" does not '
                "say the digest of"
            )
        code = path.with_name(name)
        if not code.is_file() or sha256(code) != source["sha256"]:
            raise UsageError(f"{code}: missing, or not the code that these weights were trained with")
        if allowed is not None:
            allowed(code, plugins.read_source(str(code)))
        files[key] = str(code)
    return files


# ---- the state of a run that is under way


def save_state(state: TrainingState, path: Path) -> None:
    """Writes the state of a run after `state.step` steps: networks, their average, the optimisers' memory, and the rows
    of the current interval.
    """
    tensors, facts = parts_of(state)
    copy = HostCopy()
    ready = copy.take(tensors)
    with replacing(path) as temporary:
        ready()
        copy.write(temporary, facts)


def restore_state(state: TrainingState, path: Path) -> None:
    """Restores a freshly built state of the same configuration from a file, to the bit. Raises `ValueError` for the
    state of another system.
    """
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    restore_parts(state, tensors, facts, str(path))


def restore_parts(state: TrainingState, tensors: Mapping[str, Tensor], facts: Mapping[str, str], source: str) -> None:
    """Restores a freshly built state from what `parts_of` returned, to the bit. Raises `ValueError`, which names the
    `source`, for the state of another system.
    """
    state.step = int(facts["step"])
    for part, module in (("system", state.system), ("average", state.average)):
        stored = _below(f"{part}.", tensors)
        lacking = module.load_state_dict(stored, strict=False)
        # The modules that the average shares with the system were stored with the system alone.
        if lacking.unexpected_keys or not set(lacking.missing_keys) <= _shared(state):
            raise ValueError(f"{source}: not a state of this {type(state.system).__name__}")
    for name, optimizer in state.optimizers.items():
        memory: dict[int, dict[str, Tensor]] = {}
        weights = optimizer.param_groups[0]["params"]
        for key, value in _below(f"optimizer.{name}.", tensors).items():
            index, _, entry = key.partition(".")
            weight = weights[int(index)]
            # As the weight lies in memory: fused Adam pairs them by their place.
            memory.setdefault(int(index), {})[entry] = (
                laid_out(value.to(weight.device), weight.detach()) if value.shape == weight.shape else value
            )
        optimizer.load_state_dict({"state": memory, "param_groups": optimizer.state_dict()["param_groups"]})
    state.recorder.load(tensors.get("recorder.rows"), json.loads(facts["recorder"]))


def parts_of(state: TrainingState) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a state by name, each once, and the rest as text."""
    shared = _shared(state)
    tensors = {f"system.{key}": value for key, value in state.system.state_dict().items()}
    tensors |= {f"average.{key}": value for key, value in state.average.state_dict().items() if key not in shared}
    for name, optimizer in state.optimizers.items():
        for index, memory in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{name}.{index}.{key}": value for key, value in memory.items()}
    rows, meaning = state.recorder.dump()
    if rows is not None:
        tensors["recorder.rows"] = rows
    return tensors, {"step": str(state.step), "recorder": json.dumps(meaning)}


def _shared(state: TrainingState) -> set[str]:
    """Names of the average's tensors that are shared with the system."""
    theirs = state.system.state_dict()
    return {key for key, value in state.average.state_dict().items() if value.data_ptr() == theirs[key].data_ptr()}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


@dataclass(frozen=True)
class Stored:
    """Checkpoint of an unfinished run: the scores and curves so far (`history`), the weights chosen by the reference
    split so far (`selected`), and the file of the `state`.
    """

    step: int
    state: Path
    history: dict[str, Any]

    @property
    def selected(self) -> dict[str, Tensor]:
        with safe_open(self.state, "pt") as file:
            names = [name for name in file.keys() if name.startswith(_SELECTED)]  # noqa: SIM118 -- it is no dict
            return {name.removeprefix(_SELECTED): file.get_tensor(name) for name in names}


_SELECTED = "selected."
# Checkpoints that are kept of an unfinished run: if the newest is damaged, the one before it is used.
_KEPT = 2


class Checkpointer:
    """Writer of checkpoints of an unfinished run. Training waits only for the copy to the host: a thread writes, syncs,
    renames, and removes all but the last two. A checkpoint that falls due while one is being written is skipped.

    `<folder>/state-<step>.safetensors` is written first; the `.json` beside it, with its sha256 and the history, makes
    it a checkpoint. `stored(step)` is called in that thread when one is on disk. In a home with a store that thread
    publishes it, too, after the files of `outbox`, which its history may name.
    """

    def __init__(self, folder: Path, stored: Callable[[int], object], outbox: Outbox | None = None) -> None:
        self._folder = folder
        self._stored = stored
        self._outbox = outbox
        self._copy = HostCopy()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._warned = False

    def save(
        self,
        state: TrainingState,
        history: Mapping[str, Any],
        selected: Mapping[str, Tensor] | None,
        *,
        wait: bool = False,
    ) -> None:
        """Writes a checkpoint, unless one is being written; with `wait` it is on disk on return.

        A disk that cannot be written is a warning: the run goes on with the checkpoints that it has. Exceptions of
        `stored` are raised at the next call at the latest.
        """
        if self._thread is not None and self._thread.is_alive() and not wait:
            return
        self.finish()
        tensors, facts = parts_of(state)
        tensors |= {f"{_SELECTED}{key}": value for key, value in (selected or {}).items()}
        ready = self._copy.take(tensors)
        history_json = json.dumps(history).encode()
        self._thread = threading.Thread(
            target=self._write, args=(state.step, ready, facts, history_json), name="checkpoint", daemon=True
        )
        self._thread.start()
        if wait:
            self.finish()

    def finish(self) -> None:
        """Waits until nothing is being written."""
        if self._thread is not None:
            self._thread.join()
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write(self, step: int, ready: Callable[[], object], facts: dict[str, str], history: bytes) -> None:
        try:
            ready()
            path = self._folder / f"state-{step:09d}.safetensors"
            with replacing(path) as temporary:
                digest = self._copy.write(temporary, facts)
            index = {"step": step, "sha256": digest, "history": json.loads(history)}
            write_atomically(path.with_suffix(".json"), json.dumps(index).encode())
            superfluous = sorted(self._folder.glob("state-*.json"))[:-_KEPT]
            for older in superfluous:
                older.unlink()  # first: without it, the other is nobody's checkpoint
                older.with_suffix(".safetensors").unlink(missing_ok=True)
            self._publish(path, superfluous)
            self._stored(step)
        except OSError as error:
            if not self._warned:
                _LOG.warning("%s: a checkpoint could not be written: %s", self._folder, error)
            self._warned = True
        except BaseException as error:  # noqa: BLE001 -- it is raised again, in the thread that trains
            self._error = error

    def _publish(self, state: Path, superfluous: Iterable[Path]) -> None:
        """Publishes a checkpoint, in the order in which it was written, and withdraws older ones."""
        if self._outbox is not None:
            self._outbox.deliver()
        shared_files.publish(state)
        shared_files.publish(state.with_suffix(".json"))
        for older in superfluous:
            shared_files.withdraw(older, older.with_suffix(".safetensors"))


def checkpoints(folder: Path) -> Iterator[Stored]:
    """Checkpoints of a run, the newest first, those of the home's store included. `folder` holds a folder for each
    attempt. Damaged ones are logged and skipped. Raises `Failure` for a store that cannot be asked: a run that went on
    without it would begin anew.
    """
    here = {*folder.glob("*/state-*.json"), *shared_files.listed(folder, "state-*.json")}
    for path in sorted(here, key=lambda path: (path.stem, int(path.parent.name)), reverse=True):
        state = path.with_suffix(".safetensors")
        try:
            index = json.loads(shared_files.at_hand(path).read_bytes())
            if sha256(shared_files.at_hand(state, index["sha256"])) != index["sha256"]:
                raise ValueError("its bytes are not those that were written")
            stored = Stored(index["step"], state, index["history"])
        except (OSError, ValueError, KeyError, TypeError, Damaged) as error:
            _LOG.warning("%s: damaged, so an older checkpoint is used: %s", state, error)
            continue
        yield stored
