"""Options of the executor `slurm`."""

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from aigc_lab.config import Strict
from aigc_lab.host.durations import seconds_of

# Of sbatch, what is decided here.
_OURS = {
    **dict.fromkeys(("time", "t"), "time_limit"),
    **dict.fromkeys(("gpus-per-node", "gpus", "G"), "gpus_per_worker"),
    **dict.fromkeys(("cpus-per-task", "c"), "cpus_per_worker"),
    **dict.fromkeys(("array", "a"), "--workers"),
    **{name: name for name in ("partition", "account", "constraint", "mem", "exclusive")},
    **dict.fromkeys(("job-name", "output", "error", "open-mode", "signal", "export", "requeue", "nodes", "ntasks"), ""),
    **dict.fromkeys(("ntasks-per-node", "wrap", "chdir"), ""),
}


class SlurmOptions(Strict):
    """What the executor `slurm` is told of its jobs."""

    cluster: Literal["slurm", "local"] = Field("slurm", description="local: jobs are processes of this machine")
    partition: str | None = None
    account: str | None = None
    constraint: str | None = Field(None, description="features of the nodes, as sbatch takes them")
    time_limit: int | str = Field(60, description="of a job: minutes, or H:MM:SS")
    margin: int | None = Field(
        None,
        ge=1,
        description="seconds before the limit at which a worker stores its run; without, 120, or a quarter of it",
    )
    gpus_per_worker: int = Field(0, ge=0, le=64)
    cpus_per_worker: int | None = Field(None, ge=1, le=1024, description="without, training.threads, or 1")
    mem: str | None = Field(None, pattern=r"^[1-9][0-9]*[KMGT]?$", description="of a job, like 16G")
    exclusive: bool = Field(False, description="whole nodes")
    sbatch: dict[str, str | int | float | bool] = Field({}, description="further options of sbatch")

    @property
    def seconds(self) -> int:
        return seconds_of(self.time_limit)

    @property
    def before(self) -> int:
        return min(120, self.seconds // 4) if self.margin is None else self.margin

    @field_validator("time_limit")
    @classmethod
    def _some_time(cls, value: int | str) -> int | str:
        seconds_of(value)
        return value

    @field_validator("partition", "account", "constraint")
    @classmethod
    def _one_word(cls, value: str | None) -> str | None:
        return value if value is None else _plain(value)

    @field_validator("sbatch")
    @classmethod
    def _free(cls, options: dict[str, Any]) -> dict[str, Any]:
        for key, value in options.items():
            name = key.replace("_", "-")
            if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9-]*", name):
                raise ValueError(f"{key!r:.60} is no option of sbatch; write them without dashes in front")
            if name in _OURS:
                instead = f"; give {_OURS[name]}" if _OURS[name] else ""
                raise ValueError(f"{key} is not free: it is set here{instead}")
            _plain(str(value))
        return options

    @model_validator(mode="after")
    def _long_enough(self) -> "SlurmOptions":
        if self.seconds - self.before < 1:
            raise ValueError(
                f"time_limit {self.time_limit} leaves a worker no time before its margin of {self.before} s; give "
                "a longer one, or a smaller margin"
            )
        return self


def _plain(text: str) -> str:
    """The text. Raises `ValueError` for what would begin another line of the script."""
    if not text.isprintable():
        raise ValueError(f"{text!r:.60} holds a character that cannot be printed")
    return text
