"""The trainer beside other people's code on the same GANs: the contestants of `--peers DIR`."""

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from aigc_lab.benchmarks.base import Benchmark, Case, Setting, Size, Unmeasured
from aigc_lab.benchmarks.shared import contestants, usual_gans
from aigc_lab.benchmarks.shared.usual_gans import BATCH, NETWORKS, Network
from aigc_lab.data.shared.batches import Batches
from aigc_lab.training.state import Replica

_STEPS: Mapping[Size, Mapping[Network, int]] = {
    "full": {"mlp": 50, "dcgan": 5},
    "quick": {"mlp": 10, "dcgan": 2},
    "tiny": {"mlp": 1, "dcgan": 1},
}
_ROUNDS: Mapping[Size, int] = {"full": 7, "quick": 3, "tiny": 2}


class Peers(Benchmark):
    """A step of each is the critic's and the generator's update on a batch of 64 random pictures of ours, and of what
    the contestant takes: its data are its own.
    """

    seconds: ClassVar[Mapping[Size, float]] = {"full": 260, "quick": 47, "tiny": 2}

    def check(self, setting: Setting) -> None:
        if setting.peers is not None:
            contestants.load(setting.peers)

    def cases(self, setting: Setting) -> Iterator[Case | Unmeasured]:
        if setting.peers is None:
            yield Unmeasured("peers", "no contestants: --peers DIR names a folder of them")
            return
        real = usual_gans.real_images(setting.device)
        for each in contestants.load(setting.peers):
            for network in NETWORKS:
                step = each.step(network, BATCH, setting.device, setting.threads)
                if step is None:
                    yield Unmeasured(f"{network} 32×32 of {each.name}", "it does not train this network")
                    continue
                steps = _STEPS[setting.size][network]
                for way in usual_gans.ways(network, setting.size):
                    state = usual_gans.state_of(network, setting.device, channels_last=way.channels_last)
                    replica = Replica(state, Batches(real, BATCH, 0), 0)
                    yield Case(
                        f"{network} 32×32, {way}",
                        each.name,
                        run=way.segments([replica], steps),
                        beside=_repeated(step, steps),
                        units=steps * BATCH,
                        unit="images",
                        rounds=_ROUNDS[setting.size],
                    )


def _repeated(step: Callable[[], object], count: int) -> Callable[[], None]:
    def segment() -> None:
        for _ in range(count):
            step()

    return segment
