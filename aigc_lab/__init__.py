"""A laboratory for generative models: sweeps, scores with intervals, and a registry that compares them.

import aigc_lab

table = aigc_lab.sweep("digits", trials=4)             # what `aigc-lab sweep digits --trials 4` does
run = aigc_lab.train("ring", changes={"system.lr": 3e-4, "system.latent_size": 32, "system.critic_layers": 3})
aigc_lab.compare("digits")                             # a pandas DataFrame; ranking("digits") is shown, and LaTeX
aigc_lab.plot("digits", kind="seeds")                  # a matplotlib Figure; path="seeds.pdf" writes it too
aigc_lab.runs("digits")                                # a record a run, for pandas.DataFrame
pictures = aigc_lab.load(run["run"]).sample(16)        # uint8 [16, H, W, C]
aigc_lab.evaluate(pictures, "digits")                  # scores of arrays, folders, runs; judge(...) the verdict
"""

__version__ = "0.1.0"

from typing import TYPE_CHECKING

from aigc_lab import api
from aigc_lab.api import compare, judge, load, plot, ranking, sweep, train
from aigc_lab.errors import Failure, UsageError
from aigc_lab.host import called_modules, former_names

if TYPE_CHECKING:
    from aigc_lab.api import evaluate, runs

former_names.install()
called_modules.install(__name__, {"evaluate": api.evaluate, "runs": api.runs})

__all__ = [
    "Failure",
    "UsageError",
    "__version__",
    "compare",
    "evaluate",
    "judge",
    "load",
    "plot",
    "ranking",
    "runs",
    "sweep",
    "train",
]
