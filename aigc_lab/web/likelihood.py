"""What a report shows of text GANs beside maximum likelihood, and of every score over the steps of training."""

from collections.abc import Mapping, Sequence
from typing import Any

from aigc_lab.display.beside_likelihood import EXPLANATION, Contest, answer_cells
from aigc_lab.statistics.planes import SCORES
from aigc_lab.web.tables import Cell, Table

Json = dict[str, Any]


def section(contests: Sequence[Contest]) -> Json | None:
    """The sentence of each contest, and a table of the points with their intervals; None without a text GAN."""
    if not contests:
        return None
    rows = [answer_cells(each) for each in contests if each.beside is not None]
    return {
        "sentences": [each.sentence for each in contests],
        "explanation": EXPLANATION,
        "headings": list(rows[0]) if rows else [],
        "rows": [list(row.values()) for row in rows],
    }


def figure(contests: Sequence[Contest], colours: Mapping[str, int]) -> Json:
    """The curves of maximum likelihood and the points of text GANs with their standard intervals (±1.96 standard errors
    along both axes): {"beside": {"curves", "points"}}, or nothing where nothing is compared.
    """
    single = [each for each in contests if each.beside is not None and len(each.runs) == 1]
    if not single:
        return {}
    others = {run.run: run for each in single for run in each.others}
    keys = ("temperature", *SCORES)
    return {
        "beside": {
            "curves": [
                {
                    "name": f"{run.system} {run.trial}.{run.seed}",
                    "colour": colours[run.system],
                    **{key: [point[key] for point in run.curve["points"]] for key in keys},
                }
                for run in others.values()
            ],
            "points": [
                {
                    "name": each.name,
                    "colour": colours[each.runs[0].system],
                    "answer": str(each.answer),
                    **each.point,
                }
                for each in single
            ],
        }
    }


def over_steps(runs: Sequence[str], scores: Mapping[str, Sequence[Json]], pretraining: Mapping[str, int]) -> Json:
    """{"steps": run -> score -> step, value, low, high, floor; "pretraining": run -> its last step} of these runs."""
    told: dict[str, dict[str, Json]] = {}
    for run in runs:
        for entry in scores.get(run, []):
            history = told.setdefault(run, {}).setdefault(
                entry["name"], {"step": [], "value": [], "low": [], "high": [], "floor": entry["floor"]}
            )
            for key in ("step", "value", "low", "high"):
                history[key].append(entry[key])
    return {"steps": told, "pretraining": {run: step for run, step in pretraining.items() if run in told}}


def table(contests: Sequence[Contest]) -> Table:
    """One line a contest and plane."""
    header = ["runs", "system", "answer", "generator updates", "training (s)", "diversity", "at", "quality", "value"]
    header += ["better by", "low", "high", "on this plane", "beside", "their generator updates", "their training (s)"]
    rows: list[list[Cell]] = []
    for each in contests:
        told = each.as_dict()
        other = told["likelihood"] or {"runs": [], "generator_updates": None, "training_seconds": None}
        for plane in told["planes"]:
            diversity, quality = plane["diversity"], plane["quality"]
            rows.append(
                [
                    *(" ".join(told["runs"]), told["system"], told["answer"]),
                    *(told["generator_updates"], told["training_seconds"]),
                    *(diversity, plane[diversity], quality, plane[quality], plane["better_by"], plane["low"]),
                    *(plane["high"], plane["answer"], " ".join(other["runs"])),
                    *(other["generator_updates"], other["training_seconds"]),
                ]
            )
    return Table("beside-likelihood", header, rows)


def scores_table(runs: Sequence[Json], scores: Mapping[str, Sequence[Json]]) -> Table:
    """Every score on the reference split at every evaluation."""
    rows = [
        [run["run"], entry["name"], *(entry[key] for key in ("step", "value", "low", "high", "floor"))]
        for run in runs
        for entry in scores.get(run["run"], [])
    ]
    header = ["run", "score", "step (training steps)", "value", "low (95 %)", "high (95 %)", "floor"]
    return Table("scores-over-steps", header, rows)
