"""How many trials and runs a sweep has."""

from typing import TYPE_CHECKING

from aigc_lab.experiment import space

if TYPE_CHECKING:
    pass
from aigc_lab.experiment.experiment import Experiment


def total_trials(experiment: Experiment) -> int:
    """The number of trials: `search.trials`, at most one for each point of a grid; one where there are no holes."""
    search = experiment.file.search
    if search.sampler == "grid":
        return min(search.trials, len(space.grid(experiment.document)))
    return search.trials if experiment.holes else 1


def confirmations(experiment: Experiment, trials: int) -> int:
    """The number of runs that confirm the best of `trials` trials."""
    confirm = experiment.file.confirm
    return min(confirm.top, trials) * confirm.seeds if confirm else 0


def most_runs(experiment: Experiment) -> int:
    """The number of runs of a sweep if no trial is pruned."""
    trials = total_trials(experiment)
    return trials * experiment.file.search.seeds + confirmations(experiment, trials)
