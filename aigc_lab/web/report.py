"""The report of a sweep: one self-contained page, made of the registry's rows and the runs' files."""

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from aigc_lab.display import beside_likelihood
from aigc_lab.display import pairs as against
from aigc_lab.display.glossary import glossary
from aigc_lab.display.meaning import Commands, stored_meaning
from aigc_lab.display.ranking import caption, rank_text, sections, shown_pairs
from aigc_lab.display.wording import VERDICT_HEADINGS, Row, duration, ranked_score, state_text, verdict_counts
from aigc_lab.pictures.view_captions import CAPTIONS
from aigc_lab.registry.best import Selection, best_run
from aigc_lab.registry.comparison import compare_trials
from aigc_lab.registry.pairs import Pair
from aigc_lab.registry.ranking import Comparison, Group
from aigc_lab.registry.runs import list_runs
from aigc_lab.registry.seed_runs import SeedRun, read_seed_runs
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import (
    artifacts_by_run,
    attempt_environments,
    objective_histories,
    pretraining_ends,
    run_outcomes,
    score_histories,
    show_sweep,
)
from aigc_lab.registry.verdicts import verdicts_by_run
from aigc_lab.statistics.wording import ARROW, interval
from aigc_lab.web import embedded_files, likelihood, pages, seed_figures, seeds, tables
from aigc_lab.web.real_samples import RealSamples
from aigc_lab.web.tables import Table
from aigc_lab.web.whiskers import scale, whisker
from aigc_lab.web.words import scores_of, words_of

Json = dict[str, Any]

# Colours that also the colour-blind tell apart; `style.css` has as many.
COLOURS = 6
# Samples of seeds that stand side by side, one size on the whole page.
_COLUMNS = 5, 8
# Points of a curve where many runs share the page, and of all runs together.
_FEWEST_POINTS, _ALL_POINTS = 50, 4800
# Tables whose files are links of the page. Those behind figures are made of the figures' data when they are asked for.
_LINKED = ("ranking", "scores", "verdicts", "unfinished", "beside-likelihood")


@dataclass(frozen=True)
class Report:
    """A page, the id of its sweep, the number of its pictures, and what can be written beside it: its `tables`, the
    `data` of the figures, the `runs` that it shows in full with their pictures, the `files` of these, and all
    `seed_runs`.
    """

    sweep: str
    html: str
    pictures: int
    tables: list[Table]
    data: Json
    runs: list[Json]
    files: Mapping[str, Sequence[Mapping[str, str]]]
    real: RealSamples | None
    seed_runs: list[SeedRun]


@dataclass(frozen=True)
class _Stored:
    """What the registry holds of a sweep: its runs in the order of the page; by run files, verdicts, history; and the
    environments of its attempts.
    """

    sweep: Json
    comparison: Comparison
    runs: list[Json]
    files: dict[str, list[Json]]
    verdicts: dict[str, list[Json]]
    histories: dict[str, list[Json]]
    environments: list[Json]
    seed_runs: list[SeedRun]
    scores: dict[str, list[Json]]
    pretraining: dict[str, int]
    contests: list[beside_likelihood.Contest]

    @classmethod
    def read(cls, registry: Registry, sweep_name: str) -> "_Stored":
        sweep = show_sweep(registry, sweep_name)
        comparison = compare_trials(registry, sweep["id"])
        return cls(
            sweep,
            comparison,
            _runs(registry, sweep, comparison),
            artifacts_by_run(registry, sweep["id"]),
            verdicts_by_run(registry, sweep["id"]),
            objective_histories(registry, sweep["id"]),
            attempt_environments(registry, sweep["id"]),
            read_seed_runs(registry, [sweep["id"]]),
            score_histories(registry, sweep["id"]),
            pretraining_ends(registry, sweep["id"]),
            beside_likelihood.contests(registry, [sweep["id"]]),
        )

    @property
    def directions(self) -> dict[str, str | None]:
        """Name -> direction of every score; None for one that describes."""
        return scores_of(self.comparison, self.runs, self.environments)


