"""The place of a run in the queue as a state machine: what may follow what, and who may do the run. Pure; `run_queue`
keeps the rows.

    (none) ──offer──▶ WAITING ──claim──▶ CLAIMED ──end──▶ ENDED
                       ▲    ╲                               │
                       │     ╰─withdraw─▶ ENDED             │
                       ╰───────────────offer────────────────╯

Every claim has the next number, and so has every withdrawal: no two ends of a place have the same. Only who holds the
newest claim, while it is in force, may begin the run and end its place: a worker that was taken for lost, whose place
has been ended for it, is outdated when it comes back. Any step may be replayed; a replay changes nothing.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from aigc_lab.registry.run_lifecycle import Outdated


class QueueState(StrEnum):
    """Where a run stands in the queue; how it ended is said by `RunState`."""

    WAITING = "WAITING"
    CLAIMED = "CLAIMED"
    ENDED = "ENDED"


@dataclass(frozen=True)
class QueueEntry:
    """The place of one run: its state, the number of its newest claim (0 before the first), and who holds that."""

    state: QueueState = QueueState.ENDED
    claim: int = 0
    worker: str | None = None

    def offer(self) -> "QueueEntry":
        """The run is to be done. One that waits already, or that somebody does, stays as it is."""
        return replace(self, state=QueueState.WAITING, worker=None) if self.state == QueueState.ENDED else self

    def claimed(self, worker: str) -> "QueueEntry":
        """A worker takes the run. Raises `Outdated` unless it waits."""
        if self.state != QueueState.WAITING:
            raise Outdated(f"it cannot be claimed: it is {self.state}")
        return QueueEntry(QueueState.CLAIMED, self.claim + 1, worker)

    def in_force(self, claim: int | None) -> bool:
        """Whether whoever made this claim does the run now."""
        return self.state == QueueState.CLAIMED and claim == self.claim

    def check(self, claim: int | None) -> None:
        """Raises `Outdated` for whoever may not begin the run: one whose claim is not in force, and, while somebody
        does it, one who has made none.
        """
        if self.state == QueueState.CLAIMED and claim != self.claim:
            raise Outdated(f"claim {claim or 'none'} is outdated: claim {self.claim} is in force")
        if self.state != QueueState.CLAIMED and claim is not None:
            raise Outdated(f"claim {claim} is outdated: none is in force")

    def ended(self, claim: int) -> "QueueEntry":
        """Whoever did the run is done with it, or gone. Nothing changes for an outdated claim."""
        return replace(self, state=QueueState.ENDED, worker=None) if self.in_force(claim) else self

    def withdrawn(self) -> "QueueEntry":
        """The run is not to be done now, unless somebody does it already."""
        return QueueEntry(QueueState.ENDED, self.claim + 1) if self.state == QueueState.WAITING else self
