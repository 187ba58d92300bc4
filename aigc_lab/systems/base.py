"""Systems, the generative models that are trained: networks, the losses of their phases, and `sample()`.

A system knows nothing of the loop, of Optuna, MLflow or metrics. Its configuration is its own `Config`, whose defaults
are those of the paper.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn

from aigc_lab import plugins
from aigc_lab.config import Strict
from aigc_lab.nets.rollouts import RolloutMemory
from aigc_lab.noise import Draw, Key, Noise, draw
from aigc_lab.optimizers.base import Optimizer, from_name
from aigc_lab.samples import Samples
from aigc_lab.shape import Modality, Shape

Scalars = Mapping[str, Tensor]
_NONE: Scalars = MappingProxyType({})
# So many samples are drawn at once, always: a part of a block would give other bits than the whole.
BLOCK = 500


def cosine(first: float, last: float, done: float) -> float:
    """From `first` to `last` along half a cosine, as `done` goes from 0 to 1; `last` from there on (Loshchilov & Hutter
    2017, eq. 5, without restarts).

    >>> cosine(4.0, 1.0, 0.0), cosine(4.0, 1.0, 1.0)
    (4.0, 1.0)
    """
    share = (1 + math.cos(math.pi * min(done, 1.0))) / 2
    return share * first + (1 - share) * last


def scheduled(step: int, value: Callable[[int], float], like: Tensor) -> Tensor:
    """The value of a step as a tensor [] of the type and on the device of `like`: how a loss reads its step, so that
    its steps can be programs all the same.

    >>> scheduled(3, lambda step: step / 4, torch.ones(2))
    tensor(0.7500)
    """
    number = torch.empty((), dtype=like.dtype, device=like.device)  # of replicas as well the step is one
    fill = getattr(step, "fill", None)  # of a step that is being recorded
    if fill is None:
        return number.fill_(value(step))
    fill(number, value)
    return number


@dataclass(frozen=True)
class Decay:
    """What an optimiser's step size and its β₂ come to after `steps` steps, along half a cosine."""

    steps: float
    lr: float
    beta2: float


@dataclass(frozen=True)
class OptimizerConfig:
    """An optimiser, described and not built: the loop builds it (and may stack it).

    `rule` is its name, or a user's file, and `options` are its knobs. `betas` and `eps` reach a rule whose knobs are
    called `beta1`, `beta2` and `eps`; None means the rule's own. A gradient of a norm above `max_norm`, over all that
    the phase trains, is shortened to it (Pascanu et al. 2013). With `decay` the loop sets what `at` says before every
    update: a function of the step, so that a resumed run goes on to the same bits.

    >>> OptimizerConfig(1e-3, (0.5, 0.9)).optimizer.config
    Config(beta1=0.5, beta2=0.9, eps=1e-08)
    """

    lr: float
    betas: tuple[float, float] | None = None
    eps: float | None = None
    rule: str = "adam"
    max_norm: float | None = None
    decay: Decay | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Any, lr: float, betas: tuple[float, float] | None = None, **others: Any) -> Self:
        """The optimiser that a system's `Config` names by its keys `optimizer` and `optimizer_options`.

        Raises `ValueError` where that rule has no knob for a key that is set, or would get it twice: a search over the
        key would compare equal runs.
        """
        rule, given = config.optimizer, config.model_fields_set
        knobs = plugins.find(Optimizer, rule).Config.model_fields  # type: ignore[type-abstract]
        for key in ("beta1", "beta2"):
            if key in given and key in config.optimizer_options:
                raise ValueError(f"{key} is set, and so is optimizer_options.{key}: give one of them")
            if {key, "optimizer"} <= given and key not in knobs:
                raise ValueError(f"{key} is set, and the optimizer {rule} has no such knob: leave it out")
        return cls(lr, betas, rule=config.optimizer, options=config.optimizer_options, **others)

    @cached_property
    def optimizer(self) -> Optimizer:
        """The rule with its knobs. Raises `ValueError` for knobs that it refuses."""
        beta1, beta2 = self.betas or (None, None)
        knobs = plugins.find(Optimizer, self.rule).Config.model_fields  # type: ignore[type-abstract]
        shared = {"beta1": beta1, "beta2": beta2, "eps": self.eps}
        used = {key: value for key, value in shared.items() if value is not None and key in knobs}
        return from_name(self.rule, used | dict(self.options))

    def at(self, step: int) -> dict[str, Any]:
        """The optimiser's options in the update of `step` (from 0), by torch's names; empty without a schedule."""
        if self.decay is None:
            return {}
        done = step / self.decay.steps
        beta2 = getattr(self.optimizer.config, "beta2", None)
        scheduled = None if beta2 is None else cosine(beta2, self.decay.beta2, done)
        return self.optimizer.options(cosine(self.lr, self.decay.lr, done), scheduled)


