"""Which runs of a sweep can be trained as one program, by their resolved plans alone."""

import json

from aigc_lab.experiment.configuration import Configuration
from aigc_lab.training.own_numbers import in_common


def likeness(plan: Configuration) -> str:
    """What runs of a sweep must have in common to be trained as one program, as text: the system and its knobs apart
    from those that only its optimisers or only its losses read, and how it is trained. Seeds may differ.
    """
    shared = in_common(plan.system_class, plan.system_config)
    return json.dumps(
        [plan.system, shared, plan.named_files, plan.training.model_dump(mode="json")], sort_keys=True, default=str
    )


def unstackable(plan: Configuration) -> str | None:
    """Why no run of this plan is trained with others as one program, as far as the experiment says it; None where it
    may be.
    """
    if plan.training.devices > 1:
        return f"training.devices is {plan.training.devices}: several devices train one run"
    if plan.training.channels_last:
        return "training.channels_last does nothing for stacked weights, which lie row by row"
    return None
