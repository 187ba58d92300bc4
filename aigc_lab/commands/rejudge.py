"""`aigc-lab rejudge`: the verdicts of a sweep's runs again, from what is stored of them."""

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from aigc_lab.data.base import Dataset
from aigc_lab.errors import Failure, UsageError
from aigc_lab.experiment.protocol import Protocol
from aigc_lab.experiment.stored import stored_experiment
from aigc_lab.host import environment, run_folders, shared_files
from aigc_lab.host.files import write_atomically
from aigc_lab.host.settings import Settings
from aigc_lab.registry.home import open_registry
from aigc_lab.registry.records import StoredArtifact, StoredVerdict
from aigc_lab.registry.run_lifecycle import RESULTS
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import artifacts_by_run, objective_histories, show_sweep
from aigc_lab.registry.verdicts import verdicts_by_run
from aigc_lab.runs.record import Curve, judge_history
from aigc_lab.scoring.evaluator import Evaluator
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.serving import lookup
from aigc_lab.sweeps import ownership


def rejudge_sweep(sweep_name: str, settings: Settings, device: str) -> list[dict[str, Any]]:
    """Judges the last samples of every finished run, drawn again from its stored weights, and draws what they lack;
    judges the stored histories of finished, pruned and diverged runs. Verdicts on earlier samples of a run stay, for
    their weights are gone. MLflow's tags are updated.

    Returns rows of run, kind, verdict, what it was `before`, and reason; where a run cannot be judged again, the
    verdict is None and the reason says why.
    """
    device = environment.device(device)
    with open_registry(settings) as registry:
        sweep = show_sweep(registry, sweep_name)
        ownership.claim(registry, settings, sweep["id"])
        plan = stored_experiment(sweep, settings)
        dataset = plan.dataset
        store = FeatureStore(dataset, cache=settings.cache, weights=settings.weights, device=device, say=_say)
        evaluator = Evaluator(plan.protocol, plan.metrics, dataset, store)
        stored, histories = verdicts_by_run(registry, sweep["id"]), objective_histories(registry, sweep["id"])
        files = artifacts_by_run(registry, sweep["id"])
        runs, rows, amendments = list_runs(registry, sweep["id"]), [], dict[str, tuple[dict[str, str], list[Path]]]()
        _same(dataset, plan.protocol, sweep["id"], runs)
        for run in [show_run(registry, run["run"]) for run in runs if run["state"] in RESULTS]:
            before = [StoredVerdict(**each) for each in stored.get(run["run"], [])]
            history = histories.get(run["run"], [])
            was: dict[str, StoredVerdict] = {each.kind: each for each in before}
            verdicts: list[StoredVerdict] = []
            drawn: dict[str, StoredArtifact | None] = {}
            try:
                verdicts += _of_samples(registry, run, evaluator, device, history)
            except (UsageError, Failure) as error:
                rows.append(_row(run["run"], "collapse", None, was, str(error)))
            try:
                for each in verdicts:
                    drawn["missing"] = _drawn(settings, run, evaluator, each)
            except OSError as error:
                _say(f"{run['run']}: the picture of what is missing cannot be written ({error.strerror or error})")
            curves = _curves(files.get(run["run"], []))
            verdicts += _of_history(run, evaluator, sweep, history, was.get("stability"), curves)
            for fresh in verdicts:
                rows.append(_row(run["run"], fresh.kind, fresh.verdict, was, fresh.reason))
                # A run has one verdict on its history, and one on the samples of each evaluation.
                step = None if fresh.kind == "stability" else fresh.step
                before = [each for each in before if each.kind != fresh.kind or step not in (None, each.step)]
            registry.rejudge(run["run"], [*before, *verdicts], drawn)
            if run["mlflow_run_id"] is not None:
                tags: dict[str, str] = {fresh.kind: fresh.verdict for fresh in verdicts}
                pictures = [Path(each.path) for each in drawn.values() if each is not None]
                amendments[run["mlflow_run_id"]] = tags, pictures
    _amend(settings, amendments)
    return rows


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _row(run: str, kind: str, verdict: str | None, was: dict[str, StoredVerdict], reason: str) -> dict[str, Any]:
    before = was[kind].verdict if kind in was else None
    return {"run": run, "kind": kind, "verdict": verdict, "before": before, "reason": reason}


def _amend(settings: Settings, amendments: dict[str, tuple[dict[str, str], list[Path]]]) -> None:
    """MLflow's pages filter by tags, and show what is missing. Where it is not there, what is stored here holds all the
    same.
    """
    from aigc_lab.tracking.mlflow import MlflowTracker

    tracker = MlflowTracker(settings.tracking_uri, settings.artifacts)
    try:
        for run, (tags, pictures) in amendments.items():
            tracker.amend(run, tags, pictures)
    except Failure as error:
        _say(f"MLflow's tags still say what was said before: {error}; judge again when it is there")


def _same(dataset: Dataset, protocol: Protocol, sweep: str, runs: list[dict[str, Any]]) -> None:
    """Raises `UsageError` where the data, or how many samples the protocol asks for, are no longer those that the
    sweep's scores are of.
    """
    parts = {part for run in runs for score in run["scores"] for part in (score["signature"] or "").split("|")}
    for what, kind, here in (
        ("other data", "data:", f"data:{dataset.name}:{dataset.digest[:8]}"),
        (f"another number of samples ({protocol.name})", "n:", f"n:{protocol.samples}"),
    ):
        others = sorted(part for part in parts if part.startswith(kind) and part != here)
        if others:
            raise UsageError(
                f"{sweep}: its scores are of {what}: {', '.join(others)}, and here is {here} now; bring those back, or "
                "run the experiment again"
            )


def _of_samples(
    registry: Registry, run: dict[str, Any], evaluator: Evaluator, device: str, history: list[dict[str, Any]]
) -> list[StoredVerdict]:
    if run["state"] != RunState.FINISHED or not history:
        return []
    environment.settle(run["environment"].get("threads"))  # another number of threads would give other bits
    weights = lookup.weights_of_run(registry, run["run"], "last")
    system = weights.load(device).system
    samples = evaluator.generate(system, run["seed"], "evaluation", "reference")
    _, said = evaluator.examine(samples, "reference", system, judged=True)
    return [] if said is None else [StoredVerdict.of("collapse", weights.origin["step"], said.as_dict())]


def _drawn(settings: Settings, run: dict[str, Any], evaluator: Evaluator, said: StoredVerdict) -> StoredArtifact | None:
    """The picture of what is missing; None where nothing is."""
    path = run_folders.artifacts(settings, run["sweep"], run["trial"], run["seed"]) / "missing.png"
    picture = evaluator.missing(said.evidence["bins"])
    if picture is None:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, picture)
    shared_files.publish(path)
    return StoredArtifact("missing", "image/png", str(path))


def _curves(files: list[dict[str, Any]]) -> dict[str, Curve]:
    """The training scalars of a run over its steps; none where their file is gone."""
    path = next((file["path"] for file in files if file["name"] == "curves"), None)
    with suppress(OSError, ValueError):
        curves: dict[str, Curve] = (
            json.loads(shared_files.newest(Path(path)).read_text("utf-8")) if path is not None else {}
        )
        return curves
    return {}


def _of_history(
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
    said = judge_history(
        history,
        curves,
        baseline=evaluator.baseline(sweep["objective"]),
        better=sweep["better"],
        diverged_at=(step, run["reason"] or "diverged") if run["state"] == RunState.DIVERGED else None,
    )
    return [StoredVerdict.of("stability", step, said.as_dict())]
