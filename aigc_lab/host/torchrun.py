"""Processes that torchrun started: rank 0 does the command, the others wait until it opens a group, or ends.

`torchrun --nproc-per-node 2 -m aigc_lab train experiment.yaml` sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and
MASTER_PORT in each of them.
"""

import os
from contextlib import suppress
from datetime import timedelta
from functools import cache
from typing import Any, NamedTuple

# A command may prepare data for hours before its first step.
_PATIENCE = timedelta(days=30)
_BEGUN = "begun"


class Place(NamedTuple):
    """The place of this process among `size`: its `rank` among all, and its number `local` on this machine."""

    rank: int
    size: int
    local: int


def place() -> Place:
    """The place of this process; alone where torchrun has not started several."""
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    values = [os.environ.get(name, "") for name in names]
    if not all(values) or not (values[0].isdecimal() and values[1].isdecimal()) or int(values[1]) < 2:
        return Place(0, 1, 0)
    local = os.environ.get("LOCAL_RANK", values[0])
    return Place(int(values[0]), int(values[1]), int(local) if local.isdecimal() else 0)


def size() -> int | None:
    """Number of processes that torchrun has started; None where it has not."""
    return count if (count := place().size) > 1 else None


@cache
def store() -> Any:
    """The store in which the processes meet."""
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore

    common, _, _ = next(iter(dist.rendezvous("env://", timeout=_PATIENCE)))  # type: ignore[attr-defined]
    return PrefixStore("aigc-lab", common)


def begin(kind: str) -> Any:
    """Lets the others join a group that trains on devices of this kind; returns the store."""
    common = store()
    common.set(_BEGUN, kind)
    return common


def end() -> None:
    """Lets the others end where nothing has begun."""
    with suppress(RuntimeError):
        store().compare_set(_BEGUN, "", "ended")


def awaited() -> str | None:
    """Waits for rank 0: the kind of devices that it trains on, None where it has ended without a training."""
    common = store()
    common.wait([_BEGUN], _PATIENCE)
    kind: str = common.get(_BEGUN).decode()
    return None if kind == "ended" else kind
