"""How many trials and runs a sweep has."""

from aigc_lab.experiment import space
from aigc_lab.experiment.experiment import Experiment
from aigc_lab.statistics.race import Standing, first_block


def total_trials(experiment: Experiment) -> int:
    """The number of trials: `search.trials`, at most one for each point of a grid; one where there are no holes."""
    search = experiment.file.search
    if search.sampler == "grid":
        return min(search.trials, len(space.grid(experiment.document)))
    return search.trials if experiment.holes else 1


def confirmations(experiment: Experiment, trials: int) -> int:
    """The most runs that confirm the best of `trials` trials, and report what the winner is worth."""
    confirm = experiment.file.confirm
    if confirm is None:
        return 0
    several = confirm.seeds * min(confirm.top, trials)
    if confirm.reports and min(confirm.top, trials) == 1:
        return confirm.reports
    return min(several, confirm.budget or several) + confirm.reports


def most_runs(experiment: Experiment, race: Standing | None = None) -> int:
    """The number of runs of a sweep if no trial is pruned; of one whose `race` is over, what that took."""
    trials, confirm = total_trials(experiment), experiment.file.confirm
    searched = trials * experiment.file.search.seeds
    if confirm is None or race is None or not race.over:
        return searched + confirmations(experiment, trials)
    return searched + race.taken + (confirm.reports if race.leader is not None else 0)


def describe_confirmation(experiment: Experiment) -> str:
    """What a race may take and who reports, before it is begun; "" where the number of runs says all."""
    confirm, most = experiment.file.confirm, total_trials(experiment)
    if confirm is None or not confirm.reports or min(confirm.top, most) == 1:
        return ""
    top, runs = min(confirm.top, most), confirmations(experiment, most) - confirm.reports
    if confirm.race:
        fewest = first_block(top) * top
        chosen = f"a race of the best {top}, {fewest} to {runs} runs ({confirm.seeds} seeds of each at most)"
    else:
        chosen = f"the best {top} with {confirm.seeds} seeds each"
    return f"to confirm: {chosen}; then {confirm.reports} fresh seeds of the winner, which report"
