"""The report of a sweep: one self-contained page, made of the registry's rows and the runs' files."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from aigc_lab.display.ranking import caption, rank_text, sections
from aigc_lab.display.wording import (
    ARROW,
    VERDICT_HEADINGS,
    Row,
    duration,
    interval,
    ranked_score,
    state_text,
    verdict_counts,
)
from aigc_lab.registry.comparison import best_run, compare_trials
from aigc_lab.registry.ranking import Comparison
from aigc_lab.registry.runs import list_runs
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import (
    artifacts_by_run,
    attempt_environments,
    objective_histories,
    run_outcomes,
    show_sweep,
)
from aigc_lab.registry.verdicts import verdicts_by_run
from aigc_lab.web import embedded_files, pages
from aigc_lab.web.whiskers import scale, whisker

Json = dict[str, Any]

# Colours that also the colour-blind tell apart; `style.css` has as many.
COLOURS = 6


@dataclass(frozen=True)
class Report:
    """A page, and the id of its sweep."""

    sweep: str
    html: str
    pictures: int


def render_report(registry: Registry, sweep_name: str, *, detailed: int) -> Report:
    """The page of a sweep, with pictures and training curves of `detailed` runs: the best run of every trial before
    further seeds. Raises `UsageError` for an unknown sweep.
    """
    sweep = show_sweep(registry, sweep_name)
    comparison = compare_trials(registry, sweep["id"])
    runs = _runs(registry, sweep, comparison)
    chosen = _chosen(runs, detailed)
    files = artifacts_by_run(registry, sweep["id"])
    judged = verdicts_by_run(registry, sweep["id"])
    rows = [
        _with_evidence(run, files.get(run["run"], []), judged.get(run["run"], []))
        for run in runs
        if run["run"] in chosen
    ]
    systems = list(dict.fromkeys(row["system"] for row in comparison.rows))
    colours = {system: place % COLOURS for place, system in enumerate(sorted(systems))}
    best = next((row for row in comparison.rows if row["rank"] == 1), None)
    html = pages.render(
        "report.html",
        sweep=sweep,
        arrow=ARROW[sweep["better"]],
        arrows=ARROW,
        panel=_panel(rows),
        facts=_facts(sweep, runs, attempt_environments(registry, sweep["id"])),
        best=best and best | {"shown": ranked_score(best)},
        best_picture=_best_picture(best_run(registry, sweep["id"]), rows),
        tables=[_table(group, members, colours) for group, members in sections(comparison)],
        note=comparison.note,
        systems=systems,
        colours=colours,
        rows=rows,
        left_out=len(runs) - len(rows),
        points=embedded_files.POINTS,
        unfinished=[run for run in runs if run["state"] != RunState.FINISHED],
        experiment=yaml.safe_dump(sweep["experiment"], sort_keys=False, allow_unicode=True, default_flow_style=None),
        data=_figures(sweep, comparison, runs, rows, colours, objective_histories(registry, sweep["id"])),
    )
    return Report(sweep["id"], html, sum(picture.there for row in rows for picture in row["pictures"]))


def _runs(registry: Registry, sweep: Json, comparison: Comparison) -> list[Json]:
    """All runs, those of the best trial first and in a trial the best first, with reason and objective."""
    place = {row["trial"]: place for place, row in reversed(list(enumerate(comparison.rows)))}
    reasons = {row["run"]: row["reason"] for row in run_outcomes(registry, sweep["id"])}
    config = {row["trial"]: row["config"] for row in comparison.rows}
    sign = 1 if sweep["better"] == "lower" else -1
    runs = [
        run
        | {
            "label": f"{run['trial']}.{run['seed']}",
            "reason": reasons[run["run"]],
            "config": config[run["trial"]],
            "score": next((score for score in run["scores"] if score["name"] == sweep["objective"]), None),
        }
        for run in list_runs(registry, sweep["id"])
    ]

    def key(run: Json) -> tuple[int, bool, float, int]:
        value = None if run["score"] is None else run["score"]["value"]
        return place[run["trial"]], value is None, sign * (value or 0.0), run["seed"]

    return sorted(runs, key=key)


def _chosen(runs: Sequence[Json], most: int) -> set[str]:
    seen: Counter[int] = Counter()
    turns: list[tuple[int, int, str]] = []
    for run in runs:
        turns.append((seen[run["trial"]], len(turns), run["run"]))
        seen[run["trial"]] += 1
    return {run for _, _, run in sorted(turns)[:most]}


def _panel(rows: Sequence[Json]) -> Json:
    """Every score of the runs by name, and the floors where all runs were measured alike."""
    named: dict[str, str] = {score["name"]: score["better"] for row in rows for score in row["scores"]}
    floors: Json = {}
    for name in named:
        each = [score for row in rows for score in row["scores"] if score["name"] == name]
        alike = len({score["signature"] for score in each}) == 1 and len({score["floor"] for score in each}) == 1
        floors[name] = each[0]["floor"] if alike else None
    cells = [
        {key: row[key] for key in ("label", "system")}
        | {"found": {score["name"]: score | {"shown": interval(score)} for score in row["scores"]}}
        for row in rows
        if row["scores"]
    ]
    return {"names": named, "floors": floors, "rows": cells}


def _bins(verdicts: Sequence[Json]) -> Json | None:
    """The share of its real share that each bin had at each step: {"steps", "names", "ratios"}, None without bins. The
    bins are those of the last verdict; verdicts on other bins are left out.
    """
    rows = [
        (each["step"], {row["name"]: row for row in each["evidence"]["bins"]})
        for each in verdicts
        if each["kind"] == "collapse" and each["evidence"].get("bins")
    ]
    if not rows:
        return None
    last = rows[-1][1]
    alike = [(step, bins) for step, bins in rows if bins.keys() == last.keys()]
    names = [name for name in last if all(bins[name]["real"] for _, bins in alike)]
    return {
        "steps": [step for step, _ in alike],
        "names": names,
        "ratios": [[bins[name]["generated"] / bins[name]["real"] for _, bins in alike] for name in names],
    }


def _with_evidence(run: Json, files: Sequence[Mapping[str, str]], verdicts: Sequence[Json]) -> Json:
    pictures, thinned = embedded_files.pictures(files)
    curves, no_curves = embedded_files.curves(files)
    shown = "" if run["score"] is None else interval(run["score"])
    return run | {
        "pictures": pictures,
        "thinned": thinned,
        "curves": curves,
        "no_curves": no_curves,
        "temperature": embedded_files.temperature(files),
        "bins": _bins(verdicts),
        "missing": embedded_files.missing(files),
        "alarm": next(
            (each["evidence"].get("alarm_step") for each in reversed(verdicts) if each["kind"] == "stability"), None
        ),
        "stories": [
            f"{heading}: {last['verdict']}, {last['reason']}"
            for kind, heading in VERDICT_HEADINGS.items()
            for last in [each for each in verdicts if each["kind"] == kind][-1:]
        ],
        "shown": shown,
    }


def _best_picture(best: Json | None, rows: Sequence[Json]) -> Json | None:
    """The last picture of the best run; None if it is not on the page."""
    for row in rows:
        if best is not None and row["run"] == best["run"] and row["pictures"] and row["pictures"][-1].there:
            return {"label": row["label"], "picture": row["pictures"][-1]}
    return None


def _facts(sweep: Json, runs: Sequence[Json], environments: Sequence[Json]) -> dict[str, str]:
    """What was run, when and in which environment, without host and process: a report is made to be sent."""
    states = Counter(run["state"] for run in runs)
    counted = ", ".join(f"{states[state]} {state.lower()}" for state in RunState if states[state])
    counted = f"{len(runs)}: {counted}" if len(states) > 1 else counted
    versions = [environment.get("versions", {}) for environment in environments]
    facts = {
        "sweep": sweep["id"],
        "experiment": f"{sweep['name']}, digest {sweep['digest'][:16]}",
        "started": f"{sweep['created_at'][:16].replace('T', ' ')} UTC",
        "objective": f"{sweep['objective']}, {sweep['better']} is better",
        "trials": str(len({run["trial"] for run in runs})),
        "runs": counted or "none yet",
        "time": duration(sum(run["seconds"] or 0.0 for run in runs)) if runs else "",
        "device": _distinct(environment.get("device") for environment in environments),
        "threads": _distinct(environment.get("threads") for environment in environments),
        "versions": ", ".join(
            f"{name} {_distinct(version.get(name) for version in versions)}"
            for name in dict.fromkeys(name for version in versions for name in version)
        ),
        "code": _distinct(
            f"{environment['git_commit'][:12]}{' with changes' if environment.get('git_dirty') else ''}"
            for environment in environments
            if environment.get("git_commit")
        ),
    }
    return {name: fact for name, fact in facts.items() if fact}


def _distinct(values: Iterable[Any]) -> str:
    return " / ".join(dict.fromkeys(str(value) for value in values if value is not None))


def _table(group: Any, members: Sequence[Row], colours: Mapping[str, int]) -> Json:
    """One ranking: its columns' titles, its rows, and the sentences below it."""
    scored = [row for row in members if row["score"] is not None]
    on = scale(scored) if scored else None
    rows = [
        dict(row)
        | {
            "colour": colours[row["system"]],
            "place": rank_text(row),
            "shown": ranked_score(row) if row["score"] else "",
            "whisker": whisker(row, on) if row["score"] and on else None,
            "told": state_text(row),
            "judged": {kind: verdict_counts(row["verdicts"].get(kind, {})) for kind in ("collapse", "stability")},
        }
        for row in members
    ]
    return {
        "name": f"{group.name} {ARROW[group.better]}" if group else "score",
        "scale": str(on) if on else "",
        "chosen": any(row["score"]["reference"] is not None for row in scored),
        "rows": rows,
        "caption": caption(members, group.signature).splitlines() if group else [],
    }


