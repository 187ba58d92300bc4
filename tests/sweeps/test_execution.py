"""The `execution:` section of an experiment, and the options of the command line that win over it."""

import re
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from aigc_lab.archive import contents
from aigc_lab.commands import sweep
from aigc_lab.commands.explain import with_more_seeds
from aigc_lab.errors import UsageError
from aigc_lab.executors.base import Executor
from aigc_lab.experiment.experiment import Experiment, load_experiment
from aigc_lab.host.settings import Settings
from aigc_lab.registry.home import open_registry
from aigc_lab.registry.sweeps import list_sweeps, show_sweep
from aigc_lab.sweeps import execution, places
from aigc_lab.sweeps.estimate import Estimate
from aigc_lab.sweeps.execution import Asked, choose
from aigc_lab.tracking import writer

FILE = """\
data: {name: ring, points: 2000}
system: {name: point_gan, hidden: 8, lr: {log: [1.0e-4, 1.0e-2]}}
training: {steps: 4, batch_size: 16, log_every: 2, evaluate_every: 4, threads: 1}
evaluation: {name: points, samples: 200}
objective: {minimize: rkl}
search: {trials: 2, sampler: random}
"""
# An executor with options, of which one must be given.
OWN = '''"""Runs here, with options that it writes down."""
from pathlib import Path
from pydantic import Field
from aigc_lab.config import Strict
from aigc_lab.executors import inline

class Noting(inline.Inline):
    class Config(Strict):
        address: str = Field(description="where the cluster is")
        time_limit: int = Field(60, ge=1, description="minutes of a worker")
        log: str | None = None

    def __init__(self, experiment, places, settings, say, config):
        super().__init__(experiment, places, settings, say, config)
        (Path(__file__).parent / "noted").write_text(f"{self.config.address} {self.config.time_limit}")
'''
Change = tuple[str, str, str]


def option(text: str) -> Change:
    key, _, value = text.partition("=")
    return key, value, f"--executor-option {text}"


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """Writes the experiment with an `execution:`, and the executor with options beside it; returns the experiment."""
    # A file is loaded once for each content, and tells its place: each test has a content of its own.
    (tmp_path / "own.py").write_text(f"{OWN}\n# {tmp_path}\n")

    def write(section: str = "", *changes: Change, name: str = "mine") -> Experiment:
        path = tmp_path / f"{name}.yaml"
        path.write_text(FILE + section)
        return load_experiment(path, changes, data_dir=tmp_path)

    return write


def section(**keys: str) -> str:
    return "execution:\n" + "".join(f"  {key}: {value}\n" for key, value in keys.items())


# ---- no part of what a sweep is


def test_it_changes_no_identity(written: Any) -> None:
    plain, local, own = (
        written(),
        written(section(executor="local", workers="3")),
        written(section(executor="./own.py", options="{address: here, log: {choice: [a, b]}}")),
    )
    assert {each.digest for each in (plain, local, own)} == {plain.digest}
    assert written(section(workers="3"), ("search.seed", "5", "")).digest != plain.digest  # what is one, still is
    # Nor of what is stored of each run, or is searched.
    assert all(each.holes == plain.holes for each in (local, own))
    assert "execution" not in local.resolve(lambda hole: hole.ends()[0]).data
    assert own.own_files == []


