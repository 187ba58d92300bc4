"""SeqGAN (Yu, Zhang, Wang & Yu 2017): the generator's policy is rewarded by a critic that reads completed sentences."""

from typing import Any

from torch import Tensor

from aigc_lab.systems.shared.rollout_gan import RolloutGAN


class SeqGAN(RolloutGAN):
    """A sentence is worth the critic's probability that it is real. Defaults are section 4 and the published code: 120
    epochs of maximum likelihood on 10,000 sentences, 16 rollouts, Adam at 10⁻² and 10⁻⁴. Not as there: the critic gets
    new sentences for each update, and `n_critic` is 5 where theirs is 5 × 3 epochs.

    With `reward: constant` what is better than maximum likelihood is not the critic's doing.
    """

    def worth_of(self, features: Tensor, compared: Any) -> Tensor:
        return self.judged(features).sigmoid()
