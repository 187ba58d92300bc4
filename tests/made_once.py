"""What is expensive and always the same is made once per process of tests, and copied wherever it is asked for.

In processes that a test starts, all is made as ever.
"""

import copy
import functools
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main

from aigc_lab.extractors import classifier
from aigc_lab.extractors.shared.small_classifier import fit
from aigc_lab.host.files import beside, locked
from aigc_lab.registry import engine
from aigc_lab.registry.engine import sqlite_file
from aigc_lab.registry.store import Registry
from aigc_lab.sweeps import optuna_storage
from aigc_lab.tracking import mlflow_store

_create_tables, _migrate = mlflow_store._create_tables, engine._migrate


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, which take it seconds to make, without anything in them: a file to be copied."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    for name, value in mlflow_store._ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    _create_tables(path)
    return path


@pytest.fixture(autouse=True, scope="session")
def _copied_stores(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every store of MLflow's that tests make in their own process begins as a copy of one that MLflow has made."""

    def copy(path: Path) -> None:
        shutil.copyfile(request.getfixturevalue("empty_mlflow"), path)  # with the modes of a new one

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflow_store, "_create_tables", copy)
        yield


@pytest.fixture(autouse=True, scope="session")
def _copied_registries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Every new file of a registry begins as a copy of one that all migrations have made: a twentieth of a second."""
    first = tmp_path_factory.mktemp("registry") / "registry.db"
    with Registry.open(f"sqlite:///{first}"):
        pass

    def made(url: str, opened: Any, path: Path | None) -> None:
        if path is None or (path.exists() and path.stat().st_size):
            return _migrate(url, opened, path)
        with locked(beside(path)):
            if not path.exists() or not path.stat().st_size:
                opened.dispose()
                shutil.copyfile(first, path)
        return None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_migrate", made)
        yield


@pytest.fixture
def migrated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registries of this test are made by their migrations."""
    monkeypatch.setattr(engine, "_migrate", _migrate)


@pytest.fixture(autouse=True, scope="session")
def _copied_studies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Every new file of Optuna's begins as a copy of one in which Optuna has made its tables: a seventh of a second."""
    first, open_storage = tmp_path_factory.mktemp("optuna") / "optuna.db", optuna_storage.open_storage
    open_storage(f"sqlite:///{first}")

    def opened(url: str, **options: Any) -> Any:
        path = sqlite_file(url)
        if path is not None and path.parent.is_dir() and not path.exists():
            shutil.copyfile(first, path)
        return open_storage(url, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optuna_storage, "open_storage", opened)
        yield


@pytest.fixture(autouse=True, scope="session")
def _one_command_line() -> Iterator[None]:
    """The command line is put together once, and not for each command in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture(autouse=True, scope="session")
def _trained_once() -> Iterator[None]:
    """The same classifier of the same pictures is trained once per process, in however many homes tests ask for it."""
    fitted = dict[Any, Any]()

    def remembered(samples: Any, shape: Any, steps: int, **options: Any) -> Any:
        content = hashlib.sha256(samples.values.numpy().tobytes() + samples.labels.numpy().tobytes()).digest()
        key = content, samples.values.shape, shape, steps, tuple(options.items()), torch.get_num_threads()
        if key not in fitted:
            fitted[key] = fit(samples, shape, steps, **options)
        return copy.deepcopy(fitted[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "fit", remembered)
        yield
