"""The store that MLflow asks by default, for a while: what was before is again afterwards."""

import os
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from aigc_lab.tracking.model_registry import default_store


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]


def set_() -> bool:
    return bool(mlflow.is_tracking_uri_set())  # type: ignore[no-untyped-call]


def test_without_one_there_is_none_afterwards(tmp_path: Path) -> None:
    with default_store(f"sqlite:///{tmp_path}/a.db"):
        assert mlflow.get_tracking_uri() == f"sqlite:///{tmp_path}/a.db"
    assert not set_() and "MLFLOW_TRACKING_URI" not in os.environ


def test_one_that_the_environment_names_does_not_outlive_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/named.db")
    with default_store(f"sqlite:///{tmp_path}/a.db"):
        assert mlflow.get_tracking_uri() == f"sqlite:///{tmp_path}/a.db"
    assert mlflow.get_tracking_uri() == os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/named.db"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert not set_()


def test_one_that_a_program_has_set_is_set_again(tmp_path: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/set.db")
    with pytest.raises(ValueError), default_store(f"sqlite:///{tmp_path}/a.db"):
        raise ValueError
    assert mlflow.get_tracking_uri() == f"sqlite:///{tmp_path}/set.db"
