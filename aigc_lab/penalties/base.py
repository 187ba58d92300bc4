"""Penalties, one file each: they keep a critic smooth by a term of its loss, or by a change of its inputs.

The mathematics of those that ship are pure functions in `objectives.penalties`; a file here says which of them is
meant, what it draws, and what it remembers. An experiment names one as `penalty: r1`, or a file: `penalty: ./mine.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import AfterValidator
from torch import Tensor, nn

from aigc_lab import plugins
from aigc_lab.noise import Draw, Noise
from aigc_lab.shape import Shape

#: a key of a `Config` that names a penalty: one that ships or is installed, or a file that ends in .py
Name = Annotated[str, plugins.Named("penalties"), AfterValidator(plugins.Named("penalties").check)]


class Players(NamedTuple):
    """The two networks as functions: as they are, or with other weights."""

    critic: Callable[[Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Turn:
    """A player's loss on one batch of N samples, as a penalty may look at it.

    `real` are the batch's samples [N, …] in the range of the generator's output; `pack` makes the critic's input of
    samples. `critic_loss` and `generator_loss` are the players' own losses without a penalty, as functions of both
    networks; they change no buffer of the system by themselves. `memory` are the system's buffers that the penalty
    asked for, to be changed in place (`copy_`).
    """

    critic: nn.Module
    generator: nn.Module
    real: Tensor
    noise: Noise
    memory: Mapping[str, Tensor]
    pack: Callable[[Tensor], Tensor]
    critic_loss: Callable[[Players], Tensor]
    generator_loss: Callable[[Players], Tensor]


@dataclass(frozen=True)
class CriticTurn(Turn):
    """The critic's: beside, what it read, real and made [N / packing, …], augmented and packed, and what it said of
    both, in single precision (a discriminator's logits). Gradients reach the critic and end at what it read.
    """

    seen_real: Tensor
    seen_fake: Tensor
    real_scores: Tensor
    fake_scores: Tensor


class Penalty:
    """A penalty without state of its own: all that it depends on is in its arguments, so that a run can be resumed and
    replicas of it be trained as one program (`torch.func.vmap`: no branch on a tensor's value).

    A subclass says its `weight` and overrides `value`, or `changed` with `sample_noise`; the other methods have
    defaults that suit most.

    >>> class SmallScores(Penalty):
    ...     weight = 0.1
    ...
    ...     def value(self, turn: CriticTurn) -> Tensor:
    ...         return turn.real_scores.square().mean() + turn.fake_scores.square().mean()
    """

    #: the weight of its paper, for `penalty_weight: null`
    weight: ClassVar[float]
    #: whether a constant that is added to all scores changes it: the critic's last layer then needs a bias
    sees_constant: ClassVar[bool] = False
    #: whether the generator's loss has a term too (`generator_value`); it is then given the real batch as well
    both_players: ClassVar[bool] = False
    #: whether `changed` takes the weight as a 0-d tensor too, as it comes where replicas of one program have weights of
    #: their own; that of a term always may
    tensor_weight: ClassVar[bool] = False
    #: the samples, "real" and "fake", at which it draws the critic's gradient to zero
    zero_centred: ClassVar[frozenset[str]] = frozenset()
    #: whether it is normal noise on all that the critic reads, of which the weight is the standard deviation, and no
    #: term of the loss: an expectation over it can then be computed instead of sampled
    gaussian_noise: ClassVar[bool] = False
    #: the factor of the weight γ that makes the term γ/2 times a square, as Mescheder et al. 2018 write it for the
    #: Dirac-GAN; None for a penalty that has no vector field in this game
    dirac_weight: ClassVar[float | None] = None

    def check_options(self, config: Any) -> None:
        """Raises `ValueError` for a system's `Config` that it does not go with."""

    def check_shape(self, shape: Shape) -> None:
        """Raises `ValueError` for samples that it does not go with."""

    def unstackable(self, system: nn.Module) -> str | None:
        """Why replicas of this system cannot be trained as one program, if the penalty forbids it."""
        return None

    @classmethod
    def takes_any_weight(cls) -> bool:
        """Whether its weight may be a tensor: where it changes no samples, or says so."""
        return cls.tensor_weight or cls.changed is Penalty.changed

    # ---- a term of the loss

    def noise(self, count: int, packs: int, critic_shape: tuple[int, ...]) -> dict[str, Draw]:
        """What `value` draws, by name, for `count` samples in `packs` inputs of the critic [packs, *critic_shape]."""
        return {}

    def value(self, turn: CriticTurn) -> Tensor | None:
        """The term of the critic's loss, 0-d and without its weight; None where it adds none."""
        return None

    def generator_value(self, turn: Turn) -> Tensor | None:
        """The term of the generator's loss, likewise; asked for with `both_players` only."""
        return None

    # ---- a change of what the critic reads

    def sample_noise(self, which: str, count: int, size: tuple[int, ...]) -> dict[str, Draw]:
        """What `changed` draws for `count` samples of this size; `which` of them, "real" or "fake", is in the names."""
        return {}

    def changed(self, samples: Tensor, noise: Noise, which: str, weight: Any) -> Tensor:
        """The samples [N, …] as the critic gets them, after augmentation and before packing. The weight is a float, or,
        with `tensor_weight`, a positive 0-d tensor.
        """
        return samples

    # ---- what it remembers

    def memory(self) -> dict[str, Tensor]:
        """Name -> the first value of each tensor that it remembers; they become buffers of the system, and are stored
        with it.
        """
        return {}

    def after(self, memory: Mapping[str, Tensor]) -> None:
        """Moves what it remembers, in place, after each update of the critic; asked for with a `memory` only."""
