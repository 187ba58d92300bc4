"""The Inception of 2015-12-05 with pytorch-fid's weights and preprocessing: the only features that make a true FID."""

from aigc_lab.extractors.shared import pretrained


class Inception(pretrained.InceptionFeatures):
    """Features of pool3 [N, 2048], and the logits without bias [N, 1008] that the Inception score reads."""

    short = "inception"
    kind = "inception-2015-12-05"
    dimensions = 2048
