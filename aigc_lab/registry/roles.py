"""Which runs the row of a trial is of: a value is reported by seeds that it was not chosen by."""

from collections.abc import Iterable

from aigc_lab.registry.records import Role
from aigc_lab.registry.states import RunState

# The later a role, the less was chosen by its seeds.
ROLES: tuple[Role, ...] = ("search", "confirm", "report")

_COUNTED = (RunState.FINISHED.value, RunState.DIVERGED.value)


def counted_role(runs: Iterable[tuple[str, str]]) -> Role:
    """The role (of pairs of role and state) whose runs make up the row of their trial: the last one of which a run has
    finished or diverged, or "search".

    >>> counted_role([("search", "FINISHED"), ("confirm", "DIVERGED"), ("report", "RUNNING")])
    'confirm'
    """
    present = {role for role, state in runs if role != "search" and state in _COUNTED}
    return next((role for role in reversed(ROLES) if role in present), "search")


def is_fresh(role: str) -> bool:
    """Whether the search did not choose by the seeds of this role."""
    return role != "search"
