"""Checks of an experiment before any training: its holes, systems, protocol, objective and data."""

import itertools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NoReturn

from aigc_lab import plugins
from aigc_lab.errors import UsageError
from aigc_lab.experiment import space
from aigc_lab.experiment.sections import Objective, Training
from aigc_lab.experiment.yaml_file import KeyPath
from aigc_lab.host import content, names

if TYPE_CHECKING:
    from aigc_lab.data.base import Dataset
    from aigc_lab.metrics.base import Metric
    from aigc_lab.systems.base import System
from aigc_lab.experiment.experiment import Experiment

# The most combinations of batch sizes and packings: networks are built for each of them.
_COMBINATIONS = 10_000


# Errors of a system that cannot be built: its own refusals, and what torch or foreign code raises for impossible sizes.
_BUILD_ERRORS = (ValueError, TypeError, ArithmeticError, MemoryError, RuntimeError)


# evaluate_every must be a multiple of log_every, which the two ends of a range do not show for the values between.
_TIED: tuple[KeyPath, ...] = (("training", "evaluate_every"), ("training", "log_every"))


def check_experiment(experiment: Experiment) -> None:
    """Checks both ends of every hole, the protocol and the objective. The data are not loaded, but for files of a user
    that something else is wrong with: what all of it needs is said at once.

    Networks are built on the meta device, where they take no memory. Raises `UsageError` with the key that is wrong.
    """
    _ = experiment.file  # the types of all sections are checked before a value is compared
    _check_places(experiment)
    dataset, kinds = _check_systems(experiment)
    try:
        names.refuse_parameters(type(dataset.config).model_fields)
    except ValueError as error:
        experiment.document.fail(("data", "name"), f"dataset {dataset.name}: {error}")
    _check_batches(experiment)
    _check_metrics(experiment, dataset)
    _check_scores(experiment, dataset, kinds)
    if experiment.file.search.sampler == "grid":
        space.grid(experiment.document)


def check_data(experiment: Experiment) -> list[str]:
    """Loads the data, and downloads them and the weights of extractors where that is needed; returns the notes of the
    dataset. Raises `UsageError` for a scored split with fewer samples than the protocol takes, for a system that cannot
    learn from *train*, and for data that a metric cannot measure.
    """
    from aigc_lab.extractors.shared import lookup

    for name in {metric.extractor for metric in experiment.metrics if metric.extractor}:
        lookup.find_extractor(name).fetch(experiment.weights, lambda text: print(text, file=sys.stderr))
    dataset = experiment.dataset
    _check_sizes(experiment, dataset)
    _check_train(experiment, dataset)
    protocol = experiment.protocol
    for metric, (name, _) in zip(experiment.metrics, protocol.metrics, strict=True):
        try:
            metric.check_data(dataset, protocol.samples)
        except ValueError as error:
            experiment.document.fail(("evaluation",), f"protocol {protocol.name}: metric {name}: {error}")
    return dataset.notes


def _check_sizes(experiment: Experiment, dataset: "Dataset") -> None:
    """Raises `UsageError` for a scored split, which it loads, with fewer samples than the protocol takes."""
    splits: tuple[Literal["reference", "holdout"], ...] = ("reference", "holdout")
    for split in splits:
        count = len(dataset.load(split))
        if count < experiment.protocol.samples:
            _refuse_split(experiment, dataset, split, count)


def _check_train(experiment: Experiment, dataset: "Dataset") -> None:
    """Raises `UsageError` for a system that, at an end of a hole, refuses the training data."""
    import torch

    from aigc_lab.systems.base import System

    for filled in space.corners(experiment.document):
        configuration = experiment.resolve(lambda hole, values=filled.values: values[hole.name])  # type: ignore[misc]
        kind = configuration.system_class
        if kind.check_train is System.check_train:
            continue
        with torch.device("meta"):
            system = kind(configuration.system_config, dataset.shape)
        try:
            with plugins.blamed(kind, ValueError):
                system.check_train(dataset.load("train"))
        except ValueError as error:
            experiment.document.fail(filled.source(("system",)), f"{configuration.system}: {_sentence(error)}")


def _refuse_split(experiment: Experiment, dataset: "Dataset", split: str, count: int) -> NoReturn:
    """Raises `UsageError` for a split with too few samples, with the remedy that its `count` leaves."""
    protocol, objectives = experiment.protocol, {each.score for each in experiment.file.objectives}
    reasons: dict[str, None] = {}
    # `fewer` leaves an objective out with its metric, and takes another only where the user named none.
    named = any(path[:1] == ("objective",) for path in experiment.document.overridden)
    fewer = ", or set evaluation.fewer to true, which leaves out what cannot be computed"
    for metric in experiment.metrics:
        try:
            metric.check(dataset, count)
        except ValueError as error:
            reasons[str(error)] = None
            fewer = "" if named and objectives & metric.gives.keys() else fewer
    if reasons:
        experiment.document.fail(
            ("data",),
            f"the {split} split of {dataset.name} has {count} samples, too few to be scored ({'; '.join(reasons)}); "
            f"the dataset must be larger{fewer}",
        )
    experiment.document.fail(
        ("evaluation", "samples"),
        f"protocol {protocol.name} takes {protocol.samples} samples, and the {split} split of "
        f"{dataset.name} has {count}; set evaluation.samples to {count} or less",
    )


