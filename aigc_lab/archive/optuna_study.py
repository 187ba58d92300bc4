"""Optuna's study of a sweep as plain JSON, and back: trials with all that a sampler and a pruner look at."""

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
from aigc_lab.sweeps.study import check_storage, open_storage

Json = dict[str, Any]


def dump(url: str, name: str) -> Json | None:
    """The study of this name; None where there is none (`aigc-lab train` needs none)."""
    storage = _storage(url)
    if storage is None or name not in optuna.study.get_all_study_names(storage):
        return None
    study = optuna.load_study(study_name=name, storage=storage)
    return {"direction": study.direction.name, "trials": [_plain(trial) for trial in study.get_trials(deepcopy=False)]}


def remove(url: str, name: str) -> None:
    """Deletes the study of this name, if there is one."""
    storage = _storage(url)
    if storage is not None and name in optuna.study.get_all_study_names(storage):
        with _quiet():
            optuna.delete_study(study_name=name, storage=storage)


def restore(url: str, name: str, wanted: Json | None) -> None:
    """Makes the study what `wanted` says, a checked dump. What an interrupted restoring has left is replaced.

    Raises `UsageError`, before anything is changed, for a study of the same name that holds something else.
    """
    found = refuse_other(url, name, wanted)
    if wanted is None or found == wanted:
        return
    remove(url, name)
    check_storage(url)
    storage = _storage(url)
    assert storage is not None
    with _quiet():
        study = optuna.create_study(study_name=name, storage=storage, direction=wanted["direction"].lower())
        study.add_trials(trials(wanted))


def refuse_other(url: str, name: str, wanted: Json | None) -> Json | None:
    """The study that is there. Raises `UsageError` unless it is `wanted` or the beginning of it."""
    found = dump(url, name)
    if found is not None:
        begins = wanted is not None and found["direction"] == wanted["direction"]
        if not begins or found["trials"] != wanted["trials"][: len(found["trials"])]:  # type: ignore[index]
            raise UsageError(f"Optuna's storage has a study {name} with other trials; delete it, or take another home")
    return found


def trials(given: Any) -> list[FrozenTrial]:
    """The trials of a dump. Raises `UsageError` for what is not one."""
    try:
        if given["direction"] not in ("MINIMIZE", "MAXIMIZE"):
            raise ValueError(f"direction {given['direction']!r}")
        made = [_trial(number, each) for number, each in enumerate(given["trials"])]
        for trial in made:
            trial._validate()  # noqa: SLF001 -- what `Study.add_trial` asks, asked before anything is stored
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UsageError(f"its study is not Optuna's ({' '.join(str(error).split())[:120]})") from None
    return made


def _plain(trial: FrozenTrial) -> Json:
    """Numbers that JSON has no word for, which a diverging run may report, become text."""
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
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
