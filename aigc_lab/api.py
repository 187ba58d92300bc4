"""What the commands do, as functions. Importing them costs next to nothing; each imports what it needs.

All raise `UsageError` for what the caller can mend and `Failure` for work that failed, with the sentence that the
command would print.

>>> run = train("dirac", steps=50, changes={"system.penalty": "r1", "training.evaluate_every": 50})
>>> run["state"], [score["name"] for score in run["scores"]]
('FINISHED', ['norm'])
>>> compare("dirac")[["rank", "trial", "state", "score"]].to_dict("records")
[{'rank': 1, 'trial': 0, 'state': 'FINISHED', 'score': 'norm'}]
>>> load(run["run"]).sample(3).shape
(3, 1)
>>> [(row["system"], row["state"], row["scores.norm"]) for row in runs("dirac")] == [
...     ("dirac", "FINISHED", run["scores"][0]["value"])
... ]
True
"""

import json
import operator
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from aigc_lab.errors import UsageError

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure
    from torch import Tensor

    from aigc_lab.display.ranking_views import Ranking
    from aigc_lab.experiment.experiment import Source
    from aigc_lab.modalities.shared.inputs import Range
    from aigc_lab.registry.ranking import Comparison
    from aigc_lab.registry.store import Registry
    from aigc_lab.serving.model import Model
    from aigc_lab.statistics.score import Scores
    from aigc_lab.text.tokenizer import Tokenizer
    from aigc_lab.verdicts.conclusion import CollapseVerdict


def sweep(
    experiment: "Source",
    *,
    trials: int | None = None,
    seeds: int | None = None,
    steps: int | None = None,
    changes: Mapping[str, Any] | None = None,
    workers: int | None = None,
    devices: str | None = None,
    trials_per_gpu: int | Literal["auto"] | None = None,
    replicas: int | Literal["auto", "off"] | None = None,
    executor: str | None = None,
    executor_options: Mapping[str, Any] | None = None,
    home: str | Path | None = None,
) -> "pandas.DataFrame":
    """Searches an experiment's variants, confirms the best and ranks them, as `aigc-lab sweep` does.

    `experiment` is a name, the path of a YAML file, or such a file's content as a mapping with a `name` beside its
    sections; `changes` overrides keys (`{"training.batch_size": 32}`). `executor` says who does the runs: its name, or
    the path of its file; `executor_options` are its own. So many alike runs as `replicas` are trained as one program;
    "auto" measures how many are faster so. What is said here of workers, devices, replicas and executor wins over the
    `execution:` of the experiment. The same call goes on where it ended, whoever does the runs. Returns the
    comparison, as `compare` does; progress goes to standard error.
    """
    from aigc_lab.commands.sweep import sweep_experiment

    options = {"search.trials": trials, "search.seeds": seeds, "training.steps": steps}
    rows = sweep_experiment(
        experiment,
        _changes(changes, options),
        device=devices,
        workers=_whole_if("workers", workers),
        trials_per_gpu="auto" if trials_per_gpu == "auto" else _whole_if("trials_per_gpu", trials_per_gpu),
        replicas=replicas if isinstance(replicas, str) else _whole_if("replicas", replicas),
        table=False,
        home=_path(home),
        executor=executor,
        options=_changes(executor_options, {}),
    )
    import pandas

    return compare(rows[0]["sweep"], home=home) if rows else pandas.DataFrame()


def train(
    experiment: "Source",
    *,
    seed: int = 0,
    steps: int | None = None,
    changes: Mapping[str, Any] | None = None,
    device: str | None = None,
    executor: str | None = None,
    executor_options: Mapping[str, Any] | None = None,
    home: str | Path | None = None,
) -> dict[str, Any]:
    """One run of an experiment without open choices, as `aigc-lab train` does; returns all that is known of it, as
    `aigc-lab show RUN --json` prints it. `executor` and `executor_options` are as `sweep` takes them.
    """
    from aigc_lab.commands.sweep import train_experiment

    return train_experiment(
        experiment,
        _changes(changes, {"training.steps": steps}),
        seed=_whole("seed", seed),
        device=device,
        executor=executor,
        options=_changes(executor_options, {}),
        home=_path(home),
    )


def compare(
    sweep: str | Sequence[str] | None = None,
    *more: str,
    by: str = "trial",
    where: str | None = None,
    score: str | None = None,
    checkpoint: Literal["last", "selected"] = "last",
    home: str | Path | None = None,
) -> "pandas.DataFrame":
    """The trials of one sweep, of several, or of all (the default), ranked by the median over their seeds: one row a
    trial, with the columns of `aigc-lab compare --csv`.

    With `by`, a row is all trials of one `system`, of one `sweep`, or with one value of a parameter (`lr`). Only trials
    that `where` is true of are ranked: `"lr < 1e-3 and system in (dcgan, vae) and not collapse = TOTAL"`.

    `score` names the score, `value`, `low`, `high`, `n`, `floor`, `confidence` and `signature` say what it is.
    `p_collapse` and `p_unstable` are the shares of runs that went wrong, with their 95 % intervals (Wilson); of a row
    with several trials, the shares of these of which most runs did.
    `median_failure_step`, `sd_last` and `sd_selected` (with intervals), and `steps_to_best` say what the seeds say
    together. A column `config.<key>` holds each value that the search chose. What is not known is NaN.
    """
    import pandas

    from aigc_lab.commands.compare import add_statistics, flat_rows

    with _registry(home) as registry:
        comparison = _compared(registry, sweep, more, by, where, score, checkpoint)
        add_statistics(registry, comparison, score, checkpoint)
    return pandas.DataFrame(flat_rows(comparison))


