"""No penalty; weight 0."""

from aigc_lab.penalties.base import Penalty


class NoPenalty(Penalty):
    """The critic's loss is its adversarial loss alone."""

    weight = 0.0
    dirac_weight = 1.0
