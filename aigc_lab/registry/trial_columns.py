"""The columns of a trial that a condition may name and rows may be made by."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from aigc_lab.errors import UsageError
from aigc_lab.registry import conditions
from aigc_lab.registry.columns import Json
from aigc_lab.registry.conditions import Column, Value, column_name
from aigc_lab.registry.pooling import By
from aigc_lab.registry.ranking import Keep
from aigc_lab.registry.standings import Configuration, Standing
from aigc_lab.registry.states import RunState

# Kind -> verdict -> how many of the runs that count have it.
Verdicts = Callable[[Standing], Mapping[str, Mapping[str, int]]]

# Kind -> the verdicts that there are. They are text here: the registry stores verdicts and gives none.
VERDICTS = {
    "collapse": ("NONE", "PARTIAL", "SEVERE", "TOTAL", "INCONCLUSIVE", "UNMEASURABLE", "POSTERIOR-COLLAPSED"),
    "stability": ("WITHHELD", "DIVERGED", "NEVER-LEARNED", "REGRESSED", "OSCILLATING", "STABLE"),
}
OF_TRIAL = ("trial", "system", "sweep")
OF_RUNS = ("state", "seeds", "confirmed", "collapse", "stability")
# What a run turned out to be, and not what it was chosen to be.
_OUTCOMES = {"state", "collapse", "stability"}
_CONFIG = "config."  # as tables call a parameter, which may have the name of another column


class TrialColumns:
    """Columns by name, of trials and their parameters. `sweeps` are the names of the sweeps by their ids; `is_score`
    says whether trials have a score of a name.
    """

    def __init__(
        self,
        trials: Collection[Configuration],
        sweeps: Mapping[str, str],
        verdicts: Verdicts,
        is_score: Callable[[str], bool],
    ) -> None:
        self._trials, self._sweeps, self._is_score = trials, sweeps, is_score
        self._parameters = list(dict.fromkeys(name for each in trials for name in each.config))
        systems = sorted({each.system for each in trials})
        # A state or verdict compares in any case, and a verdict is that of any run.
        self._columns: dict[str, Column[Standing]] = {
            "trial": Column(lambda standing: (standing.configuration.trial,), numeric=True),
            "system": Column(lambda standing: (standing.configuration.system,), words=systems),
            "sweep": Column(lambda standing: self._of_sweep(standing.configuration)),
            "state": Column(lambda standing: (standing.state.value,), upper=True, words=list(RunState)),
            "seeds": Column(lambda standing: (standing.seeds,), numeric=True),
            "confirmed": Column(lambda standing: (standing.confirmed,), decides=True),
            "collapse": Column(
                lambda standing: tuple(verdicts(standing).get("collapse", ())), upper=True, words=VERDICTS["collapse"]
            ),
            "stability": Column(
                lambda standing: tuple(verdicts(standing).get("stability", ())), upper=True, words=VERDICTS["stability"]
            ),
        }

    def keep(self, where: str) -> Keep:
        """Whether a trial fulfils the condition. Raises `UsageError` for what is none, and for a column that no trial
        has.
        """
        return conditions.predicate(conditions.parse(where), self._column)

    @staticmethod
    def by_outcome(where: str) -> bool:
        """Whether a condition chooses trials by how their runs ended."""
        return not _OUTCOMES.isdisjoint(conditions.names(conditions.parse(where)))

    def by(self, name: str, adaptive: frozenset[str]) -> By:
        """What rows are made by: a column of the trial or a parameter. Raises `UsageError` for any other."""
        if name == "system":
            return By(name, lambda configuration: (configuration.system,), adaptive)
        if name == "sweep":
            return By(name, lambda configuration: (configuration.sweep,), adaptive)
        parameter = self._parameter(name, (*OF_TRIAL, *self._parameters), "--by")
        return By(parameter, lambda configuration: _chosen(configuration, parameter), adaptive)

    def _of_sweep(self, configuration: Configuration) -> Sequence[Value]:
        return configuration.sweep, self._sweeps.get(configuration.sweep, "")

    def _column(self, name: str) -> Column[Standing]:
        if name in self._columns:
            return self._columns[name]
        columns = (*self._columns, *self._parameters)
        parameter = self._parameter(name, columns, "--where")
        return Column(
            lambda standing: tuple(map(_plain, _chosen(standing.configuration, parameter))),
            decides=True,
            numeric=self._numeric(parameter),
        )

    def _numeric(self, parameter: str) -> bool:
        """Whether all values of a parameter that are not null are numbers."""
        values = [value for each in self._trials for value in _chosen(each, parameter) if value is not None]
        return bool(values) and all(type(value) in (int, float) for value in values)

    def _parameter(self, name: str, columns: Sequence[str], option: str) -> str:
        own = name.removeprefix(_CONFIG)
        if own in self._parameters:
            return own
        if not any(each.endswith(f".{name}") for each in columns) and name not in columns and self._is_score(name):
            raise UsageError(f"{option}: '{name}' is a score; only these columns will do: {', '.join(columns)}")
        return column_name(name, columns, option)


def _chosen(configuration: Configuration, parameter: str) -> tuple[Any, ...]:
    """The value that was chosen; none where the trial lacks the parameter."""
    config: Json = configuration.config
    return (config[parameter],) if parameter in config else ()


def _plain(value: Any) -> Value:
    """The value; a list or a mapping as its JSON text."""
    if isinstance(value, bool | int | float | str | None):
        return value
    import json

    return json.dumps(value)