class Loss(NamedTuple):
    """What a phase minimises, and what explains it; 0-d tensors that stay on the device.

    `parts` are logged as `loss/<phase>/<name>`, `dynamics` as `dynamics/<name>`.
    """

    total: Tensor
    parts: Scalars = _NONE
    dynamics: Scalars = _NONE


class Phase(NamedTuple):
    """One update: a VAE has one phase, a GAN has a critic's and a generator's.

    `loss(batch, noise, step)` is pure in the parameters: what changes beside them lives in registered buffers.
    `noise` says what it draws; the loop draws it from (seed, step, phase, name). `repeat` is a GAN's n_critic.
    Neighbouring phases of one `joint` label are differentiated at the same point, and then updated (simultaneous
    gradient descent); they are not repeated. `after` is called with the step after each update, without gradients: what
    changes how a later loss is computed moves here (clipping, a controller, a power iteration), from buffers in which
    the loss left what it saw. A phase runs in the steps from `start` (counted from 0) until `stop`, which it does not
    run in; None: to the end; of these, in the first and each `every`-th after it. In other steps it is left out, and
    whatever else runs is the same as with it. `begins` are the keys of the configuration that add up to `start`, with
    their values, for who has to change them. `shares` are draws, by name, that are those of another phase's last turn
    in the step: it gets the very tensors and that turn's batch; its own where there is no such phase.
    """

    name: str
    loss: Callable[[Any, Noise, int], Loss]
    trains: list[nn.Module]
    optimizer: OptimizerConfig
    noise: Mapping[str, Draw] = MappingProxyType({})
    repeat: int = 1
    joint: str | None = None
    after: Callable[[int], None] | None = None
    start: int = 0
    stop: int | None = None
    every: int = 1
    begins: Mapping[str, int] = MappingProxyType({})
    shares: Mapping[str, str] = MappingProxyType({})

    def runs(self, step: int) -> bool:
        """Whether it runs in `step`, counted from 0."""
        inside = self.start <= step and (self.stop is None or step < self.stop)
        return inside and (step - self.start) % self.every == 0

    def last_before(self, end: int) -> int:
        """The last step before `end` in which it runs; one before its `start` where there is none."""
        last = (end if self.stop is None else min(self.stop, end)) - 1
        return last - (last - self.start) % self.every if last >= self.start else self.start - 1


def refuse_idle(phases: Sequence[Phase], steps: int) -> None:
    """Raises `ValueError` for a phase that would never run in a training of `steps` steps, and for a step in which none
    would, or only one that leaves steps out.
    """
    # The latest of several: a training that reaches it reaches them all.
    latest = max(phases, key=lambda phase: phase.start, default=None)
    if latest is not None and latest.start >= steps:
        keys = " and ".join(f"{key} {value}" for key, value in latest.begins.items())
        below = f"must {'add up to' if len(latest.begins) > 1 else 'be'} less than {steps}"
        raise ValueError(
            f"phase {latest.name} would never run: starts at {latest.start} of {steps} steps; set training.steps above "
            f"{latest.start}, or let it start earlier{f': {keys} {below}' if keys else ''}"
        )
    for phase in phases:
        if phase.stop is not None and phase.stop <= phase.start:
            raise ValueError(f"phase {phase.name} would never run: starts at {phase.start}, stops at {phase.stop}")
    for step in sorted({0, *(phase.stop for phase in phases if phase.stop is not None)}):
        if step < steps and not any(phase.runs(step) and phase.every == 1 for phase in phases):
            raise ValueError(f"no phase would run at step {step} of {steps}")


def updates_of(phases: Sequence[Phase], modules: Sequence[nn.Module], steps: int) -> int:
    """How often the first `steps` steps update weights of these modules: once for each repeat of a phase that trains
    one of their parameters, in the steps in which it runs.
    """
    weights = {id(weight) for module in modules for weight in module.parameters()}
    count = 0
    for phase in phases:
        if any(id(weight) in weights for module in phase.trains for weight in module.parameters()):
            stop = steps if phase.stop is None else min(phase.stop, steps)
            count += phase.repeat * len(range(phase.start, stop, phase.every))
    return count


