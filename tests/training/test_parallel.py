"""Training of one run by two processes: the numbers of one, resumed to the bit, and what happens to a broken group."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from aigc_lab import plugins
from aigc_lab.data.digits import Digits
from aigc_lab.data.pydoc import PyDoc
from aigc_lab.data.ring import Ring
from aigc_lab.data.shared.batches import Batches
from aigc_lab.errors import Failure, UsageError
from aigc_lab.host import environment
from aigc_lab.systems.base import System
from aigc_lab.systems.point_gan import PointGAN
from aigc_lab.training import process_group
from aigc_lab.training.checkpoint import restore_state, save_state
from aigc_lab.training.loop import train
from aigc_lab.training.parallel import OnDevices
from aigc_lab.training.plain import Plain
from aigc_lab.training.process_group import ProcessGroup
from aigc_lab.training.state import Progress, Replica, TrainingState

STEPS, BATCH = 4, 12
# Of the scalars, and of the weights as a share of the way that they have gone.
SCALARS, WAY = 1e-5, 1e-3
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gan": ("dcgan", {"width": 8, "latent_size": 6}),  # batch normalisation in both networks
    "wgan-gp": ("wgan_gp", {"width": 8, "latent_size": 6, "n_critic": 2}),
    "r1": ("ns_gan", {"width": 8, "latent_size": 6, "penalty": "r1", "network": "dcgan"}),
    "shared": ("dcgan", {"width": 8, "latent_size": 6, "share_fakes": True, "n_critic": 2}),
    "vae": ("vae", {"width": 8, "latent_size": 6}),
    "lstm": ("lstm_lm", {"hidden": 16, "embedding": 12}),
    "transformer": ("transformer_lm", {"width": 16, "layers": 1, "heads": 2}),
    # Statistics of the batch that are no means: gathered.
    "memory": ("dcgan", {"width": 8, "latent_size": 6, "penalty": "lecam", "augment": "adaptive"}),
    "spread": ("dcgan", {"width": 8, "latent_size": 6, "penalty": "dragan", "minibatch_std": True, "packing": 2}),
    "codebook": ("vq_vae", {"width": 8, "codes": 16, "embedding": 12, "hidden": 16}),
    "mmd": ("wae_mmd", {"width": 8, "latent_size": 6}),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("data")
    images, text = Digits(Digits.Config(), folder), PyDoc(PyDoc.Config(max_length=12, max_words=60), folder)
    return {each.shape.modality: (each.shape, each.load("train").take(slice(0, 300))) for each in (images, text)}


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> ProcessGroup:
    """A group of this process and one more, which the tests of a module share until it breaks."""
    monkeypatch.setattr(environment, "cores", lambda: 2)
    torch.set_num_threads(1)
    return process_group.opened(2, "cpu")


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    yield
    process_group.close()


def replica(
    data: dict[str, Any], name: str, options: dict[str, Any], batch: int = BATCH, *, averaged: bool = True
) -> Replica:
    kind = plugins.find(System, name)  # type: ignore[type-abstract]
    shape, samples = data[kind.modality]
    state = TrainingState.fresh(
        kind, kind.Config(**options), shape, seed=3, batch_size=batch, device="cpu", averaged=averaged
    )
    return Replica(state, Batches(samples, batch, 3), 3)


def trained(one: Replica, group: ProcessGroup | None, steps: int = STEPS, decay: float = 0.5) -> Progress:
    """Trains to the end, which is one interval."""
    course: Any = Plain if group is None else OnDevices(group)
    (((_, end),),) = train([one], steps=steps, every=steps, decay=decay, precision="fp32", course=course)
    assert isinstance(end, Progress)
    return end


def way(one: System, other: System) -> float:
    """The length of the difference of their weights."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return math.sqrt(sum((a.double() - b.double()).square().sum().item() for a, b in pairs))


