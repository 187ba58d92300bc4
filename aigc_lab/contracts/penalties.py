"""What every penalty must do, whoever wrote it: by itself, and in the loss of a small GAN."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from aigc_lab import plugins
from aigc_lab.contracts import system_case, system_losses, system_replicas, system_state, system_structure
from aigc_lab.contracts.base import Broken, Contracts, borrow
from aigc_lab.data.base import Dataset
from aigc_lab.data.digits import Digits
from aigc_lab.data.ring import Ring
from aigc_lab.noise import Draw
from aigc_lab.penalties.base import Penalty
from aigc_lab.systems.base import Loss, System
from aigc_lab.training.optimizers import trained

_SAMPLES = 300
_POINTS = {"hidden": 16, "latent_size": 6}
_PICTURES = {"width": 8, "latent_size": 6, "critic_norm": "none"}
# Of the loss in single precision, whose two terms are added.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Case:
    """A penalty, and options of the small GAN that it is put into."""

    kind: type[Penalty]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What an experiment calls it."""
        file = plugins.file_of(self.kind) if plugins.source_of(self.kind) is not None else None
        return str(file) if file else plugins.name_of(self.kind)

    @cached_property
    def system(self) -> system_case.Case:
        return self.into(penalty=self.name)

    def into(self, **options: Any) -> system_case.Case:
        """A GAN for points, or for pictures where the penalty refuses points, with these options."""
        ring: Dataset = Ring(Ring.Config(), Path())
        small: dict[str, Any]
        try:
            self.kind().check_shape(ring.shape)
            name, dataset, small = "point_gan", ring, dict(_POINTS)
        except ValueError:
            name, dataset, small = "dcgan", Digits(Digits.Config(), Path()), _PICTURES
        kind = plugins.find(System, name)  # type: ignore[type-abstract]
        samples = dataset.load("train").take(slice(0, _SAMPLES))
        return system_case.Case(kind, dataset.shape, samples, small | dict(self.options) | options)

    def losses(self, **options: Any) -> list[Loss]:
        """Of both players, on one batch."""
        case = self.into(**options)
        return [case.loss(phase, 0) for phase in case.fresh().phases]


PENALTY: Contracts[Case] = Contracts()


@PENALTY.add()
def its_weight_is_a_number(case: Case) -> None:
    """An experiment that leaves `penalty_weight` out gets this one."""
    weight = case.kind.weight
    if not isinstance(weight, int | float) or not math.isfinite(weight) or weight < 0:
        raise Broken(f"weight is {weight!r:.60}: say a finite number of at least 0")


@PENALTY.add(its_weight_is_a_number)
def it_goes_with_a_small_gan(case: Case) -> None:
    """Every experiment that names it is refused otherwise."""
    try:
        system_structure.it_can_be_built(case.system)
    except ValidationError as error:
        raise Broken(f"it refuses the options of a small GAN: {error.errors()[0]['msg']}") from error


@PENALTY.add(it_goes_with_a_small_gan)
def its_noise_has_names_of_its_own(case: Case) -> None:
    """Two draws of one name are one draw: samples would share the noise of latents or of augmentation."""
    penalty, size = case.kind(), case.system.shape.size
    drawn = [penalty.sample_noise(which, 4, size) for which in ("real", "fake")] + [penalty.noise(4, 2, size)]
    names = [name for draws in drawn for name in draws]
    wrong = [what for draws in drawn for what in draws.values() if not isinstance(what, Draw)]
    if wrong:
        raise Broken(f"noise is described by a {type(wrong[0]).__name__}: describe it as a Draw")
    taken = [name for name in names if name == "latents" or name.startswith("augment_") or names.count(name) > 1]
    if taken:
        raise Broken(f"noise {taken[0]!r} is drawn by others too, or twice: give each draw a name of its own")


@PENALTY.add(its_noise_has_names_of_its_own)
def what_it_remembers_has_names_of_its_own(case: Case) -> None:
    """It becomes a buffer of the system and is stored under this name; nothing else may be called so."""
    first, second = (case.kind().memory() for _ in range(2))
    for name, value in first.items():
        if not isinstance(value, torch.Tensor) or not torch.equal(value, second[name]):
            raise Broken(f"memory {name!r} begins with another value each time, or is no tensor")


borrow(
    PENALTY,
    lambda case: case.system,
    what_it_remembers_has_names_of_its_own,
    system_losses.losses_are_finite,
    system_losses.a_loss_draws_only_from_its_noise,
    system_losses.a_loss_leaves_its_arguments_alone,
    system_losses.a_step_asks_the_device_for_no_number,
    system_losses.a_step_makes_its_tensors_where_the_weights_are,
    system_losses.a_loss_is_a_function_of_its_arguments,
)


@PENALTY.add(system_losses.a_loss_is_a_function_of_its_arguments)
def a_weight_of_zero_changes_no_loss(case: Case) -> None:
    """A search over the weight compares with no penalty at its lower end."""
    for with_it, without in zip(
        case.losses(penalty=case.name, penalty_weight=0.0), case.losses(penalty="none"), strict=True
    ):
        if not torch.equal(with_it.total, without.total):
            raise Broken(f"with weight 0 a loss is {with_it.total.item():.6g}, and {without.total.item():.6g} without")


@PENALTY.add(system_losses.a_loss_is_a_function_of_its_arguments)
def its_term_is_added_with_its_weight(case: Case) -> None:
    """The curves show the penalty without its weight, and the loss with it."""
    one, two = (case.losses(penalty=case.name, penalty_weight=weight) for weight in (0.5, 2.0))
    for weight, losses in ((0.5, one), (2.0, two)):
        for loss in losses:
            if "penalty" in loss.parts:
                total = loss.parts["adversarial"] + weight * loss.parts["penalty"]
                if not torch.allclose(loss.total, total, rtol=_ROUNDING):
                    raise Broken(f"with weight {weight} the loss is {loss.total.item():.6g}, not {total.item():.6g}")
    for first, second in zip(one, two, strict=True):
        if "penalty" in first.parts and not torch.equal(first.parts["penalty"], second.parts["penalty"]):
            raise Broken("value() depends on the weight, by which it is multiplied afterwards")


@PENALTY.add(system_losses.a_loss_is_a_function_of_its_arguments)
def a_flat_critic_has_finite_gradients(case: Case) -> None:
    """A critic that says the same of all has a gradient of norm 0, where a square root has an infinite slope."""
    state = case.system.fresh()
    with torch.no_grad():
        for parameter in state.system.critic.parameters():  # type: ignore[union-attr]
            parameter.zero_()
    for phase in state.phases:
        loss = case.system.loss(phase, 0)
        gradients = torch.autograd.grad(loss.total, trained(phase), allow_unused=True)
        if not all(value.isfinite().all() for value in (loss.total, *gradients) if value is not None):
            raise Broken(f"phase {phase.name}: the loss or its gradient is not finite: mask before a square root")


borrow(
    PENALTY,
    lambda case: case.system,
    system_losses.a_loss_is_a_function_of_its_arguments,
    system_state.a_seed_decides_the_weights_to_the_bit,
    system_state.a_restored_run_goes_on_as_if_never_stopped,
    system_replicas.it_stacks_under_vmap_or_says_why_not,
    system_replicas.replicas_may_differ_in_what_only_the_losses_read,
)
