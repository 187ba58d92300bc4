"""The same Inception before its auxiliary classifier: the mean of 768 channels each, as pytorch-fid's `--dims 768`."""

from aigc_lab.extractors.shared import pretrained


class Inception768(pretrained.InceptionFeatures):
    """Features [N, 768], more of texture and less of content than pool3; fewer samples determine them. Never called
    FID.
    """

    short = "inception_768"
    kind = "inception-2015-12-05-d768"
    dimensions = 768
