"""The step beside the usual script's and beside its own bound: `uv run python tests/benchmarks/bench_step.py`.

In turns in one process, on one thread: the script of `usual_script.py`; our loop on the same networks and pictures; and
the bound, which is the arithmetic that the algorithm needs and nothing else: one pass of the generator, three of the
critic (of real and made pictures as one batch where it has no batch norm), the backward of each loss in the weights
that it trains, torch's fused Adam; its pictures and latents never change, and no number is kept. Printed are images per
CPU second and, of the ratios in each round, the medians.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from usual_script import dataset, prepare

from aigc_lab.benchmarks.bound import arithmetic
from aigc_lab.benchmarks.shared.usual_gans import BATCH, SIDE, Network, UsualGAN, Way
from aigc_lab.data.shared.batches import Batches
from aigc_lab.samples import Images
from aigc_lab.shape import Modality, Shape
from aigc_lab.training.loop import train
from aigc_lab.training.state import Replica, TrainingState

STEPS = {"mlp": 100, "dcgan": 6}
LOG_EVERY = 50
# No training that is timed reaches it.
ENDLESS = 1 << 40
WAYS = (Way(), Way(channels_last=True), Way("bf16", channels_last=True), Way(channels_last=True, matmul="medium"))
Segment = Callable[[int], None]


def script(name: Network) -> Segment:
    steps = prepare(name, BATCH, "cpu", 1)
    assert steps is not None
    return lambda count: _advance(steps, count)


def _advance(steps: Iterator[None], count: int) -> None:
    for _ in range(count):
        next(steps)


def ours(name: Network, pictures: Images, way: Way, **knobs: Any) -> Segment:
    """The product's own loop, with as many steps more in each call."""
    state = TrainingState.fresh(
        UsualGAN,
        UsualGAN.Config(network=name, **{"share_fakes": True, "one_pass": name == "mlp"} | knobs),
        Shape(Modality.IMAGES, (1, SIDE, SIDE)),
        seed=0,
        batch_size=BATCH,
        device="cpu",
        channels_last=way.channels_last,
        averaged=False,
    )
    end = 0
    rounds = train(
        [Replica(state, Batches(pictures, BATCH, 0), 0)],
        steps=ENDLESS,
        every=LOG_EVERY,
        precision=way.precision,
        matmul_precision=way.matmul,
        paused=lambda: state.step >= end,
    )

    def segment(count: int) -> None:
        nonlocal end
        end = state.step + count
        while state.step < end:
            next(rounds)

    return segment


def bound(name: Network, way: Way) -> Segment:
    step = arithmetic(name, "cpu", way, 1)

    def segment(count: int) -> None:
        for _ in range(count):
            step()

    return segment


def pictures_of(folder: Path | None) -> Images:
    """The script's pictures once and for all as bytes, as a dataset of ours holds them."""
    source: Any = dataset(folder)
    values = getattr(source, "data", None)
    raw = (values if values is not None else source.pictures)[:, None].float()
    resized = F.interpolate(raw, (SIDE, SIDE), mode="bilinear", antialias=True)
    return Images(resized.round().clamp(0, 255).to(torch.uint8))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("networks", nargs="*", default=["mlp", "dcgan"])
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--wall", action="store_true", help="by the clock; CPU time unless given")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    named = os.environ.get("AIGC_LAB_DATA_DIR")
    folder = None if named is None else Path(named)
    pictures, clock = pictures_of(folder), time.perf_counter if options.wall else time.process_time
    for name in options.networks:
        segments = {"the usual script": script(name)}
        for way in WAYS:
            segments[f"ours, {way}"] = ours(name, pictures, way)
            segments[f"bound, {way}"] = bound(name, way)
        plain = {"share_fakes": False, "one_pass": False}
        segments["ours, fp32, knobs as they come"] = ours(name, pictures, Way(), **plain)
        compare(name, segments, options.rounds, clock)


def compare(name: str, segments: dict[str, Segment], rounds: int, clock: Callable[[], float]) -> None:
    count = STEPS[name]
    for segment in segments.values():
        segment(max(count // 4, 2))
    rates: dict[str, list[float]] = {who: [] for who in segments}
    for _ in range(rounds):
        for who, segment in segments.items():
            started = clock()
            segment(count)
            rates[who].append(count * BATCH / (clock() - started))
    print(f"{name + f', batch {BATCH}':38} {'images / s':>10} {'of the script':>14} {'of its bound':>13}")
    for who, each in rates.items():
        of_script = statistics.median(a / b for a, b in zip(each, rates["the usual script"], strict=True))
        limit = rates.get(who.replace("ours", "bound"))
        of_bound = "" if limit is None else f"{statistics.median(a / b for a, b in zip(each, limit, strict=True)):.2f}"
        print(f"{who:38} {statistics.median(each):10.0f} {of_script:14.2f} {of_bound:>13}", flush=True)


if __name__ == "__main__":
    main()