class Read(NamedTuple):
    """A key of a configuration that is read only where the key `by` has one of these values or, without values, none of
    those that it is `not_of`; with neither it is read nowhere.
    """

    key: str
    by: str
    values: tuple[object, ...] = ()
    not_of: tuple[object, ...] = ()

    def unread(self, config: Any) -> str | None:
        """Why a configuration that sets the key does not read it; None where it does, or does not set it."""
        value = getattr(config, self.by)
        if self.key not in config.model_fields_set:
            return None
        if not self.values and not self.not_of:
            return f"{self.key} is set, and nothing reads it: leave it out"
        if value in self.values if self.values else value not in self.not_of:
            return None
        said = "null" if value is None else value
        remedy = f"set {self.by} to {' or '.join(map(str, self.values))}" if self.values else f"give {self.by} a value"
        return f"{self.key} is set, and where {self.by} is {said} nothing reads it: leave it out, or {remedy}"


def says_conditional(value: object) -> bool:
    """Whether a value of the key `conditional` makes a system read labels: not "none", None or False."""
    return value not in ("none", None, False)


class Fitted(nn.Module, ABC):
    """Part of a system that `fit_sampler` fits, as buffers. The moving average leaves it alone, since what was fitted
    to one set of weights is no mean of others.
    """


class System(nn.Module, ABC):
    """Networks + objectives + sampling for one `Shape` of data.

    Raises `ValueError` from `__init__` when the configuration does not fit the shape; building one costs no data.

    >>> from aigc_lab.samples import Points
    >>> class Shift(System):  # learns the mean of points
    ...     modality = Modality.POINTS
    ...
    ...     class Config(Strict):
    ...         lr: float = 0.1
    ...
    ...     def __init__(self, config, shape):
    ...         super().__init__(config, shape)
    ...         self.mean = nn.Parameter(torch.zeros(shape.size))
    ...
    ...     def phases(self, batch_size):
    ...         return [Phase("fit", self.loss, [self], OptimizerConfig(self.config.lr))]
    ...
    ...     def loss(self, batch, noise, step):
    ...         return Loss((batch.values - self.mean).square().mean())
    ...
    ...     def samplers(self):
    ...         return [self]
    ...
    ...     def latents(self, count):
    ...         return Draw((count, *self.shape.size))
    ...
    ...     def sample(self, latents, *, labels=None):
    ...         return Points(self.mean + latents)
    >>> system = Shift(Shift.Config(), Shape(Modality.POINTS, (2,)))
    >>> system.generate(1000, "example").values.shape
    torch.Size([1000, 2])
    """

    Config: ClassVar[type[Strict]]
    modality: ClassVar[Modality]
    #: why replicas of it cannot be trained as one program under `torch.func.vmap`; None when they can
    unstackable: str | None = None
    #: why a run of it cannot be trained by several processes, each with a part of the batch (`training.devices`); None
    #: when it can: its losses are means over samples, or take what is no mean by `aigc_lab.nets.joined`
    unparallel: str | None = None
    #: why its steps cannot be run as a program of recorded operations; None when they can: what changes between two
    #: steps lies in registered tensors, and a loss does nothing that Python would have to repeat
    uncapturable: str | None = None
    #: the plugins that its configuration names, by key (`penalty`): the code of those that are users' files is stored
    #: beside its weights
    named: Mapping[str, type] = MappingProxyType({})
    #: fields of `Config` that reach the optimisers and nothing else: replicas trained as one program may differ in them
    optimizer_only: ClassVar[frozenset[str]] = frozenset()
    #: fields of `Config` that its losses (and what comes after an update) read from `self.config` as numbers, and
    #: nothing else but `sample` does, such as the weights of terms: in them too. In a stack of replicas that differ
    #: they are 0-d tensors there, of one sign; Python may ask for that sign (`if config.beta:`), and for nothing more
    loss_only: ClassVar[frozenset[str]] = frozenset()
    #: keys of its configuration that other keys may leave without effect: an experiment that sets such a one is refused
    reads: ClassVar[tuple[Read, ...]] = ()
    #: whether it draws nothing: neither its seed nor its latents change it
    deterministic: ClassVar[bool] = False
    #: whether `sample` reads labels: such a system draws the class that it is asked for; a key `conditional` of its
    #: `Config` other than "none", None or False makes it so
    conditional: bool = False

    def __init__(self, config: Any, shape: Shape) -> None:
        super().__init__()
        if shape.modality != self.modality:
            raise ValueError(f"it makes {self.modality}, and the dataset holds {shape.modality}")
        self.config = config
        self.shape = shape
        fields = getattr(type(config), "model_fields", {})
        if says_conditional(getattr(config, "conditional", None)):
            self.conditional = True
        if self.conditional and shape.classes is None:
            key = fields.get("conditional")
            without = ", or set conditional to none" if key and "none" in get_args(key.annotation) else ""
            raise ValueError(f"it is conditional, and the dataset has no labels; choose one with classes{without}")
        rules = [key for key, field in fields.items() if (each := plugins.named(field)) and each.folder == "optimizers"]
        self.named = {key: plugins.find(Optimizer, getattr(config, key)) for key in rules}  # type: ignore[type-abstract]

    @classmethod
    def loss_only_of(cls, config: Any) -> frozenset[str]:
        """Those of `loss_only` in which replicas of this configuration may differ: all, unless a subclass names others,
        for a plugin in the configuration that cannot read a tensor.
        """
        return cls.loss_only

    @abstractmethod
    def phases(self, batch_size: int) -> list[Phase]:
        """The phases of one step, in order, with the noise each draws for a batch of this size."""

    @abstractmethod
    def samplers(self) -> list[nn.Module]:
        """The modules that `sample` uses, and `encode` where there is one: the loop keeps their moving average."""

    @abstractmethod
    def latents(self, count: int) -> Draw:
        """The draw of `count` latents, the input of `sample`."""

    @abstractmethod
    def sample(self, latents: Tensor, *, labels: Tensor | None = None) -> Samples:
        """One sample for each latent. Images come as floats in [0, 1]."""

    def check_train(self, train: Samples) -> None:
        """Raises `ValueError` for data that it cannot learn from, such as fewer samples than it has codes.

        Called before any training, on systems of the meta device.
        """

    def rollout_memory(self, batch_size: int, device: str = "cpu") -> RolloutMemory | None:
        """What the rollouts of a step hold at most on a device; None for a system that makes none."""
        return None

    def fit_sampler(self, train: Samples) -> None:
        """Fits what `sample` reads beside the trained weights, such as a mixture over latents: buffers of a `Fitted`.

        A function of the weights and of `train` alone. A run calls it on what it samples with, before these weights are
        scored or kept.
        """

    def summary(self) -> Mapping[str, float]:
        """Numbers of the finished system by name, logged with its last scalars; none unless a subclass has some."""
        return {}

    def portrait(self) -> Any:
        """A picture of the finished system, uint8 [H, W, 3]; None unless a subclass draws one."""
        return None

    def _refuse_labels(self, labels: Tensor, count: int) -> None:
        classes = self.shape.classes or 0
        if labels.ndim != 1 or len(labels) < count:
            raise ValueError(f"labels: {count} samples take as many, in one dimension, not {list(labels.shape)}")
        wrong = labels[(labels < 0) | (labels >= classes)]
        if len(wrong):
            raise ValueError(f"labels: it knows the classes 0 to {classes - 1}, not {wrong[0].item()}")

    @torch.inference_mode()
    def generate(
        self, count: int, *key: Key, labels: Tensor | None = None, block: int = BLOCK, **options: Any
    ) -> Samples:
        """`count` samples on the host, of latents keyed by `key`: the same key gives the same samples, and more of them
        begin with the same ones. `labels` (int64 [count]) are the classes of a conditional system's samples; all in
        turn unless given. `options` are those that its `sample` takes beside: how text is drawn (`sampling`).

        Raises `ValueError` for labels that a conditional system does not know, and for fewer than samples.
        """
        if labels is not None and self.conditional:
            self._refuse_labels(labels, count)
        if labels is None and self.conditional and self.shape.classes is not None:
            labels = torch.arange(count) % self.shape.classes
        device = next(self.parameters()).device
        parts = []
        for number, first in enumerate(range(0, count, block)):
            latents = draw(self.latents(block), *key, number, device=device)
            # Whole blocks: a part of one would give other bits than the whole.
            classes = None if labels is None else nn.functional.pad(labels[first:], (0, block))[:block].to(device)
            parts.append(self.sample(latents, labels=classes, **options).take(slice(0, count - first)).to("cpu"))
        # What a conditional system was asked for is what it drew; another system knows no class of what it draws.
        drawn = labels[:count].cpu() if labels is not None and self.conditional else None
        return replace(parts[0], values=torch.cat([part.values for part in parts]), labels=drawn)
