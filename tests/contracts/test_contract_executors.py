"""What every file in `executors/` must do, found by name, and a user's executor, named by its path; that these
contracts can fail; and `--executor`, which says who does the runs of a sweep and changes nothing else of it.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shell import command

import aigc_lab
from aigc_lab import plugins
from aigc_lab.commands.check import check_file, conclude
from aigc_lab.contracts import executors
from aigc_lab.contracts.base import Broken, Contract, examine
from aigc_lab.contracts.executors import EXECUTOR, Case, case_of
from aigc_lab.errors import UsageError
from aigc_lab.executors.base import Executor
from aigc_lab.tracking import writer

# An executor of one's own.
THEIRS = '''
"""Runs in this process, counted."""
from aigc_lab.executors import inline
from aigc_lab.registry.states import RunState
from aigc_lab.runs.job import RunOutcome

class Counted(inline.Inline):
    count = 0
    slots = 1

    def together(self, jobs, watchers):
        Counted.count += len(jobs)
        return super().together(jobs, watchers)

class _Deaf:
    """A watcher who tells another one, or nobody, and stops nothing."""

    def __init__(self, other=None):
        self.other = other

    def progress(self, now): ...

    def scored(self, step, value, **told):
        if self.other:
            self.other.scored(step, value, **told)
        return False
'''
NAMES = [*plugins.names("executors"), "./theirs.py"]
# They start clusters, and many processes that import torch: minutes.
DEAR = ("ray", "slurm")
# Slurm's jobs without Slurm: submitit's own, on this machine.
OPTIONS: dict[str, dict[str, Any]] = {"slurm": {"cluster": "local"}}
TITLES = [contract.name for contract in EXECUTOR]


def found(name: str) -> Any:
    return plugins.find(Executor, name)


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] * (name in DEAR)) for name in NAMES]
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    name = request.param
    if name == "ray":
        request.getfixturevalue("ray_cluster")
    if plugins.is_file(name):
        path = tmp_path_factory.mktemp("theirs") / "theirs.py"
        path.write_text(THEIRS)
        name = str(path)
    with case_of(found(name), OPTIONS.get(request.param)) as each:
        yield each


@pytest.mark.parametrize("contract", EXECUTOR, ids=lambda contract: contract.name.replace(" ", "_"))
def test_an_executor_keeps_its_contracts(case: Case, contract: Contract[Case]) -> None:
    contract.check(case)


# ---- each of them can fail

TOGETHER = "        return super().together(jobs, watchers)\n"
SHOWN = "RunOutcome(RunState.{}, None, None)"
BREAKS: dict[str, tuple[str, str, str]] = {
    "it says how many runs it does at once": ("slots is '1': give how many", "slots = 1", "slots = '1'"),
    "a run is done and recorded": (
        "recorded as QUEUED",
        TOGETHER,
        "        return [RunOutcome(RunState.FINISHED, 1.0) for job in jobs]\n",
    ),
    "the watcher is told of each evaluation": (
        "told of steps [], and not of [2, 4]",
        TOGETHER,
        TOGETHER.replace("watchers", "[_Deaf() for each in watchers]"),
    ),
    "a run that the watcher stops is pruned": (
        "a run that is PRUNED has the outcome FINISHED",
        TOGETHER,
        TOGETHER.replace("watchers", "[_Deaf(each) for each in watchers]"),
    ),
    "runs given together are all done": (
        "the outcome has the value",
        TOGETHER,
        TOGETHER.replace(")\n", ")[::-1]\n"),
    ),
    "a run that fails is recorded and the next is done": (
        "the reason of a RuntimeError('it was told to fail') is None: pass it on",
        TOGETHER,
        TOGETHER.replace("return", "done =")
        + f"        return [{SHOWN.format('FAILED')} if each.state == 'FAILED' else each for each in done]\n",
    ),
    "a stop interrupts what is being done": (
        "run() returns KILLED after stop()",
        TOGETHER,
        f"        try:\n    {TOGETHER}        except KeyboardInterrupt:\n"
        f"            return [{SHOWN.format('KILLED')} for job in jobs]\n",
    ),
}
# Where a run has a process of its own.
GIVES_UP = """
from aigc_lab.executors import local
from aigc_lab.registry.runs import show_run
from aigc_lab.registry.states import RunState
from aigc_lab.runs.job import RunOutcome

