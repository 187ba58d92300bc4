"""The picture of the README: real digits, the best GAN, the best VAE, and the contestant that collapsed.

    uv run python dashboards/digits.py SWEEP [--home DIR]

SWEEP is a sweep of experiments/digits.yaml. Writes digits.png beside this file, and says which runs it shows.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

import aigc_lab
from aigc_lab.data.mnist_5k import MNIST5k
from aigc_lab.host.settings import Settings
from aigc_lab.pictures import drawing
from aigc_lab.registry.comparison import compare_trials
from aigc_lab.registry.home import open_registry
from aigc_lab.registry.runs import list_runs
from aigc_lab.registry.verdicts import last_verdicts
from aigc_lab.samples import Images

COUNT, COLUMNS, GAP = 64, 8, 24


def shown_runs(sweep: str, home: Path | None) -> list[str]:
    """Ids of the runs that are shown: of the best trial of each system that did not collapse, and one that did."""
    with open_registry(Settings.load(home)) as registry:
        rows = compare_trials(registry, sweep).rows
        runs, verdicts = list_runs(registry, rows[0]["sweep"]), last_verdicts(registry, rows[0]["sweep"])
    gone = [run["run"] for run in runs if verdicts[run["run"]].get("collapse") in ("PARTIAL", "SEVERE", "TOTAL")]
    best: dict[str, str] = {}
    for row in rows:
        of_trial = [run for run in runs if run["trial"] == row["trial"] and run["run"] not in gone]
        fresh = [run for run in of_trial if run["role"] == row["role"]] or of_trial
        if row["rank"] is not None and fresh:
            best.setdefault(row["system"], fresh[0]["run"])
    return [best["ns_gan"], best["vae"], *gone[:1]]


def samples(run: str, home: Path | None) -> Images:
    drawn: Any = aigc_lab.load(run, home=home).sample(COUNT)
    return Images(torch.from_numpy(np.ascontiguousarray(drawn)).permute(0, 3, 1, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep")
    parser.add_argument("--home", type=Path)
    options = parser.parse_args()
    runs = shown_runs(options.sweep, options.home)
    real = MNIST5k(MNIST5k.Config(size=16), Path()).load("reference").take(slice(0, COUNT))
    grids = [drawing.grid(each, COLUMNS) for each in (real, *(samples(run, options.home) for run in runs))]
    gap = np.full((grids[0].shape[0], GAP, 3), 255, np.uint8)
    row = [part for grid in grids for part in (grid, gap)][:-1]
    Path(__file__).with_suffix(".png").write_bytes(drawing.png(np.concatenate(row, axis=1)))
    print("real digits,", ", ".join(runs))


if __name__ == "__main__":
    main()
