"""Which weights a user means. Names are looked up in the registry; MLflow is asked only for what it does not know."""

import hashlib
import json
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aigc_lab.errors import UsageError
from aigc_lab.host import trust
from aigc_lab.host.files import sha256
from aigc_lab.host.settings import Settings
from aigc_lab.registry import queries
from aigc_lab.registry.home import OpenedHome
from aigc_lab.registry.queries import Final
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.serving.model import Model
from aigc_lab.training.model_code import code_of

CHAMPION = "champion"


@dataclass(frozen=True)
class Weights:
    """Trained weights: their file, what to call them, the home that says whether code beside them may be run, and where
    they come from (for the record beside samples).
    """

    path: Path
    name: str
    home: Path
    origin: dict[str, Any] = field(default_factory=dict)

    def load(self, device: str) -> Model:
        """The model, ready to sample. Raises `UsageError` for files that are missing or are not what was stored, and
        for code that is not trusted.
        """
        if not self.path.is_file():
            raise UsageError(f"{self.path}: the weights of {self.name} are gone; train or promote them again")
        wanted = self.origin.get("sha256")
        if wanted is not None and not holds(self.path, wanted):
            raise UsageError(f"{self.path}: not the weights that were stored; train or promote them again")
        return Model.of_file(self.path, device, trust.gate(self.home))


@dataclass(frozen=True)
class _Mlflow(Weights):
    """A model that only MLflow knows: its files are fetched to be loaded, and then go."""

    uri: str = ""
    store: str = ""

    def load(self, device: str) -> Model:
        from aigc_lab.tracking.model_registry import download

        with tempfile.TemporaryDirectory() as folder:
            return Model.of_file(download(self.store, self.uri, Path(folder)), device, trust.gate(self.home))


def find_weights(wanted: str, settings: Settings, checkpoint: Final = "last") -> Weights:
    """The weights that `wanted` means: a file, `models:/NAME/VERSION`, `NAME@ALIAS`, the name of a promoted model (its
    champion, else its newest version), a run, or a sweep (its best run).
    """
    with OpenedHome(settings) as home:
        return weights_in(home, wanted, checkpoint)


def weights_in(home: OpenedHome, wanted: str, checkpoint: Final = "last") -> Weights:
    """As `find_weights`, in a home whose registry the caller uses too."""
    settings = home.settings
    if wanted.endswith(".safetensors"):
        path = Path(wanted).expanduser()
        if not path.is_file():
            raise UsageError(f"{wanted}: no such file; a model is a .safetensors file with its .json beside it")
        return Weights(path, path.stem, settings.home, {"file": str(path)})
    if wanted.startswith("models:/"):
        return _of_uri(wanted, home)
    registry = home.registry
    name, at, alias = wanted.partition("@")
    versions = queries.models(registry, name)
    if versions:
        return _promoted(_chosen(versions, alias if at else None), settings)
    if at:
        known = sorted({row["model"] for row in queries.models(registry)})
        raise UsageError(f"unknown model '{name}'; {_listed('promoted models', known)}")
    return of_run(registry, find_run(registry, wanted, checkpoint), checkpoint)


def _of_uri(uri: str, home: OpenedHome) -> Weights:
    match = re.fullmatch(r"models:/(?:([^/@]+)(?:/(\d+|latest)|@([\w-]+))|m-[0-9a-f]{32})", uri)
    if match is None:
        raise UsageError(f"{uri}: write models:/NAME/VERSION or models:/NAME@ALIAS")
    name, version, alias = match.groups("")
    settings = home.settings
    try:
        versions = queries.models(home.registry, name)
    except UsageError:  # a machine that only serves has MLflow, and no home
        versions = []
    here = [row for row in versions if str(row["version"]) == version or alias in row["aliases"]]
    if version == "latest" and versions:
        here = versions[:1]
    if here:
        return _promoted(here[0], settings)
    readable = re.sub(r"[^\w.-]+", "-", uri.removeprefix("models:/"))
    return _Mlflow(Path(), readable, settings.home, {"uri": uri}, uri=uri, store=settings.tracking_uri)


