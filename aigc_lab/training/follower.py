"""A process that trains its part of another's run: `python -m aigc_lab.training.follower RANK SIZE PORT DEVICE`.

Started by `process_group`, with a pipe as standard input. It ends when its other end closes, which the kernel does
even when its holder is killed with -9. Under torchrun `attend` does the same in a process that is there already.
"""

import os
import signal
import sys
import threading
from contextlib import suppress
from typing import Any

from aigc_lab.host import environment, torchrun


def main() -> None:
    """Entry point of a process that `process_group` starts."""
    rank, size, port, device = sys.argv[1:]
    _ignore_signals()
    threading.Thread(target=_watch, daemon=True).start()
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    from aigc_lab.training.process_group import ProcessGroup

    store = TCPStore("127.0.0.1", int(port), int(size), is_master=False)
    _import_courses()
    store.set(f"here/{rank}", "")
    # Without Python's own end, which would wait for threads of a broken group.
    os._exit(_follow(ProcessGroup(store, int(rank), int(size), device, ())))


def attend() -> int:
    """Follows rank 0 of torchrun's processes until it ends; returns the exit code."""
    _ignore_signals()
    kind = torchrun.awaited()
    if kind is None:
        return 0
    from aigc_lab.training.process_group import ProcessGroup

    place = torchrun.place()
    device = f"cuda:{place.local}" if kind == "cuda" else kind
    return _follow(ProcessGroup(torchrun.store(), place.rank, place.size, device, ()))


def _ignore_signals() -> None:
    """Rank 0 hears them too, and says when to end."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _watch() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)


def _import_courses() -> None:
    """Imports for seconds what the first run needs, while rank 0 waits anyway."""
    import torch

    import aigc_lab.training.parallel  # noqa: F401
    from aigc_lab.systems.base import OptimizerConfig
    from aigc_lab.training.optimizers import build_optimizer

    # The first optimiser of a process imports for seconds.
    build_optimizer(OptimizerConfig(1e-3), [torch.nn.Parameter(torch.zeros(1))]).step()


def _follow(group: Any) -> int:
    """Does what rank 0 orders; returns the exit code."""
    from aigc_lab.nets.joined import Lost
    from aigc_lab.training.parts import Unparallel
    from aigc_lab.training.process_group import Order

    if group.device.startswith("cuda"):
        import torch

        torch.cuda.set_device(group.device)
    courses: dict[int, Any] = {}
    try:
        while True:
            order, run = group.order()
            match order:
                case Order.OPEN:
                    courses[run] = _opened(group)
                    group.wait()
                case Order.STEP:
                    with suppress(Unparallel):  # as rank 0 raises it
                        courses[run].step()
                case Order.COMPARE:
                    group.collected(courses[run].held())
                case Order.CLOSE:
                    courses.pop(run).close()
                case Order.END:
                    return 0
    except Lost:
        return 1
    except BaseException as error:  # noqa: BLE001 -- rank 0 tells it
        group.confess(error)
        return 1


def _opened(group: Any) -> Any:
    """The course that rank 0 describes, with its state."""
    import torch

    from aigc_lab import plugins
    from aigc_lab.data.shared.batches import Batches
    from aigc_lab.samples import Images, Points, Samples, Text
    from aigc_lab.shape import Shape
    from aigc_lab.systems.base import System
    from aigc_lab.training.checkpoint import restore_parts
    from aigc_lab.training.parallel import Parallel
    from aigc_lab.training.recorder import Silent
    from aigc_lab.training.state import Replica, TrainingState

    told, facts, tensors, data = group.tell(), group.tell(), group.share(), group.share()
    environment.settle(told["threads"])
    torch.set_float32_matmul_precision(told["matmul_precision"])  # this process does nothing but train
    kind, shape = plugins.find(System, told["system"]), Shape.load(told["shape"])  # type: ignore[type-abstract]
    config = kind.Config.model_validate(told["config"])
    options = {key: told[key] for key in ("seed", "batch_size", "channels_last", "averaged")}
    state = TrainingState.fresh(kind, config, shape, device=group.device, **options)
    restore_parts(state, tensors, facts, "what rank 0 shares")
    state.recorder = Silent(state.system)
    state.system.train()
    kinds: list[type[Samples]] = [Images, Points, Text]
    modality = next(each for each in kinds if each.modality == shape.modality)
    extra = {"vocabulary": shape.vocabulary} if modality is Text else {}
    samples = modality(data["values"], data.get("labels"), **extra).to(group.device)
    replica = Replica(state, Batches(samples, told["batch_size"], told["seed"]), told["seed"])
    return Parallel(replica, told["decay"], told["precision"], group)


if __name__ == "__main__":
    main()