def _check_places(experiment: Experiment) -> None:
    """Raises `UsageError` for a hole at a key that cannot be searched."""
    fail = experiment.document.fail
    for hole in experiment.holes:
        if hole.path[:1] not in (("system",), ("training",)):
            fail(hole.source, "a hole may stand in system and in training only; give this one a value")
        if hole.path in _TIED and hole.kind != "choice":
            fail(hole.source, "its values must fit another key's: give them as a choice")
        if hole.path == ("training", "devices"):
            fail(hole.source, "give it one number: what is trained on several devices is the same but for roundings")
        if hole.path == ("system", "name"):
            fail(hole.source, "a choice of systems is a choice of mappings, each with a name")


def _check_systems(experiment: Experiment) -> "tuple[Dataset, dict[str, System]]":
    """Builds every system at both ends of each of its holes; returns the dataset, and the systems by name. Of two that
    share one, the one that is not conditional is returned: it gives metrics less.
    """
    import torch

    from aigc_lab.systems.base import refuse_idle

    systems: dict[str, System] = {}
    unread: dict[tuple[KeyPath, str], dict[str, str]] = {}
    for filled in space.corners(experiment.document):
        configuration = experiment.resolve(lambda hole, values=filled.values: values[hole.name])  # type: ignore[misc]
        dataset, kind, config = configuration.dataset, configuration.system_class, configuration.system_config
        try:
            with torch.device("meta"), plugins.blamed(kind, ValueError):
                system = kind(config, dataset.shape)
                phases = system.phases(configuration.training.batch_size)
                _refuse_parts(system, configuration.training)
                names.refuse_curves(phase.name for phase in phases)
                names.refuse_parameters(type(config).model_fields)
        except _BUILD_ERRORS as error:
            experiment.document.fail(
                filled.source(("system",)),
                f"{configuration.system} cannot be built for dataset {dataset.name} "
                f"({dataset.shape}): {_sentence(error)}",
            )
        try:
            refuse_idle(phases, configuration.training.steps)
        except ValueError as error:
            experiment.document.fail(filled.source(("system",)), f"{configuration.system}: {error}")
        place = filled.source(("system",)), configuration.system
        reasons = {rule.key: why for rule in kind.reads if (why := rule.unread(config)) is not None}
        # A key that is read at one end of a choice is of use.
        before = unread.setdefault(place, reasons)
        unread[place] = {key: why for key, why in before.items() if key in reasons}
        if configuration.system not in systems or not system.conditional:
            systems[configuration.system] = system
    for (source, name), reasons in unread.items():
        for why in reasons.values():
            experiment.document.fail(source, f"{name}: {why}")
    return dataset, systems


def _refuse_parts(system: "System", training: Training) -> None:
    """Raises `ValueError` for a system that cannot be trained on `training.devices`."""
    if training.devices > 1:
        from aigc_lab.training.parts import cuts

        cuts(system, training.batch_size, training.devices)


def _check_batches(experiment: Experiment) -> None:
    """Tries every batch size with every packing: the ends of both ranges do not show what lies between them."""
    import torch

    holes = [hole for hole in experiment.holes if hole.path[-1] in ("batch_size", "packing")]
    if not holes:
        return
    if math.prod(len(hole.all()) for hole in holes) > _COMBINATIONS:
        experiment.document.fail(holes[-1].source, f"more than {_COMBINATIONS:,} combinations of batches and packings")
    for combination in itertools.product(*(hole.all() for hole in holes)):
        for system in experiment.systems:
            values = {"system": system} | dict(zip([hole.name for hole in holes], combination, strict=True))
            plan = experiment.resolve(lambda hole, values=values: values.get(hole.name, hole.ends()[0]))  # type: ignore[misc]
            with torch.device("meta"):
                networks = plan.system_class(plan.system_config, plan.dataset.shape)
            try:
                networks.phases(plan.training.batch_size)
            except ValueError as error:
                experiment.document.fail(holes[-1].source, f"{plan.system}: {error}")


def _check_metrics(experiment: Experiment, dataset: "Dataset") -> None:
    """Raises `UsageError` for a metric that cannot score the dataset."""
    from aigc_lab.extractors.shared import lookup

    protocol = experiment.protocol
    for metric, (name, _) in zip(experiment.metrics, protocol.metrics, strict=True):
        try:
            names.refuse_scores(metric.gives)
            metric.check(dataset, protocol.samples)
            if metric.extractor:
                lookup.find_extractor(metric.extractor).check(dataset, experiment.weights)
        except ValueError as error:
            experiment.document.fail(("evaluation",), f"protocol {protocol.name}: metric {name}: {error}")


