"""Work that is driven from threads: so much at once, what was begun first, and an error that stops all of it."""

import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from aigc_lab.host.thread_pool import ThreadPool


def within(seconds: float, work: Callable[[], Any]) -> Any:
    """The result of `work`, which must not hang."""
    results: list[Any] = []

    def do() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001
            results.append(error)

    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    thread.join(seconds)
    assert results, "it hangs"
    return results[0]


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_so_much_at_once_and_results_in_order(slots: int) -> None:
    now, most, lock = 0, 0, threading.Lock()

    def piece(number: int) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1
        return number * number

    with ThreadPool(slots, lambda: None) as crew:
        assert crew.each([lambda n=n: piece(n) for n in range(12)]) == [n * n for n in range(12)]  # type: ignore[misc]
    assert most == slots


@pytest.mark.parametrize("count", [1, 3, 10])
def test_an_error_ends_all_that_waits(count: int) -> None:
    stopped: list[int] = []

    def breaks() -> NoReturn:
        raise ValueError("the first")

    def run() -> None:
        with ThreadPool(2, lambda: stopped.append(1)) as crew:
            crew.each([breaks, *[lambda: time.sleep(0.02)] * count])

    error = within(10, run)
    assert isinstance(error, ValueError) and str(error) == "the first" and stopped == [1]


def test_an_interruption_ends_what_was_started_and_what_waits() -> None:
    ended = threading.Event()

    def run() -> None:
        with ThreadPool(2, ended.set) as crew:

            def trial() -> None:
                crew.each([lambda: ended.wait(20)] * 8, holding=True)

            crew.enter()
            crew.start(trial)
            raise KeyboardInterrupt

    assert isinstance(within(10, run), KeyboardInterrupt)


def test_what_was_begun_goes_first() -> None:
    """With two slots and three seeds, a trial is not asked for while seeds of earlier ones wait."""
    told: list[str] = []

    def run() -> None:
        with ThreadPool(2, lambda: None) as crew:

            def trial(number: int) -> None:
                time.sleep(0.01)
                crew.each([seed] * 2, holding=True)

            def seed() -> None:
                time.sleep(0.01)
                told.append("seed")  # before its slot is free

            for number in range(6):
                crew.enter()
                told.append(f"ask {number}")
                crew.start(trial, number)

    assert within(20, run) is None
    asked = [told.index(f"ask {number}") for number in range(6)]
    # The other slot is that of a trial which has not begun its seeds, at the most.
    assert all(told[:place].count("seed") >= 2 * number - 2 for number, place in enumerate(asked))
    assert len(told) == 6 + 12
