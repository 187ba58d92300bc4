"""From two folders of PNGs to the FID, as a user types it: `uv run python tests/benchmarks/bench_folder.py`.

`aigc-lab evaluate` in an empty cache, and once more with the reference's features kept, against pytorch-fid's command,
on the same files and the same weights (random ones, of the published form, made here). Each is a process of its own,
its start included. Wall time and time on the CPU; the two distances are printed beside each other.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "evaluation"))
from crosscheck import random_weights  # type: ignore[import-not-found]

FILE = "pt_inception-2015-12-05-6726825d.pth"


def pictures(folder: Path, count: int, side: int, seed: int) -> torch.Tensor:
    """Smooth colours with some noise: files as large as photographs'."""
    source = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=source)
    fine = F.interpolate(coarse, (side, side), mode="bicubic") + 0.05 * torch.randn(
        count, 3, side, side, generator=source
    )
    values = (fine.clamp(0, 1) * 255).byte()
    folder.mkdir()
    for index, each in enumerate(values):
        Image.fromarray(each.permute(1, 2, 0).numpy()).save(folder / f"{index:05d}.png")
    return values


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, float, str]:
    before, started = os.times(), time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - started, cpu, done.stdout


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--images", type=int, default=256)
    arguments.add_argument("--side", type=int, default=64)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = folder / "torch" / "hub" / "checkpoints" / FILE
        weights.parent.mkdir(parents=True)
        shown = pictures(folder / "made", options.images, options.side, 1)
        pictures(folder / "real", options.images, options.side, 2)
        random_weights(weights, shown[:24], side=299)
        made, real = str(folder / "made"), str(folder / "real")
        theirs = [sys.executable, "-m", "pytorch_fid", made, real, "--device", "cpu", "--num-workers", "0"]
        ours = [sys.executable, "-c", "from aigc_lab.cli import main; main()", "evaluate", "--generated", made]
        ours += ["--reference", real, "--metrics", "fid", "--weights", str(weights), "--allow-unverified-weights"]
        ours += ["--device", "cpu", "--json"]
        where = {"TORCH_HOME": str(folder / "torch"), "XDG_CACHE_HOME": str(folder / "cache")}
        print(f"{options.images} PNGs of {options.side}×{options.side} in each folder; {os.cpu_count()} CPUs, "
              f"load {os.getloadavg()[0]:.1f}")  # fmt: skip
        wall, cpu, said = timed(theirs, where)
        found = re.search(r"FID:\s*([\d.e+-]+)", said)
        # With fewer images than dimensions its matrix root may fail, after all of its work.
        told = f"FID {float(found[1]):.4f}" if found else "no FID: see its error above"
        print(f"pytorch-fid         {wall:6.1f} s   CPU {cpu:6.1f} s   {told}", flush=True)
        for label in ("ours, empty cache", "ours, kept        "):
            mine, used, said = timed(ours, where)
            value = json.loads(said)[0]["value"]
            times = f"{wall / mine:5.2f} times, CPU {cpu / used:5.2f}"
            print(f"{label:18}  {mine:6.1f} s   CPU {used:6.1f} s   {times}   FID {value:.4f}")


if __name__ == "__main__":
    main()
