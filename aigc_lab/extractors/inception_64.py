"""The same Inception after its first maximum pool: the mean of 64 channels each, as pytorch-fid's `--dims 64`."""

from aigc_lab.extractors.shared import pretrained


class Inception64(pretrained.InceptionFeatures):
    """Features [N, 64], more of texture and less of content; fewer samples determine them. Never called FID."""

    short = "inception_64"
    kind = "inception-2015-12-05-d64"
    dimensions = 64
