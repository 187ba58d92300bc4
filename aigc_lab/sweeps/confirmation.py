"""The confirmation of the best trials: which runs it takes, and in which order.

There are three sets of seeds: the search chooses candidates by the first, the confirmation chooses the winner by the
second, and the third reports what the winner is worth.
"""

from collections.abc import Callable, Collection, Sequence

from aigc_lab.experiment.experiment import Experiment
from aigc_lab.registry.races import standing_of
from aigc_lab.registry.records import Role
from aigc_lab.registry.steering import Steering, feasible
from aigc_lab.registry.store import Registry
from aigc_lab.statistics.race import Race

#: does runs (trial, seed) of a role at once; False if no further run is to be begun
Runs = Callable[[Sequence[tuple[int, int]], Role], bool]


def confirm_best(
    experiment: Experiment,
    steering: Steering,
    registry: Registry,
    sweep: str,
    runs: Runs,
    settled: Collection[tuple[int, int]],
) -> None:
    """Runs the best trials with fresh seeds, round by round, and then the winner with those that report.

    What comes next depends on the outcomes that are stored, and on nothing else: one worker or several, interrupted
    or not, a sweep trains the same runs. Failed runs are repeated unless they are `settled`.
    """
    confirm, search = experiment.file.confirm, experiment.file.search
    assert confirm is not None
    better = experiment.file.objective.better
    best = [row["trial"] for row in feasible(registry, sweep, steering)[: confirm.top]]
    race = Race(best, confirm.seeds, better == "lower", racing=confirm.race, budget=confirm.budget)
    winner = best[0] if len(best) == 1 and confirm.reports else None  # of one nothing is to be chosen
    while winner is None:
        standing = standing_of(registry, sweep, race, search.seeds, settled=settled)
        if standing.over:
            winner = standing.leader
            break
        round_ = [(trial, search.seeds + place) for trial, place in standing.missing]
        if all(run in settled for run in round_) or not runs(round_, "confirm"):
            return  # they were done and still have not ended: whoever resumes does them
    if winner is not None:
        first = search.seeds + confirm.seeds
        runs([(winner, seed) for seed in range(first, first + confirm.reports)], "report")