def render_report(registry: Registry, sweep_name: str, *, detailed: int, real: RealSamples | None = None) -> Report:
    """The page of a sweep. Every run has its scores in it; all seeds of the first `detailed` ranked trials have their
    pictures and training curves too, beside `real` samples where they are given. Raises `UsageError` for an unknown
    sweep.
    """
    stored = _Stored.read(registry, sweep_name)
    sweep, comparison = stored.sweep, stored.comparison
    first = seeds.first_rows(comparison.rows, detailed)
    members = {
        row["trial"]: seeds.marked(row, [run for run in stored.runs if run["trial"] == row["trial"]]) for row in first
    }
    strips = {run for of_row in members.values() for run in seeds.with_strips(of_row)}
    rows, points = _embedded(stored, [run for run in stored.runs if run["trial"] in members], strips)
    colours = _colours(comparison)
    figures = _figures(sweep, comparison, stored.runs, rows, colours, stored.histories)
    figures |= seed_figures.curves(stored.seed_runs, colours)
    figures |= likelihood.figure(stored.contests, colours)
    figures |= likelihood.over_steps([row["run"] for row in rows], stored.scores, stored.pretraining)
    csv_tables = _csv_tables(stored, rows)
    told = stored_meaning(registry, comparison, Commands(samples=""))
    strip_rows = [row for row in rows if row["run"] in strips]
    html = pages.render(
        "report.html",
        **_ranked(stored, colours),
        meaning=told.sentences,
        facts=_facts(sweep, stored.runs, stored.environments),
        best_picture=_best_picture(best_run(registry, sweep["id"]), rows),
        real=real,
        csv={table.name: table for table in csv_tables if table.name in _LINKED},
        cards=list(seeds.cards(first, members, {row["run"]: row for row in rows}, colours)),
        matrix=seed_figures.matrix(stored.seed_runs, comparison.rows),
        columns=max([_COLUMNS[0], *(min(1 + len(of_row), _COLUMNS[1]) for of_row in members.values())]),
        rows=rows,
        strips=strip_rows,
        views={name: caption for name, caption in CAPTIONS.items() if any(name in row["views"] for row in strip_rows)},
        rows_left_out=len({row["trial"] for row in comparison.rows}) - len(first),
        points=points,
        beside=likelihood.section(stored.contests),
        glossary=glossary(words_of(comparison, stored.runs, rows), stored.directions),
        data=figures,
    )
    pictures = sum(picture.there for row in rows for picture in [*row["pictures"], *row["views"].values()])
    return Report(sweep["id"], html, pictures, csv_tables, figures, rows, stored.files, real, stored.seed_runs)


