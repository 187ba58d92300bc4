"""Promoted models: `promotion.py` registers one, `finding.py` says which weights a name means, `model.py` samples from
them, `output.py` writes the samples, and `pyfunc.py` is what MLflow runs. Only the last needs MLflow.
"""
