"""MLflow's model registry: weights as safetensors, code as a file, and nothing pickled.

MLflow creates a version each time it is asked, so each step first looks for the result of an earlier attempt that was
killed. It recognises that result by a tag with the model's digest.
"""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from aigc_lab.errors import Failure, UsageError
from aigc_lab.host.files import umask
from aigc_lab.host.settings import discreet, masked
from aigc_lab.tracking.address import sqlite_file
from aigc_lab.tracking.mlflow_store import local_folder, open_client, store_errors

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

_DIGEST = "aigc_lab.digest"
# What was written here, so that what someone else wrote is told from it: the description's hash, and the tags' keys.
_DESCRIPTION = "aigc_lab.description"
_TAGS = "aigc_lab.tags"
# Someone waits for a promotion and nothing trains meanwhile: more patience than a training has.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    # It would put the lock file of whatever project it is called in into the model, with the addresses in it.
    "MLFLOW_UV_AUTO_DETECT": "false",
}
# What the columns of a first request may hold.
_EXAMPLE = {"n": 4, "seed": 0, "label": 0}
# They tell of a pip that is not there, of an example that will be checked, of five minutes that would be waited.
_CHATTY = ("mlflow.utils.environment", "mlflow.pyfunc", "mlflow.store.model_registry.abstract_store")


@dataclass(frozen=True)
class Package:
    """Content of a model for MLflow: the `folder` of its files, the file of `code` that answers `predict`, the
    `columns` of its input, its `parameters` with their defaults, and `dtype` and `shape` of one sample.
    """

    folder: Path
    code: Path
    columns: tuple[str, ...]
    dtype: Literal["uint8", "float32", "string"]
    shape: tuple[int, ...]
    requirements: list[str]
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class About:
    """What MLflow's pages say of a version: its tags, and its description in Markdown."""

    tags: Mapping[str, str]
    description: str


@dataclass(frozen=True)
class Version:
    """Version of a registered model, and the id of the logged model behind it."""

    number: int
    model_id: str


