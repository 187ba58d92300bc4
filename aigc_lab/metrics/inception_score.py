"""Inception score (Salimans et al. 2016): how decided Inception is on each picture, and undecided on all."""

from aigc_lab.metrics.shared import information


class InceptionScore(information.InformationScore):
    """Of the 1008 logits without their bias, which is what the first implementation read, in ten splits.

    torch-fidelity's differs by its resize, which is TensorFlow's of old, where pytorch-fid's is used here: of the same
    logits in the same order both give the same. The classes are ImageNet's: the score knows what they are, and says
    little of digits or faces. A copy of the training set scores as the training set does.
    """

    what, score = "an Inception score", "inception_score"

    @property
    def extractor(self) -> str:
        return "inception"
