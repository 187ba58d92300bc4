"""Resources that all runs of a sweep share in one process: stores, the evaluator, the device."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aigc_lab.experiment.experiment import Experiment
from aigc_lab.experiment.sections import Training
from aigc_lab.host import environment
from aigc_lab.host.settings import Settings
from aigc_lab.registry.store import Registry
from aigc_lab.scoring.evaluator import Evaluator
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.tracking.base import Tracker


@dataclass(frozen=True)
class Resources:
    """Open stores and a prepared evaluator. `threads` is this process's share of the CPU's cores, None for all. With
    `crowded`, others share the device's memory: at its end a run does not fail, but is given up (`faults.Crowded`).
    """

    settings: Settings
    registry: Registry
    tracker: Tracker
    evaluator: Evaluator
    device: str
    threads: int | None = None
    crowded: bool = False
    #: how many runs of a system are trained as one program, by the system's title; one where it is not named
    replicas: Mapping[str, int] = field(default_factory=dict)

    def settle(self, training: Training) -> None:
        """Fixes what the bits of a run depend on; a process that shares the cores uses its part at most, and so does
        each of several that train one run.
        """
        cpu_threads = training.threads or max(environment.threads() // training.devices, 1)
        environment.settle(cpu_threads if self.threads is None else min(cpu_threads, self.threads))


def open_resources(
    experiment: Experiment,
    settings: Settings,
    registry: Registry,
    tracker: Tracker,
    device: str,
    say: Callable[[str], None],
    threads: int | None = None,
    replicas: Mapping[str, int] | None = None,
) -> Resources:
    """Prepares the evaluator of a checked experiment, and combines it with the open stores."""
    plan = experiment.resolve(lambda hole: hole.ends()[0])
    features = FeatureStore(plan.dataset, cache=settings.cache, weights=settings.weights, device=device, say=say)
    evaluator = Evaluator(experiment.protocol, experiment.metrics, plan.dataset, features)
    resources = Resources(settings, registry, tracker, evaluator, device, threads, replicas=replicas or {})
    resources.settle(experiment.file.training)
    evaluator.prepare()
    return resources