def ranking(
    sweep: str | Sequence[str] | None = None,
    *more: str,
    by: str = "trial",
    where: str | None = None,
    score: str | None = None,
    checkpoint: Literal["last", "selected"] = "last",
    limit: int | None = None,
    home: str | Path | None = None,
) -> "Ranking":
    """What `compare` ranks, as `aigc-lab compare` prints it, and as a table in a notebook; its `to_latex()` is a table
    for a paper, `to_markdown()` one for GitHub, and its `rows` are plain data. `limit` keeps the first so many.
    """
    from aigc_lab.display.ranking_views import Ranking

    most = _whole_if("limit", limit)
    with _registry(home) as registry:
        return Ranking(_compared(registry, sweep, more, by, where, score, checkpoint, most))


def _registry(home: str | Path | None) -> "Registry":
    from aigc_lab.host.settings import Settings
    from aigc_lab.registry.home import open_registry

    return open_registry(Settings.load(_path(home)))


def _compared(
    registry: "Registry",
    sweep: str | Sequence[str] | None,
    more: Sequence[str],
    by: str,
    where: str | None,
    score: str | None,
    checkpoint: Literal["last", "selected"],
    most: int | None = None,
) -> "Comparison":
    from aigc_lab.registry.comparison import compare_trials

    sweeps = [*([sweep] if isinstance(sweep, str) else sweep or []), *more]
    return compare_trials(registry, sweeps, score=score, checkpoint=checkpoint, most=most, by=by, where=where)


def plot(
    sweeps: str | Sequence[str],
    *,
    kind: Literal["seeds", "profile", "survival", "budget", "pareto", "importance", "verdicts"],
    by: str | None = None,
    x: str | None = None,
    y: str | None = None,
    path: str | Path | None = None,
    home: str | Path | None = None,
) -> "Figure":
    """A figure of one sweep or several, as `aigc-lab plot` draws it; `path` writes it too, as PNG, PDF, SVG or HTML by
    its suffix. `by` is what a row or curve is: `trial`, `system` or a parameter; `x` and `y` are the scores of
    `pareto`.

    Raises `UsageError` for a kind that the runs of these sweeps cannot give, with what would.
    """
    from aigc_lab.commands.plot import plot_sweeps

    return plot_sweeps(sweeps, kind, by=by, x=x, y=y, path=_path(path), home=_path(home))


def runs(
    sweep: str | None = None,
    *,
    state: str | None = None,
    limit: int | None = None,
    home: str | Path | None = None,
) -> list[dict[str, Any]]:
    """One flat record a run of a sweep (of all, by default), in the order in which they were made, for
    `pandas.DataFrame`. `state` keeps those in a state (`FAILED`), `limit` the newest so many.

    Each has `run`, `sweep`, `trial`, `seed`, `role`, `system`, `state`, `seconds`, the verdicts `collapse` and
    `stability`, and `config.<key>` for each value that the search chose. Of a score `fd` of the last checkpoint, on the
    holdout where it was scored there, `scores.fd` is the value, `scores.fd.low` and `scores.fd.high` its 95 % interval,
    `scores.fd.n`, `scores.fd.floor`, `scores.fd.floor_sd` and `scores.fd.signature` what it is to be read with.
    """
    from aigc_lab.registry.runs import newest_runs
    from aigc_lab.registry.states import named_state

    with _registry(home) as registry:
        found = newest_runs(registry, sweep, state=named_state(state), most=_whole_if("limit", limit))
        return [_record(row) for part in found.parts for row in part]


