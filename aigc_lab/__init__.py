"""A laboratory for generative models: sweeps, scores with intervals, and a registry that compares them.

import aigc_lab

table = aigc_lab.sweep("digits", trials=4)             # what `aigc-lab sweep digits --trials 4` does
run = aigc_lab.train("ring", changes={"system.lr": 3e-4, "system.latent_size": 32, "system.critic_layers": 3})
aigc_lab.compare("digits")                             # a pandas DataFrame
pictures = aigc_lab.load(run["run"]).sample(16)        # uint8 [16, H, W, C]
"""

__version__ = "0.1.0"

from aigc_lab.api import compare, load, sweep, train
from aigc_lab.errors import Failure, UsageError
from aigc_lab.host import former_names

former_names.install()

__all__ = ["Failure", "UsageError", "__version__", "compare", "load", "sweep", "train"]