class MlflowModels:
    """Model registry of one MLflow store. All methods raise `Failure` for a store that fails."""

    def __init__(self, tracking_uri: str) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self._uri = tracking_uri
        self._client = open_client(tracking_uri)

    def knows(self, name: str) -> bool:
        """Whether there is a registered model of this name."""
        with store_errors(self._uri, f"model {name}"):
            return bool(self._client.search_registered_models(f"name = '{name}'", max_results=1))

    def experiment(self, sweep: str) -> str:
        """Id of the experiment that holds a sweep's runs. Raises `UsageError` when this store has none."""
        with store_errors(self._uri, f"experiment {sweep}"):
            entity = self._client.get_experiment_by_name(sweep)
        if entity is None or entity.lifecycle_stage == "deleted":
            raise UsageError(
                f"MLflow at {masked(self._uri)} has no experiment {sweep}; name the store that its runs went to in"
                f" MLFLOW_TRACKING_URI, or make it again: aigc-lab reconcile --mlflow {sweep}"
            )
        return str(entity.experiment_id)

    def publish(
        self,
        name: str,
        digest: str,
        package: Package,
        *,
        experiment: str,
        run: str | None,
        about: "About",
        undo: ExitStack,
        number: int | None = None,
    ) -> Version:
        """Version of `name` that holds the model of this digest: an existing one, or a new one, which says what it is
        `about`. With `number` it is the version of that number; raises `Failure` where MLflow cannot give it.

        Before each step, `undo` receives its reversal, since the answer to a request may be lost.
        """
        with store_errors(self._uri, f"model {name}"), default_store(self._uri), _quiet():
            version = self._version(name, digest, number)
            if version is None:
                logged = self._logged_model(name, digest, package, experiment, self._existing_run(run), undo)
                if not self.knows(name):
                    undo.callback(self._remove, name)
                    self._client.create_registered_model(name)
                undo.callback(self._withdraw, name, digest, number)
                create = partial(
                    self._client.create_model_version,
                    name,
                    f"models:/{logged.model_id}",
                    tags={_DIGEST: digest, **_signed(about)},
                    description=about.description,
                    model_id=logged.model_id,
                )
                version = create()
                while number is not None and int(version.version) < number:  # of versions that were deleted
                    self._client.delete_model_version(name, str(version.version))
                    version = create()
                if number not in (None, int(version.version)):
                    raise Failure(f"its number {number} was used and deleted in MLflow; promote the run again")
            else:
                self._describe(version, about, undo)
            return Version(int(version.version), str(version.source).rpartition("/")[2])

    def describe(self, name: str, number: int, digest: str, about: "About", undo: ExitStack) -> None:
        """Says of an existing version what it is `about`, where it says otherwise. A description that someone else
        wrote stays, and so does all of a version that holds another model than that of this digest.
        """
        with store_errors(self._uri, f"version {number} of {name}"):
            version = self._client.get_model_version(name, str(number))
            if version.tags.get(_DIGEST) == digest:
                self._describe(version, about, undo)

    def _describe(self, version: "ModelVersion", about: "About", undo: ExitStack) -> None:
        of_version = version.name, str(version.version)
        tags, description = _unsaid(version, about)
        # Before its hash: killed between the two, it is known by being the same.
        if description is not None:
            undo.callback(self._client.update_model_version, *of_version, version.description or "")
            self._client.update_model_version(*of_version, description)
        for key, value in tags.items():
            undo.callback(self._tag, *of_version, key, version.tags.get(key))
            self._tag(*of_version, key, value)

    def _tag(self, name: str, number: str, key: str, value: str | None) -> None:
        """Sets a tag of a version, or removes it (None)."""
        if value is None:
            self._client.delete_model_version_tag(name, number, key)
        else:
            self._client.set_model_version_tag(name, number, key, value)

    def undescribed(self, name: str, about: "Mapping[tuple[int, str], About]") -> list[int]:
        """Numbers of those versions, of (number, digest), that do not say what they are `about`. Those that MLflow
        lacks are left out, and those that hold another model there.
        """
        with store_errors(self._uri, f"model {name}"):
            versions = self._client.search_model_versions(f"name = '{name}'") if self.knows(name) else []
        known = {(int(version.version), version.tags.get(_DIGEST)): version for version in versions}
        return [
            number
            for (number, digest), each in about.items()
            if (number, digest) in known and _unsaid(known[number, digest], each) != ({}, None)
        ]

    def point(self, name: str, alias: str, version: int, undo: ExitStack) -> None:
        """Points an alias at a version; `undo` receives the reversal."""
        with store_errors(self._uri, f"alias {alias} of {name}"):
            previous = self._aliases(name).get(alias)
            if previous == version:
                return
            if previous is None:
                undo.callback(self._client.delete_registered_model_alias, name, alias)
            else:
                undo.callback(self._client.set_registered_model_alias, name, alias, str(previous))
            self._client.set_registered_model_alias(name, alias, str(version))

    def versions_and_aliases(self, name: str) -> tuple[dict[int, str], dict[str, int]]:
        """Digest of each version of a model by number, and version of each alias. Both are empty for an unknown model.
        Raises `Failure`.
        """
        with store_errors(self._uri, f"model {name}"):
            if not self.knows(name):
                return {}, {}
            versions = self._client.search_model_versions(f"name = '{name}'")
            return {int(version.version): version.tags.get(_DIGEST, "") for version in versions}, self._aliases(name)

    def _aliases(self, name: str) -> dict[str, int]:
        aliases = self._client.get_registered_model(name).aliases
        return {alias: int(version) for alias, version in aliases.items()}

    def _version(self, name: str, digest: str, number: int | None) -> "ModelVersion | None":
        versions = self._client.search_model_versions(f"name = '{name}'")
        same = (version for version in versions if version.tags.get(_DIGEST) == digest)
        return next((version for version in same if number in (None, int(version.version))), None)

    def _existing_run(self, run: str | None) -> str | None:
        """The run's id, or None if MLflow has the run no longer: a model does not need it."""
        from mlflow.exceptions import MlflowException

        try:
            return None if run is None else str(self._client.get_run(run).info.run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def _logged_model(
        self, name: str, digest: str, package: Package, experiment: str, run: str | None, undo: ExitStack
    ) -> "LoggedModel":
        """Logged model with the files. One that a killed attempt finished is used, and an unfinished one is deleted."""
        undo.callback(self._discard, experiment, digest, self._ready(experiment, digest))
        for model in self._client.search_logged_models([experiment], f"tags.`{_DIGEST}` = '{digest}'"):
            if str(model.status) == "READY":
                return model
            self._client.delete_logged_model(model.model_id)
        model = self._client.create_logged_model(
            experiment, name=name, source_run_id=run, tags={_DIGEST: digest}, model_type="aigc-lab"
        )
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place, "model")
            _save(folder, package, model)
            self._client.log_model_artifacts(model.model_id, str(folder))
        return self._client.finalize_logged_model(model.model_id, "READY")

    # ---- taking back

    def _remove(self, name: str) -> None:
        if self.knows(name):
            self._client.delete_registered_model(name)

    def _withdraw(self, name: str, digest: str, number: int | None) -> None:
        version = self._version(name, digest, number)
        if version is not None:
            self._client.delete_model_version(name, str(version.version))

    def _ready(self, experiment: str, digest: str) -> set[str]:
        models = self._client.search_logged_models([experiment], f"tags.`{_DIGEST}` = '{digest}'")
        return {model.model_id for model in models if str(model.status) == "READY"}

    def _discard(self, experiment: str, digest: str, ready_before: set[str]) -> None:
        """Deletes the logged models of this digest that were not ready before, with their files where they lie on this
        machine: MLflow keeps the files of deleted models.
        """
        for model in self._client.search_logged_models([experiment], f"tags.`{_DIGEST}` = '{digest}'"):
            if model.model_id in ready_before:
                continue
            self._client.delete_logged_model(model.model_id)
            place = local_folder(model.artifact_location)
            if place is not None and model.model_id in place.parts:
                shutil.rmtree(place.parent if place.name == "artifacts" else place, ignore_errors=True)


