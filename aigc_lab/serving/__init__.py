"""Promoted models: `promotion.py` registers one, `restoration.py` creates versions again that MLflow has lost,
`lookup.py` resolves names to weights, `model.py` samples from them, `sample_files.py` writes the samples, and
`pyfunc.py` is what MLflow runs. Only the last needs MLflow.
"""
