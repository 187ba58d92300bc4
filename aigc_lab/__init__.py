"""A laboratory for generative models: sweeps, scores with intervals, and a registry that compares them."""

__version__ = "0.1.0"