def test_the_file_of_an_executor_is_no_part_of_it(written: Any, tmp_path: Path) -> None:
    before = written(section(executor="./own.py", options="{address: here}"))
    choose(before, Asked())
    digest = before.digest
    (tmp_path / "own.py").write_text(OWN + "\n# another\n")
    assert load_experiment(tmp_path / "mine.yaml", data_dir=tmp_path).digest == digest


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep is opened with its executor, and nothing is timed, trained or delivered."""
    monkeypatch.setattr(sweep, "estimate", lambda *_: Estimate(2, 2, 1.0, {"point_gan": 1.0}))
    monkeypatch.setattr(sweep, "run_sweep", lambda *_, **__: None)
    monkeypatch.setattr(writer, "Writer", lambda *_: mock.Mock(finish=lambda *_: None))


@pytest.mark.usefixtures("executed")
def test_a_sweep_goes_on_with_another_and_resume_has_the_last(written: Any, tmp_path: Path) -> None:
    home, file, noted = tmp_path / "home", str(tmp_path / "mine.yaml"), tmp_path / "noted"
    written(section(executor="inline"))
    sweep.sweep_experiment(file, [], device="cpu", home=home)
    assert not noted.exists()
    written(section(executor="./own.py", options="{address: there}"))
    sweep.sweep_experiment(file, [], device="cpu", home=home)
    assert noted.read_text() == "there 60"
    sweep.resume_sweep("mine", home=home, options=[option("time_limit=5")], table=False)
    assert noted.read_text() == "there 5"
    with open_registry(Settings.load(home)) as registry:
        assert len(list_sweeps(registry)) == 1
        stored = show_sweep(registry, "mine")
        exported = contents.rows(registry, stored["id"])["sweep"]
    assert stored["experiment"]["execution"] == {"executor": "./own.py", "options": {"address": "there"}}
    # Neither a command for more seeds nor another home's copy says where it was.
    written(section(workers="2"))
    command = with_more_seeds(stored)
    assert command is not None and "execution" not in command
    assert exported[0]["experiment"].keys() == stored["experiment"].keys() - {"execution"}
    # The code of an executor that a stored sweep names runs if it is trusted; one that the user names, always.
    (tmp_path / "own.py").write_text(OWN + "\n# of somebody else\n")
    with pytest.raises(UsageError, match=r"execution\.executor: .*own\.py: this code came from elsewhere"):
        sweep.resume_sweep("mine", home=home, table=False)
    sweep.resume_sweep("mine", home=home, executor="inline", table=False)


# ---- the command line wins


@pytest.mark.parametrize(
    ("keys", "asked", "name", "workers"),
    [
        ({}, Asked(), None, None),
        ({"executor": "local", "workers": "3"}, Asked(), "local", 3),
        ({"executor": "local", "workers": "3"}, Asked(executor="inline"), "inline", 3),
        ({"executor": "local", "workers": "3"}, Asked(workers=5), "local", 5),
        ({"workers": "3"}, Asked(devices="cpu"), None, 3),
    ],
)
def test_the_command_line_wins(
    written: Any, keys: dict[str, str], asked: Asked, name: str | None, workers: int | None
) -> None:
    chosen = choose(written(section(**keys) if keys else ""), asked)
    assert (chosen.name, chosen.workers) == (name, workers)


def test_one_number_of_workers_replaces_the_other(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (places, execution):
        monkeypatch.setattr(module, "device_names", lambda option: [f"cuda:{i}" for i in range(2)])
    shared = written(section(trials_per_gpu="3"))
    assert [place.device for place in choose(shared, Asked()).places(100)] == ["cuda:0", "cuda:1"] * 3
    assert len(choose(shared, Asked(workers=4)).places(100)) == 4
    assert len(choose(shared, Asked(trials_per_gpu=2)).places(100)) == 4
    assert len(choose(written(section(workers="5")), Asked(trials_per_gpu=1)).places(100)) == 2


def test_devices_of_the_command_line_win(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    named = written(section(devices="cuda:1,cuda:3", trials_per_gpu="2"))
    assert [place.device for place in choose(named, Asked()).places(100)] == ["cuda:1", "cuda:3"] * 2
    assert [place.device for place in choose(named, Asked(devices="cuda:0")).places(100)] == ["cuda:0"] * 2
    assert [place.device for place in choose(named, Asked(devices="cpu")).places(100)] == ["cpu"]


def test_options_are_completed_and_those_of_another_executor_left_out(written: Any) -> None:
    own = written(section(executor="./own.py", options="{address: here, time_limit: 9}"))
    config = choose(own, Asked(options=[option("time_limit=5"), option("log=x")])).config
    assert (config.address, config.time_limit, config.log) == ("here", 5, "x")
    assert choose(own, Asked(executor="inline")).config is None


def test_a_section_is_set_from_the_command_line(written: Any) -> None:
    assert choose(written("", ("execution.workers", "4", "--set execution.workers=4")), Asked()).workers == 4
    with pytest.raises(UsageError, match=r"^--set execution.workers=0: execution.workers: it should be greater"):
        choose(written("", ("execution.workers", "0", "--set execution.workers=0")), Asked())


# ---- bad input is one line with the place, the key and what to do


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exection: {workers: 2}", "exection: unknown key; did you mean execution or evaluation?"),
        ("execution: {worker: 2}", "execution.worker: unknown key; did you mean workers?"),
        ("execution: {workers: two}", 'execution.workers: it should be a valid integer, not "two"'),
        ("execution: {workers: {int: [1, 2]}}", 'execution.workers: it should be a valid integer, not {"int": [1, 2]}'),
        ("execution: {workers: 0}", "execution.workers: it should be greater than or equal to 1, not 0"),
        ("execution: [local]", 'execution: it should hold keys and values, not ["local"]'),
        (
            "execution: {workers: 2, trials_per_gpu: 2}",
            "execution: workers and trials_per_gpu say the same in two ways; give one of them",
        ),
        ("execution: {executor: locl}", "execution.executor: unknown executor 'locl'; did you mean local?"),
        ("execution: {executor: ./gone.py}", "execution.executor: ./gone.py: no such file in "),
        (
            "execution: {devices: 'cuda:9'}",
            "execution.devices: cuda:9: this machine has 0 CUDA devices; use --devices cpu or auto",
        ),
        (
            "execution: {devices: tpu}",
            "execution.devices: tpu: there is no such device; use cpu, cuda, cuda:0, … or auto",
        ),
        (
            "execution: {devices: cpu, trials_per_gpu: 2}",
            "execution.trials_per_gpu needs CUDA devices, and there is none here; use --workers N on a CPU",
        ),
        ("execution: {options: {address: x}}", "execution: address: options are of an executor; name it: executor: …"),
        (
            "execution: {executor: local, options: {address: x}}",
            "execution.options.address: executor local takes no options; leave it out",
        ),
        (
            "execution: {executor: ./own.py, options: {adress: x}}",
            "execution.options.adress: unknown key; did you mean address?",
        ),
        (
            "execution: {executor: ./own.py, options: {address: x, time_limit: long}}",
            'execution.options.time_limit: it should be a valid integer, not "long"',
        ),
    ],
)
def test_a_wrong_section_is_one_line_with_its_place(text: str, said: str, written: Any) -> None:
    with pytest.raises(UsageError) as refused:
        choose(written(text), Asked()).places(10)
    line = str(refused.value)
    assert "\n" not in line
    place, _, message = line.partition(": ")
    assert re.fullmatch(r".*mine\.yaml:7", place) and message.startswith(said)


def test_an_option_that_must_be_given_is_asked_for(written: Any) -> None:
    with pytest.raises(UsageError, match=r"^executor .*: address: it needs a value; give --executor-option add"):
        choose(written("execution: {executor: ./own.py}"), Asked())


@pytest.mark.parametrize(
    ("executor", "text", "said"),
    [
        (None, "a=1", "--executor-option a=1: is an option of an executor; name it with --executor"),
        ("inline", "a=1", "--executor-option a=1: a: executor inline takes no options; leave it out"),
        ("own", "adres=1", "--executor-option adres=1: adres: unknown key; did you mean address?"),
        ("own", "time_limit=0", "--executor-option time_limit=0: time_limit: it should be greater than or equal to 1"),
        ("own", "time_limit=[", "--executor-option time_limit=[:1:2: YAML syntax: "),
    ],
)
def test_a_wrong_option_is_quoted(executor: str | None, text: str, said: str, written: Any, tmp_path: Path) -> None:
    name = str(tmp_path / "own.py") if executor == "own" else executor
    with pytest.raises(UsageError) as refused:
        choose(written(), Asked(executor=name, options=[option("address=x"), option(text)][executor != "own" :]))
    assert str(refused.value).startswith(said)


# ---- executors of before


def test_an_executor_without_options_is_given_none(written: Any, tmp_path: Path) -> None:
    """As every one was made before there were any: with four arguments."""
    text = OWN.replace("config):", "*nothing):").replace(", config)", ")")
    text = text[: text.index("    class Config")] + text[text.index("    def __init__") :]
    text = text[: text.index("        (Path")] + "        assert not nothing\n"
    (tmp_path / "old.py").write_text(text)
    chosen = choose(written("execution: {executor: ./old.py}"), Asked())
    made = chosen.executor(written(), [], Settings.load(tmp_path / "home"), lambda text: None)
    assert isinstance(made, Executor) and made.config.model_dump() == {}
