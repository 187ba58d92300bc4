"""The columns of a trial that a condition may name and rows may be made by."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aigc_lab.registry import conditions
from aigc_lab.registry.columns import Json
from aigc_lab.registry.conditions import Column, Value, column_name
from aigc_lab.registry.pooling import By
from aigc_lab.registry.ranking import Keep
from aigc_lab.registry.standings import Configuration, Standing

# Kind -> verdict -> how many of the runs that count have it.
Verdicts = Callable[[Standing], Mapping[str, Mapping[str, int]]]

OF_TRIAL = ("trial", "system", "sweep")
OF_RUNS = ("state", "seeds", "confirmed", "collapse", "stability")
_CONFIG = "config."  # as tables call a parameter, which may have the name of another column


class TrialColumns:
    """Columns by name, of trials with these `parameters`. `sweeps` are the names of the sweeps by their ids."""

    def __init__(self, parameters: Sequence[str], sweeps: Mapping[str, str], verdicts: Verdicts) -> None:
        self._parameters, self._sweeps = parameters, sweeps
        # A state or verdict compares in any case, and a verdict is that of any run.
        self._columns: dict[str, Column[Standing]] = {
            "trial": Column(lambda standing: (standing.configuration.trial,)),
            "system": Column(lambda standing: (standing.configuration.system,)),
            "sweep": Column(lambda standing: self._of_sweep(standing.configuration)),
            "state": Column(lambda standing: (standing.state.value,), upper=True),
            "seeds": Column(lambda standing: (standing.seeds,)),
            "confirmed": Column(lambda standing: (standing.confirmed,), decides=True),
            "collapse": Column(lambda standing: tuple(verdicts(standing).get("collapse", ())), upper=True),
            "stability": Column(lambda standing: tuple(verdicts(standing).get("stability", ())), upper=True),
        }

    def keep(self, where: str) -> Keep:
        """Whether a trial fulfils the condition. Raises `UsageError` for what is none, and for a column that no trial
        has.
        """
        return conditions.predicate(conditions.parse(where), self._column)

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
        parameter = self._parameter(name, (*self._columns, *self._parameters), "--where")
        return Column(lambda standing: tuple(map(_plain, _chosen(standing.configuration, parameter))), decides=True)

    def _parameter(self, name: str, columns: Sequence[str], option: str) -> str:
        own = name.removeprefix(_CONFIG)
        return own if own in self._parameters else column_name(name, columns, option)


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
