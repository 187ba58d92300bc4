"""The life of a run as a state machine: what may follow what, and who may still write. Pure; `store` keeps the rows.

    QUEUED ──begin──▶ RUNNING ──end──▶ FINISHED | PRUNED | DIVERGED     a result: nothing follows it
                       ▲  │  ╲──end──▶ FAILED                           follows only what is told to try again
                       │  ╰───lose───▶ KILLED                           its process is gone or was told to stop
                       ╰─────begin──── KILLED | FAILED

Every begin is an attempt with the next number. Only the newest attempt may write, and only while it is RUNNING: a
process that was given up for dead and comes back is outdated. Any step may be replayed; a replay changes nothing.
"""

from dataclasses import dataclass, replace

from aigc_lab.errors import Failure
from aigc_lab.registry.states import RunState

# A process tells so often, in seconds, that it works on its attempt; on another machine, one that has not done so for a
# lease is taken for lost. On the same machine the process itself is looked for.
BEAT, LEASE = 15.0, 60.0
# A run whose process is lost is tried again so often, unless a checkpoint that was stored meanwhile shows progress.
RETRIES = 2

RESULTS = frozenset({RunState.FINISHED, RunState.PRUNED, RunState.DIVERGED})


class Outdated(Failure):
    """Another attempt has taken over, or this one was given up: it may not write any more."""


@dataclass(frozen=True)
class Life:
    """A run and its attempts, the first first."""

    state: RunState = RunState.QUEUED
    attempts: tuple[RunState, ...] = ()

    @property
    def newest(self) -> int:
        """The number of the newest attempt, 0 before the first."""
        return len(self.attempts)

    def begin(self) -> "Life":
        """The next attempt. One that never ended is closed as KILLED. Raises `Failure` where there is a result."""
        if self.state in RESULTS:
            raise Failure(f"it already ended as {self.state}; its result is kept")
        closed = tuple(RunState.KILLED if state == RunState.RUNNING else state for state in self.attempts)
        return Life(RunState.RUNNING, (*closed, RunState.RUNNING))

    def end(self, attempt: int, state: RunState) -> "Life":
        """How the newest attempt ended, and the run with it. Raises `Outdated` for any other attempt, and for one that
        has already ended in another way.
        """
        assert state.ended, f"an attempt cannot end as {state}"
        if not attempt or attempt != self.newest:
            raise Outdated(f"attempt {attempt} is outdated: the newest is {self.newest or 'none'}")
        before = self.attempts[-1]
        if before not in (RunState.RUNNING, state):
            raise Outdated(f"attempt {attempt} already ended as {before}; it cannot end as {state}")
        return self if before == state else Life(state, (*self.attempts[:-1], state))

    def lose(self, state: RunState = RunState.KILLED) -> "Life":
        """The process of the newest attempt is gone: the run is KILLED, or FAILED if it is not to be tried again. What
        was written down before that stays.
        """
        assert state in (RunState.KILLED, RunState.FAILED), f"a lost run is not {state}"
        attempts = tuple(RunState.KILLED if state == RunState.RUNNING else state for state in self.attempts)
        lost = self.state == RunState.RUNNING or (self.state == RunState.KILLED and state == RunState.FAILED)
        return replace(self, state=state if lost else self.state, attempts=attempts)

    def writable(self, attempt: int) -> bool:
        """Whether this attempt may still write."""
        return 0 < attempt == self.newest and self.attempts[-1] == RunState.RUNNING
