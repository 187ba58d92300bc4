"""Optuna's study of a sweep as plain JSON, and back, with everything that samplers and pruners read."""

import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url

from aigc_lab.errors import UsageError
from aigc_lab.sweeps.optuna_storage import check_storage, open_storage

Json = dict[str, Any]


def dump(url: str, name: str) -> Json | None:
    """Study of this name as plain JSON; None where there is none (`aigc-lab train` needs none)."""
    storage = _storage(url)
    if storage is None or name not in optuna.study.get_all_study_names(storage):
        return None
    study = optuna.load_study(study_name=name, storage=storage)
    trials = [_plain(trial) for trial in study.get_trials(deepcopy=False)]
    names = [direction.name for direction in study.directions]
    return {"trials": trials} | ({"direction": names[0]} if len(names) == 1 else {"directions": names})


def remove(url: str, name: str) -> None:
    """Deletes the study of this name, if there is one."""
    storage = _storage(url)
    if storage is not None and name in optuna.study.get_all_study_names(storage):
        with _quiet():
            optuna.delete_study(study_name=name, storage=storage)


def restore(url: str, name: str, target: Json | None) -> None:
    """Makes the study equal to `target`, a checked dump. The remains of an interrupted restoration are replaced.

    Raises `UsageError`, before anything is changed, for a study of the same name with other content.
    """
    existing = refuse_other(url, name, target)
    if target is None or existing == target:
        return
    remove(url, name)
    check_storage(url)
    storage = _storage(url)
    assert storage is not None
    with _quiet():
        directions = [optuna.study.StudyDirection[direction] for direction in _directions(target)]
        study = optuna.create_study(study_name=name, storage=storage, directions=directions)
        study.add_trials(parse_trials(target))


def refuse_other(url: str, name: str, target: Json | None) -> Json | None:
    """Existing study, or None. Raises `UsageError` unless it is `target` or the beginning of it."""
    existing = dump(url, name)
    if existing is not None:
        begins = target is not None and _directions(existing) == _directions(target)
        if not begins or existing["trials"] != target["trials"][: len(existing["trials"])]:  # type: ignore[index]
            raise UsageError(f"Optuna's storage has a study {name} with other trials; delete it, or take another home")
    return existing


def parse_trials(content: Any) -> list[FrozenTrial]:
    """Trials of a dump. Raises `UsageError` for anything that is not one."""
    try:
        for direction in _directions(content):
            if direction not in ("MINIMIZE", "MAXIMIZE"):
                raise ValueError(f"direction {direction!r}")
        parsed = [_trial(number, plain) for number, plain in enumerate(content["trials"])]
        for trial in parsed:
            trial._validate()  # noqa: SLF001 -- what `Study.add_trial` asks, asked before anything is stored
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UsageError(f"its study is not Optuna's ({' '.join(str(error).split())[:120]})") from None
    return parsed


def _directions(content: Json) -> list[str]:
    """Names of the directions of a dump: one, or of several objectives one each."""
    return content["directions"] if content.get("directions") else [content["direction"]]


def _plain(trial: FrozenTrial) -> Json:
    """Trial as plain JSON. Numbers for which JSON has no word, which a diverging run may report, become text."""
    return {
        "state": trial.state.name,
        "values": None if trial.values is None else [_number(value) for value in trial.values],
        "params": trial.params,
        "distributions": {name: json.loads(distribution_to_json(of)) for name, of in trial.distributions.items()},
        "user_attrs": trial.user_attrs,
        "system_attrs": trial.system_attrs,
        "intermediate": [[step, _number(value)] for step, value in sorted(trial.intermediate_values.items())],
        "began": trial.datetime_start and trial.datetime_start.isoformat(),
        "ended": trial.datetime_complete and trial.datetime_complete.isoformat(),
    }


def _trial(number: int, plain: Json) -> FrozenTrial:
    values = plain["values"]
    return FrozenTrial(
        number=number,
        state=TrialState[plain["state"]],
        value=None,
        values=None if values is None else [float(value) for value in values],
        datetime_start=plain["began"] and datetime.fromisoformat(plain["began"]),
        datetime_complete=plain["ended"] and datetime.fromisoformat(plain["ended"]),
        params=dict(plain["params"]),
        distributions={name: json_to_distribution(json.dumps(of)) for name, of in plain["distributions"].items()},
        user_attrs=dict(plain["user_attrs"]),
        system_attrs=dict(plain["system_attrs"]),
        intermediate_values={int(step): float(value) for step, value in plain["intermediate"]},
        # Optuna gives it an id of its own when it is added to a study.
        trial_id=-1,
    )


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else repr(value)


def _storage(url: str) -> optuna.storages.RDBStorage | None:
    """Optuna's storage; None where there is no file yet. Raises `UsageError` for one that cannot be used."""
    check_storage(url, create=False)
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").exists():
        return None
    with _quiet():
        return open_storage(url)


@contextmanager
def _quiet() -> Iterator[None]:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
