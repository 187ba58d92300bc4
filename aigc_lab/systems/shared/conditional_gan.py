"""Adversarial systems that can be asked for a class: how labels reach the generator and the critic."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from aigc_lab import plugins
from aigc_lab.config import Weight
from aigc_lab.nets.conditional import Auxiliary, Bound, ClassNormalised, Concatenated, Projection
from aigc_lab.penalties.base import Penalty, Players
from aigc_lab.systems.base import Phase
from aigc_lab.systems.shared.adversarial import AdversarialSystem, Judged

Conditional = Literal["none", "concat", "projection", "auxiliary"]
#: what is said of `conditional`
CONDITIONAL = (
    "how labels enter: concat, one-hot to both networks' inputs; projection, an inner product in the critic and batch "
    "norm by class in the generator; auxiliary, the critic names the class"
)


def only(value: Conditional, system: str, other: str) -> Any:
    """The check of the key `conditional` for a `system` that is this value of it; `other` takes them all."""

    def check(given: Any) -> Any:
        if given != value:
            raise ValueError(f"{system} is {other} with conditional {value}; for another value name system {other}")
        return given

    return field_validator("conditional", mode="before")(check)


class ConditionalGAN(AdversarialSystem):
    """An adversarial system whose networks read labels where `conditional` is not none.

    In both phases a sample is made for each label of the batch: labels have the data's distribution, and the n-th real
    and the n-th made sample are of one class, on the line between which WGAN-GP looks. Augmentation, noise and packing
    come before the labels; gradients of a penalty are in the samples alone.

    A subclass builds its networks for `generator_inputs` and `critic_inputs`, and calls `condition` on both before it
    initialises their weights.
    """

    class Config(AdversarialSystem.Config):
        conditional: Conditional = Field("none", description=CONDITIONAL)
        auxiliary_weight: Weight = Field(1.0, description="of the classes' cross-entropy, for conditional auxiliary")

        @model_validator(mode="after")
        def _goes_with_labels(self) -> Any:
            if self.conditional in ("projection", "auxiliary") and self.packing > 1:
                raise ValueError(
                    f"conditional {self.conditional} says of one sample how it fits its class, and packing is "
                    f"{self.packing}: set packing to 1, or conditional to concat"
                )
            if self.conditional == "auxiliary" and plugins.find(Penalty, self.penalty).both_players:
                raise ValueError(
                    f"penalty {self.penalty} reads the losses of both players without their term of the classes; "
                    "choose another penalty, or conditional concat or projection"
                )
            return self

    loss_only = AdversarialSystem.loss_only | {"auxiliary_weight"}
    #: whether the generator has batch normalisation, by which `projection` gives it labels; any other gets them
    #: beside its latents
    batch_normalised: ClassVar[bool] = False

    config: Config

    # ---- networks

    @property
    def generator_inputs(self) -> int:
        """Size of the generator's input: the latents', and one-hot labels."""
        size: int = self.latents(1).size[1]
        return size + (self._classes if self._beside_latents else 0)

    @property
    def critic_inputs(self) -> tuple[int, ...]:
        """What the critic's network reads: `critic_shape`, and planes of one-hot labels if they are concatenated."""
        first, *others = self.critic_shape
        planes = self._classes * self.config.packing if self.config.conditional == "concat" else 0
        return (first + planes, *others)

    def condition(self) -> None:
        """Makes the networks read labels. Raises `ValueError` for networks that cannot."""
        match self.config.conditional:
            case "concat":
                self.critic = Concatenated(self.critic, self._classes)
            case "projection":
                self.critic = Projection(self.critic, self._classes)
            case "auxiliary":
                self.critic = Auxiliary(self.critic, self._classes)
            case "none":
                return
        wrap = Concatenated if self._beside_latents else ClassNormalised
        self.generator = wrap(self.generator, self._classes)

    @property
    def _reads_labels(self) -> bool:
        # Not `conditional`: a subclass may be so in a way of its own, with this key at none.
        return self.config.conditional != "none"

    @property
    def _classes(self) -> int:
        return self.shape.classes or 0

    @property
    def _beside_latents(self) -> bool:
        conditional = self.config.conditional
        return conditional in ("concat", "auxiliary") or (conditional == "projection" and not self.batch_normalised)

    def phases(self, batch_size: int) -> list[Phase]:
        if self._reads_labels and not isinstance(self.generator, Concatenated | ClassNormalised):
            raise ValueError(
                f"its own networks read no labels, and conditional is {self.config.conditional}: set it to none, or "
                "call condition() when both networks are built"
            )
        return super().phases(batch_size)

    # ---- labels of a batch

    def generated(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """The generator's output, of these classes if it reads labels. Raises `ValueError` where they are missing."""
        if self._reads_labels and labels is None:
            raise ValueError("it is conditional: pass labels, int64 [N], beside the latents")
        made: Tensor = self._bound(self.generator, labels)(latents)
        return made

    def _bound(self, network: nn.Module, labels: Tensor | None) -> nn.Module:
        return Bound(network, labels) if self._reads_labels and labels is not None else network

    def _players(self, batch: Any) -> Players:
        critic = self.critic if isinstance(self.critic, Auxiliary) else self._bound(self.critic, batch.labels)
        return Players(critic, self._bound(self.generator, batch.labels))

    # ---- the term of the classes (Odena et al. 2017, eq. 2–3)

    def _judged(self, critic: Any, seen: Tensor) -> Judged:
        if not isinstance(critic, Auxiliary):
            return super()._judged(critic, seen)
        scores, classes = critic.judged(seen)
        return Judged(scores.float(), classes.float())

    def _class_terms(self, batch: Any, said: Mapping[str, Judged]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        logits = {which: judged.classes for which, judged in said.items() if judged.classes is not None}
        if not logits:
            return {}, {}
        entropy = sum(F.cross_entropy(each, batch.labels) for each in logits.values())
        right = {which: (each.argmax(1) == batch.labels).float().mean() for which, each in logits.items()}
        accuracy = {f"class_accuracy_{which}": share for which, share in right.items()}
        return {"auxiliary": (self.config.auxiliary_weight, entropy)}, accuracy
