"""How often a worker looks at the registry, by a clock that only waiting and looking move."""

from types import SimpleNamespace

import pytest

from aigc_lab.host import nudges
from aigc_lab.runs import reporter


@pytest.mark.parametrize(
    ("look", "waits"),
    [(0.0, [0.01, 0.02, 0.04, 0.08]), (0.03, [0.3, 0.3, 0.3, 0.3]), (1.0, [2.0, 2.0, 2.0, 2.0])],
)
def test_looks_become_fewer_as_they_take_longer(
    look: float, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]

    def wait(seconds: float) -> bool:
        now[0] += seconds
        return False  # nobody nudges

    monkeypatch.setattr(reporter, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(nudges, "wait", wait)
    pause, found = reporter.Pause(), []
    for _ in waits:
        now[0] += look
        before = now[0]
        pause.wait()
        found.append(now[0] - before)
    assert found == pytest.approx(waits)