class Careless(local.Local):
    made = []

    def __init__(self, *given):
        super().__init__(*given)
        Careless.made.append(self)

    def run(self, job, watcher):
        outcome = super().run(job, watcher)
        if len(show_run(self._resources.registry, job.run)["attempts"]) > 1:
            return RunOutcome(RunState.FAILED, None, "its process was killed")
        return outcome

    def __exit__(self, *error): ...
"""
BREAKS_OF_PROCESSES = {
    "a run whose process is killed is done all the same": "a run that is FINISHED has the outcome FAILED: its process",
    "nothing is left when it is left": "of a run is alive after __exit__: end there what was started",
}


def test_every_contract_has_a_broken_twin() -> None:
    assert sorted([*BREAKS, *BREAKS_OF_PROCESSES]) == sorted(TITLES)


@pytest.mark.parametrize("contract", BREAKS)
def test_a_contract_catches_the_executor_that_breaks_it(
    contract: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "_PATIENCE", 0.5)
    said, old, new = BREAKS[contract]
    assert old in THEIRS
    path = tmp_path / "mine.py"
    path.write_text(THEIRS.replace(old, new))
    with case_of(found(str(path))) as case:
        results = [*examine(EXECUTOR, {"": case}, path)]
    broken = [(result.contract, result.message) for result in results if result.state == "broken"]
    assert [name for name, _ in broken] == [contract] and said in broken[0][1]


def test_contracts_catch_the_executor_that_is_careless_of_its_processes(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(GIVES_UP)
    kind = found(str(path))
    checked = [contract for contract in EXECUTOR if contract.name in BREAKS_OF_PROCESSES]
    try:
        with case_of(kind) as case:
            messages = {}
            for contract in checked:
                with pytest.raises(Broken) as caught:
                    contract.check(case)
                messages[contract.name] = str(caught.value)
    finally:
        for each in kind.made:
            each.kill()
    for name, said in BREAKS_OF_PROCESSES.items():
        assert said in messages[name]


# ---- `aigc-lab check`, `sweep`, `train` and `resume`, as they are typed

RING = """\
data: {name: ring, points: 2000}
system: {name: point_gan, hidden: 8}
training: {steps: 4, batch_size: 16, log_every: 2, evaluate_every: 4, threads: 1}
evaluation: {name: points, samples: 200}
objective: {minimize: rkl}
"""


class Silent:
    """A writer that leaves everything in the spool."""

    def __init__(self, *_: object) -> None: ...

    def start(self) -> None: ...

    def finish(self, patience: float | None = None) -> None: ...


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in [each for each in os.environ if each.startswith(("AIGC_LAB_HOME", "AIGC_LAB_R", "MLFLOW"))]:
        monkeypatch.delenv(variable)
    monkeypatch.setattr(writer, "Writer", Silent)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs.py").write_text(THEIRS)
    (tmp_path / "none.py").write_text("class Mine: ...\n")
    (tmp_path / "lacking.py").write_text(
        "from aigc_lab.executors.base import Executor\n\nclass Mine(Executor):\n    def stop(self): ...\n"
    )
    (tmp_path / "ring.yaml").write_text(RING)
    return tmp_path


def test_a_users_file_is_checked_and_leaves_nothing_behind(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIGC_LAB_REGISTRY_URL", f"sqlite:///{folder / 'mine.db'}")
    before = sorted(folder.iterdir())
    conclude(check_file("./theirs.py", None, [], json=False, home=None))
    assert capsys.readouterr().out.splitlines() == [f"✓ {title}" for title in TITLES]
    assert sorted(folder.iterdir()) == before
    assert os.environ["AIGC_LAB_REGISTRY_URL"] == f"sqlite:///{folder / 'mine.db'}"
    with pytest.raises(UsageError, match="--data: an executor is checked on runs of four steps, of points"):
        check_file("./theirs.py", "ring", [], json=False, home=None)


def test_a_broken_contract_is_explained(folder: Path) -> None:
    (folder / "theirs.py").write_text(THEIRS.replace("slots = 1", "slots = 0"))
    told = command("check", "theirs.py", "--json")
    assert told.code == 1
    assert told.why == f"error: 1 of {len(TITLES)} contracts are broken, and {len(TITLES) - 1} could not be checked"
    first = json.loads(told.output)[0]
    assert first["message"] == "slots is 0: give how many runs it does at once, 1 or more"
    assert first["why"].startswith("A sweep calls run from as many threads")


def test_a_sweep_is_the_same_whoever_does_its_runs(folder: Path) -> None:
    kind = found("./theirs.py")
    before = kind.count
    Path("search.yaml").write_text(
        RING.replace("hidden: 8", "hidden: 8, lr: {log: [1.0e-4, 1.0e-3]}") + "search: {trials: 1}\n"
    )
    (row,) = json.loads(command("sweep", "search.yaml", "--json").output)
    assert kind.count == before
    for words in (["sweep", "search.yaml"], ["resume", row["sweep"]]):
        again = command(*words, "--executor", "./theirs.py", "--json")
        assert json.loads(again.output) == [row] and "were done before" in again.errors
    told = command("sweep", "search.yaml", "--trials", "2", "--executor", "theirs.py", "--json")
    assert (told.code, kind.count) == (0, before + 1)
    assert [each["sweep"] for each in json.loads(told.output)] == [row["sweep"]] * 2


def test_train_resume_and_python_take_one_too(folder: Path) -> None:
    kind = found("./theirs.py")
    before = kind.count
    run = json.loads(command("train", "ring.yaml", "--executor", "theirs.py", "--json").output)
    assert (run["state"], kind.count) == ("FINISHED", before + 1)
    aigc_lab.train("ring.yaml", seed=1, executor="theirs.py")
    assert kind.count == before + 2
    (folder / "other.yaml").write_text(RING.replace("minimize: rkl", "maximize: hq"))
    aigc_lab.sweep("other.yaml", executor="theirs.py")
    assert kind.count == before + 3


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lokal", "unknown executor 'lokal'; did you mean local?"),
        ("zzz", "unknown executor 'zzz'; there are: inline, local"),
        ("./other.py", "./other.py: no such file in"),
        ("none.py", "none.py: defines no Executor; a plugin file has one subclass of aigc_lab.executors.base.Executor"),
        ("lacking.py", "lacking.py: Mine lacks run(self, job, watcher); see aigc_lab.executors.base.Executor"),
    ],
)
def test_an_executor_that_is_none_is_refused_before_anything_is_made(folder: Path, name: str, said: str) -> None:
    before = sorted(folder.iterdir())
    for words in (["sweep", "ring.yaml"], ["sweep", "ring.yaml", "--dry-run"], ["train", "ring.yaml"], ["resume", "x"]):
        told = command(*words, "--executor", name)
        assert told.code == 2 and said in told.why
    assert sorted(folder.iterdir()) == before


def test_fewer_runs_at_once_than_were_asked_for_are_said(folder: Path) -> None:
    words = ("ring.yaml", "--set", "search.seeds=2", "--executor", "inline", "--devices", "cpu")
    told = command("sweep", *words, "--workers", "2")
    assert told.code == 0 and "executor inline does 1 run at once, and not 2" in told.errors


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("slots = 1", "slots = None", "executor theirs: its slots are None; give how many runs it does at once"),
        ("Counted.count += len(jobs)", "raise ValueError('no')", "ValueError: no; 'aigc-lab check' tests the file"),
    ],
)
def test_a_users_mistake_is_one_line(folder: Path, old: str, new: str, said: str) -> None:
    (folder / "theirs.py").write_text(THEIRS.replace(old, new))
    told = command("sweep", "ring.yaml", "--executor", "theirs.py")
    assert told.code == 2 and said in told.why