def _embedded(stored: _Stored, runs: Sequence[Json], strips: Container[str]) -> tuple[list[Json], int]:
    """The runs with their evidence, and how many points a curve of them may have: fewer where they are many."""
    points = max(_FEWEST_POINTS, min(embedded_files.POINTS, _ALL_POINTS // max(len(runs), 1)))
    rows = [
        _with_evidence(
            run,
            stored.files.get(run["run"], []),
            stored.verdicts.get(run["run"], []),
            strip=run["run"] in strips,
            points=points,
        )
        for run in runs
    ]
    return rows, points


def _ranked(stored: _Stored, colours: Mapping[str, int]) -> Json:
    """What the page says of all trials and runs, whether or not their samples are shown."""
    sweep, comparison = stored.sweep, stored.comparison
    best = next((row for row in comparison.rows if row["rank"] == 1), None)
    compared = shown_pairs(comparison)
    return {
        "sweep": sweep,
        "arrow": ARROW[sweep["better"]],
        "arrows": ARROW,
        "panel": _panel(stored.runs, stored.directions),
        "best": best and best | {"shown": ranked_score(best)},
        "tables": [_table(group, part, colours, comparison, compared) for group, part in sections(comparison)],
        "note": comparison.note,
        "colours": colours,
        "unfinished": [run for run in stored.runs if run["state"] != RunState.FINISHED],
        "experiment": yaml.safe_dump(sweep["experiment"], sort_keys=False, allow_unicode=True, default_flow_style=None),
    }


def _colours(comparison: Comparison) -> dict[str, int]:
    systems = list(dict.fromkeys(row["system"] for row in comparison.rows))
    place = {system: place % COLOURS for place, system in enumerate(sorted(systems))}
    return {system: place[system] for system in systems}


def _csv_tables(stored: _Stored, rows: Sequence[Json]) -> list[Table]:
    """Every table and the numbers behind every figure but the training curves; those that are empty are left out."""
    every = [
        tables.ranking(stored.comparison),
        tables.scores(stored.runs),
        tables.verdicts(stored.runs, stored.verdicts),
        tables.objective(stored.sweep, stored.histories, stored.runs),
        tables.trials(stored.sweep, stored.comparison),
        tables.bins(rows),
        tables.temperatures(rows),
        likelihood.table(stored.contests),
        likelihood.scores_table(stored.runs, stored.scores),
        *seed_figures.tables_of(stored.seed_runs),
        tables.unfinished(run for run in stored.runs if run["state"] != RunState.FINISHED),
    ]
    return [table for table in every if table.rows]


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


def _panel(rows: Sequence[Json], directions: Mapping[str, str | None]) -> Json:
    """Every score of the runs by name, with its direction, and the floors where all runs were measured alike."""
    named = {score["name"]: directions[score["name"]] for row in rows for score in row["scores"]}
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


def _with_evidence(
    run: Json, files: Sequence[Mapping[str, str]], verdicts: Sequence[Json], *, strip: bool, points: int
) -> Json:
    """The run with its pictures, for a `strip` of all steps and its views, else the last one; curves of at most so many
    points; and what its verdicts say.
    """
    pictures, thinned = embedded_files.pictures(files, embedded_files.STEPS if strip else 1)
    curves, no_curves = embedded_files.curves(files, points)
    shown = "" if run["score"] is None else interval(run["score"])
    return run | {
        "pictures": pictures,
        "thinned": thinned if strip else 0,
        "views": embedded_files.views(files) if strip else {},
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
            picture = {"label": row["label"], "system": row["system"], "picture": row["pictures"][-1]}
            return picture | {"place": _place(best["selection"])}
    return None


def _place(selection: Selection) -> str:
    """What the best run is, in words, and how many were passed over for it."""
    if not selection.passed_over:
        return "the best seed of the first"
    count = len(selection.passed_over)
    ahead = "one run ranks" if count == 1 else f"{count} runs rank"
    return f"the best run that no verdict speaks against ({ahead} before it)"


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


def _table(
    group: Group | None,
    members: Sequence[Row],
    colours: Mapping[str, int],
    comparison: Comparison,
    compared: Mapping[Group | None, list[Pair]],
) -> Json:
    """One ranking: its columns' titles, its rows, the sentences below it, and its pairs."""
    scored = [row for row in members if row["score"] is not None]
    values = {id(row): of_row for row, of_row in zip(comparison.rows, comparison.values, strict=True)}
    on = scale(scored, [value for row in scored for value in values[id(row)]]) if scored else None
    rows = [
        dict(row)
        | {
            "colour": colours[row["system"]],
            "place": rank_text(row),
            "shown": ranked_score(row) if row["score"] else "",
            "whisker": whisker(row, on, values[id(row)]) if row["score"] and on else None,
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
        "pairs": against.written(compared.get(group, [])),
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
        "sweep": sweep["id"],
        "objective": sweep["objective"],
        "better": sweep["better"],
        "floor": floors[0] if floors and len(comparison.groups) == 1 else None,
        "runs": [
            {key: run[key] for key in ("run", "label", "trial", "seed", "role", "system", "state")}
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
