"""Runs of sweeps that never took place, for figures."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from aigc_lab.registry.seed_runs import SeedRun
from aigc_lab.verdicts.stability import judge

SIGNATURE = "clf:ring:de12ed48|data:ring:a468ba6a|n:1000|v:2"


def a_run(trial: int = 0, seed: int = 0, value: float | None = 10.0, **changes: Any) -> SeedRun:
    """A run whose score is `value`; without one it diverged, unless `state` says otherwise."""
    signature, better = changes.get("signature", SIGNATURE), changes.get("better", "lower")
    others, scores = changes.pop("others", {}), {}
    if value is not None:
        for name, number in {"fd": value, **others}.items():
            way = better if name == "fd" else "higher"
            scores[name] = {"name": name, "value": number, "floor": 0.5, "signature": signature, "better": way}
    about: dict[str, Any] = {
        "run": f"{changes.get('sweep', 'ring-0123abcd')}.{trial}.{seed}",
        "sweep": "ring-0123abcd",
        "trial": trial,
        "seed": seed,
        "role": "search",
        "system": "vae",
        "state": "DIVERGED" if value is None else "FINISHED",
        "config": {},
        "dataset": "ring",
        "objective": "fd",
        "better": better,
        "signature": None if value is None else signature,
        "last": value,
        "selected": value,
        "reference": value,
        "scores": scores,
        "collapse": "NONE",
        "stability": stability(value),
        "history": [],
        "sampler": "random",
        "drawn": trial > 0,
    }
    return SeedRun(**(about | changes))


def stability(value: float | None, fails: bool = False) -> dict[str, Any]:
    """The stored verdict of a run that went well, that got worse at step 1,200 (`fails`), or that diverged."""
    values = [300.0, 100.0, 30.0] + [10.0] * 8 + [30.0 if fails else 10.0] * 4
    values += [math.nan] if value is None else []
    told = judge([100 * place for place in range(len(values))], values, [0.1] * len(values)).as_dict()
    return {"kind": "stability", "verdict": told["verdict"], "reason": told["reason"], "evidence": told}


def random_search(trials: int = 12, seeds: int = 3, **changes: Any) -> Iterator[SeedRun]:
    """Trials whose score depends on `width` alone."""
    source = np.random.default_rng(3)
    for trial in range(trials):
        config = {
            "width": int(source.choice([8, 16, 32])),
            "lr": float(10 ** source.uniform(-4, -2)),
            "beta": trial % 2,
        }
        for seed in range(seeds):
            value = 64 / config["width"] * float(np.exp(0.05 * source.normal()))
            others = {"coverage": 1 - value / 10}
            yield a_run(trial, seed, value, config=config, others=others, **changes)
