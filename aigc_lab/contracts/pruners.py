"""What every pruner must do, whoever wrote it: on curves that are made up here, without any training."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from aigc_lab.config import Better
from aigc_lab.contracts.base import Broken, Contracts
from aigc_lab.pruners.base import Curve, Pruner

_STEPS, _EVERY, _RUNS, _TABLES = 1000, 50, 6, 20


@dataclass(frozen=True)
class Case:
    """A pruner."""

    kind: type[Pruner]

    def stops(self, run: Curve, others: list[Curve], better: Better) -> bool:
        """The answer of a newly made pruner."""
        return self.kind(_STEPS).stops(run, others, better)


def tables() -> Iterator[tuple[list[Curve], Better]]:
    """Pairs of the runs of a search and which way is better: noisy curves that fall, or rise, towards a level of their
    own; two of three are finished. In two of three searches values have standard errors, and samples were judged: those
    of bad runs mostly as TOTAL.
    """
    source = random.Random(0)  # noqa: S311 -- curves, and no secrets
    for number in range(_TABLES):
        better: Better = "lower" if number % 2 else "higher"
        judged = number % 3 > 0
        sign = 1 if better == "lower" else -1
        runs = []
        for index in range(_RUNS):
            level, ends = source.uniform(1, 10), _STEPS if index % 3 else source.randrange(_EVERY, _STEPS, _EVERY)
            steps = range(_EVERY, ends + 1, _EVERY)
            values = {step: sign * (level + 20 * _EVERY / step + source.uniform(0, 0.1)) for step in steps}
            errors = dict.fromkeys(values, 0.03) if judged else {}
            verdicts = {step: _verdict(source, level) for step in values} if judged else {}
            runs.append(Curve(values, ends == _STEPS, errors, verdicts, index))
        yield runs, better


def _verdict(source: random.Random, level: float) -> str:
    """A collapse verdict on samples of a run that tends to a level from 1 (good) to 10."""
    return source.choice(("TOTAL", "TOTAL", "TOTAL", "SEVERE") if level > 5 else ("NONE", "PARTIAL", "INCONCLUSIVE"))


def prefixes(run: Curve) -> Iterator[Curve]:
    """The run's curve up to each of its evaluations, the shortest first."""
    steps = sorted(run.values)
    for end in range(1, len(steps) + 1):
        upto = steps[end - 1]
        errors = {step: error for step, error in run.errors.items() if step <= upto}
        verdicts = {step: verdict for step, verdict in run.verdicts.items() if step <= upto}
        yield Curve({step: run.values[step] for step in steps[:end]}, False, errors, verdicts, run.number)


PRUNER: Contracts[Case] = Contracts()


@PRUNER.add()
def it_answers_yes_or_no(case: Case) -> None:
    """A search asks after each evaluation, the first trial's too, when there is nothing to compare it with."""
    for runs, better in tables():
        for run in prefixes(runs[0]):
            for others in ([], runs[1:]):
                answer = case.stops(run, others, better)
                if type(answer) is not bool:
                    raise Broken(f"stops() returns {answer!r:.60}: return True or False")


@PRUNER.add(it_answers_yes_or_no)
def the_best_run_is_never_stopped(case: Case) -> None:
    """A run that improves at each evaluation and is better than all others at each step is what a search is for."""
    for runs, better in tables():
        sign = 1 if better == "lower" else -1
        values = {step: sign * (0.5 + 10 * _EVERY / step) for step in range(_EVERY, _STEPS + 1, _EVERY)}
        errors, verdicts = dict.fromkeys(values, 0.01), dict.fromkeys(values, "NONE")
        best = Curve(values, False, errors, verdicts, number=len(runs))
        for run in prefixes(best):
            if case.stops(run, runs, better):
                raise Broken(
                    f"it stops the best of {len(runs) + 1} runs at step {max(run.values)} ({better} is better)"
                )


@PRUNER.add(it_answers_yes_or_no)
def it_goes_by_what_it_is_given(case: Case) -> None:
    """A resumed sweep asks another process, which has seen nothing before; it must stop the same runs."""
    for runs, better in tables():
        pruner = case.kind(_STEPS)
        for index, whole in enumerate(runs):
            others = runs[:index] + runs[index + 1 :]
            for run in prefixes(whole):
                first, again = pruner.stops(run, others, better), pruner.stops(run, others, better)
                if {first, again} != {case.stops(run, others, better)}:
                    raise Broken("the same runs get another answer when asked again: keep nothing, and draw nothing")
