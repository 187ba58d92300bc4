"""The same Inception after its second maximum pool: the mean of 192 channels each, as pytorch-fid's `--dims 192`."""

from aigc_lab.extractors.shared import pretrained


class Inception192(pretrained.InceptionFeatures):
    """Less of what is shown and more of texture; fewer samples determine it. Never called FID."""

    short = "inception_192"
    kind = "inception-2015-12-05-d192"
    dimensions = 192
