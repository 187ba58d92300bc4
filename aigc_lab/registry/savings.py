"""What a pruner saved: the training steps that runs of a search were spared."""

from typing import NamedTuple

from sqlalchemy import Connection, func, select

from aigc_lab.registry.columns import Json
from aigc_lab.registry.states import RunState
from aigc_lab.registry.tables import Run, Score, Sweep, Trial

_ENDED = (RunState.FINISHED.value, RunState.DIVERGED.value, RunState.PRUNED.value)


class Savings(NamedTuple):
    """Of `trials` that have ended the `pruner` stopped `pruned`, at their first run, so that `saved` of all `steps`
    were not trained: those after the last evaluation of the run, and those of the seeds that were not begun.
    """

    pruner: str
    pruned: int
    trials: int
    saved: int
    steps: int

    def __str__(self) -> str:
        return (
            f"Pruner {self.pruner} stopped {self.pruned} of {self.trials} trials: {self.saved:,} of {self.steps:,} "
            f"steps ({self.saved / self.steps:.0%}) were not trained."
        )


def savings(connection: Connection, sweep: str) -> Savings | None:
    """What the pruner of a sweep saved, by its id; None where it stopped nothing, or an experiment of this form does
    not say how long its runs are.
    """
    ended = connection.execute(
        select(Trial.c.number, Trial.c.state, Trial.c.config)
        .where(Trial.c.sweep_id == sweep, Trial.c.state.in_(_ENDED))
        .order_by(Trial.c.number)
    ).all()
    pruned = {trial.number for trial in ended if trial.state == RunState.PRUNED.value}
    experiment: Json = connection.scalar(select(Sweep.c.experiment).where(Sweep.c.id == sweep)) or {}
    whole = {trial.number: _steps(experiment, trial.config) for trial in ended}
    if not pruned or not all(whole.values()):
        return None
    reached: dict[int, int] = {
        trial: step
        for trial, step in connection.execute(
            select(Run.c.trial, func.max(Score.c.step))
            .join(Score, Score.c.run_id == Run.c.id)
            .where(Run.c.sweep_id == sweep, Run.c.state == RunState.PRUNED.value, Score.c.checkpoint == "progress")
            .group_by(Run.c.trial)
        )
    }
    search = experiment.get("search") or {}
    seeds = search.get("seeds", 1)
    saved = sum(seeds * whole[trial] - reached.get(trial, 0) for trial in pruned)
    return Savings(str(search.get("pruner", "none")), len(pruned), len(ended), saved, seeds * sum(whole.values()))


def _steps(experiment: Json, config: Json) -> int:
    """Training steps of a whole run of a trial; 0 where they cannot be told."""
    steps = config.get("training.steps", (experiment.get("training") or {}).get("steps"))
    return steps if isinstance(steps, int) else 0