def _check_scores(experiment: Experiment, dataset: "Dataset", systems: "Mapping[str, System]") -> None:
    """Raises `UsageError` for systems and an objective that do not go with the protocol, with all that is wrong in one
    sentence; and where something is, for too few samples in the files of a user.
    """
    refusals: list[str] = []

    def tried(check: Callable[[], None]) -> None:
        try:
            check()
        except UsageError as error:
            refusals.append(str(error))

    tried(lambda: _check_systems_scored(experiment, systems))
    tried(lambda: _check_objective(experiment))
    if refusals and not dataset.fixed:
        tried(lambda: _check_sizes(experiment, dataset))
    if refusals:
        raise UsageError("; also ".join(refusals))


def _check_systems_scored(experiment: Experiment, systems: "Mapping[str, System]") -> None:
    """Raises `UsageError` for systems that a metric cannot score."""
    protocol = experiment.protocol
    for metric, (name, _) in zip(experiment.metrics, protocol.metrics, strict=True):
        try:
            _check_needs(metric, systems)
        except ValueError as error:
            experiment.document.fail(("evaluation",), f"protocol {protocol.name}: metric {name}: {error}")


def _check_objective(experiment: Experiment) -> None:
    """Raises `UsageError` for an objective that the protocol does not compute, or that has no better direction, and for
    a search that cannot have several.
    """
    search, listed = experiment.file.search, isinstance(experiment.document.data.get("objective"), list)
    for index, objective in enumerate(experiment.file.objectives):
        place: KeyPath = ("objective", index) if listed else ("objective",)
        _check_score(experiment, objective, (*place, "minimize" if objective.minimize else "maximize"))
    if len(experiment.file.objectives) == 1:
        return
    if not experiment.pruner.idle:
        experiment.document.fail(
            ("search", "pruner"), "a pruner goes by one objective, and this sweep has several; set it to none"
        )
    if search.sampler == "cma_es":
        experiment.document.fail(
            ("search", "sampler"), "cma_es takes one objective, and this sweep has several; use nsga2, gp or tpe"
        )


def _check_score(experiment: Experiment, objective: Objective, at: KeyPath) -> None:
    protocol, fail = experiment.protocol, experiment.document.fail
    scores: dict[str, str] = {}
    for metric in experiment.metrics:
        scores |= metric.gives
    if objective.score not in scores:
        fail(at, content.unknown_name(f"score of protocol {protocol.name}", objective.score, list(scores)))
    if any(objective.score in metric.describing() for metric in experiment.metrics):
        fail(at, f"{objective.score} describes a system: neither more nor less of it is better; choose another score")
    if scores[objective.score] != objective.better:
        verb = "minimize" if scores[objective.score] == "lower" else "maximize"
        fail(at, f"{objective.score} is better when it is {scores[objective.score]}; use {verb}")


def _sentence(error: BaseException) -> str:
    """The first line of an error's message, after the name of its class unless it is a `ValueError`."""
    text = (str(error).strip().splitlines() or [""])[0][:300]
    return text if type(error) is ValueError and text else f"{type(error).__name__}{': ' if text else ''}{text}"


def _check_needs(metric: "Metric", systems: "Mapping[str, System]") -> None:
    """Raises `ValueError` for the first system that lacks what a metric `needs`."""
    from aigc_lab.metrics.base import NO_COPY, Autoencoder, Coder, Game, reconstructs
    from aigc_lab.text.likelihood import Likelihood

    for name, system in systems.items():
        if "codes" in metric.needs and not isinstance(system, Coder):
            raise ValueError(f"it needs a system that encodes (encode, decode), and {name} has no encoder")
        if "reconstructions" in metric.needs and not reconstructs(system):
            raise ValueError(f"it needs a system that copies what it encodes, and {name} does not: {NO_COPY}")
        if "encoder" in metric.needs and not isinstance(system, Autoencoder):
            lacking = "no log_likelihood" if isinstance(system, Coder) else "none"
            raise ValueError(
                f"it needs a system with an encoder (encode, decode, log_likelihood), and {name} has {lacking}"
            )
        if "likelihood" in metric.needs and not isinstance(system, Likelihood):
            raise ValueError(f"it needs a system that gives sentences a probability (token_nll), and {name} has none")
        if "game" in metric.needs and not isinstance(system, Game):
            raise ValueError(f"it needs a game of two numbers, like system dirac, and {name} is none")
    if "labels" in metric.needs:
        _refuse_unlabelled({name: system for name, system in systems.items() if not system.conditional})


def _refuse_unlabelled(systems: "Mapping[str, System]") -> None:
    """Raises `ValueError` for systems that are not conditional, all of them."""
    settable = [name for name, system in systems.items() if hasattr(system.config, "conditional")]
    others = [name for name in systems if name not in settable]
    several = len(systems) > 1
    remedies = []
    if settable:
        remedies.append(f"set {f'`conditional` of {_listed(settable)}' if several else 'its `conditional`'}")
    if others:
        remedies.append(f"choose a system that is{f' in place of {_listed(others)}' if several else ''}, as cgan")
    if systems:
        are, their = ("are", "their") if several else ("is", "its")
        raise ValueError(
            f"labels missing: {_listed([*systems])} {are} not conditional, so {their} samples come without their "
            f"classes; {', and '.join(remedies)}"
        )


def _listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
