"""What a checkpoint costs: `uv run python tests/benchmarks/bench_checkpoint.py [--megabytes 50]`.

A fully connected GAN for points whose weights are about so many megabytes is trained with one thread. Its checkpoint
holds the networks, the average of the generator, and Adam's two moments of both networks; its size is printed. Timed
in the same process: a bare training step; `Checkpointer.save`, which is how long the training waits (it copies; a
thread writes, hashes and syncs); and from that call until the checkpoint is on the disk. Steps that go on while it is
being written are timed too: on a machine with free cores they are as fast as the others.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

from aigc_lab.data.ring import Ring
from aigc_lab.data.shared.batches import Batches
from aigc_lab.host import environment
from aigc_lab.systems.point_gan import PointGAN
from aigc_lab.training.checkpoint import Checkpointer
from aigc_lab.training.loop import train_one
from aigc_lab.training.state import TrainingState

BATCH = 64


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--megabytes", type=float, default=50)
    arguments.add_argument("--repeat", type=int, default=5)
    options = arguments.parse_args()
    environment.settle(1)
    # Two hidden layers of the generator and of the critic: 2 × hidden² weights of 4 bytes, and little besides.
    hidden = round((options.megabytes * 1e6 / 4 / 2) ** 0.5)
    config = PointGAN.Config(latent_size=16, hidden=hidden, generator_layers=2, critic_layers=2, gain=0.8, lr=1e-4)
    with tempfile.TemporaryDirectory() as folder:
        data = Ring(Ring.Config(points=1000), Path(folder))
        torch.nn.init.orthogonal_ = torch.nn.init.xavier_normal_  # it would take minutes
        state = TrainingState.fresh(PointGAN, config, data.shape, seed=0, batch_size=BATCH, device="cpu")
        weights = sum(value.numel() * 4 for value in state.system.parameters()) / 1e6
        stored: list[float] = []
        checkpoints = Checkpointer(Path(folder) / "1", lambda step: stored.append(time.perf_counter()))
        bare: list[float] = []
        beside: list[float] = []
        stalls: list[float] = []
        written: list[float] = []
        copied: list[float] = []
        begun, mark = 0.0, time.perf_counter()
        steps = 8 * options.repeat
        train = Batches(data.load("train"), BATCH, 0)
        for now in train_one(state, train, seed=0, steps=steps, every=1, decay=0.99, precision="fp32"):
            ended = time.perf_counter()
            if now.step > 2:
                (beside if len(stored) < len(stalls) else bare).append(ended - mark)
            if now.step % 8 == 0:
                checkpoints.finish()
                if begun:
                    written.append(stored[-1] - begun)
                used = time.thread_time()
                begun = time.perf_counter()
                checkpoints.save(state, {}, None)
                stalls.append(time.perf_counter() - begun)
                copied.append(time.thread_time() - used)
            mark = time.perf_counter()
        checkpoints.finish()
        written.append(stored[-1] - begun)
        size = max(file.stat().st_size for file in (Path(folder) / "1").glob("*.safetensors")) / 1e6
    step, stall = statistics.median(bare), statistics.median(stalls)
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; weights {weights:.0f} MB, checkpoint {size:.0f} MB")
    print(f"a bare step                       {step:.3f} s")
    if beside:
        print(f"a step beside a checkpoint        {statistics.median(beside):.3f} s")
    cost = f"{stall / step:.2f} steps; at best {min(stalls):.3f} s, CPU {min(copied):.3f} s"
    print(f"the training waits for            {stall:.3f} s ({cost})")
    print(f"until it is on the disk           {statistics.median(written):.3f} s, at best {min(written):.3f} s")


if __name__ == "__main__":
    main()
