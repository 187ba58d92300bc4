"""The same Inception after its second maximum pool: the mean of 192 channels each, as pytorch-fid's `--dims 192`."""

from aigc_lab.extractors.shared import pretrained


class Inception192(pretrained.InceptionFeatures):
    """Features [N, 192], more of texture and less of content; fewer samples determine them. Never called FID."""

    short = "inception_192"
    kind = "inception-2015-12-05-d192"
    dimensions = 192