def evaluate(
    generated: Any,
    reference: Any = None,
    *,
    metrics: Sequence[str] | None = None,
    protocol: str | None = None,
    features: str | None = None,
    train: Any = None,
    tokenizer: "Tokenizer | None" = None,
    samples: int | None = None,
    seed: int = 0,
    size: int | None = None,
    numbers: "Range | None" = None,
    weights: str | Path | None = None,
    allow_unverified_weights: bool = False,
    skip_broken: bool = False,
    neighbours: str | Path | None = None,
    device: str = "auto",
    trust_code: bool = False,
    home: str | Path | None = None,
) -> "Scores":
    """Scores of generated samples against real ones, each with its interval, n, floor and signature, as
    `aigc-lab evaluate` prints them.

    `generated` is a NumPy array or a tensor (images [N, C, H, W] or [N, H, W, C] of uint8 or of floats in [0, 1], or
    points [N, D]), a folder, a file, a list of sentences, a dataset, or the name of a run, a sweep or a model, of which
    `seed` draws samples. `reference` is any of these but a model; a run's own dataset serves where it is left out.
    `numbers` says what other floats mean: `signed` for [-1, 1], `byte` for [0, 255].

    Messages go to standard error. `aigc_lab.evaluate.evaluate` is the same without a home and runs, and tells its
    callers of progress. Raises `UsageError` for what cannot be scored, naming what and why.
    """
    from aigc_lab.commands.given import scores
    from aigc_lab.host import trust

    with trust.accepting(trust_code):
        return scores(
            generated,
            reference,
            train=train,
            metrics=metrics,
            protocol=protocol,
            features=features,
            tokenizer=tokenizer,
            samples=_whole_if("samples", samples),
            seed=_whole("seed", seed),
            size=_whole_if("size", size),
            numbers=numbers,
            weights=_path(weights),
            allow_unverified_weights=allow_unverified_weights,
            skip_broken=skip_broken,
            neighbours=_path(neighbours),
            device=device,
            home=_path(home),
        )


def judge(
    generated: Any,
    reference: Any,
    *,
    labels: "Sequence[int] | Sequence[str] | Tensor | None" = None,
    features: str | None = None,
    tokenizer: "Tokenizer | None" = None,
    size: int | None = None,
    numbers: "Range | None" = None,
    weights: str | Path | None = None,
    skip_broken: bool = False,
    device: str = "auto",
    trust_code: bool = False,
    home: str | Path | None = None,
) -> "CollapseVerdict":
    """The verdict on whether samples have collapsed beside real ones, as `aigc-lab judge collapse` gives it. Both sets
    are what `evaluate` takes; `labels` are classes of the reference's samples.
    """
    from aigc_lab.commands.given import collapse
    from aigc_lab.host import trust

    with trust.accepting(trust_code):
        return collapse(
            generated,
            reference,
            labels,
            features=features,
            tokenizer=tokenizer,
            size=_whole_if("size", size),
            numbers=numbers,
            weights=_path(weights),
            skip_broken=skip_broken,
            device=device,
            home=_path(home),
        )


def load(model: str, *, home: str | Path | None = None, device: str = "cpu", trust_code: bool = False) -> "Model":
    """A trained model, ready to `sample`.

    `model` is what `aigc-lab sample` takes: a promoted model (`digits`, `digits@champion`, `models:/digits/3`), a run,
    a sweep (its best run), or the path of a .safetensors file. Raises `UsageError` when there is no such thing, and for
    code that came from elsewhere, unless it is trusted or `trust_code` (`--trust-code`) is set.
    """
    from aigc_lab.host import trust
    from aigc_lab.host.settings import Settings
    from aigc_lab.serving.lookup import find_weights

    with trust.accepting(trust_code):
        return find_weights(model, Settings.load(_path(home))).load(device)


def _changes(changes: Mapping[str, Any] | None, options: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Key, YAML text (JSON is YAML), and the words that error messages use."""
    given = dict(changes or {}) | {key: value for key, value in options.items() if value is not None}
    texts = {key: _yaml(key, value) for key, value in given.items()}
    return [(key, text, f"{key}={text}") for key, text in texts.items()]


def _yaml(key: str, value: Any) -> str:
    """JSON is YAML; NumPy's numbers, which tables are full of, are written as Python's, and paths as their text."""

    def plain(value: Any) -> Any:
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if hasattr(value, "tolist"):  # of NumPy, pandas and torch; without importing any of them
            return value.tolist()
        raise TypeError

    try:
        return json.dumps(value, default=plain)
    except (TypeError, ValueError):
        raise UsageError(f"{key}: it holds what YAML cannot: {value!r:.100}") from None


def _whole(key: str, value: int) -> int:
    """NumPy's whole numbers as Python's: a database takes no others."""
    try:
        return operator.index(value)
    except TypeError:
        raise UsageError(f"{key}: it should be a whole number, not {value!r:.100}") from None


def _whole_if(key: str, value: int | None) -> int | None:
    return None if value is None else _whole(key, value)


_OF_RUN = ("run", "sweep", "trial", "seed", "role", "system", "state", "seconds", "collapse", "stability")
_OF_SCORE = ("low", "high", "n", "floor", "floor_sd", "signature")


def _record(row: Mapping[str, Any]) -> dict[str, Any]:
    """A run without anything nested in it."""
    config = {f"config.{key}": value for key, value in row["config"].items()}
    scores: dict[str, Any] = {}
    for score in row["scores"]:
        name = f"scores.{score['name']}"
        scores[name] = score["value"]
        scores |= {f"{name}.{key}": score[key] for key in _OF_SCORE}
    return {key: row[key] for key in _OF_RUN} | config | scores


def _path(home: str | Path | None) -> Path | None:
    return None if home is None else Path(home)
