"""A sweep whose runs are trained as one program: real processes, killed and interrupted; and when it is chosen."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import WriterHere
from harness import plain_environment
from optuna import load_study

from aigc_lab.commands.sweep import sweep_experiment
from aigc_lab.errors import UsageError
from aigc_lab.executors.base import Place
from aigc_lab.experiment.experiment import load_experiment
from aigc_lab.host import environment
from aigc_lab.registry.comparison import compare_trials
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.store import Registry
from aigc_lab.runs.alike import likeness
from aigc_lab.sweeps import stacking
from aigc_lab.sweeps.execution import Asked, choose
from aigc_lab.sweeps.stacking import Timing, choose_stacks
from aigc_lab.tracking import writer

# A system whose process dies when it is told to, in an evaluation.
SPY = """
import os, signal, sys
from pathlib import Path
from aigc_lab.systems import point_gan

HERE, drawn = Path(__file__).parent, [0]

class Spy(point_gan.PointGAN):
    def generate(self, *given, **options):
        drawn[0] += 1
        if "aigc_lab.runs.worker" in " ".join(sys.orig_argv) and (HERE / "fatal").exists() and drawn[0] == 20:
            (HERE / "fatal").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().generate(*given, **options)
"""
TEXT = """\
data: {name: ring, points: 2000}
system: {name: ./spy.py, hidden: 16, latent_size: 4, lr: {log: [1e-4, 1e-2]}, beta1: {choice: [0.5, 0.9]}}
training: {steps: 60, batch_size: 32, log_every: 10, evaluate_every: 20, threads: 1, checkpoint_seconds: 0, ema: 0.9}
evaluation: {name: points, samples: 400}
objective: {minimize: rkl}
search: {trials: 3, seeds: 2, sampler: random}
"""
ROUNDING = 1e-3


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in set(os.environ) - set(plain_environment()):
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(TEXT)
    (tmp_path / "spy.py").write_text(SPY)
    return tmp_path


def sweep(folder: Path, home: str, **options: Any) -> dict[str, dict[str, Any]]:
    """The runs of the sweep, by their trial and seed."""
    sweep_experiment("mine.yaml", [], device="cpu", workers=1, json=True, home=folder / home, **options)
    return shown(folder / home)


def shown(home: Path) -> dict[str, dict[str, Any]]:
    with Registry.open(f"sqlite:///{home / 'registry.db'}") as registry:
        runs = [run["run"] for run in list_runs(registry)]
        return {run.partition(".")[2]: show_run(registry, run) for run in sorted(runs)}


def losses(run: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in run["scalars"].items() if name.startswith("loss/")}


def close(one: dict[str, float], two: dict[str, float]) -> bool:
    return one.keys() == two.keys() and all(
        abs(value - two[name]) <= ROUNDING * max(abs(value), abs(two[name])) for name, value in one.items()
    )


@pytest.mark.slow
def test_it_comes_to_what_it_comes_to_one_after_another(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though the worker is killed in the middle of an evaluation."""
    monkeypatch.setattr(writer, "Writer", WriterHere)
    alone = sweep(folder, "alone", replicas="off")
    (folder / "fatal").touch()
    begun = time.monotonic()
    stacked = sweep(folder, "stacked", replicas=6)
    passed = time.monotonic() - begun
    said = capsys.readouterr().err
    assert "spy: 6 alike runs as one program" in said and "ended by SIGKILL" in said
    assert not (folder / "fatal").exists()
    assert stacked.keys() == alone.keys() == {f"{trial}.{seed}" for trial in range(3) for seed in range(2)}
    for key, run in stacked.items():
        assert (run["state"], run["config"]) == ("FINISHED", alone[key]["config"])  # Optuna's values
        assert [attempt["state"] for attempt in run["attempts"]] == ["KILLED", "FINISHED"]
        assert run["mlflow_run_id"]
        assert run["environment"]["stacked"] == sorted(stacked)
        assert close(losses(run), losses(alone[key])), key
        assert run["attempts"][1]["from_step"] in range(0, 60, 10)
    assert not close(losses(stacked["0.0"]), losses(alone["0.1"]))
    assert sum(run["seconds"] for run in stacked.values()) <= passed
    study = load_study(study_name=None, storage=f"sqlite:///{folder / 'stacked' / 'optuna.db'}")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    with Registry.open(f"sqlite:///{folder / 'stacked' / 'registry.db'}") as registry:
        assert len(compare_trials(registry, next(iter(stacked.values()))["sweep"]).rows) == 3


WEIGHTS = """\
data: {name: digits}
system: {name: vae, width: 4, latent_size: 3, beta: {choice: [0.5, 1.0, 2.0, 8.0]}}
training: {steps: 20, batch_size: 16, log_every: 10, evaluate_every: 20, threads: 1, ema: 0.9}
evaluation: {name: image-small, samples: 200}
objective: {minimize: fd_clf}
search: {trials: 4, seeds: 1, sampler: grid}
"""


