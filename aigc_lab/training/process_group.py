"""Processes that train one run together: how they are started or joined, and how they talk.

Rank 0 is the process that evaluates and records; it gives orders, and the others follow. They are started by it, and
end with it: each watches a pipe that the kernel closes when rank 0 is gone, even killed with -9. Under torchrun they
are there already, and the group is torchrun's. Orders and tensors on a CPU go through gloo, gradients of GPUs
through NCCL. Nothing is pickled.
"""

import atexit
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from enum import IntEnum
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from aigc_lab.errors import Failure, UsageError
from aigc_lab.host import confined, environment, torchrun
from aigc_lab.nets.joined import Lost, Parts

# Between two orders rank 0 may evaluate for hours; a process that is gone is noticed at once by its closed connection.
_PATIENCE = timedelta(days=30)
_STARTING = timedelta(minutes=10)
# Seconds in which a process whose connection has closed comes to its end, so that its reason can be told.
_GRACE = 5.0
_REMEDY = "the same command goes on from its last checkpoint"


class Order(IntEnum):
    """What rank 0 asks of all others."""

    OPEN = 0  # a run, whose description and state follow
    STEP = 1
    COMPARE = 2  # what all of them hold of a run
    CLOSE = 3
    END = 4


class ProcessGroup:
    """`size` processes, of which this one has the `rank`; it trains on `device`. Raises `Lost` where a process is gone.

    One process can be in one such group at a time. `children` are those that this one has started, from rank 1 on.
    """

    def __init__(self, store: Any, rank: int, size: int, device: str, children: "Sequence[subprocess.Popen[bytes]]"):
        self.rank, self.size, self.device = rank, size, device
        self._store, self.children, self._closed = store, list(children), False
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=_PATIENCE)
        # A kernel of NCCL waits for all of them, so a lost process is met after torch's ten minutes at the latest.
        data = dist.new_group(backend="nccl") if device.startswith("cuda") else dist.group.WORLD
        self.parts = Parts(data, rank, size)

    # ---- talk, the same call in every process

    def order(self, what: Order | None = None, run: int = 0) -> tuple[Order, int]:
        """Gives an order about a run to all others, or waits for one of rank 0."""
        message = torch.tensor([what if what is not None else -1, run])
        self._broadcast(message)
        code, number = message.tolist()
        return Order(code), number

    def tell(self, content: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The content, JSON data, that rank 0 tells all others."""
        text = json.dumps(content).encode() if self.rank == 0 else b""
        length = torch.tensor([len(text)])
        self._broadcast(length)
        letters = torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else torch.empty(0, dtype=torch.uint8)
        letters = letters if self.rank == 0 else torch.empty(int(length), dtype=torch.uint8)
        self._broadcast(letters)
        told: dict[str, Any] = json.loads(letters.numpy().tobytes())
        return told

    def share(self, tensors: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Tensors of rank 0 by name, on the CPU of every process."""
        given = {name: tensor.detach().cpu().contiguous() for name, tensor in (tensors or {}).items()}
        heads = self.tell({name: [str(value.dtype), list(value.shape)] for name, value in given.items()})
        shared = {}
        for name, (dtype, shape) in heads.items():
            value = (
                given[name] if self.rank == 0 else torch.empty(shape, dtype=getattr(torch, dtype.rpartition(".")[2]))
            )
            # Bytes: gloo does not know every type.
            self._broadcast(value.reshape(-1).view(torch.uint8))
            shared[name] = value
        return shared

    def collected(self, numbers: Tensor) -> list[Tensor]:
        """The numbers, int64 [n] on the CPU, of every process, by rank."""
        each = [torch.empty_like(numbers) for _ in range(self.size)]
        try:
            dist.all_gather(each, numbers)
        except RuntimeError as error:
            raise Lost(str(error)) from error
        return each

    def wait(self) -> None:
        """Returns when every process has come here."""
        self.collected(torch.zeros(1, dtype=torch.int64))

    def _broadcast(self, value: Tensor) -> None:
        if self._closed:
            raise Lost("the group is closed")
        if not value.numel():
            return
        try:
            dist.broadcast(value, 0)
        except RuntimeError as error:
            raise Lost(str(error)) from error

    # ---- its end

    def confess(self, error: BaseException) -> None:
        """Leaves rank 0 the reason for which this process ends."""
        text = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        with suppress(RuntimeError):
            self._store.set(f"error/{self.rank}", text)

    def blame(self) -> NoReturn:
        """Raises `RuntimeError` for an error that another process left, or `Failure` for one that is gone."""
        until = time.monotonic() + _GRACE
        while time.monotonic() < until:
            for rank in range(1, self.size):
                if (reason := self._confession(rank)) is not None:
                    raise _Theirs(f"process {rank} of {self.size}: {reason}")
            for rank, child in enumerate(self.children, 1):
                if (code := child.poll()) is not None:
                    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
                    raise Failure(f"process {rank} of the {self.size} that train this run {how}; {_REMEDY}")
            time.sleep(0.05)
        raise Failure(f"the connection to one of the {self.size} processes of this run was lost; {_REMEDY}")

    def _confession(self, rank: int) -> str | None:
        with suppress(RuntimeError):  # the store may be gone with torchrun
            key = f"error/{rank}"
            return self._store.get(key).decode() if self._store.check([key]) else None
        return None

    def close(self) -> None:
        """Leaves the group; rank 0 ends the processes that it started."""
        global _open
        if self._closed:
            return
        if _open is self:
            _open = None
        if self.rank == 0:
            with suppress(Lost):
                self.order(Order.END)
        self._closed = True
        for child in self.children:
            assert child.stdin is not None
            child.stdin.close()  # by which it knows
        for child in self.children:
            try:
                child.wait(_GRACE)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        with suppress(RuntimeError):
            dist.destroy_process_group()


class _Theirs(RuntimeError):
    """An error of the run itself, met in another process."""


_open: ProcessGroup | None = None


def check_devices(count: int, device: str) -> None:
    """Raises `UsageError` where a run cannot be trained on `count` devices of the kind of `device`: where this machine
    has fewer, or torchrun has started another number of processes.
    """
    started = torchrun.size()
    if started is not None:
        if started != count:
            raise UsageError(
                f"training.devices is {count}, and torchrun has started {started} processes: set training.devices to "
                f"{started}, or start {'without torchrun' if count == 1 else f'as many as {count}'}"
            )
        return
    if count > 1:
        on_gpus = device.startswith("cuda")
        have = torch.cuda.device_count() if on_gpus else environment.cores()
        what = "CUDA device" if on_gpus else "CPU core"
        if count > have:
            raise UsageError(
                f"training.devices is {count}, and this machine has {have} {what}{'s' * (have != 1)}: "
                f"set training.devices to {have} or less"
            )


def opened(size: int, device: str) -> ProcessGroup:
    """The group of this process as rank 0, which stays open for the next run; `device` is its own."""
    global _open
    check_devices(size, device)
    if _open is not None and (_open.size, _open.device) != (size, device):
        _open.close()
    if _open is None:
        atexit.register(close)
        _open = _joined(device) if torchrun.size() is not None else _started(size, device)
    return _open


def close() -> None:
    """Ends the group that is open, if there is one."""
    if _open is not None:
        _open.close()


def _joined(device: str) -> ProcessGroup:
    """The group of torchrun's processes, which wait for it."""
    place = torchrun.place()
    return ProcessGroup(torchrun.begin(device.partition(":")[0]), 0, place.size, device, ())


def _started(size: int, device: str) -> ProcessGroup:
    """A group with processes of this machine that are started here."""
    store = TCPStore("127.0.0.1", 0, size, is_master=True, wait_for_workers=False, timeout=_STARTING)
    share = environment.share_of_threads(torch.get_num_threads())
    children = []
    for rank, theirs in enumerate(_others(size, device), 1):
        words = ["aigc_lab.training.follower", str(rank), str(size), str(store.port), theirs]
        children.append(
            subprocess.Popen(
                [sys.executable, "-P", "-m", *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=os.environ | share | {confined.VARIABLE: "0"},  # what is loaded was tried by who started it
            )
        )
    try:
        _await(store, children)
        return ProcessGroup(store, 0, size, device, children)
    except BaseException:
        for child in children:
            child.kill()
            child.wait()
        raise


def _await(store: Any, children: "Sequence[subprocess.Popen[bytes]]") -> None:
    """Waits until the processes are there. Raises `Failure` for one that ends."""
    until = time.monotonic() + _STARTING.total_seconds()
    names = [f"here/{rank}" for rank in range(1, len(children) + 1)]
    while not store.check(names):
        gone = next((code for child in children if (code := child.poll()) is not None), None)
        if gone is not None or time.monotonic() > until:
            raise Failure(f"a process that was to train with this one did not start (exit code {gone})")
        time.sleep(0.02)


def _others(size: int, device: str) -> list[str]:
    """The devices of ranks 1 to size − 1, where rank 0 has `device`."""
    if not device.startswith("cuda"):
        return [device] * (size - 1)
    own = torch.device(device).index
    own = torch.cuda.current_device() if own is None else own
    return [f"cuda:{index}" for index in range(torch.cuda.device_count()) if index != own][: size - 1]
