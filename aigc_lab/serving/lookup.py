"""Lookup of the weights that a user names: in the registry, and in MLflow for models that the
registry does not know.
"""

import hashlib
import json
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aigc_lab.display.selection import passed_over_lines
from aigc_lab.errors import UsageError
from aigc_lab.host import trust
from aigc_lab.host.files import sha256
from aigc_lab.host.settings import Settings
from aigc_lab.host.store import Damaged
from aigc_lab.registry import find
from aigc_lab.registry.best import Selection, best_run
from aigc_lab.registry.columns import FinalCheckpoint
from aigc_lab.registry.home import OpenedHome
from aigc_lab.registry.models import list_models
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.serving.model import Model
from aigc_lab.training import model_code
from aigc_lab.training.model_code import code_of

CHAMPION = "champion"


@dataclass(frozen=True)
class Weights:
    """Trained weights: their file, a name for messages, the home whose trust applies to code beside them, and their
    origin, which is recorded beside samples. `notes` say of the best run of a sweep what was passed over for it.
    """

    path: Path
    name: str
    home: Path
    origin: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def load(self, device: str) -> Model:
        """Model, ready to sample. Raises `UsageError` for files that are missing or are not the stored ones, and for
        code that is not trusted.
        """
        digest = self.origin.get("sha256")
        _fetched(self.path, digest)
        if not self.path.is_file():
            raise UsageError(f"{self.path}: the weights of {self.name} are gone; train or promote them again")
        if digest is not None and not has_digest(self.path, digest):
            raise UsageError(f"{self.path}: not the weights that were stored; train or promote them again")
        return Model.of_file(self.path, device, trust.gate(self.home))


@dataclass(frozen=True)
class _Mlflow(Weights):
    """Model that only MLflow knows: its files are downloaded for loading, and deleted afterwards."""

    uri: str = ""
    store: str = ""

    def load(self, device: str) -> Model:
        from aigc_lab.tracking.model_registry import download

        with tempfile.TemporaryDirectory() as folder:
            return Model.of_file(download(self.store, self.uri, Path(folder)), device, trust.gate(self.home))


def find_weights(reference: str, settings: Settings, checkpoint: FinalCheckpoint = "last") -> Weights:
    """Weights by reference: a file, `models:/NAME/VERSION`, `NAME@VERSION`, `NAME@ALIAS`, the name of a promoted model
    (its champion, else its newest version), a run, or a sweep (its best run). Raises `UsageError` for a reference to
    nothing.
    """
    with OpenedHome(settings) as home:
        return weights_in(home, reference, checkpoint)


def weights_in(home: OpenedHome, reference: str, checkpoint: FinalCheckpoint = "last") -> Weights:
    """As `find_weights`, in a home whose registry the caller uses too."""
    settings = home.settings
    if reference.endswith(".safetensors"):
        path = Path(reference).expanduser()
        if not path.is_file():
            raise UsageError(f"{reference}: no such file; a model is a .safetensors file with its .json beside it")
        return Weights(path, path.stem, settings.home, {"file": str(path)})
    if reference.startswith("models:/"):
        return _of_uri(reference, home)
    registry = home.registry
    name, at, alias = reference.partition("@")
    versions = list_models(registry, name)
    if versions:
        return _promoted(_chosen(versions, alias if at else None), settings)
    if at:
        models = sorted({row["model"] for row in list_models(registry)})
        raise UsageError(f"unknown model '{name}'; {_listed('promoted models', models)}")
    run, selection = selected_run(registry, reference, checkpoint)
    return replace(weights_of_run(registry, run, checkpoint), notes=_notes(selection))


def promoted_version(registry: Registry, reference: str) -> dict[str, Any] | None:
    """The row of `list_models` that `NAME@VERSION`, `NAME@ALIAS` or their `models:/` spellings mean; None for a
    reference of another kind. Raises `UsageError` for a version that was not promoted here.
    """
    if reference.startswith("models:/"):
        name, version, alias = _parts_of(reference)
        chosen = version or alias
    else:
        name, at, chosen = reference.partition("@")
        if not at:
            return None
    versions = list_models(registry, name)
    if not versions:
        models = sorted({row["model"] for row in list_models(registry)})
        raise UsageError(f"unknown model '{name}'; {_listed('promoted models', models)}")
    return versions[0] if chosen == "latest" else _chosen(versions, chosen)


def _parts_of(uri: str) -> tuple[str, str, str]:
    """Name, version and alias in a `models:/` address, of which at least one of the latter is empty."""
    match = re.fullmatch(r"models:/(?:([^/@]+)(?:/(\d+|latest)|@([\w-]+))|m-[0-9a-f]{32})", uri)
    if match is None:
        raise UsageError(f"{uri}: write models:/NAME/VERSION or models:/NAME@ALIAS")
    name, version, alias = match.groups("")
    return name, version, alias


def _of_uri(uri: str, home: OpenedHome) -> Weights:
    settings = home.settings
    name, version, alias = _parts_of(uri)
    try:
        versions = list_models(home.registry, name)
    except UsageError:  # a machine that only serves has MLflow, and no home
        versions = []
    matching = [row for row in versions if str(row["version"]) == version or alias in row["aliases"]]
    if version == "latest" and versions:
        matching = versions[:1]
    if matching:
        return _promoted(matching[0], settings)
    readable = re.sub(r"[^\w.-]+", "-", uri.removeprefix("models:/"))
    return _Mlflow(Path(), readable, settings.home, {"uri": uri}, uri=uri, store=settings.tracking_uri)


