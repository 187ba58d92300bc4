"""`aigc-lab rejudge`: the verdicts of a sweep's runs again, from what is stored of them."""

import json
import math
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from aigc_lab import environment, experiment
from aigc_lab.data.base import Dataset
from aigc_lab.errors import UsageError
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
    the histories of all by their stored scores; of samples on the way what was said stays, for their weights are gone.
    Rows of run, kind, verdict, what it was `before`, and reason.
    """
    device = environment.device(device)
    with Registry.open(settings.registry_url, home=settings.home, create=False) as registry:
        sweep = queries.sweep(registry, wanted)
        document = Document(sweep["source"] or sweep["name"], sweep["experiment"])
        plan = experiment.Experiment(sweep["name"], document, settings.data_dir, settings.weights)
        dataset = plan.resolve(lambda hole: hole.ends()[0]).dataset

        def say(text: str) -> None:
            print(text, file=sys.stderr)

        store = FeatureStore(dataset, cache=settings.cache, weights=settings.weights, device=device, say=say)
        evaluator = Evaluator(plan.protocol, plan.metrics, dataset, store)
        known, histories = queries.verdicts(registry, sweep["id"]), queries.histories(registry, sweep["id"])
        files = queries.files(registry, sweep["id"])
        runs, rows = queries.runs(registry, sweep["id"]), []
        _same(dataset, sweep["id"], runs)
        for run in runs:
            if run["state"] not in (State.FINISHED, State.DIVERGED):
                continue
            before = {(each["kind"], each["step"]): StoredVerdict(**each) for each in known.get(run["run"], [])}
            found = dict(before)
            history = histories.get(run["run"], [])
            for fresh in (
                _of_samples(registry, run, evaluator, device, history),
                _of_history(run, evaluator, sweep, history, _curves(files.get(run["run"], []))),
            ):
                if fresh is not None:
                    found[fresh.kind, fresh.step] = fresh
                    was = before.get((fresh.kind, fresh.step))
                    rows.append(
                        {
                            "run": run["run"],
                            "kind": fresh.kind,
                            "verdict": fresh.verdict,
                            "before": was.verdict if was else None,
                            "reason": fresh.reason,
                        }
                    )
            registry.rejudge(run["run"], found.values())
    return rows


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
) -> StoredVerdict | None:
    if run["state"] != State.FINISHED or not history:
        return None
    system = finding.of_run(registry, run["run"], "last").load(device).system
    samples = system.generate(evaluator.protocol.samples, run["seed"], "evaluation", "reference")
    _, said = evaluator.examine(samples, "reference", system, judged=True)
    return None if said is None else StoredVerdict.of("collapse", history[-1]["step"], said.as_dict())


def _curves(files: list[dict[str, Any]]) -> dict[str, Curve]:
    """The training scalars of a run over its steps; none where their file is gone."""
    path = next((file["path"] for file in files if file["name"] == "curves"), None)
    with suppress(OSError, ValueError):
        found: dict[str, Curve] = json.loads(Path(path).read_text("utf-8")) if path is not None else {}
        return found
    return {}


def _of_history(
    run: dict[str, Any],
    evaluator: Evaluator,
    sweep: dict[str, Any],
    history: list[dict[str, Any]],
    curves: dict[str, Curve],
) -> StoredVerdict | None:
    if not history:
        return None
    step = history[-1]["step"]
    said = stability.judge(
        [each["step"] for each in history],
        [math.nan if each["value"] is None else each["value"] for each in history],
        [error_of(each["low"], each["high"]) for each in history],
        baseline=evaluator.baseline(sweep["objective"]),
        better=sweep["better"],
        diverged_at=(step, "a loss, gradient or parameter was not finite") if run["state"] == State.DIVERGED else None,
    )
    return StoredVerdict.of("stability", step, explained(said, curves).as_dict())
