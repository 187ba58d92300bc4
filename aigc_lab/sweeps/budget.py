"""How many trials and runs a sweep has."""

from collections import Counter

from sqlalchemy import func, select

from aigc_lab.experiment import space
from aigc_lab.experiment.experiment import Experiment
from aigc_lab.registry.races import standing_of
from aigc_lab.registry.run_lifecycle import RESULTS
from aigc_lab.registry.states import RunState
from aigc_lab.registry.steering import Steering, feasible
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import Trial
from aigc_lab.statistics.race import Race, first_block


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


def most_runs(experiment: Experiment) -> int:
    """The number of runs of a sweep if no trial is pruned, and no candidate leaves a race."""
    trials = total_trials(experiment)
    return trials * experiment.file.search.seeds + confirmations(experiment, trials)


def runs_of_stored(experiment: Experiment, registry: Registry, sweep: str) -> int:
    """The most runs that a stored sweep can come to if no trial is pruned. Once its search is over, its candidates and
    their outcomes say how many runs confirm and report.
    """
    with registry.read() as connection:
        counted = select(Trial.c.state, func.count()).where(Trial.c.sweep_id == sweep).group_by(Trial.c.state)
        states = Counter({state: count for state, count in connection.execute(counted)})
    trials, seeds = max(total_trials(experiment), states.total()), experiment.file.search.seeds
    # A trial whose first run failed has no further seeds.
    searched = trials * seeds - states[RunState.FAILED] * (seeds - 1)
    if experiment.file.confirm is None:
        return searched
    over = sum(states[state] for state in RESULTS | {RunState.FAILED}) == trials
    return searched + (_confirming(experiment, registry, sweep) if over else confirmations(experiment, trials))


def _confirming(experiment: Experiment, registry: Registry, sweep: str) -> int:
    """The runs that confirm and report once the search is over: at most, until the confirmation is over too."""
    confirm, steering = experiment.file.confirm, Steering.of(experiment.document.data)
    assert confirm is not None
    best = [row["trial"] for row in feasible(registry, sweep, steering)[: confirm.top]]
    if not best:
        return 0
    if len(best) == 1 and confirm.reports:
        return confirm.reports
    lower = experiment.file.objective.better == "lower"
    race = Race(best, confirm.seeds, lower, racing=confirm.race, budget=confirm.budget)
    standing = standing_of(registry, sweep, race, experiment.file.search.seeds)
    if not standing.over:
        return confirmations(experiment, len(best))
    return standing.taken + (confirm.reports if standing.leader is not None else 0)


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
