"""Inception score (Salimans et al. 2016): how decided Inception is on each picture, and undecided on all."""

from aigc_lab.metrics.shared import information


class InceptionScore(information.InformationScore):
    """Inception score of the 1008 logits without bias, as the first implementation reads them, in ten splits.

    torch-fidelity resizes as old TensorFlow does, this package as pytorch-fid does: the same logits in the same order
    give the same score. The classes are ImageNet's, so the score says little of digits or faces. A copy of the training
    set scores as the training set does.
    """

    what, score = "an Inception score", "inception_score"

    @property
    def extractor(self) -> str:
        return "inception"
