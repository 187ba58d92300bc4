"""Models in MLflow's registry: weights as safetensors, code as a file, and nothing pickled.

MLflow creates a version each time it is asked, so each step here first looks for what an earlier attempt, killed
half-way, has left. What it looks for is a tag with the model's digest.
"""

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
from aigc_lab.tracking.mlflow import _failing, _open, local

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

_DIGEST = "aigc_lab.digest"
_REASON = "reason"
# Someone waits for a promotion and nothing trains meanwhile: more patience than a training has, and no bar of its own.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # It would put the lock file of whatever project it is called in into the model, with the addresses in it.
    "MLFLOW_UV_AUTO_DETECT": "false",
}
# What the columns of a first request may hold.
_EXAMPLE = {"n": 4, "seed": 0, "label": 0}
# They tell of a pip that is not there, of an example that will be checked, of five minutes that would be waited.
_CHATTY = ("mlflow.utils.environment", "mlflow.pyfunc", "mlflow.store.model_registry.abstract_store")


@dataclass(frozen=True)
class Package:
    """What a model is to MLflow. `folder` holds its files, `code` is the file that answers `predict`; `columns` are
    those of its input, `parameters` those of its parameters with their defaults; `dtype` and `shape` say what one
    sample is.
    """

    folder: Path
    code: Path
    columns: tuple[str, ...]
    dtype: Literal["uint8", "float32", "string"]
    shape: tuple[int, ...]
    requirements: list[str]
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Version:
    number: int
    model_id: str