@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one_with_the_whole_batch(case: str, data: dict[str, Any], two: ProcessGroup) -> None:
    begun, alone, together = (replica(data, *CASES[case]) for _ in range(3))
    expected, ours = trained(alone, None).scalars, trained(together, two).scalars
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert ours[name] == pytest.approx(value, rel=SCALARS, abs=1e-6), name
    start, one, other = begun.state, alone.state, together.state
    assert way(one.system, other.system) <= WAY * way(one.system, start.system)
    assert way(one.average, other.average) <= WAY * way(one.average, start.average)
    for (name, a), (_, b) in zip(one.system.named_buffers(), other.system.named_buffers(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-5, msg=name)


def test_without_a_moving_average_there_is_none_in_any_process(data: dict[str, Any], two: ProcessGroup) -> None:
    alone, together = (replica(data, *CASES["gan"], averaged=False) for _ in range(2))
    expected, ours = (trained(one, group, decay=0).scalars for one, group in ((alone, None), (together, two)))
    assert ours == {name: pytest.approx(value, rel=SCALARS, abs=1e-6) for name, value in expected.items()}
    for mine, theirs in zip(together.state.average.parameters(), together.state.system.parameters(), strict=True):
        assert mine.data_ptr() == theirs.data_ptr()


def test_a_resumed_run_comes_to_the_same_bits(data: dict[str, Any], two: ProcessGroup, tmp_path: Path) -> None:
    straight, first, second = (replica(data, *CASES["memory"]) for _ in range(3))
    expected = trained(straight, two, steps=5)
    for _ in train(
        [first],
        steps=5,
        every=5,
        decay=0.5,
        precision="fp32",
        course=OnDevices(two),
        interrupted=lambda: first.state.step == 2,  # in the middle of an interval
    ):
        raise AssertionError
    save_state(first.state, tmp_path / "state")
    restore_state(second.state, tmp_path / "state")
    assert trained(second, two, steps=5).scalars == expected.scalars
    for one, other in ((straight.state.system, second.state.system), (straight.state.average, second.state.average)):
        theirs = other.state_dict()
        assert all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


OWN = """
from torch import nn
from aigc_lab.config import Strict
from aigc_lab.noise import Draw
from aigc_lab.samples import Images
from aigc_lab.shape import Modality
from aigc_lab.systems.base import Loss, OptimizerConfig, Phase, System


class Mine(System):
    modality = Modality.IMAGES

    class Config(Strict):
        spread: bool = False

    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.layer = nn.Linear(shape.size[1] * shape.size[2], 3)

    def phases(self, batch_size):
        return [Phase("fit", self.loss, [self], OptimizerConfig(1e-3), {"z": Draw((batch_size, 3))})]

    def loss(self, batch, noise, step):
        made = self.layer(batch.unit().flatten(1)) + noise["z"]
        # The loss of a batch's own spread is no mean over its samples.
        return Loss(made.var(0).sum().sqrt() if self.config.spread else made.square().mean())

    def samplers(self):
        return [self]

    def latents(self, count):
        return Draw((count, 3))

    def sample(self, latents, *, labels=None):
        return Images(latents.new_zeros(len(latents), *self.shape.size))
"""


def test_a_users_loss_that_is_no_mean_is_refused_at_the_first_step(
    data: dict[str, Any], two: ProcessGroup, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN, "utf-8")
    alone, together = (replica(data, str(file), {}) for _ in range(2))
    assert trained(together, two).scalars == pytest.approx(trained(alone, None).scalars, rel=SCALARS)
    before = replica(data, str(file), {"spread": True})
    with pytest.raises(UsageError, match="mine cannot be trained on several devices: in phase fit, its value of the"):
        trained(before, two)
    assert before.state.step == 0
    trained(replica(data, *CASES["vae"]), two)  # the group is whole


WATCHED = """
import torch
from aigc_lab.systems.base import Loss
from aigc_lab.systems.point_gan import PointGAN

class Watched(PointGAN):
    def phases(self, batch_size):
        def told(phase):
            def loss(batch, noise, step):
                value = phase.loss(batch, noise, step)
                rank = ["highest", "high", "medium"].index(torch.get_float32_matmul_precision())
                return Loss(value.total, value.parts, {"products": value.total.detach() * 0 + rank})
            return phase._replace(loss=loss)
        return [told(phase) for phase in super().phases(batch_size)]
"""


def test_all_processes_multiply_alike(two: ProcessGroup, tmp_path: Path) -> None:
    """The mean over the processes of what each of them is set to while it differentiates; after it, as before."""
    file, ring = tmp_path / "watched.py", Ring(Ring.Config(points=200), tmp_path)
    file.write_text(WATCHED, "utf-8")
    points: dict[str, Any] = {PointGAN.modality: (ring.shape, ring.load("train"))}
    for precision, rank in (("medium", 2.0), ("highest", 0.0)):
        one = replica(points, str(file), {"hidden": 8})
        options: dict[str, Any] = {"matmul_precision": precision, "course": OnDevices(two)}
        for ((_, end),) in train([one], steps=2, every=1, decay=0.5, precision="fp32", **options):
            assert isinstance(end, Progress)
            assert {value for name, value in end.scalars.items() if name.endswith("products")} == {rank}
            assert torch.get_float32_matmul_precision() == "highest"


def test_weights_that_drift_apart_end_the_run(data: dict[str, Any], two: ProcessGroup) -> None:
    one = replica(data, *CASES["vae"])
    rounds = train([one], steps=STEPS, every=1, decay=0.5, precision="fp32", course=OnDevices(two))
    next(rounds)
    name, weight = next(iter(one.state.system.named_parameters()))
    with torch.no_grad():
        weight.view(torch.int32).view(-1)[0] ^= 1  # the last bit of one number
    with pytest.raises(Failure, match=f"process 1 of 2 holds another weight {name} than the first after step 2"):
        next(rounds)
    assert not one.live, "what was trained since is not stored"


def test_a_process_that_is_killed_ends_the_run_with_its_reason(data: dict[str, Any], two: ProcessGroup) -> None:
    one = replica(data, *CASES["vae"])
    rounds = train([one], steps=STEPS, every=1, decay=0.5, precision="fp32", course=OnDevices(two))
    next(rounds)
    (child,) = two.children
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(Failure, match="process 1 of the 2 that train this run was ended by signal 9"):
        for _ in rounds:
            pass
    assert not one.live, "it may be in the middle of a step"


def test_an_error_in_another_process_is_told(data: dict[str, Any], two: ProcessGroup, tmp_path: Path) -> None:
    file, here = tmp_path / "later.py", f"__import__('os').getpid() == {os.getpid()}"
    file.write_text(
        OWN.replace("        made = self", f"        1 / (step < 2 or {here})\n        made = self"), "utf-8"
    )
    with pytest.raises(RuntimeError, match="process 1 of 2: ZeroDivisionError: division by zero") as caught:
        trained(replica(data, str(file), {}), two)
    assert not isinstance(caught.value, Failure), "it is the run's own fault"


ORPHAN = """
import sys, time, torch
from aigc_lab.host import environment
environment.cores = lambda: 2
from aigc_lab.training import process_group
print(process_group.opened(2, "cpu").children[0].pid, flush=True)
time.sleep(600)
"""


def test_no_process_is_left_behind() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True) as leader:
        assert leader.stdout is not None
        child = int(leader.stdout.readline())
        leader.kill()
    until = time.monotonic() + 20
    while _alive(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _alive(child)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("started", "devices", "said"),
    [
        (None, 9, "training.devices is 9, and this machine has 2 CPU cores: set training.devices to 2 or less"),
        (4, 2, "training.devices is 2, and torchrun has started 4 processes: set training.devices to 4"),
        (4, 1, "training.devices is 1, and torchrun has started 4 processes: .* or start without torchrun"),
    ],
)
def test_devices_that_are_not_there_are_refused(
    started: int | None, devices: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "cores", lambda: 2)
    if started is not None:
        for name, value in {"RANK": 0, "WORLD_SIZE": started, "MASTER_ADDR": "x", "MASTER_PORT": 1}.items():
            monkeypatch.setenv(name, str(value))
    with pytest.raises(UsageError, match=said):
        process_group.check_devices(devices, "cpu")