def _chosen(versions: list[dict[str, Any]], alias: str | None) -> dict[str, Any]:
    """Version at which an alias points, or whose number it is; without an alias the champion, or the newest where there
    is none.
    """
    for row in versions:
        if (alias or CHAMPION) in row["aliases"] or str(row["version"]) == alias:
            return row
    if alias is not None and alias.isdecimal():
        numbers = [str(row["version"]) for row in reversed(versions)]
        raise UsageError(f"model {versions[0]['model']} has no version {alias}; {_listed('its versions', numbers)}")
    if alias is not None:
        aliases = sorted({name for row in versions for name in row["aliases"]})
        raise UsageError(f"model {versions[0]['model']} has no alias '{alias}'; {_listed('its aliases', aliases)}")
    return versions[0]


def _promoted(row: dict[str, Any], settings: Settings) -> Weights:
    origin = {key: row[key] for key in ("model", "version", "run", "checkpoint", "sha256")}
    return Weights(Path(row["path"]), f"{row['model']}-{row['version']}", settings.home, origin)


def selected_run(registry: Registry, reference: str, checkpoint: FinalCheckpoint) -> tuple[str, Selection | None]:
    """Run by its id, or the best run of a sweep with the selection that it is of. Raises `UsageError` where there is
    none.
    """
    if re.search(r"\.\d+\.\d+$", reference):
        return find.find_run(registry, reference), None
    sweep = find.find_sweep(registry, reference)
    best = best_run(registry, sweep, checkpoint)
    if best is None:
        states = sorted({row["state"] for row in list_runs(registry, sweep)})
        reason = f"its runs are {', '.join(states)}" if states else "it has no runs"
        raise UsageError(
            f"sweep {sweep} has no finished run with a score ({reason}); 'aigc-lab runs {sweep}' lists them"
        )
    return str(best["run"]), best["selection"]


def _notes(selection: Selection | None) -> tuple[str, ...]:
    """What to know of the best run of a sweep before its samples are taken for it."""
    if selection is None:
        return ()
    if not selection.sound:
        return (f"no ranked run passes, this one is the first of them: {'; '.join(selection.best.objections)}",)
    return tuple(passed_over_lines(selection.as_json()))


_REMEDY = {
    RunState.QUEUED: "wait for it",
    RunState.RUNNING: "wait for it",
    RunState.PRUNED: "it was stopped early",
    RunState.DIVERGED: "it has no weights worth keeping",
}


def weights_of_run(registry: Registry, run: str, checkpoint: FinalCheckpoint) -> Weights:
    """Weights of a finished run. Raises `UsageError` for any other, with its state, and for a lost file."""
    row = show_run(registry, run)
    if row["state"] != RunState.FINISHED:
        why = f" ({row['reason']})" if row["reason"] else ""
        remedy = _REMEDY.get(RunState(row["state"]), "the command that started it does it again")
        raise UsageError(
            f"run {run} is {row['state']}{why}: only a FINISHED run has a model; {remedy},"
            f" or take another: aigc-lab compare {row['sweep']}"
        )
    file = next((file for file in row["checkpoints"] if file["kind"] == checkpoint), None)
    if file is None:
        raise UsageError(f"run {run} has stored no {checkpoint} weights; take another: aigc-lab runs {row['sweep']}")
    path = Path(file["path"])
    copies = [Path(copy["path"]) for copy in list_models(registry) if copy["sha256"] == file["sha256"]]
    # A promoted run outlives its checkpoints: the copy is the same to the bit.
    whole = next((place for place in (path, *copies) if _fetched(place, file["sha256"])), None)
    if whole is None:
        problem = "not the file that the run stored" if path.is_file() else "gone"
        raise UsageError(
            f"run {run}: {path} is {problem}; restore it, or take another run: aigc-lab runs {row['sweep']}"
        )
    origin = {"run": run, "checkpoint": checkpoint, "step": file["step"], "sha256": file["sha256"]}
    home = Path(registry.located(""))
    return Weights(whole, run if checkpoint == "last" else f"{run}-{checkpoint}", home, origin)


def _fetched(path: Path, digest: str | None) -> bool:
    """Whether the model is here with these weights; from the store that its home shares with others, if it has one."""
    with suppress(Damaged):  # of which the sentence tells that is said of weights that are not these
        model_code.fetch(path, digest)
    return digest is None or has_digest(path, digest)


def has_digest(path: Path, digest: str) -> bool:
    """Whether the file exists and has this sha256."""
    return path.is_file() and sha256(path) == digest


def model_digest(weights: Path, digest: str) -> str:
    """Hex digest of a model: of its weights and of the description of its system, not of the run that trained it."""
    described = json.loads(weights.with_suffix(".json").read_text("utf-8"))
    parts = {key: described.get(key) for key in ("system", "config", "shape", "source")}
    if "config_sources" in described:
        parts["config_sources"] = described["config_sources"]
    return hashlib.sha256(f"{digest} {json.dumps(parts, sort_keys=True)}".encode()).hexdigest()


def is_whole_copy(weights: Path, digest: str, model: str) -> bool:
    """Whether a model's own copy is complete: weights, description and code, with this digest."""
    _fetched(weights, digest)
    try:
        code = code_of(json.loads(weights.with_suffix(".json").read_text("utf-8")))
        same = all(sha256(weights.with_name(source.file)) == source.sha256 for source in code)
        return same and has_digest(weights, digest) and model_digest(weights, digest) == model
    except (OSError, ValueError):
        return False


def _listed(what: str, names: list[str]) -> str:
    return f"{what}: {', '.join(names) or 'none'}"
