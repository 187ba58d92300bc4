"""Checks of an experiment before any training: its holes, systems, protocol, objective and data."""

import itertools
import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NoReturn

from aigc_lab import plugins
from aigc_lab.experiment import space
from aigc_lab.experiment.sections import Objective
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
    """Checks both ends of every hole, the protocol and the objective; the data are not loaded.

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
    _check_protocol(experiment, dataset, kinds)
    _check_objective(experiment)
    if experiment.file.search.sampler == "grid":
        space.grid(experiment.document)


def check_data(experiment: Experiment) -> list[str]:
    """Loads the data, and downloads them and the weights of extractors where that is needed; returns the notes of the
    dataset. Raises `UsageError` for a scored split with fewer samples than the protocol takes.
    """
    from aigc_lab.extractors.shared import lookup

    for name in {metric.extractor for metric in experiment.metrics if metric.extractor}:
        lookup.find_extractor(name).fetch(experiment.weights, lambda text: print(text, file=sys.stderr))
    dataset = experiment.dataset
    splits: tuple[Literal["reference", "holdout"], ...] = ("reference", "holdout")
    for split in splits:
        count = len(dataset.load(split))
        if count < experiment.protocol.samples:
            _refuse_split(experiment, dataset, split, count)
    return dataset.notes


def _refuse_split(experiment: Experiment, dataset: "Dataset", split: str, count: int) -> NoReturn:
    """Raises `UsageError` for a split with too few samples, with the remedy that its `count` leaves."""
    protocol = experiment.protocol
    for metric in experiment.metrics:
        try:
            metric.check(dataset, count)
        except ValueError as error:
            experiment.document.fail(
                ("data",),
                f"the {split} split of {dataset.name} has {count} samples, too few to be scored "
                f"({error}); the dataset must be larger, or set evaluation.fewer to true, which leaves out "
                "what cannot be computed",
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
        if hole.path == ("system", "name"):
            fail(hole.source, "a choice of systems is a choice of mappings, each with a name")


def _check_systems(experiment: Experiment) -> "tuple[Dataset, dict[str, type[System]]]":
    """Builds every system at both ends of each of its holes; returns the dataset, and the systems by name."""
    import torch

    systems: dict[str, type[System]] = {}
    for filled in space.corners(experiment.document):
        configuration = experiment.resolve(lambda hole, values=filled.values: values[hole.name])  # type: ignore[misc]
        dataset, kind, config = configuration.dataset, configuration.system_class, configuration.system_config
        try:
            with torch.device("meta"), plugins.blamed(kind, ValueError):
                phases = kind(config, dataset.shape).phases(configuration.training.batch_size)
                names.refuse_curves(phase.name for phase in phases)
                names.refuse_parameters(type(config).model_fields)
        except _BUILD_ERRORS as error:
            experiment.document.fail(
                filled.source(("system",)),
                f"{configuration.system} cannot be built for dataset {dataset.name} "
                f"({dataset.shape}): {_sentence(error)}",
            )
        systems[configuration.system] = kind
    return dataset, systems


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


def _check_protocol(experiment: Experiment, dataset: "Dataset", systems: "Mapping[str, type[System]]") -> None:
    """Raises `UsageError` for a metric that cannot score the dataset or one of the systems."""
    from aigc_lab.extractors.shared import lookup

    protocol = experiment.protocol
    for metric, (name, _) in zip(experiment.metrics, protocol.metrics, strict=True):
        try:
            names.refuse_scores(metric.gives)
            metric.check(dataset, protocol.samples)
            if metric.extractor:
                lookup.find_extractor(metric.extractor).check(dataset, experiment.weights)
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


def _check_needs(metric: "Metric", systems: "Mapping[str, type[System]]") -> None:
    """Raises `ValueError` for the first system that lacks what a metric `needs`."""
    from aigc_lab.metrics.base import Autoencoder, Coder, Game
    from aigc_lab.text.likelihood import Likelihood

    for system, kind in systems.items():
        if "codes" in metric.needs and not issubclass(kind, Coder):
            raise ValueError(f"it needs a system that encodes (encode, decode), and {system} has no encoder")
        if "encoder" in metric.needs and not issubclass(kind, Autoencoder):
            lacking = "no log_likelihood" if issubclass(kind, Coder) else "none"
            raise ValueError(
                f"it needs a system with an encoder (encode, decode, log_likelihood), and {system} has {lacking}"
            )
        if "likelihood" in metric.needs and not issubclass(kind, Likelihood):
            raise ValueError(f"it needs a system that gives sentences a probability (token_nll), and {system} has none")
        if "game" in metric.needs and not issubclass(kind, Game):
            raise ValueError(f"it needs a game of two numbers, like system dirac, and {system} is none")
        if "labels" in metric.needs and not kind.conditional:
            raise ValueError(f"labels missing: {system} is not conditional, so its samples come without their classes")
