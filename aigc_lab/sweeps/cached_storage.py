"""An Optuna storage that asks its database once, and waits for it while it is away.

Optuna reads every unfinished trial again for each question that a sampler has, which is most of what a suggestion
costs; but nobody else writes to the study of a sweep that is run. Samplers and pruners do not notice an outage: what
they have drawn is not drawn again, and the answers are those of a database that was always there.
"""

import copy
import threading
from collections.abc import Callable, Container, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from aigc_lab.errors import Failure
from aigc_lab.host import outage

T = TypeVar("T")


class CachedStorage(BaseStorage):
    """Every write goes to the database first, and is then remembered; trials are read when a study is first asked for
    them. A trial that is remembered is replaced and never changed: who was given one before goes on reading it.
    """

    def __init__(
        self,
        database: RDBStorage,
        name: str = "Optuna's storage",
        away: Callable[[Exception], str | None] | None = None,
    ) -> None:
        """`away` says of an error whether the database, called `name`, is away (`host.outage.ask`); unless given,
        it never is.
        """
        self._database = database
        self._name = name
        self._away = away or (lambda _: None)
        self._lock = threading.RLock()
        self._trials: dict[int, list[FrozenTrial]] = {}  # study -> its trials by number
        self._places: dict[int, tuple[int, int]] = {}  # trial -> study, number

    def _ask(self, work: Callable[[], T]) -> T:
        return outage.ask(self._name, work, self._away)

    # ---- trials

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        with self._lock:
            trials = self._of(study_id)

            def create() -> int:
                # One that is there already: it was made, and the answer was lost.
                created = self._database.get_all_trials(study_id, deepcopy=False)[len(trials) :] if lost else []
                lost.append(True)
                return created[0]._trial_id if created else self._database.create_new_trial(study_id, template_trial)  # noqa: SLF001

            lost: list[bool] = []
            trial = self._ask(create)
            created = self._ask(lambda: self._database.get_trial(trial))
            if created.number != len(trials):
                raise Failure(f"trial {len(trials)} was made by another process: it runs this sweep too, and goes on")
            trials.append(created)
            self._places[trial] = study_id, created.number
        return trial

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        with self._lock:
            self._ask(lambda: self._database.set_trial_param(trial_id, param_name, param_value_internal, distribution))
            before, value = self._known(trial_id), distribution.to_external_repr(param_value_internal)
            self._remember(
                trial_id,
                params=before.params | {param_name: value},
                distributions=before.distributions | {param_name: distribution},
            )

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        with self._lock:
            if not self._ask(partial(self._set_state, trial_id, state, values, [])):
                return False
            now, facts = datetime.now(), dict[str, Any]()
            if values is not None:
                facts["values"] = list(values)
            if state == TrialState.RUNNING:
                facts["datetime_start"] = now
            if state.is_finished():
                facts["datetime_complete"] = now
            self._remember(trial_id, state=state, **facts)
        return True

    def _set_state(self, trial: int, state: TrialState, values: Sequence[float] | None, before: list[bool]) -> bool:
        """Not again what was done when the answer was lost: `before` holds something at the second try."""
        again = bool(before)
        before.append(True)
        try:
            if self._database.set_trial_state_values(trial, state, values):
                return True
        except UpdateFinishedTrialError:
            if not again:
                raise
        if not again:
            return False
        now = self._database.get_trial(trial)
        return now.state == state and (values is None or list(now.values or []) == list(values))

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        with self._lock:
            self._ask(lambda: self._database.set_trial_intermediate_value(trial_id, step, intermediate_value))
            values = self._known(trial_id).intermediate_values
            self._remember(trial_id, intermediate_values=values | {step: intermediate_value})

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._lock:
            self._ask(lambda: self._database.set_trial_user_attr(trial_id, key, value))
            self._remember(trial_id, user_attrs=self._known(trial_id).user_attrs | {key: value})

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._lock:
            self._ask(lambda: self._database.set_trial_system_attr(trial_id, key, value))
            self._remember(trial_id, system_attrs=self._known(trial_id).system_attrs | {key: value})

    def get_trial(self, trial_id: int) -> FrozenTrial:
        with self._lock:
            return copy.deepcopy(self._known(trial_id))  # whoever suggests changes what he is given

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        with self._lock:
            trials = [trial for trial in self._of(study_id) if states is None or trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        with self._lock:
            return self._of(study_id)[trial_number]._trial_id  # noqa: SLF001 -- Optuna's own word for a trial's id

    def _of(self, study: int) -> list[FrozenTrial]:
        if study not in self._trials:
            self._trials[study] = self._ask(lambda: self._database.get_all_trials(study))
            self._places |= {trial._trial_id: (study, trial.number) for trial in self._trials[study]}  # noqa: SLF001
        return self._trials[study]

    def _known(self, trial: int) -> FrozenTrial:
        study, number = self._places[trial]
        return self._trials[study][number]

    def _remember(self, trial: int, **facts: Any) -> None:
        study, number = self._places[trial]
        changed = copy.copy(self._known(trial))
        for name, value in facts.items():
            setattr(changed, name, value)
        self._trials[study][number] = changed

    # ---- studies, of which there is one

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        return self._ask(lambda: self._database.create_new_study(directions, study_name))

    def delete_study(self, study_id: int) -> None:
        with self._lock:
            self._ask(lambda: self._database.delete_study(study_id))
            self._trials.pop(study_id, None)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._ask(lambda: self._database.set_study_user_attr(study_id, key, value))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._ask(lambda: self._database.set_study_system_attr(study_id, key, value))

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._ask(lambda: self._database.get_study_id_from_name(study_name))

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._ask(lambda: self._database.get_study_name_from_id(study_id))

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._ask(lambda: self._database.get_study_directions(study_id))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._ask(lambda: self._database.get_study_user_attrs(study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._ask(lambda: self._database.get_study_system_attrs(study_id))

    def get_all_studies(self) -> list[Any]:
        return self._ask(lambda: self._database.get_all_studies())
