"""What `aigc-lab bench` times: each measurement, in a size that says nothing, gives times of two that do the same."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aigc_lab import plugins
from aigc_lab.benchmarks.base import Benchmark, Case, Clock, Says, Setting, Unmeasured
from aigc_lab.benchmarks.shared import trainings, usual_gans
from aigc_lab.benchmarks.shared.timing import Timing, take
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.registry.runs import list_runs
from aigc_lab.registry.store import Registry
from aigc_lab.text.bleu import self_bleu
from aigc_lab.training.loop import train_one
from aigc_lab.training.state import Replica

NAMES = plugins.names("benchmarks")


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return Setting("cpu", 1, "tiny", folder, tmp_path / "data", tmp_path / "cache", WeightsPolicy())


def measurement(name: str) -> Benchmark:
    return plugins.find(Benchmark, name)()  # type: ignore[type-abstract]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "peers"])
def test_every_case_has_a_reference_and_times_that_are_times(name: str, setting: Setting) -> None:
    cases = 0
    for case in measurement(name).cases(setting):
        assert isinstance(case, Case) and case.reference and case.unit
        timed = Timing(case, case.clock or setting.clock)
        take(timed, setting.device)
        row = timed.row()
        assert row["rounds"] == case.rounds >= 2
        for key in ("ratio", "per_second", "reference_per_second"):
            low, middle, high = (row[key][each] for each in ("low", "median", "high"))
            assert 0 < low <= middle <= high < math.inf
        cases += 1
    assert cases


@pytest.mark.parametrize("name", NAMES)
def test_a_measurement_says_what_it_is_and_what_it_costs(name: str) -> None:
    kind = type(measurement(name))
    assert plugins.describe("benchmarks")[name].endswith((".", ":", "`."))
    assert kind.seconds["tiny"] <= kind.seconds["quick"] <= kind.seconds["full"]


# ---- the references do what is measured


def only_case(name: str, setting: Setting) -> Case:
    (case,) = measurement(name).cases(setting)
    assert isinstance(case, Case)
    return case


def test_both_frechet_distances_are_one(setting: Setting) -> None:
    case = only_case("frechet", setting)
    ours: Any = case.run()
    assert ours > 0 and ours == pytest.approx(case.beside(), rel=1e-6)


def test_both_self_bleus_are_one(setting: Setting) -> None:
    from aigc_lab.benchmarks.self_bleu import nltk_scores, numbered, sentences

    texts = sentences(40)
    ours = self_bleu(numbered(texts))
    theirs = np.array(nltk_scores([0, 17], [text.split() for text in texts]))
    assert np.stack([ours[n][[0, 17]] for n in (2, 3, 4, 5)], 1) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("every", [None, 1, 2, 50])
def test_a_segment_has_its_steps_and_goes_on(tmp_path: Path, every: int | None) -> None:
    """Two segments of three steps come to the weights of one training of six, and log as often as they are to."""
    plan = trainings.plan_of("ring", "point_gan", tmp_path, batch_size=8)
    replica = Replica(trainings.state_of(plan, "cpu"), trainings.batches_of(plan, "cpu"), 0)
    heard: list[int] = []
    segment = trainings.segments([replica], 3, decay=0.5, every=every, told=lambda now: heard.append(now.step))
    segment()
    assert replica.state.step == 3
    segment()
    assert replica.state.step == 6
    assert heard == {None: [3, 6], 1: [1, 2, 3, 4, 5, 6], 2: [2, 4, 6], 50: []}[every]
    other = trainings.state_of(plan, "cpu")
    for _ in train_one(other, trainings.batches_of(plan, "cpu"), seed=0, steps=6, every=6, decay=0.5, precision="fp32"):
        pass
    for one, two in ((replica.state.system, other.system), (replica.state.average, other.average)):
        assert all(map(torch.equal, one.parameters(), two.parameters()))


def test_runs_of_the_queue_end(setting: Setting) -> None:
    cases = measurement("runs").cases(setting)
    case = next(cases)
    assert isinstance(case, Case)
    case.run()
    cases.close()  # type: ignore[attr-defined]
    with Registry.open(f"sqlite:///{setting.folder / 'many.db'}") as registry:
        states = [row["state"] for row in list_runs(registry)]
    assert states == ["FINISHED"] * (12 + int(case.units))


@pytest.mark.parametrize(("network", "weights"), [("mlp", 1_756_032 + 656_385), ("dcgan", 1_049_985 + 98_113)])
def test_the_networks_are_those_of_the_script(network: str, weights: int) -> None:
    """Numbers of weights, counted by hand from the layers' sizes."""
    generator, critic = usual_gans.networks(network)
    made = generator(torch.randn(3, usual_gans.LATENT))
    assert made.shape == (3, 1, 32, 32) and made.abs().max() <= 1
    assert critic(made).shape == (3, 1)
    counted = sum(each.numel() for net in (generator, critic) for each in net.parameters())
    assert counted == weights


