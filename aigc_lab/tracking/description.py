"""Name, parameters and tags of a run in MLflow, as it begins. They are the same whether the training
process sends them, the process that finds it dead, an import, or `reconcile --mlflow`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from aigc_lab.tracking.base import DatasetInfo

# Of the environment of an attempt, what is shown as tags.
_FACTS = ("device", "threads", "git_commit", "git_dirty")

# MLflow refuses longer names of data.
_LONGEST = 500


@dataclass(frozen=True)
class RunDescription:
    """Configuration of a run with all defaults (`params`), the name of its protocol, its dataset (None where the data
    are not at hand), and the names of the scores that only describe a system (`describing`). It is stored with each
    attempt, since the code and the data behind it may change.
    """

    params: Mapping[str, Any]
    protocol: str | None
    dataset: DatasetInfo | None
    describing: tuple[str, ...] = ()

    def dump(self) -> dict[str, Any]:
        """Plain data for `load`."""
        dataset = None if self.dataset is None else asdict(self.dataset)
        return {
            "params": dict(self.params),
            "protocol": self.protocol,
            "dataset": dataset,
            "describing": [*self.describing],
        }

    @classmethod
    def load(cls, dumped: Any) -> "RunDescription | None":
        """Description from plain data; None for anything but the output of `dump`. Earlier versions stored nothing, and
        an archive may hold anything.
        """
        try:
            params, protocol, dataset = dumped["params"], dumped["protocol"], dumped["dataset"]
            info = None if dataset is None else DatasetInfo(**dataset)
            describing = tuple(dumped.get("describing", ()))  # earlier versions did not say it
        except (TypeError, KeyError, AttributeError):
            return None
        texts = [] if info is None else [info.name, info.digest, info.shape, info.context, info.url or ""]
        plain = isinstance(params, dict) and isinstance(protocol, str | None)
        plain = plain and all(isinstance(name, str) for name in describing)
        whole = all(isinstance(text, str) and len(text) <= _LONGEST for text in texts)
        return cls(params, protocol, info, describing) if plain and whole else None


class Beginning(NamedTuple):
    """Name, params, tags and dataset with which a run begins."""

    name: str
    params: dict[str, Any]
    tags: dict[str, str]
    dataset: DatasetInfo | None


def beginning(
    described: RunDescription,
    environment: Mapping[str, Any],
    *,
    sweep: str,
    trial: int,
    seed: int,
    role: str,
    system: str,
    attempt: int,
) -> Beginning:
    """Name, params, tags and dataset with which an attempt begins. `environment` is the output of
    `environment.describe`.
    """
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
