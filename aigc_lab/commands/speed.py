"""Which keys of `training` are faster on this machine, for `aigc-lab doctor --speed`, by a measurement of seconds.

The bare arithmetic of `aigc-lab bench`'s two GANs, each way in turns with fp32 as it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from aigc_lab.commands.machine import Check
from aigc_lab.host import environment

if TYPE_CHECKING:
    from aigc_lab.benchmarks.shared.usual_gans import Network, Way

# What is hardly faster is not worth other numbers, nor a second key a little more.
_GAIN, _MORE = 1.1, 1.05
# Steps of a timing and timings of each way: a second of small products, some of convolutions in fp32.
_STEPS, _ROUNDS = {"mlp": 5, "dcgan": 1}, {"mlp": 3, "dcgan": 2}
_NETS: "Mapping[Network, str]" = {"mlp": "fully connected networks", "dcgan": "convolutions"}


def proposals() -> Iterator[Check]:
    """For each kind of network the keys that are worth setting here, and how many times as fast it then trains: on a
    GPU if there is one, otherwise by the processor time of one thread, which what else runs changes little.
    """
    device = environment.device("auto")
    for network, nets in _NETS.items():
        yield _said(nets, device, measured(network, device))


def measured(network: "Network", device: str) -> "list[tuple[Way, float]]":
    """The ways that may be faster, and how many times as fast as fp32 each is, the median of some rounds."""
    import torch
    from threadpoolctl import threadpool_limits

    from aigc_lab.benchmarks.base import Case
    from aigc_lab.benchmarks.bound import arithmetic
    from aigc_lab.benchmarks.shared.timing import Timing, take
    from aigc_lab.benchmarks.shared.usual_gans import Way

    threads, steps, timings = torch.get_num_threads(), _STEPS[network], []
    with threadpool_limits(1):
        torch.set_num_threads(1)
        try:
            for way in _ways(network, device):
                run, beside = (arithmetic(network, device, each, steps) for each in (way, Way()))
                case = Case(str(way), "fp32", run, beside, steps, "steps", _ROUNDS[network])
                timing = Timing(case, "cpu" if device == "cpu" else "wall")
                take(timing, device)
                timings.append((way, timing.row()["ratio"]["median"]))
        finally:
            torch.set_num_threads(threads)
    return timings


def _ways(network: "Network", device: str) -> "list[Way]":
    """Few, the plainer first."""
    from aigc_lab.benchmarks.shared.usual_gans import Way

    if network == "dcgan":
        return [Way(channels_last=True), Way("bf16", channels_last=True)]
    return [Way(matmul="medium" if device == "cpu" else "high"), Way("bf16")]


def _said(nets: str, device: str, ratios: "Sequence[tuple[Way, float]]") -> Check:
    where = "CPU, one thread" if device == "cpu" else device
    all_of_them = "; ".join(f"{' '.join(way.changes)} {ratio:.2f}" for way, ratio in ratios)
    finding = f"{nets}, times as fast as in fp32 ({where}): {all_of_them}"
    fastest = max(ratio for _, ratio in ratios)
    if fastest < _GAIN:
        return Check("speed", "ok", f"{finding}; none is worth its rounding here")
    best, ratio = next((way, ratio) for way, ratio in ratios if ratio * _MORE >= fastest)
    sets = " ".join(f"--set {change}" for change in best.changes)
    remedy = (
        f"{sets} trains {ratio:.1f} times as fast, with other roundings: whether scores stay, aigc-lab compare says of "
        "two sweeps, with and without"
    )
    return Check("speed", "ok", finding, remedy)
