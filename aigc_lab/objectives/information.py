"""Lower bound of the mutual information between a code and what is made of it (Chen et al. 2016, equation 4).

I(c; x) ≥ L_I = E[log Q(c|x)] + H(c) in nats, with equality where Q(c|x) is the posterior of the code.
"""

import math

from torch import Tensor

from aigc_lab.objectives.likelihood import normal_log_density


def categorical_bound(logits: Tensor, codes: Tensor) -> Tensor:
    """Log Q(c|x) + H(c) [N] of G uniform codes of K classes: logits of Q and one-hot codes, both [N, G, K]."""
    _, count, classes = codes.shape
    return (codes * logits.log_softmax(2)).sum((1, 2)) + count * math.log(classes)


def uniform_bound(mean: Tensor, log_variance: Tensor, codes: Tensor) -> Tensor:
    """Log Q(c|x) + H(c) [N] of D codes, uniform in [−1, 1], for a Gaussian Q: all [N, D]. Its entropy is differential,
    so that the information of a code that can be read exactly has no upper end.
    """
    return normal_log_density(codes, mean, log_variance).sum(1) + codes.shape[1] * math.log(2)
