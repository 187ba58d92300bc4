"""Scores and verdicts of one run: of its samples, and of the course of its objective."""

from contextlib import suppress

import torch

from aigc_lab.host import signals
from aigc_lab.metrics.base import Score
from aigc_lab.registry.run_lifecycle import RESULTS
from aigc_lab.registry.states import RunState
from aigc_lab.runs.job import Job
from aigc_lab.runs.record import Record, judge_history
from aigc_lab.samples import Samples
from aigc_lab.scoring.evaluator import Evaluator, ScoringSplit
from aigc_lab.training.state import Replica
from aigc_lab.verdicts.conclusion import CollapseVerdict


class RunScores:
    """Samples of a replica, drawn anew for each split, and what an evaluator says of them. Scoring may take minutes and
    leaves nothing half done, so that a signal interrupts it at once.
    """

    def __init__(self, job: Job, replica: Replica, record: Record, evaluator: Evaluator) -> None:
        self._job, self._replica, self._record, self._evaluator = job, replica, record, evaluator

    def examine(self, split: ScoringSplit, *, judged: bool = False) -> tuple[list[Score], CollapseVerdict | None]:
        """The protocol's scores on a split, and if asked for the verdict on collapse, None where nobody can say."""
        with signals.at_once():
            return self._evaluator.examine(self._generated(split), split, self._replica.state.average, judged=judged)

    def computable(self, split: ScoringSplit) -> list[Score]:
        """The scores on a split of those metrics that do not fail."""
        with signals.at_once():
            return self._evaluator.computable(self._generated(split), split, self._replica.state.average)

    def fit_sampler(self) -> None:
        """Fits what the average samples with beside its weights to *train*: its weights have moved."""
        with signals.at_once():
            self._replica.state.average.fit_sampler(self._replica.batches.samples)

    def _generated(self, split: ScoringSplit) -> Samples:
        return self._evaluator.generate(self._replica.state.average, self._job.seed, "evaluation", split)

    def judge_raw(self) -> None:
        """Records whether the generator itself has collapsed: a moving average of its weights may hide that it goes
        from mode to mode.
        """
        state = self._replica.state
        with signals.at_once():
            state.system.eval()
            try:
                state.system.fit_sampler(self._replica.batches.samples)
                with torch.no_grad():
                    fake = self._evaluator.generate(state.system, self._job.seed, "evaluation", "reference")
            finally:
                state.system.train()
            with suppress(ValueError):  # samples that cannot be judged are no reason to lose a result
                self._record.judge("collapse_raw", state.step, self._evaluator.judge(fake))

    def judge_history(self, ended: RunState, reason: str | None) -> None:
        """Records whether the objective was stable, for a run that has a result or diverged."""
        if ended not in RESULTS:
            return
        objective, step = self._job.objective, self._replica.state.step
        history = self._record.history(objective.score)
        if not history and ended != RunState.DIVERGED:
            return
        with suppress(ValueError):  # a history that cannot be judged is no reason to lose a result
            said = judge_history(
                [vars(score) for score in history],
                self._record.curves,
                baseline=self._evaluator.baseline(objective.score),
                better=objective.better,
                diverged_at=(step, reason or "diverged") if ended == RunState.DIVERGED else None,
            )
            self._record.judge("stability", step, said)
