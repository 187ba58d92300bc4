"""The same Inception after its first maximum pool: the mean of 64 channels each, as pytorch-fid's `--dims 64`."""

from aigc_lab.extractors.shared import pretrained


class Inception64(pretrained.InceptionFeatures):
    """Less of what is shown and more of texture; fewer samples determine it. Never called FID."""

    short = "inception_64"
    kind = "inception-2015-12-05-d64"
    dimensions = 64