def _figures(
    sweep: Json,
    comparison: Comparison,
    runs: Sequence[Json],
    rows: Sequence[Json],
    colours: Mapping[str, int],
    histories: Mapping[str, Sequence[Json]],
) -> Json:
    """The data of the figures that the page's script draws."""
    curves = {row["run"]: row["curves"] for row in rows}
    temperatures = {row["run"]: row["temperature"] for row in rows}
    bins = {row["run"]: row["bins"] for row in rows}
    alarms = {row["run"]: row["alarm"] for row in rows}
    floors = [row["score"]["floor"] for row in comparison.rows if row["score"] and row["score"]["floor"] is not None]
    return {
        "objective": sweep["objective"],
        "better": sweep["better"],
        "floor": floors[0] if floors and len(comparison.groups) == 1 else None,
        "runs": [
            {key: run[key] for key in ("label", "trial", "seed", "role", "system", "state")}
            | {
                "colour": colours[run["system"]],
                "curves": curves.get(run["run"]),
                "temperature": temperatures.get(run["run"]),
                "bins": bins.get(run["run"]),
                "alarm": alarms.get(run["run"]),
                "history": {
                    key: [entry[key] for entry in histories.get(run["run"], [])]
                    for key in ("step", "value", "low", "high")
                },
            }
            for run in runs
        ],
        "trials": [
            {key: row[key] for key in ("trial", "system", "config")}
            | {"colour": colours[row["system"]], "value": row["score"]["value"]}
            for row in comparison.rows
            if row["score"] is not None
        ],
    }
