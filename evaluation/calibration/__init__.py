"""Simulated cases of which the truth is known: what `calibrate.py` runs."""