class MlflowModels:
    """The model registry of one MLflow store. All methods raise `Failure` for a store that fails."""

    def __init__(self, tracking_uri: str) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self._uri = tracking_uri
        self._client = _open(tracking_uri)

    def knows(self, name: str) -> bool:
        """Whether there is a registered model of this name."""
        with _failing(self._uri, f"model {name}"):
            return bool(self._client.search_registered_models(f"name = '{name}'", max_results=1))

    def experiment(self, sweep: str) -> str:
        """The id of the experiment that holds a sweep's runs. Raises `UsageError` when this store has none."""
        with _failing(self._uri, f"experiment {sweep}"):
            found = self._client.get_experiment_by_name(sweep)
        if found is None or found.lifecycle_stage == "deleted":
            raise UsageError(
                f"MLflow at {masked(self._uri)} has no experiment {sweep}; name the store that its runs went to in"
                f" MLFLOW_TRACKING_URI, or make it again: aigc-lab reconcile --mlflow {sweep}"
            )
        return str(found.experiment_id)

    def publish(
        self,
        name: str,
        digest: str,
        package: Package,
        *,
        experiment: str,
        run: str | None,
        tags: Mapping[str, str],
        undo: ExitStack,
        number: int | None = None,
    ) -> Version:
        """The version of `name` that holds the model of this digest: the one that is there, or a new one; with
        `number` the one that has it, and `Failure` where MLflow gives it no more. `undo` gets what takes away again
        what was made, before it is made: an answer may be lost.
        """
        with _failing(self._uri, f"model {name}"), _default_store(self._uri), _quiet():
            version = self._version(name, digest, number)
            if version is None:
                logged = self._logged(name, digest, package, experiment, self._present(run), undo)
                if not self.knows(name):
                    undo.callback(self._remove, name)
                    self._client.create_registered_model(name)
                undo.callback(self._withdraw, name, digest, number)
                create = partial(
                    self._client.create_model_version,
                    name,
                    f"models:/{logged.model_id}",
                    tags={_DIGEST: digest, **tags},
                    model_id=logged.model_id,
                )
                version = create()
                while number is not None and int(version.version) < number:  # of versions that were deleted
                    self._client.delete_model_version(name, str(version.version))
                    version = create()
                if number not in (None, int(version.version)):
                    raise Failure(f"its number {number} was used and deleted in MLflow; promote the run again")
            elif tags.get(_REASON, version.tags.get(_REASON)) != version.tags.get(_REASON):
                tag = partial(self._client.set_model_version_tag, name, str(version.version), _REASON)
                undo.callback(tag, version.tags.get(_REASON, ""))
                tag(tags[_REASON])
            return Version(int(version.version), str(version.source).rpartition("/")[2])

    def point(self, name: str, alias: str, version: int, undo: ExitStack) -> None:
        """Points an alias; `undo` gets what points it back."""
        with _failing(self._uri, f"alias {alias} of {name}"):
            before = self._aliases(name).get(alias)
            if before == version:
                return
            if before is None:
                undo.callback(self._client.delete_registered_model_alias, name, alias)
            else:
                undo.callback(self._client.set_registered_model_alias, name, alias, str(before))
            self._client.set_registered_model_alias(name, alias, str(version))

    def held(self, name: str) -> tuple[dict[int, str], dict[str, int]]:
        """The versions of a model, each with the digest of its content, and its aliases. Raises `Failure`."""
        with _failing(self._uri, f"model {name}"):
            if not self.knows(name):
                return {}, {}
            found = self._client.search_model_versions(f"name = '{name}'")
            return {int(each.version): each.tags.get(_DIGEST, "") for each in found}, self._aliases(name)

    def _aliases(self, name: str) -> dict[str, int]:
        aliases = self._client.get_registered_model(name).aliases
        return {alias: int(version) for alias, version in aliases.items()}

    def _version(self, name: str, digest: str, number: int | None) -> "ModelVersion | None":
        found = self._client.search_model_versions(f"name = '{name}'")
        same = (version for version in found if version.tags.get(_DIGEST) == digest)
        return next((version for version in same if number in (None, int(version.version))), None)

    def _present(self, run: str | None) -> str | None:
        """The run, unless it is gone from MLflow: its model does not need it."""
        from mlflow.exceptions import MlflowException

        try:
            return None if run is None else str(self._client.get_run(run).info.run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def _logged(
        self, name: str, digest: str, package: Package, experiment: str, run: str | None, undo: ExitStack
    ) -> "LoggedModel":
        """The files in MLflow. What a killed attempt left unfinished is deleted, what it finished is used."""
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
        found = self._client.search_logged_models([experiment], f"tags.`{_DIGEST}` = '{digest}'")
        return {model.model_id for model in found if str(model.status) == "READY"}

    def _discard(self, experiment: str, digest: str, before: set[str]) -> None:
        """Takes away the logged models of this digest that were not there before, and their files where they lie on
        this machine: MLflow keeps those of a deleted one.
        """
        for model in self._client.search_logged_models([experiment], f"tags.`{_DIGEST}` = '{digest}'"):
            if model.model_id in before:
                continue
            self._client.delete_logged_model(model.model_id)
            place = local(model.artifact_location)
            if place is not None and model.model_id in place.parts:
                shutil.rmtree(place.parent if place.name == "artifacts" else place, ignore_errors=True)


def download(tracking_uri: str, uri: str, folder: Path) -> Path:
    """Copies the files of a model (`models:/…`) to `folder` and returns the weights among them.

    Raises `UsageError` when there is no such model, or none that this package made.
    """
    listed = "'aigc-lab models' lists what was promoted here"
    if tracking_uri.startswith("sqlite") and not sqlite_file(tracking_uri).exists():
        raise UsageError(f"{uri}: there is no MLflow at {masked(tracking_uri)}; set MLFLOW_TRACKING_URI; {listed}")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    _open(tracking_uri)
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    with _default_store(tracking_uri):
        try:
            download_artifacts(artifact_uri=uri, dst_path=str(folder))
        except (MlflowException, OSError) as error:
            reason = discreet(str(error).partition("\n")[0], tracking_uri)
            raise UsageError(
                f"{uri}: neither in this home nor in MLflow at {masked(tracking_uri)} ({reason}); {listed}"
            ) from None
    found = next(folder.glob("artifacts/*/*.safetensors"), None)
    if found is None:
        raise UsageError(f"{uri}: not a model that aigc-lab promoted; load it with mlflow.pyfunc")
    return found


@contextmanager
def _default_store(uri: str) -> Iterator[None]:
    """MLflow looks up `models:/m-…` in the process-wide store, whichever client asks."""
    import mlflow

    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None  # type: ignore[no-untyped-call]
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None unsets it


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
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
