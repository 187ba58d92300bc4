"""Goals of a manager (Vezhnevets et al. 2017; Guo et al. 2018): directions in which its worker is to move what a critic
sees. Features f_0 to f_L are [N, L + 1, G], goals g_0 to g_{L−1} are [N, L, G].
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def reached(features: Tensor, goals: Tensor, horizon: int) -> Tensor:
    """The cosine [N, L] of each goal g_t and the change f_{t+c} − f_t that followed within c places, or within fewer at
    the end; 0 where nothing changed.
    """
    ends = (torch.arange(goals.shape[1], device=goals.device) + horizon).clamp_max(goals.shape[1])
    return F.cosine_similarity(features[:, ends] - features[:, :-1], goals, dim=2)


def intrinsic(features: Tensor, goals: Tensor, horizon: int) -> Tensor:
    """The worker's reward [N, L] for the word at place t, from 1: 1/c Σᵢ cos(f_t − f_{t−i}, g_{t−i}) over i = 1, …, c
    (Guo et al. 2018); a goal from before the sentence counts 0.
    """
    total = torch.zeros_like(goals[..., 0])
    for back in range(1, min(horizon, goals.shape[1]) + 1):
        change = features[:, back:] - features[:, :-back]
        cosine = F.cosine_similarity(change, goals[:, : goals.shape[1] + 1 - back], dim=2)
        total = total + F.pad(cosine, (back - 1, 0))
    return total / horizon
