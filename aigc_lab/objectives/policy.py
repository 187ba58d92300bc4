"""Policy gradients of sentences: rewards of words, what is taken from them, and the loss whose gradient they weigh."""

import torch
from torch import Tensor

from aigc_lab.nets import joined


def reinforce(log_probabilities: Tensor, rewards: Tensor) -> Tensor:
    """−1/N Σₙ Σₜ rewardₙₜ · log pₙₜ of N sentences, 0-d: its gradient is minus that of the expected reward (Williams
    1992; Yu et al. 2017, eq. 8). Both are [N, L]; places that are no words have the reward 0.
    """
    return -(rewards.detach() * log_probabilities).sum() / len(rewards)


def others_mean(rewards: Tensor) -> Tensor:
    """The mean reward [N, L] of the other sentences at each place: a baseline that leaves the gradient unbiased, since
    it depends on no word of its own sentence.

    Raises `ValueError` for one sentence, which has no others.
    """
    everyone = joined.gather(rewards)
    if len(everyone) < 2:
        raise ValueError("a baseline of the other sentences needs two sentences at least")
    return (everyone.sum(0) - rewards) / (len(everyone) - 1)


def maligan(scores: Tensor, baseline: float = 0.0) -> Tensor:
    """Weights [N] of whole sentences: D / (1 − D) over its sum, minus the baseline b / N (Che et al. 2017, eq. 5; the
    importance weights of a critic's logits [N] are exp(logit)).
    """
    return scores.float().softmax(0) - baseline / len(scores)


def ranked(features: Tensor, references: Tensor, comparisons: Tensor, temperature: float) -> Tensor:
    """How a sentence ranks among comparisons, log probability [N], averaged over the references (Lin et al. 2017, eq. 2
    to 4): relevance is the cosine of features, `features` [N, D], `references` [U, D], `comparisons` [C, D].
    """
    own, said, against = (torch.nn.functional.normalize(each, dim=1) for each in (features, references, comparisons))
    relevance = temperature * own @ said.T
    others = torch.logsumexp(temperature * against @ said.T, 0)
    return (relevance - torch.logaddexp(relevance, others)).exp().mean(1).log()


def rescaled(rewards: Tensor, sharpness: float) -> Tensor:
    """σ(δ · (0.5 − rank / B)) of rewards [B, L], ranked within the batch at each place, the largest first: bootstrapped
    rescaled activation, whose mean and spread no critic changes (Guo et al. 2018). Equal rewards share the mean
    of their ranks.
    """
    everyone = joined.gather(rewards)
    above = (everyone[None] > rewards[:, None]).float().sum(1)
    equal = (everyone[None] == rewards[:, None]).float().sum(1)
    rank = above + (equal + 1) / 2
    return torch.sigmoid(sharpness * (0.5 - rank / len(everyone)))
