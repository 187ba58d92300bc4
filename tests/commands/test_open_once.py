"""A command opens settings and registry once and passes them on; what other processes open does not count."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import WriterHere

from aigc_lab.cli import app
from aigc_lab.errors import UsageError
from aigc_lab.host.settings import Settings
from aigc_lab.registry.home import OpenedHome
from aigc_lab.registry.store import Registry
from aigc_lab.tracking import writer

POINTS = """\
data: {name: ring, points: 2000}
system: {name: point_gan, hidden: 8}
training: {steps: 4, batch_size: 16, log_every: 2, evaluate_every: 4, threads: 1}
evaluation: {name: points, samples: 200}
objective: {minimize: rkl}
"""
# What each command is given besides the home.
COMMANDS = {
    "sweep": ["sweep", "points.yaml", "--devices", "cpu"],
    "a sweep that was done before": ["sweep", "points.yaml", "--devices", "cpu"],
    "train": ["train", "points.yaml", "--device", "cpu", "--seed", "1"],
    "resume": ["resume", "points", "--devices", "cpu"],
    "compare": ["compare", "points"],
    "runs": ["runs", "points"],
    "show": ["show", "points.0.0"],
    "status": ["status", "points"],
    "report": ["report", "points", "-o", "points.html"],
    "judge seeds": ["judge", "seeds", "points"],
    "plot": ["plot", "points", "--kind", "seeds", "-o", "seeds.png"],
    "evaluate a run": ["evaluate", "--generated", "points.0.0", "--samples", "200", "--device", "cpu"],
    "judge collapse": [*("judge", "collapse", "--generated", "points.0.0", "--reference", "ring"), "--device", "cpu"],
    "doctor": ["doctor"],
    "doctor --repair": ["doctor", "--repair"],
    "spool": ["spool", "points"],
    "spool --flush": ["spool", "points", "--flush"],
    "promote": ["promote", "points", "--force", "--reason", "a test"],
    "models": ["models"],
    "verify": ["verify", "points"],
    "reconcile": ["reconcile"],
    "reconcile --mlflow": ["reconcile", "points", "--mlflow"],
    "stop": ["stop", "points"],
    "export": ["export", "points", "-o", "points.tar"],
    "delete": ["delete", "points.0.1", "--yes"],
    "import": ["import", "points.tar"],
    "rejudge": ["rejudge", "points", "--device", "cpu"],
    "sample": ["sample", "points", "-n", "4"],
}
# Each in a home of its own.
ELSEWHERE = {"import": "other", "rejudge": "other", "sample": "other"}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Counter[str]:
    """How often registry and settings were opened."""
    count: Counter[str] = Counter()
    before = {"registry": Registry.__dict__["open"].__func__, "settings": Settings.__dict__["load"].__func__}

    def counting(what: str) -> Any:
        def called(kind: Any, *given: Any, **options: Any) -> Any:
            found = before[what](kind, *given, **options)  # where there is none yet, nothing is opened
            count[what] += 1
            return found

        return classmethod(called)

    class Writer(WriterHere):
        def finish(self, patience: float | None = None) -> str | None:
            kept = dict(count)
            try:
                return super().finish(patience)
            finally:  # it is another process's
                count.clear()
                count.update(kept)

    monkeypatch.setattr(writer, "Writer", Writer)
    monkeypatch.setattr(Registry, "open", counting("registry"))
    monkeypatch.setattr(Settings, "load", counting("settings"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "points.yaml").write_text(POINTS)
    return count


def test_every_command_opens_registry_and_settings_once(opened: Counter[str], tmp_path: Path) -> None:
    found = {}
    for name, words in COMMANDS.items():
        opened.clear()
        app([*words, "--home", str(tmp_path / ELSEWHERE.get(name, "home"))], standalone_mode=False)
        found[name] = opened["registry"], opened["settings"]
    assert found == dict.fromkeys(COMMANDS, (1, 1))


def test_a_home_opens_its_registry_once_and_only_when_it_is_asked_for(opened: Counter[str], tmp_path: Path) -> None:
    with OpenedHome(Settings.load(tmp_path / "home")) as home:
        assert opened["registry"] == 0
        with pytest.raises(UsageError):
            _ = home.registry  # there is none, and none is made
        home.create = True
        assert home.registry is home.registry
    assert opened["registry"] == 1 and (tmp_path / "home" / "registry.db").is_file()
