"""What MLflow is told of a run as it begins and as it ends, whoever tells it: the process that trains it, the one that
finds it dead, an import, and `reconcile --mlflow`.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from aigc_lab.host import run_folders
from aigc_lab.host.settings import Settings
from aigc_lab.registry import liveness
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.tracking.base import DatasetInfo, run_of_key, status_of
from aigc_lab.tracking.spool import SpoolTracker

# Of the environment of an attempt, what is shown as tags.
_FACTS = ("device", "threads", "git_commit", "git_dirty")

# MLflow refuses longer names of data.
_LONGEST = 500


@dataclass(frozen=True)
class Described:
    """What a run is of: every value of its configuration, defaults included (`params`), the name of the protocol, and
    its data. It is stored with each attempt, because the code and the data that say it may change or be elsewhere.
    `dataset` is None where the data were not at hand.
    """

    params: Mapping[str, Any]
    protocol: str | None
    dataset: DatasetInfo | None

    def dump(self) -> dict[str, Any]:
        """As plain data, for `load`."""
        dataset = None if self.dataset is None else asdict(self.dataset)
        return {"params": dict(self.params), "protocol": self.protocol, "dataset": dataset}

    @classmethod
    def load(cls, dumped: Any) -> "Described | None":
        """None for what `dump` does not write: an earlier version wrote nothing, and an archive may hold anything."""
        try:
            params, protocol, dataset = dumped["params"], dumped["protocol"], dumped["dataset"]
            info = None if dataset is None else DatasetInfo(**dataset)
        except (TypeError, KeyError):
            return None
        texts = [] if info is None else [info.name, info.digest, info.shape, info.context, info.url or ""]
        plain = isinstance(params, dict) and isinstance(protocol, str | None)
        whole = all(isinstance(text, str) and len(text) <= _LONGEST for text in texts)
        return cls(params, protocol, info) if plain and whole else None


class Beginning(NamedTuple):
    """The name, params and tags that a run begins with."""

    name: str
    params: dict[str, Any]
    tags: dict[str, str]
    dataset: DatasetInfo | None


def beginning(
    described: Described,
    environment: Mapping[str, Any],
    *,
    sweep: str,
    trial: int,
    seed: int,
    role: str,
    system: str,
    attempt: int,
) -> Beginning:
    """What MLflow is told when an attempt begins, in an `environment` as `environment.describe` says it."""
    tags = {"sweep": sweep, "trial": trial, "seed": seed, "attempt": attempt, "role": role, "system": system}
    if described.dataset is not None:
        tags["data_digest"] = described.dataset.digest
    if described.protocol is not None:
        tags["protocol"] = described.protocol
    tags |= {key: environment[key] for key in _FACTS if key in environment}
    versions = environment.get("versions")
    tags |= {f"version.{name}": number for name, number in versions.items()} if isinstance(versions, dict) else {}
    params = {"system": system, "seed": seed} | dict(described.params)
    texts = {name: str(value) for name, value in tags.items()}
    return Beginning(f"{system} {trial}.{seed}", params, texts, described.dataset)


def ending(
    state: str, reason: str | None, verdicts: Iterable[tuple[str, int, str]], result_step: float = math.inf
) -> dict[str, str]:
    """The tags that a run ends with; `verdicts` are (kind, step, verdict). Of samples the newest up to the step of the
    result holds: training may have gone on after it.
    """
    told = sorted(verdicts, key=lambda each: each[1])
    said = {kind: verdict for kind, step, verdict in told if kind != "collapse" or step <= result_step}
    return {"state": str(state)} | said | ({"reason": reason} if reason else {})


def conclude(registry: Registry, settings: Settings, spool: SpoolTracker, key: str) -> None:
    """What the process of a run would have done after it had written down how the run ended, if it had not died: tells
    MLflow, and removes what is no longer needed. A run that has not ended, or is unknown, was killed.
    """
    run = liveness.ended(registry, run_of_key(key))
    state = RunState.KILLED if run is None or not RunState(run["state"]).ended else RunState(run["state"])
    told = () if run is None else run["verdicts"]
    result = math.inf if run is None or run["result_step"] is None else run["result_step"]
    spool.end(key, status_of(state), ending(state, None if run is None else run["reason"], told, result))
    if run is not None and state != RunState.KILLED:
        # Of a run that failed while it was scored, what was trained is kept, and the state to go on from.
        rescued = state == RunState.FAILED and run["result_step"] is not None
        place = run["sweep"], run["trial"], run["seed"]
        run_folders.collect(settings, *place, keep=run["attempt"] or 0, states=not rescued)
