"""A process that does runs for a sweep: `python -m aigc_lab.worker`, started by `executors/local.py`.

It keeps torch imported and the judge ready between runs, and never imports MLflow or Optuna: what a run shows goes to
the spool, and whether it is pruned is asked of the process that holds the study. When that one dies, so does this.
"""

import contextlib
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from aigc_lab import interruption, visible
from aigc_lab.channel import Channel, Closed, Message
from aigc_lab.errors import Failure, UsageError

# What imports torch is imported once somebody listens: a supervisor that dies meanwhile would not be noticed.
if TYPE_CHECKING:
    from aigc_lab.experiment import Experiment
    from aigc_lab.job import Job
    from aigc_lab.lab import Lab
    from aigc_lab.trainer import Progress

# A display need not know more often how a run stands.
_EVERY = 0.2


def main() -> None:
    """Argument one is the number of the channel's end. The first message is the lab, every other one a job."""
    visible.guard()
    channel, inbox = Channel(socket.socket(fileno=int(sys.argv[1]))), SimpleQueue[Message | None]()
    with contextlib.suppress(Closed, KeyboardInterrupt), interruption.handled():
        # Ctrl-C reaches the whole group; who started this says when to end.
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        threading.Thread(target=_listen, args=(channel, inbox), daemon=True).start()
        import aigc_lab.trial  # noqa: F401 -- for seconds, while the supervisor prepares what will be opened

        first = inbox.get()
        if first is not None:
            _serve(first, channel, inbox)


def _serve(first: Message, channel: Channel, inbox: "SimpleQueue[Message | None]") -> None:
    from aigc_lab.trial import execute

    try:
        experiment, lab = _open(first, lambda text: channel.send(say=text))
        channel.send(ready=True)
        while (message := inbox.get()) is not None and not interruption.wanted():
            (outcome,) = execute([_job(message, experiment)], lab, [_Remote(channel, inbox)])
            channel.send(outcome=[outcome.state, outcome.value, outcome.reason])
            if interruption.wanted():  # the run was quicker
                return
    except KeyboardInterrupt:
        channel.send(interrupted=True)
    except (UsageError, Failure) as error:
        channel.send(error=[type(error).__name__, str(error)])


def _open(first: Message, say: object) -> "tuple[Experiment, Lab]":
    from aigc_lab.experiment import Experiment
    from aigc_lab.lab import open_lab
    from aigc_lab.settings import Settings
    from aigc_lab.tracking.spool import SpoolTracker
    from aigc_lab.trainer import State
    from aigc_lab.yamlfile import Document

    told = first["experiment"]
    settings = Settings.load(Path(first["home"]))
    document = Document(told["file"], told["data"])
    experiment = Experiment(told["name"], document, settings.data_dir, settings.weights)
    if experiment.digest != told["digest"]:
        raise Failure(f"{told['file']}: its protocol or a file that it names has changed since the sweep began")
    tracker = SpoolTracker(Path(first["spool"]))
    lab = open_lab(experiment, settings, tracker, first["device"], say, first["threads"])  # type: ignore[arg-type]
    # The first optimiser of a process imports for seconds; no run's time should have them.
    plan = experiment.resolve(lambda hole: hole.ends()[0])
    State.fresh(
        plan.system_class,
        plan.system_config,
        plan.dataset.shape,
        seed=0,
        batch_size=plan.training.batch_size,
        device=lab.device,
    )
    return experiment, lab


def _job(message: Message, experiment: "Experiment") -> "Job":
    from aigc_lab.job import Job

    values = message["values"]
    return Job(
        configuration=experiment.resolve(lambda hole: values[hole.name]),
        objective=experiment.file.objective,
        **message["job"],
    )


class _Remote:
    """The watcher is in the other process."""

    def __init__(self, channel: Channel, inbox: "SimpleQueue[Message | None]") -> None:
        self._channel = channel
        self._inbox = inbox
        self._told = 0.0

    def progress(self, now: "Progress") -> None:
        if time.monotonic() - self._told > _EVERY:
            self._told = time.monotonic()
            self._send(progress=vars(now) | {"scalars": dict(now.scalars)})

    def scored(self, step: int, value: float) -> bool:
        self._send(scored=[step, value])
        answer = self._inbox.get()
        if answer is None:
            raise KeyboardInterrupt
        return bool(answer["stop"])

    def _send(self, **message: object) -> None:
        try:
            self._channel.send(**message)
        except Closed:  # who looks on is gone: that is no fault of the run
            raise KeyboardInterrupt from None


def _listen(channel: Channel, inbox: "SimpleQueue[Message | None]") -> None:
    """Messages as they come. When the other end is gone, the run is told to end, and this process ends soon."""
    while (message := channel.receive()) is not None:
        inbox.put(message)
    inbox.put(None)
    interruption.want()


if __name__ == "__main__":
    main()
