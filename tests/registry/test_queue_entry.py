"""The place of a run in the queue, by all ways through it: the rules alone."""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aigc_lab.registry.queue_entry import QueueEntry, QueueState
from aigc_lab.registry.run_lifecycle import Outdated

WAITING, CLAIMED, ENDED = QueueState.WAITING, QueueState.CLAIMED, QueueState.ENDED
MOST = 4  # claims and withdrawals of a run, in the small model

Step = Callable[[QueueEntry], QueueEntry]


def steps(entry: QueueEntry) -> Iterator[tuple[str, Step]]:
    """All that anybody may try, by the claim in force, by older ones and by one that never was."""
    yield "offer", QueueEntry.offer
    if entry.claim < MOST:
        yield "claim a", partial(QueueEntry.claimed, worker="a")
        yield "claim b", partial(QueueEntry.claimed, worker="b")
        yield "withdraw", QueueEntry.withdrawn
    for claim in range(MOST + 2):
        yield f"end {claim}", partial(QueueEntry.ended, claim=claim)


def reached() -> Iterator[tuple[QueueEntry, str, QueueEntry | Outdated]]:
    """Every step from every entry that any order of steps leads to, and what comes of it."""
    seen, left = {QueueEntry()}, deque([QueueEntry()])
    while left:
        entry = left.popleft()
        for name, step in steps(entry):
            try:
                after: QueueEntry | Outdated = step(entry)
            except Outdated as error:
                after = error
            yield entry, name, after
            if isinstance(after, QueueEntry) and after not in seen:
                seen.add(after)
                left.append(after)


def may_begin(entry: QueueEntry, claim: int | None) -> bool:
    try:
        entry.check(claim)
    except Outdated:
        return False
    return True


def test_no_order_of_steps_breaks_a_rule() -> None:
    count = 0
    for entry, name, after in reached():
        said, count = f"{name} of {entry}", count + 1
        if isinstance(after, Outdated):
            assert name.startswith("claim") and entry.state != WAITING, said
            continue
        assert (after.worker is not None) == (after.state == CLAIMED), said
        assert after.claim - entry.claim == (name.startswith(("claim", "withdraw")) and after != entry), said
        moved = {
            "offer": (ENDED, WAITING),
            "claim": (WAITING, CLAIMED),
            "withdraw": (WAITING, ENDED),
            "end": (CLAIMED, ENDED),
        }
        if after != entry:
            assert (entry.state, after.state) == moved[name.split()[0]], said
        if name.startswith("end") and after != entry:
            assert name == f"end {entry.claim}", said
    assert count > 100


def test_at_most_one_claim_may_begin_and_end_and_that_is_the_newest() -> None:
    for entry in {entry for entry, _, _ in reached()}:
        beginning = [claim for claim in range(MOST + 2) if may_begin(entry, claim)]
        assert beginning == ([entry.claim] if entry.state == CLAIMED else []), entry
        assert [claim for claim in range(MOST + 2) if entry.ended(claim) != entry] == beginning
        assert may_begin(entry, None) == (entry.state != CLAIMED)  # a run that is done without the queue


def test_a_replayed_step_changes_nothing() -> None:
    for entry, name, after in reached():
        if isinstance(after, QueueEntry) and not name.startswith("claim"):
            again: Any = dict(steps(after)).get(name)
            assert again is None or again(after) == after, f"{name} of {entry}"


def test_from_everywhere_a_run_can_be_done() -> None:
    """Nothing leads to where a run waits for ever: whoever holds it is given up, and it is offered anew."""
    for entry in {entry for entry, _, _ in reached()}:
        done = entry.ended(entry.claim).offer().claimed("c")
        assert may_begin(done, done.claim) and done.ended(done.claim).state == ENDED


ANY_STEP: list[Step] = [
    QueueEntry.offer,
    lambda entry: entry.claimed("a"),
    QueueEntry.withdrawn,
    lambda entry: entry.ended(entry.claim),
]


@settings(deadline=None)
@given(st.lists(st.sampled_from(ANY_STEP), max_size=60))
def test_ends_are_told_apart_by_their_numbers(taken: list[Step]) -> None:
    """Whoever follows a run sees each end of its place once, however often it was offered meanwhile."""
    entry, ends = QueueEntry(), list[int]()
    for step in taken:
        try:
            after = step(entry)
        except Outdated:
            continue
        if after.state == ENDED != entry.state:
            ends.append(after.claim)
        entry = after
    assert ends == sorted(set(ends))


@pytest.mark.parametrize(
    ("entry", "claim", "said"),
    [
        (QueueEntry(CLAIMED, 3, "a"), 2, "claim 2 is outdated: claim 3 is in force"),
        (QueueEntry(CLAIMED, 3, "a"), None, "claim none is outdated: claim 3 is in force"),
        (QueueEntry(WAITING, 3), 3, "claim 3 is outdated: none is in force"),
        (QueueEntry(ENDED, 3), 3, "claim 3 is outdated: none is in force"),
    ],
)
def test_who_may_not_begin_is_told_why(entry: QueueEntry, claim: int | None, said: str) -> None:
    with pytest.raises(Outdated, match=said):
        entry.check(claim)
