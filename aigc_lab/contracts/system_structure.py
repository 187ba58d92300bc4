"""What a system is made of: its configuration, networks and phases."""

from pydantic import ValidationError

from aigc_lab.config import Strict
from aigc_lab.contracts.base import Broken, Contracts, say
from aigc_lab.contracts.system_case import Case, listed
from aigc_lab.modalities.base import modality, modality_of
from aigc_lab.noise import Draw
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.base import Phase
from aigc_lab.training.optimizers import trained

STRUCTURE: Contracts[Case] = Contracts()


@STRUCTURE.add(once=True)
def unknown_keys_are_refused(case: Case) -> None:
    """A misspelt key of an experiment would be ignored, and a sweep would compare the default with itself."""
    config = case.kind.Config
    if not issubclass(config, Strict):
        raise Broken(f"Config is no aigc_lab.config.Strict but {_bases(config)}: write class Config(Strict)")
    try:
        config.model_validate({**case.options, "no_such_knob": 1})
    except ValidationError as error:
        if any(each["loc"] == ("no_such_knob",) for each in error.errors()):
            return
    raise Broken("Config takes no_such_knob=1: leave model_config as Strict has it")


@STRUCTURE.add(unknown_keys_are_refused)
def every_key_has_a_default(case: Case) -> None:
    """Trial 0 of a sweep runs the defaults, and what an experiment does not mention must have a value."""
    lacking = [
        name for name, info in case.kind.Config.model_fields.items() if info.is_required() and name not in case.options
    ]
    if lacking:
        example = " ".join(f"--set {name}=…" for name in lacking)
        raise Broken(f"Config has no default for {', '.join(lacking)}: give one, or check it with {example}")
    _ = case.config


@STRUCTURE.add(every_key_has_a_default)
def it_can_be_built(case: Case) -> None:
    """Every experiment that names it is refused otherwise."""
    state = case.fresh()
    if not any(parameter.requires_grad for parameter in state.system.parameters()):
        raise Broken("it has no parameters: assign its networks to self, and not to a list or a local name")


@STRUCTURE.add(it_can_be_built)
def its_phases_are_described(case: Case) -> None:
    """The loop builds optimisers and draws noise from this description, and names the curves by it."""
    phases = case.fresh().phases
    if not phases:
        raise Broken("phases() returns none: there is nothing to train")
    for phase in phases:
        if not isinstance(phase, Phase):
            raise Broken(f"phases() returns a {type(phase).__name__}: make it a Phase(name, loss, trains, optimizer)")
        for name, what in phase.noise.items():
            if not isinstance(what, Draw):
                raise Broken(f"phase {phase.name}: noise {name} is a {type(what).__name__}: describe it as a Draw")
        if not trained(phase):
            raise Broken(f"phase {phase.name} trains no parameters")
    names = [phase.name for phase in phases]
    if len(set(names)) < len(names):
        raise Broken(f"phases share a name: {', '.join(names)}")


@STRUCTURE.add(its_phases_are_described)
def every_parameter_is_trained(case: Case) -> None:
    """A network that no phase trains keeps its initial weights, and the variant looks worse than it is."""
    state = case.fresh()
    reached = {id(parameter) for phase in state.phases for parameter in trained(phase)}
    idle = [name for name, p in state.system.named_parameters() if p.requires_grad and id(p) not in reached]
    if idle:
        raise Broken(f"no phase trains {listed(idle)}: add the module to a phase's trains, or requires_grad_(False)")


@STRUCTURE.add(it_can_be_built, once=True)
def what_it_does_not_make_is_refused(case: Case) -> None:
    """A wrong combination must fail before training, with a sentence, and not in the middle of a sweep."""
    for name in Modality:
        shape = modality(name).example_shape()
        if name != case.kind.modality and shape is not None and _refusal(case, shape) is None:
            raise Broken(f"it makes {case.kind.modality}, accepts {name}: call super().__init__(config, shape)")
    kind = modality_of(case.kind)
    odd = kind.odd_shape()
    if odd is None:
        return
    size, refusal = "×".join(map(str, odd.size[1:])), _refusal(case, odd)
    if refusal is not None and size not in str(refusal):
        raise Broken(f"it refuses {kind.noun} of {size} without naming the size: {say(refusal)}")
    if refusal is None:
        generated = case.kind(case.config, odd).eval().generate(2).values.shape
        if generated != (2, *odd.size):
            raise Broken(
                f"it accepts {kind.noun} of {size} and makes {list(generated)}: raise ValueError from __init__"
            )


def _refusal(case: Case, shape: Shape) -> ValueError | None:
    try:
        case.kind(case.config, shape)
    except ValueError as error:
        return error
    return None


def _bases(kind: type) -> str:
    return ", ".join(base.__name__ for base in kind.__bases__)
