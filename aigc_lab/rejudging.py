"""`aigc-lab rejudge`: the verdicts of a sweep's runs again, from what is stored of them."""

import json
import math
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from aigc_lab import environment, experiment
from aigc_lab.data.base import Dataset
from aigc_lab.errors import Failure, UsageError
from aigc_lab.evaluate import Evaluator
from aigc_lab.features import FeatureStore
from aigc_lab.record import Curve, explained
from aigc_lab.registry import queries
from aigc_lab.registry.records import StoredVerdict
from aigc_lab.registry.states import State
from aigc_lab.registry.store import Registry
from aigc_lab.serving import finding
from aigc_lab.settings import Settings
from aigc_lab.statistics import error_of
from aigc_lab.verdicts import stability
from aigc_lab.yamlfile import Document


def rejudge(wanted: str, settings: Settings, device: str) -> list[dict[str, Any]]:
    """Judges the last samples of every finished run by its stored weights, which give the same samples to the bit, and
    the histories of those and of diverged ones by their stored scores; of samples on the way what was said stays, for
    their weights are gone. MLflow's tags follow.

    Returns rows of run, kind, verdict, what it was `before`, and reason; where a run cannot be judged again, the
    verdict is None and the reason says why.
    """
    device = environment.device(device)
    with Registry.open(settings.registry_url, home=settings.home, create=False) as registry:
        sweep = queries.sweep(registry, wanted)
        document = Document(sweep["source"] or sweep["name"], sweep["experiment"])
        plan = experiment.Experiment(sweep["name"], document, settings.data_dir, settings.weights)
        dataset = plan.resolve(lambda hole: hole.ends()[0]).dataset
        store = FeatureStore(dataset, cache=settings.cache, weights=settings.weights, device=device, say=_say)
        evaluator = Evaluator(plan.protocol, plan.metrics, dataset, store)
        known, histories = queries.verdicts(registry, sweep["id"]), queries.histories(registry, sweep["id"])
        files = queries.files(registry, sweep["id"])
        runs, rows, tags = queries.runs(registry, sweep["id"]), [], dict[str, dict[str, str]]()
        _same(dataset, sweep["id"], runs)
        for run in runs:
            if run["state"] not in (State.FINISHED, State.DIVERGED):
                continue
            before = [StoredVerdict(**each) for each in known.get(run["run"], [])]
            history = histories.get(run["run"], [])
            was: dict[str, StoredVerdict] = {each.kind: each for each in before}
            found: list[StoredVerdict] = []
            try:
                found += _of_samples(registry, run, evaluator, device, history)
            except (UsageError, Failure) as error:
                rows.append(_row(run["run"], "collapse", None, was, str(error)))
            curves = _curves(files.get(run["run"], []))
            found += _of_history(registry, run, evaluator, sweep, history, was.get("stability"), curves)
            for fresh in found:
                rows.append(_row(run["run"], fresh.kind, fresh.verdict, was, fresh.reason))
                # A run has one verdict on its history, and one on the samples of each evaluation.
                step = None if fresh.kind == "stability" else fresh.step
                before = [each for each in before if each.kind != fresh.kind or step not in (None, each.step)]
            registry.rejudge(run["run"], [*before, *found])
            if run["mlflow_run_id"] is not None:
                tags[run["mlflow_run_id"]] = {fresh.kind: fresh.verdict for fresh in found}
    _tag(settings, tags)
    return rows


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _row(run: str, kind: str, verdict: str | None, was: dict[str, StoredVerdict], reason: str) -> dict[str, Any]:
    before = was[kind].verdict if kind in was else None
    return {"run": run, "kind": kind, "verdict": verdict, "before": before, "reason": reason}


def _tag(settings: Settings, tags: dict[str, dict[str, str]]) -> None:
    """MLflow's pages filter by tags. Where it is not there, what is stored here holds all the same."""
    from aigc_lab.tracking.mlflow import MlflowTracker

    tracker = MlflowTracker(settings.tracking_uri, settings.artifacts)
    try:
        for run, verdicts in tags.items():
            tracker.tag(run, verdicts)
    except Failure as error:
        _say(f"MLflow's tags still say what was said before: {error}; judge again when it is there")


def _same(dataset: Dataset, sweep: str, runs: list[dict[str, Any]]) -> None:
    """Raises `UsageError` where the data are no longer those that the sweep's scores are of."""
    here = f"data:{dataset.name}:{dataset.digest[:8]}"
    stored = {part for run in runs for score in run["scores"] for part in (score["signature"] or "").split("|")}
    others = sorted(part for part in stored if part.startswith("data:") and part != here)
    if others:
        raise UsageError(
            f"{sweep}: its scores are of other data ({', '.join(others)}) than are here now ({here}); bring those "
            "back, or run the experiment again"
        )


def _of_samples(
    registry: Registry, run: dict[str, Any], evaluator: Evaluator, device: str, history: list[dict[str, Any]]
) -> list[StoredVerdict]:
    if run["state"] != State.FINISHED or not history:
        return []
    system = finding.of_run(registry, run["run"], "last").load(device).system
    samples = system.generate(evaluator.protocol.samples, run["seed"], "evaluation", "reference")
    _, said = evaluator.examine(samples, "reference", system, judged=True)
    return [] if said is None else [StoredVerdict.of("collapse", history[-1]["step"], said.as_dict())]


def _curves(files: list[dict[str, Any]]) -> dict[str, Curve]:
    """The training scalars of a run over its steps; none where their file is gone."""
    path = next((file["path"] for file in files if file["name"] == "curves"), None)
    with suppress(OSError, ValueError):
        found: dict[str, Curve] = json.loads(Path(path).read_text("utf-8")) if path is not None else {}
        return found
    return {}


def _of_history(
    registry: Registry,
    run: dict[str, Any],
    evaluator: Evaluator,
    sweep: dict[str, Any],
    history: list[dict[str, Any]],
    was: StoredVerdict | None,
    curves: dict[str, Curve],
) -> list[StoredVerdict]:
    """At the step of the verdict before: a run may have diverged after its last evaluation, or before the first."""
    if was is None and not history:
        return []
    step = history[-1]["step"] if was is None else was.step
    diverged = (step, queries.show(registry, run["run"])["reason"] or "diverged")
    said = stability.judge(
        [each["step"] for each in history],
        [math.nan if each["value"] is None else each["value"] for each in history],
        [error_of(each["low"], each["high"]) for each in history],
        baseline=evaluator.baseline(sweep["objective"]),
        better=sweep["better"],
        diverged_at=diverged if run["state"] == State.DIVERGED else None,
    )
    return [StoredVerdict.of("stability", step, explained(said, curves).as_dict())]
