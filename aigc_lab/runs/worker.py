"""Worker process that executes runs for a sweep: `python -m aigc_lab.runs.worker`, started by `executors/local.py`.

It keeps torch imported and the evaluator ready between runs, and never imports MLflow or Optuna: curves and samples go
to the spool, and the process that holds the study decides about pruning. When that process dies, so does this one.
"""

import contextlib
import math
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

from aigc_lab.errors import Failure, UsageError
from aigc_lab.host import signals, visible
from aigc_lab.host.channel import Channel, Closed, Message
from aigc_lab.host.outage import StoreAway
from aigc_lab.runs.messages import Answer, Broken, Ended, Interrupted, Opening, Progressed, Ready, Said, Scored, Work

# What imports torch is imported once somebody listens: a supervisor that dies meanwhile would not be noticed.
if TYPE_CHECKING:
    from aigc_lab.experiment.experiment import Experiment
    from aigc_lab.runs.job import Job
    from aigc_lab.runs.resources import Resources
    from aigc_lab.training.state import Progress

M = TypeVar("M", bound=Message)

# A display need not know more often how a run stands.
_EVERY = 0.2


class _Inbox:
    """Queue of messages from the other process; None at its end."""

    def __init__(self) -> None:
        self._queue = SimpleQueue[Message | Failure | None]()

    def put(self, message: Message | Failure | None) -> None:
        self._queue.put(message)

    def get(self, kind: type[M]) -> M | None:
        """Waits for the next message. Raises `Failure` where it is not of this kind."""
        message = self._queue.get()
        if isinstance(message, Failure):
            raise message
        if message is not None and not isinstance(message, kind):
            raise Failure(f"a worker process was told {type(message).__name__} where it waits for {kind.__name__}")
        return message


def main() -> None:
    """Entry point; argument one is the file descriptor of the channel. The first message is an `Opening`, every other
    one a `Work`.
    """
    visible.guard()
    channel, inbox = Channel(socket.socket(fileno=int(sys.argv[1])), Opening, Work, Answer), _Inbox()
    with contextlib.suppress(Closed, KeyboardInterrupt), signals.handled():
        # Ctrl-C reaches the whole group; who started this says when to end.
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        threading.Thread(target=_listen, args=(channel, inbox), daemon=True).start()
        import aigc_lab.runs.run  # noqa: F401 -- for seconds, while the supervisor prepares what will be opened

        _serve(channel, inbox)


def _serve(channel: Channel, inbox: _Inbox) -> None:
    from aigc_lab.runs.run import execute

    try:
        first = inbox.get(Opening)
        if first is None:
            return
        experiment, resources = _open(first, lambda text: channel.send(Said(text=text)))
        channel.send(Ready())
        while (work := inbox.get(Work)) is not None and not signals.stop_requested():
            (outcome,) = execute([_job(work, experiment)], resources, [_RemoteWatcher(channel, inbox)])
            channel.send(Ended(state=outcome.state, value=outcome.value, reason=outcome.reason))
            if signals.stop_requested():  # the run was quicker
                return
    except KeyboardInterrupt:
        channel.send(Interrupted())
    except UsageError as error:
        channel.send(Broken(error="UsageError", text=str(error)))
    except StoreAway as error:
        channel.send(Broken(error="StoreAway", text=str(error)))
    except Failure as error:
        channel.send(Broken(error="Failure", text=str(error)))


def _open(first: Opening, say: Callable[[str], None]) -> "tuple[Experiment, Resources]":
    from aigc_lab.experiment.experiment import Experiment
    from aigc_lab.experiment.yaml_file import Document
    from aigc_lab.host.settings import Settings
    from aigc_lab.registry.home import open_registry
    from aigc_lab.runs.resources import open_resources
    from aigc_lab.tracking.spool import SpoolTracker
    from aigc_lab.training.state import TrainingState

    settings = Settings.load(Path(first.home))
    document = Document(first.file, first.data)
    experiment = Experiment(first.name, document, settings.data_dir, settings.weights)
    if experiment.digest != first.digest:
        raise Failure(f"{first.file}: its protocol or a file that it names has changed since the sweep began")
    tracker = SpoolTracker(Path(first.spool))
    registry = open_registry(settings, create=True, connected=True, patient=True)
    resources = open_resources(experiment, settings, registry, tracker, first.device, say, first.threads)
    # The first optimiser of a process imports for seconds; no run's time should have them.
    plan = experiment.resolve(lambda hole: hole.ends()[0])
    TrainingState.fresh(
        plan.system_class,
        plan.system_config,
        plan.dataset.shape,
        seed=0,
        batch_size=plan.training.batch_size,
        device=resources.device,
    )
    return experiment, resources


def _job(work: Work, experiment: "Experiment") -> "Job":
    from aigc_lab.runs.job import Job

    return Job(
        run=work.run,
        sweep=work.sweep,
        trial=work.trial,
        seed=work.seed,
        role=work.role,
        configuration=experiment.resolve(lambda hole: work.values[hole.name]),
        objective=experiment.file.objective,
    )


class _RemoteWatcher:
    """Watcher in the process of the sweep, reached over the channel."""

    def __init__(self, channel: Channel, inbox: _Inbox) -> None:
        self._channel = channel
        self._inbox = inbox
        self._reported_at = 0.0

    def progress(self, now: "Progress") -> None:
        if time.monotonic() - self._reported_at > _EVERY:
            self._reported_at = time.monotonic()
            self._send(
                Progressed(
                    step=now.step,
                    scalars=dict(now.scalars),
                    seconds=now.seconds,
                    samples_per_second=now.samples_per_second,
                )
            )

    def scored(self, step: int, value: float, *, error: float = math.nan, collapse: str | None = None) -> bool:
        self._send(Scored(step=step, value=value, error=error, collapse=collapse))
        answer = self._inbox.get(Answer)
        if answer is None:
            raise KeyboardInterrupt
        return answer.stop

    def _send(self, message: Message) -> None:
        try:
            self._channel.send(message)
        except Closed:  # who looks on is gone: that is no fault of the run
            raise KeyboardInterrupt from None


def _listen(channel: Channel, inbox: _Inbox) -> None:
    """Queues messages as they come. When the other end is gone, asks the run to stop, and so ends this process."""
    message: Message | Failure | None
    while True:
        try:
            message = channel.receive()
        except Failure as failure:
            message = failure
        inbox.put(message)
        if message is None:
            signals.request_stop()
            return


if __name__ == "__main__":
    main()