def _chosen(versions: list[dict[str, Any]], alias: str | None) -> dict[str, Any]:
    """The version that an alias points at; without one the champion, or the newest where there is none."""
    for row in versions:
        if (alias or CHAMPION) in row["aliases"]:
            return row
    if alias is not None:
        known = sorted({known for row in versions for known in row["aliases"]})
        raise UsageError(f"model {versions[0]['model']} has no alias '{alias}'; {_listed('its aliases', known)}")
    return versions[0]


def _promoted(row: dict[str, Any], settings: Settings) -> Weights:
    origin = {key: row[key] for key in ("model", "version", "run", "checkpoint", "sha256")}
    return Weights(Path(row["path"]), f"{row['model']}-{row['version']}", settings.home, origin)


def find_run(registry: Registry, wanted: str, checkpoint: Final) -> str:
    """The run that `wanted` means: its id, or that of a sweep, whose best run is meant."""
    if re.search(r"\.\d+\.\d+$", wanted):
        return queries.find_run(registry, wanted)
    sweep = queries.find_sweep(registry, wanted)
    best = queries.best_run(registry, sweep, checkpoint)
    if best is None:
        states = sorted({row["state"] for row in queries.runs(registry, sweep)})
        told = f"its runs are {', '.join(states)}" if states else "it has no runs"
        raise UsageError(f"sweep {sweep} has no finished run with a score ({told}); 'aigc-lab runs {sweep}' lists them")
    return str(best["run"])


_REMEDY = {
    RunState.QUEUED: "wait for it",
    RunState.RUNNING: "wait for it",
    RunState.PRUNED: "it was stopped early",
    RunState.DIVERGED: "it has no weights worth keeping",
}


def of_run(registry: Registry, run: str, checkpoint: Final) -> Weights:
    """The weights of a finished run. Raises `UsageError` for any other, saying how it ended, and for a lost file."""
    row = queries.show(registry, run)
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
    copies = [Path(copy["path"]) for copy in queries.models(registry) if copy["sha256"] == file["sha256"]]
    # A promoted run outlives its checkpoints: the copy is the same to the bit.
    whole = next((place for place in (path, *copies) if holds(place, file["sha256"])), None)
    if whole is None:
        problem = "not the file that the run stored" if path.is_file() else "gone"
        raise UsageError(
            f"run {run}: {path} is {problem}; restore it, or take another run: aigc-lab runs {row['sweep']}"
        )
    origin = {"run": run, "checkpoint": checkpoint, "step": file["step"], "sha256": file["sha256"]}
    home = Path(registry.located(""))
    return Weights(whole, run if checkpoint == "last" else f"{run}-{checkpoint}", home, origin)


def holds(path: Path, digest: str) -> bool:
    """Whether the file is there and is the one with this sha256."""
    return path.is_file() and sha256(path) == digest


def identity(weights: Path, digest: str) -> str:
    """What makes a model this one: its weights, and how the system around them is built; not the run it came from."""
    described = json.loads(weights.with_suffix(".json").read_text("utf-8"))
    parts = {key: described.get(key) for key in ("system", "config", "shape", "source")}
    if "config_sources" in described:
        parts["config_sources"] = described["config_sources"]
    return hashlib.sha256(f"{digest} {json.dumps(parts, sort_keys=True)}".encode()).hexdigest()


def whole(weights: Path, digest: str, model: str) -> bool:
    """Whether a model's own copy is all there: weights, description and code, of this identity."""
    try:
        code = code_of(json.loads(weights.with_suffix(".json").read_text("utf-8")))
        same = all(sha256(weights.with_name(source.file)) == source.sha256 for source in code)
        return same and holds(weights, digest) and identity(weights, digest) == model
    except (OSError, ValueError):
        return False


def _listed(what: str, names: list[str]) -> str:
    return f"{what}: {', '.join(names) or 'none'}"
