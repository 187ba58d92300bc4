"""The trainer beside the bare bound: the arithmetic that the algorithm needs on the same networks, and nothing else."""

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from aigc_lab.benchmarks.base import Benchmark, Case, Setting, Size, Unmeasured
from aigc_lab.benchmarks.shared import usual_gans
from aigc_lab.benchmarks.shared.usual_gans import BATCH, LATENT, NETWORKS, SIDE, Network, Way
from aigc_lab.data.shared.batches import Batches
from aigc_lab.nets.precision import products
from aigc_lab.training.state import Replica

_STEPS: Mapping[Size, Mapping[Network, int]] = {
    "full": {"mlp": 100, "dcgan": 6},
    "quick": {"mlp": 20, "dcgan": 2},
    "tiny": {"mlp": 1, "dcgan": 1},
}
_ROUNDS: Mapping[Size, int] = {"full": 7, "quick": 3, "tiny": 2}


class Bound(Benchmark):
    """One pass of the generator, three of the critic, the backward of each loss in the weights that it trains, and
    torch's fused Adam. Latents and pictures never change, and no number is kept.
    """

    seconds: ClassVar[Mapping[Size, float]] = {"full": 285, "quick": 32, "tiny": 2}

    def cases(self, setting: Setting) -> Iterator[Case | Unmeasured]:
        real = usual_gans.real_images(setting.device)
        for network in NETWORKS:
            for way in usual_gans.ways(network, setting.size):
                steps = _STEPS[setting.size][network]
                state = usual_gans.state_of(network, setting.device, channels_last=way.channels_last)
                replica = Replica(state, Batches(real, BATCH, 0), 0)
                yield Case(
                    f"{network} 32×32, {way}",
                    "its bare arithmetic",
                    run=way.segments([replica], steps),
                    beside=arithmetic(network, setting.device, way, steps),
                    units=steps * BATCH,
                    unit="images",
                    rounds=_ROUNDS[setting.size],
                )


def arithmetic(network: Network, device: str, way: Way, steps: int) -> Callable[[], None]:
    """So many steps of the bare arithmetic of these networks, batch 64."""
    generator, critic = (net.to(device) for net in usual_gans.networks(network))
    if way.channels_last:
        generator, critic = (net.to(memory_format=torch.channels_last) for net in (generator, critic))
    latents = torch.randn(BATCH, LATENT, device=device)
    real = torch.rand(BATCH, 1, SIDE, SIDE, device=device) * 2 - 1
    weights = {net: list(net.parameters()) for net in (generator, critic)}
    optimizers = {
        net: torch.optim.Adam(owned, lr=2e-4, betas=(0.5, 0.999), fused=True) for net, owned in weights.items()
    }
    autocast = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=way.precision == "bf16")

    def update(net: nn.Module, loss: torch.Tensor) -> None:
        optimizers[net].zero_grad()
        loss.backward(inputs=weights[net])  # type: ignore[no-untyped-call]
        optimizers[net].step()

    def step() -> None:
        with autocast:
            made = generator(latents)
            if network == "mlp":  # without batch statistics it judges both at once
                said, other = critic(torch.cat([real, made.detach().float()])).chunk(2)
            else:
                said, other = critic(real), critic(made.detach())
            loss = F.softplus(-said.float()).mean() + F.softplus(other.float()).mean()
        update(critic, loss)
        with autocast:
            loss = F.softplus(-critic(made).float()).mean()
        update(generator, loss)

    def segment() -> None:
        with products(way.matmul):
            for _ in range(steps):
                step()

    return segment
