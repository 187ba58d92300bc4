"""An evaluation by the experiment's protocol (samples, features, scores) beside the training between two of them."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

from aigc_lab.benchmarks.base import Benchmark, Case, Setting, Size, Unmeasured
from aigc_lab.benchmarks.shared import trainings
from aigc_lab.experiment.experiment import load_experiment
from aigc_lab.scoring.evaluator import Evaluator
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.training.state import Replica

_RACES: Mapping[Size, tuple[tuple[str, str], ...]] = {
    "full": (("digits-8x8", "dcgan"), ("ring", "point_gan")),
    "quick": (("digits-8x8", "dcgan"), ("ring", "point_gan")),
    "tiny": (("ring", "point_gan"),),
}
_STEPS: Mapping[Size, int] = {"full": 40, "quick": 10, "tiny": 1}
_ROUNDS: Mapping[Size, int] = {"full": 5, "quick": 3, "tiny": 2}


class Evaluation(Benchmark):
    """Features of real samples and the classifier that judges are at hand, as in every evaluation but the first. Only a
    part of the training is timed, and scaled up.
    """

    seconds: ClassVar[Mapping[Size, float]] = {"full": 30, "quick": 15, "tiny": 2}

    def cases(self, setting: Setting) -> Iterator[Case | Unmeasured]:
        for experiment, system in _RACES[setting.size]:
            plan, steps = trainings.plan_of(experiment, system, setting.data_dir), _STEPS[setting.size]
            evaluator = _evaluator(experiment, setting)
            evaluator.prepare()
            state = trainings.state_of(plan, setting.device)
            training = trainings.segments(
                [Replica(state, trainings.batches_of(plan, setting.device), 0)],
                steps,
                decay=plan.training.ema,
                every=plan.training.log_every,
            )

            def evaluate(evaluator: Evaluator = evaluator, system: object = state.average) -> None:
                samples = evaluator.generate(system, 0, "bench")  # type: ignore[arg-type]
                evaluator.evaluate(samples, "reference", system)

            yield Case(
                f"{system} on {experiment}",
                f"{plan.training.evaluate_every} steps",
                run=evaluate,
                beside=training,
                units=1,
                units_beside=steps / plan.training.evaluate_every,
                unit="evaluations",
                rounds=_ROUNDS[setting.size],
                says="cost",
            )


def _evaluator(experiment: str, setting: Setting) -> Evaluator:
    loaded = load_experiment(experiment, [], data_dir=setting.data_dir)
    features = FeatureStore(loaded.dataset, cache=setting.cache, weights=setting.weights, device=setting.device)
    return Evaluator(loaded.protocol, loaded.metrics, loaded.dataset, features)
