"""Models in MLflow's registry: weights as safetensors, code as a file, and nothing pickled.

MLflow creates a version each time it is asked, so each step here first looks for what an earlier attempt, killed
half-way, has left. What it looks for is a tag with the model's digest.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from aigc_lab.errors import UsageError
from aigc_lab.files import umask
from aigc_lab.settings import discreet, masked
from aigc_lab.tracking.address import sqlite_file
from aigc_lab.tracking.mlflow import _failing, _open

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

_DIGEST = "aigc_lab.digest"
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
                " MLFLOW_TRACKING_URI, or restore the experiment there"
            )
        return str(found.experiment_id)

    def publish(
        self, name: str, digest: str, package: Package, *, experiment: str, run: str | None, tags: Mapping[str, str]
    ) -> Version:
        """The version of `name` that holds the model of this digest: the one that is there, or a new one."""
        with _failing(self._uri, f"model {name}"), _default_store(self._uri), _quiet():
            version = self._version(name, digest)
            if version is None:
                logged = self._logged(name, digest, package, experiment, self._present(run))
                if not self.knows(name):
                    self._client.create_registered_model(name)
                version = self._client.create_model_version(
                    name, f"models:/{logged.model_id}", tags={_DIGEST: digest, **tags}, model_id=logged.model_id
                )
            return Version(int(version.version), str(version.source).rpartition("/")[2])

    def point(self, name: str, alias: str, version: int) -> None:
        with _failing(self._uri, f"alias {alias} of {name}"):
            self._client.set_registered_model_alias(name, alias, str(version))

    def _version(self, name: str, digest: str) -> "ModelVersion | None":
        found = self._client.search_model_versions(f"name = '{name}'")
        return next((version for version in found if version.tags.get(_DIGEST) == digest), None)

    def _present(self, run: str | None) -> str | None:
        """The run, unless it is gone from MLflow: its model does not need it."""
        from mlflow.exceptions import MlflowException

        try:
            return None if run is None else str(self._client.get_run(run).info.run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def _logged(self, name: str, digest: str, package: Package, experiment: str, run: str | None) -> "LoggedModel":
        """The files in MLflow. What a killed attempt left unfinished is deleted, what it finished is used."""
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


def download(tracking_uri: str, uri: str, folder: Path) -> Path:
    """Copies the files of a model (`models:/…`) to `folder` and returns the weights among them.

    Raises `UsageError` when there is no such model, or none that this package made.
    """
    listed = "'aigc-lab models' lists what was promoted here"
    if tracking_uri.startswith("sqlite:") and not sqlite_file(tracking_uri).exists():
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