@pytest.mark.slow
def test_runs_of_other_weights_in_the_loss_come_to_what_they_come_to_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "Writer", WriterHere)
    (folder / "mine.yaml").write_text(WEIGHTS)
    alone, stacked = sweep(folder, "alone", replicas="off"), sweep(folder, "stacked", replicas=4)
    assert stacked.keys() == alone.keys() == {f"{trial}.0" for trial in range(4)}
    assert len({run["config"]["beta"] for run in stacked.values()}) == 4
    for key, run in stacked.items():
        assert run["state"] == "FINISHED" and run["environment"]["stacked"] == sorted(stacked)
        assert run["config"] == alone[key]["config"]
        assert close(losses(run), losses(alone[key])), key
    assert not close(losses(stacked["0.0"]), losses(alone["1.0"]))


@pytest.mark.slow
def test_interrupted_by_the_user_it_is_stored_and_goes_on(folder: Path) -> None:
    program = [sys.executable, "-m", "aigc_lab"]
    text = TEXT.replace("steps: 60", "steps: 4000").replace("evaluate_every: 20", "evaluate_every: 2000")
    (folder / "mine.yaml").write_text(text.replace("checkpoint_seconds: 0", "checkpoint_seconds: 30"))
    options = ["--home", str(folder / "home"), "--device", "cpu", "--workers", "1", "--json"]
    running = subprocess.Popen(
        [*program, "sweep", "mine.yaml", *options, "--replicas", "6"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    until = time.monotonic() + 120
    while time.monotonic() < until and running.poll() is None:
        time.sleep(0.2)
        if (folder / "home" / "registry.db").exists():
            runs = shown(folder / "home")
            if len(runs) == 6 and all(run["attempts"] and run["attempts"][-1]["step"] for run in runs.values()):
                break
    os.killpg(running.pid, signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    runs = shown(folder / "home")
    assert {run["state"] for run in runs.values()} == {"KILLED"}
    (step,) = {run["attempts"][-1]["stored_step"] for run in runs.values()}
    assert 0 < step < 4000
    again = subprocess.run(
        [*program, "resume", "mine", *options, "--replicas", "6"], capture_output=True, text=True, timeout=240
    )
    assert again.returncode == 0, again.stderr
    runs = shown(folder / "home")
    assert {run["state"] for run in runs.values()} == {"FINISHED"}
    assert {tuple(attempt["from_step"] for attempt in run["attempts"]) for run in runs.values()} == {(0, step)}
    assert all(run["environment"]["stacked"] == sorted(runs) for run in runs.values())


# ---- when


def experiment(folder: Path, **changes: str) -> Any:
    made = [(key.replace("__", "."), value, key) for key, value in changes.items()]
    return load_experiment(str(folder / "mine.yaml"), made, data_dir=folder)


def test_runs_are_alike_but_for_seeds_and_what_the_optimisers_read(folder: Path) -> None:
    def of(**changes: str) -> str:
        return likeness(experiment(folder, **changes).resolve(lambda hole: hole.ends()[0]))

    assert of() == of(system__lr="3e-4") == of(system__beta1="0.9")
    for changes in ({"system__hidden": "17"}, {"system__loss": "hinge"}, {"training__batch_size": "16"}):
        assert of(**changes) != of()
    assert of(training__steps="80") != of()
    weight = "system__penalty_weight"
    with_penalty = {"system__penalty": "r1", weight: "1"}
    assert of(**with_penalty) == of(**with_penalty | {weight: "0.1"})
    for other in ("0", "null"):
        assert of(**with_penalty) != of(**with_penalty | {weight: other})


@pytest.mark.parametrize(
    ("timing", "best"),
    [
        (Timing(1.0, {2: 0.9, 4: 0.5, 8: 0.4, 16: 0.39}), 8),
        (Timing(1.0, {2: 0.9, 4: 0.85}), 1),
        (Timing(1.0, {}), 1),
        (Timing(reason="no"), 1),
    ],
)
def test_as_many_as_are_faster(timing: Timing, best: int) -> None:
    assert timing.best == best


def test_it_is_measured_once_and_chosen_by_that(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Sequence[int]] = []

    def measure(plan: Any, place: Place, widths: Sequence[int]) -> Timing:
        measured.append(widths)
        return Timing(1.0, dict(zip(widths, (0.8, 0.6, 0.3, 0.2), strict=False)))

    monkeypatch.setattr(stacking, "_measure", measure)
    places, mine = [Place("cpu", 1)], experiment(folder)
    for _ in range(2):
        stacks = choose_stacks(mine, places, "auto", 9, folder / "cache")
        assert stacks.replicas == {"spy": 8} and stacks.gains["spy"] == pytest.approx(1 / 0.3)
        assert stacks.lines == ["spy: 8 alike runs as one program, 3.3 times as fast as one after another (measured)"]
    assert measured == [[2, 4, 8]]  # not of more runs than there are
    choose_stacks(experiment(folder, system__hidden="20"), places, "auto", 9, folder / "cache")
    choose_stacks(experiment(folder, training__threads="2"), [Place("cpu", 2)], "auto", 9, folder / "cache")
    monkeypatch.setattr(environment, "versions", lambda: {"torch": "another"})
    choose_stacks(mine, places, "auto", 9, folder / "cache")
    assert len(measured) == 4
    assert not choose_stacks(mine, places, "off", 9, folder / "cache").replicas
    assert not choose_stacks(mine, places, "auto", 1, folder / "cache").replicas
    assert stacks.capped(3).replicas == {"spy": 3} and not stacks.capped(1).replicas
    # A number is taken as it is, and what it gains is said.
    monkeypatch.setattr(stacking, "_measure", lambda *_: Timing(1.0, {5: 1.25}))
    stacks = choose_stacks(mine, places, 5, 9, folder / "cache")
    assert stacks.replicas == {"spy": 5} and "1.2 times as slow" in stacks.lines[0]


def test_a_number_that_is_not_read_where_it_is_declared_is_noticed(folder: Path) -> None:
    text = (
        "from aigc_lab.systems import point_gan\n\n"
        "class Spy(point_gan.PointGAN):\n"
        "    loss_only = point_gan.PointGAN.loss_only | {'scale'}\n"
        "    class Config(point_gan.PointGAN.Config):\n"
        "        scale: float = 2.0\n"
        "    def __init__(self, config, shape):\n"
        "        super().__init__(config, shape)\n"
        "        self.scale = config.scale\n"
        "    def _critic_loss(self, *given):\n"
        "        loss = super()._critic_loss(*given)\n"
        "        return loss._replace(total=loss.total * SCALE)\n"
    )
    said = {}
    for scale in ("self.scale", "self.config.scale"):
        (folder / "spy.py").write_text(text.replace("SCALE", scale))
        stacks = choose_stacks(experiment(folder), [Place("cpu", 1)], 2, 9, folder / "cache")
        said[scale] = stacks.lines[0]
    assert said["self.scale"].startswith("spy: one run after another: as one program loss/critic/total is")
    assert said["self.config.scale"].startswith("spy: 2 alike runs as one program")


def test_what_cannot_be_stacked_or_would_be_wrong_is_done_alone(folder: Path) -> None:
    (folder / "spy.py").write_text(
        "from aigc_lab.systems import point_gan\n\n"
        "class Spy(point_gan.PointGAN):\n"
        "    def phases(self, batch_size):\n"
        "        first, *others = super().phases(batch_size)\n"
        "        def loss(*given):\n"
        "            loss = first.loss(*given)\n"
        "            return loss._replace(total=loss.total * (1 if loss.total.item() > 0 else 2))\n"
        "        return [first._replace(loss=loss), *others]\n"
    )
    stacks = choose_stacks(experiment(folder), [Place("cpu", 1)], 2, 9, folder / "cache")
    assert not stacks.replicas
    assert stacks.lines[0].startswith("spy: one run after another: as one program they cannot be trained (RuntimeError")
    several = experiment(folder, training__devices="2")
    (line,) = choose_stacks(several, [Place("cpu", 1)], 2, 9, folder / "cache").lines
    assert "training.devices is 2" in line


def test_a_stack_is_told_from_what_is_not_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aigc_lab.training.stack import Stack

    whole = Stack.loss

    def wrong(stack: Stack, index: int, like: Any, values: Any, *others: Any) -> Any:
        return whole(stack, index, like, values.flip(0), *others)

    plan = experiment(folder).resolve(lambda hole: hole.ends()[0])
    assert stacking._difference(plan, "cpu") is None
    monkeypatch.setattr(Stack, "loss", lambda *given: wrong(*given)._replace(total=2 * wrong(*given).total))
    assert "alone" in (stacking._difference(plan, "cpu") or "")


def test_the_file_and_the_command_line_say_so(folder: Path) -> None:
    def chosen(section: str, **asked: Any) -> Any:
        (folder / "mine.yaml").write_text(f"{TEXT}execution: {section}\n")
        return choose(experiment(folder), Asked(**asked)).replicas

    assert chosen("{}") == "off"
    assert chosen("{replicas: auto}") == "auto"
    assert chosen("{replicas: off}") == "off"
    assert chosen("{replicas: 8}") == 8
    assert chosen("{replicas: 8}", replicas="off") == "off"
    assert chosen("{replicas: auto}", executor="inline") == "off"
    assert chosen("{replicas: auto}", executor="local") == "auto"
    for section, asked, said in (
        ("{replicas: 0}", {}, "replicas: it should be a whole number from 1 to 256, auto or off, not 0"),
        ("{replicas: yes}", {}, 'auto or off, not "yes"'),
        ("{}", {"replicas": 4, "executor": "inline"}, "--replicas 4: executor inline trains each run by itself"),
        ("{replicas: 4, executor: inline}", {}, "execution.replicas: executor inline trains each run by itself"),
    ):
        with pytest.raises(UsageError, match=said):
            chosen(section, **asked)
    digests = set()
    for section in ("{}", "{replicas: 8}"):
        (folder / "mine.yaml").write_text(f"{TEXT}execution: {section}\n")
        digests.add(experiment(folder).digest)
    assert len(digests) == 1
    assert json.dumps(experiment(folder).recipe).count("replicas") == 0
