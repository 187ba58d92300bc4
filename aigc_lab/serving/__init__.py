"""Promoted models: `promotion.py` registers one, `lookup.py` says which weights a name means, `model.py` samples from
them, `sample_files.py` writes the samples, and `pyfunc.py` is what MLflow runs. Only the last needs MLflow.
"""
