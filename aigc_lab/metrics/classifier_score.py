"""Classifier score: the Inception score (Salimans et al. 2016) with the dataset's own classifier instead."""

from aigc_lab.metrics.shared import information


class ClassifierScore(information.InformationScore):
    """Score in [1, number of the dataset's classes]."""

    what, score = "a classifier score", "classifier_score"

    @property
    def extractor(self) -> str:
        return "classifier"