def _signed(about: About) -> dict[str, str]:
    """The tags, and those that tell what was written here."""
    return {**about.tags, _DESCRIPTION: _hash(about.description), _TAGS: " ".join(sorted(about.tags))}


def _unsaid(version: "ModelVersion", about: About) -> tuple[dict[str, str | None], str | None]:
    """What a version lacks of what it is `about`: tag -> value (None: it was written here and no longer applies), and
    the description; None where it is there, and where someone else wrote another.
    """
    there, tags = version.description or "", _signed(about)
    if there not in ("", about.description) and version.tags.get(_DESCRIPTION) != _hash(there):
        del tags[_DESCRIPTION]
        there = about.description
    old = dict.fromkeys(version.tags.get(_TAGS, "").split())
    changed = {key: value for key, value in {**old, **tags}.items() if version.tags.get(key) != value}
    return changed, about.description if there != about.description else None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def download(tracking_uri: str, uri: str, folder: Path) -> Path:
    """Copies the files of a model (`models:/…`) to `folder`, and returns the path of its weights.

    Raises `UsageError` when there is no such model, or when this package did not make it.
    """
    listed = "'aigc-lab models' lists what was promoted here"
    if tracking_uri.startswith("sqlite") and not sqlite_file(tracking_uri).exists():
        raise UsageError(f"{uri}: there is no MLflow at {masked(tracking_uri)}; set MLFLOW_TRACKING_URI; {listed}")
    open_client(tracking_uri)
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    with default_store(tracking_uri):
        try:
            download_artifacts(artifact_uri=uri, dst_path=str(folder))
        except (MlflowException, OSError) as error:
            reason = discreet(str(error).partition("\n")[0], tracking_uri)
            raise UsageError(
                f"{uri}: neither in this home nor in MLflow at {masked(tracking_uri)} ({reason}); {listed}"
            ) from None
    weights = next(folder.glob("artifacts/*/*.safetensors"), None)
    if weights is None:
        raise UsageError(f"{uri}: not a model that aigc-lab promoted; load it with mlflow.pyfunc")
    return weights


@contextmanager
def default_store(uri: str) -> Iterator[None]:
    """Context in which `uri` is the process-wide store: MLflow looks up `models:/m-…` there, whichever client asks."""
    import mlflow

    variable = "MLFLOW_TRACKING_URI"
    named = os.environ.get(variable)
    previous_uri = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None  # type: ignore[no-untyped-call]
    mlflow.set_tracking_uri(uri)  # and the variable
    try:
        yield
    finally:
        # One that only the variable names stays with it: set here, it would outlive the variable.
        mlflow.set_tracking_uri(None if previous_uri == named else previous_uri)  # type: ignore[arg-type]
        os.environ.pop(variable, None)
        if named is not None:
            os.environ[variable] = named


def _save(folder: Path, package: Package, logged: "LoggedModel") -> None:
    import pandas
    from mlflow import pyfunc
    from mlflow.models import Model

    # The code gets a place of its own: MLflow records where it came from, which is nobody's business.
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(package.folder, Path(place, "model"))
        pyfunc.save_model(
            folder,
            mlflow_model=Model(model_id=logged.model_id, run_id=logged.source_run_id),
            python_model=str(package.code),
            artifacts={"model": str(Path(place, "model"))},
            signature=_signature(package),
            input_example=pandas.DataFrame([{name: _EXAMPLE[name] for name in package.columns if name in _EXAMPLE}]),
            pip_requirements=package.requirements,
        )
    # What it copied has the modes of where it came from.
    for path in folder.rglob("*"):
        path.chmod(path.stat().st_mode & 0o777 & ~umask())


def _signature(package: Package) -> "ModelSignature":
    import numpy
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
    from mlflow.types.schema import AnyType

    text = package.dtype == "string"
    sample = ColSpec("string") if text else TensorSpec(numpy.dtype(package.dtype), (-1, *package.shape))
    return ModelSignature(
        # Of any type: the model says what is wrong with a value, and MLflow would say it in words of its own.
        Schema([ColSpec(AnyType(), name, required=False) for name in package.columns]),  # type: ignore[no-untyped-call]
        Schema([sample]),
        ParamSchema([ParamSpec(name, DataType.string, default) for name, default in package.parameters.items()]),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