@pytest.mark.parametrize("network", usual_gans.NETWORKS)
def test_ours_are_the_scripts_networks(network: str) -> None:
    """The same weights of the same names give the same pictures and scores, but for rounding."""
    nets = []
    for ours in (False, True):
        torch.manual_seed(0)
        nets.append(usual_gans.networks(network, ours=ours))
    latents = torch.randn(3, usual_gans.LATENT)
    (theirs, critic), (ours_, our_critic) = nets
    assert all(map(torch.equal, theirs.state_dict().values(), ours_.state_dict().values()))
    assert critic.state_dict().keys() == our_critic.state_dict().keys()
    pictures = theirs(latents)
    torch.testing.assert_close(ours_(latents), pictures, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(our_critic.eval()(pictures), critic.eval()(pictures), rtol=1e-4, atol=1e-5)


# ---- how a case is timed


class Clocked:
    """A clock that stands still but for what contestants let pass, and who was called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
        self.now, self.called = 100.0, list[str]()
        name = "process_time" if clock == "cpu" else "perf_counter"
        monkeypatch.setattr(time, name, lambda: self.now)

    def takes(self, who: str, seconds: float) -> Callable[[], None]:
        def call() -> None:
            self.called.append(who)
            self.now += seconds

        return call


@pytest.mark.parametrize("clock", ["cpu", "wall"])
@pytest.mark.parametrize(("says", "ratio"), [("speed", 6.0), ("cost", 1 / 6)])
def test_the_ratio_is_of_equal_work_and_both_take_turns(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, clock: Clock, says: Says, ratio: float
) -> None:
    """Ours does 10 units in 2 s; the reference 5 of them in 6 s: 5 a second beside 5/6."""
    ticks = Clocked(monkeypatch, clock)
    ours, theirs = ticks.takes("ours", 2), ticks.takes("theirs", 6)
    case = Case("case", "reference", ours, theirs, 10, "units", 3, units_beside=5, says=says)
    timed = Timing(case, clock)
    take(timed, setting.device)
    row = timed.row()
    assert row["seconds"] == [[2, 6]] * 3 and (row["clock"], row["rounds"]) == (clock, 3)
    assert row["per_second"]["median"] == 5 and row["reference_per_second"]["median"] == pytest.approx(5 / 6)
    assert row["ratio"] == pytest.approx({"median": ratio, "low": ratio, "high": ratio})
    assert ticks.called == ["ours", "theirs"] * 2 + ["theirs", "ours"] + ["ours", "theirs"]


def test_an_interruption_leaves_whole_rounds(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = Clocked(monkeypatch, "cpu")
    ours = ticks.takes("ours", 1)

    def theirs() -> None:
        ticks.takes("theirs", 4)()
        if ticks.called.count("theirs") == 4:  # of which one warmed up
            raise KeyboardInterrupt

    timed = Timing(Case("case", "reference", ours, theirs, 1, "units", 9), "cpu")
    with pytest.raises(KeyboardInterrupt):
        take(timed, setting.device)
    assert timed.rounds == [(1, 4), (1, 4)]
    assert timed.row()["rounds"] == 2


@pytest.mark.parametrize(("device", "threads", "clock"), [("cpu", 1, "cpu"), ("cpu", 2, "wall"), ("cuda", 1, "wall")])
def test_cpu_time_is_that_of_one_thread(setting: Setting, device: str, threads: int, clock: Clock) -> None:
    from dataclasses import replace

    assert replace(setting, device=device, threads=threads).clock == clock


def test_replicas_that_do_not_fit_are_not_trained(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aigc_lab.host.capacity.free_memory", lambda device: 1000)
    (case,) = measurement("replicas").cases(setting)
    assert isinstance(case, Unmeasured)
    assert case.name == "point_gan, 2 replicas" and case.reason.endswith("and 1.0 kB are free")
