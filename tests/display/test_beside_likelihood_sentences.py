"""Who is compared with maximum likelihood, what compare and the report say of it, and where nothing is said."""

import json
from pathlib import Path
from typing import Any

import pytest
from made_curves import CURVE, made_curve

from aigc_lab.commands.beside_likelihood import tag_runs
from aigc_lab.display.beside_likelihood import TAG, add_contests, compared, contests, summary
from aigc_lab.display.meaning import Commands, stored_meaning
from aigc_lab.errors import Failure
from aigc_lab.host.settings import Settings
from aigc_lab.registry.comparison import compare_trials
from aigc_lab.registry.records import StoredArtifact, StoredScalar, StoredScore
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.temperature_curves import temperature_curves
from aigc_lab.tracking.mlflow import MlflowTracker
from aigc_lab.web.exported import files_of
from aigc_lab.web.report import render_report

BETTER = {1.0: (0.4, 0.7, 5.2, 3.4)}
WORSE = {1.0: (0.4, 0.5, 5.2, 3.9)}


class Home:
    """A registry whose runs have curves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = Registry.open(f"sqlite:///{folder / 'registry.db'}")
        self.sweep = self.registry.sweep("texts", "0123456789abcdef", {"training": {"steps": 60}}, "bleu_4", "higher")

    def run(self, trial: int, system: str, curve: Any, seed: int = 0, value: float = 0.5, role: Any = "search") -> str:
        self.registry.trial(self.sweep, trial, system, {}, {})
        run = self.registry.run(self.sweep, trial, seed, role)
        described = {"described": {"params": {"pretrain_steps": 40} if system == "seqgan" else {}}}
        attempt = self.registry.begin(run, described)
        path = self.folder / f"{run}.json"
        path.write_text(curve if isinstance(curve, str) else json.dumps(curve))
        about: dict[str, Any] = {"n": 100, "signature": "s", "better": "higher"}
        every: list[tuple[Any, str, int]] = [
            ("last", "holdout", 60),
            ("last", "reference", 60),
            *(("progress", "reference", at) for at in (30, 60)),
        ]
        scores = [
            StoredScore(
                name, value, value - 0.1, value + 0.1, floor=0.9, checkpoint=kind, split=split, step=step, **about
            )
            for name in ("bleu_4", "nll_gen")
            for kind, split, step in every
        ]
        self.registry.finish(
            run,
            attempt,
            RunState.FINISHED,
            seconds=99.0,
            scores=scores,
            scalars={"time/training_seconds": StoredScalar(last=12.0, minimum=12.0, maximum=12.0, step=60)},
            artifacts=[StoredArtifact("temperature", "application/json", str(path))],
        )
        self.registry.finish_trial(self.sweep, trial, RunState.FINISHED, value)
        return run


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def likelihood(updates: int = 60, **facts: Any) -> dict[str, Any]:
    return made_curve(CURVE, trained_by="likelihood", generator_updates=updates, **facts)


def critic(points: Any, updates: int = 55) -> dict[str, Any]:
    return made_curve(points, trained_by="critic", generator_updates=updates)


def test_each_run_has_a_sentence_with_intervals_and_both_budgets(home: Home) -> None:
    home.run(0, "lstm_lm", likelihood())
    home.run(1, "seqgan", critic(WORSE))
    home.run(2, "gumbel_gan", critic(BETTER))
    worse, better = contests(home.registry, [home.sweep])
    assert worse.sentence == (
        "seqgan 1.0, better than maximum likelihood at the same diversity: no. "
        "Gain: BLEU-4 -0.1 [-0.106, -0.0935] at Self-BLEU-4 0.4; "
        "forward LM -0.3 [-0.307, -0.293] nats a word at reverse LM 5.2. "
        "55 generator updates in 12 s of training, beside 60 generator updates in 12 s of training of lstm_lm 0.0."
    )
    assert better.sentence.startswith("gumbel_gan 2.0, better than maximum likelihood at the same diversity: yes. ")
    assert summary([worse, better]) == [
        "Better than maximum likelihood at the same diversity: gumbel_gan yes; seqgan no."
    ]


def test_several_seeds_have_one_sentence_more(home: Home) -> None:
    for seed in (0, 1):
        home.run(0, "lstm_lm", likelihood(), seed)
        home.run(1, "seqgan", critic(WORSE), seed)
    assert [each.name for each in contests(home.registry, [home.sweep])] == [
        "seqgan 1.0",
        "seqgan 1.1",
        "seqgan 1 (2 seeds)",
    ]
    assert {len(each.others) for each in contests(home.registry, [home.sweep])} == {2}


def test_the_baseline_is_the_nearest_in_updates_and_of_equals_the_best(home: Home) -> None:
    for trial, (updates, value) in enumerate([(10, 0.9), (60, 0.2), (60, 0.4), (300, 0.9)]):
        home.run(trial, "lstm_lm", likelihood(updates), value=value)
    home.run(4, "seqgan", critic(WORSE))
    (found,) = contests(home.registry, [home.sweep])
    assert [run.trial for run in found.others] == [2]


def test_fresh_seeds_alone_count_once_there_are_any(home: Home) -> None:
    home.run(0, "lstm_lm", likelihood())
    home.run(0, "lstm_lm", likelihood(), 7, role="confirm")
    home.run(1, "seqgan", critic(WORSE))
    home.run(1, "seqgan", critic(BETTER), 7, role="confirm")
    (found,) = contests(home.registry, [home.sweep])
    assert (found.name, [run.seed for run in found.others], str(found.answer)) == ("seqgan 1.7", [7], "yes")


@pytest.mark.parametrize(
    ("points", "own", "their", "answer"),
    [
        (BETTER, 100, 60, "cannot tell"),
        (BETTER, 60, 100, "yes"),
        (WORSE, 60, 100, "cannot tell"),
        (WORSE, 100, 60, "no"),
    ],
)
def test_what_had_more_updates_may_be_better_by_them(
    home: Home, points: Any, own: int, their: int, answer: str
) -> None:
    home.run(0, "lstm_lm", likelihood(their))
    home.run(1, "seqgan", critic(points, own))
    (found,) = contests(home.registry, [home.sweep])
    assert str(found.answer) == answer
    assert (f"train maximum likelihood for {own} steps" in found.sentence) == (answer == "cannot tell")


def test_without_a_baseline_it_says_what_to_add(home: Home) -> None:
    home.run(0, "seqgan", critic(WORSE))
    (found,) = contests(home.registry, [home.sweep])
    assert found.sentence == (
        "seqgan 0.0, better than maximum likelihood at the same diversity: cannot tell. "
        "No run of maximum likelihood in its sweep: add one, such as lstm_lm at the same steps."
    )
    home.run(1, "lstm_lm", likelihood(data="other"))
    (found,) = contests(home.registry, [home.sweep])
    assert "No run of maximum likelihood was measured as it was" in found.sentence


def test_without_a_text_gan_nothing_is_said(home: Home) -> None:
    home.run(0, "lstm_lm", likelihood())
    home.run(1, "text_vae", made_curve(CURVE, trained_by=None, generator_updates=60))
    assert contests(home.registry, [home.sweep]) == []
    comparison = compare_trials(home.registry, home.sweep)
    told = stored_meaning(home.registry, comparison, Commands(samples="S"))
    assert not told.beside and "likelihood" not in " ".join(told.sentences)
    assert 'id="beside"' not in render_report(home.registry, home.sweep, detailed=3).html


def test_curves_of_earlier_versions_are_read_and_not_compared(home: Home) -> None:
    old = made_curve(CURVE)
    for point in old["points"]:
        del point["without"]
    del old["data"]
    home.run(0, "lstm_lm", old)
    home.run(1, "transformer_lm", "no JSON")
    home.run(2, "seqgan", critic(WORSE))
    assert [run.trained_by for run in temperature_curves(home.registry, [home.sweep])] == [None, "critic"]
    (found,) = contests(home.registry, [home.sweep])
    assert "add one, such as lstm_lm" in found.sentence
    assert 'id="quality"' in render_report(home.registry, home.sweep, detailed=3).html


def test_compare_and_the_report_say_it(home: Home) -> None:
    home.run(0, "lstm_lm", likelihood())
    home.run(1, "seqgan", critic(WORSE))
    comparison = compare_trials(home.registry, home.sweep)
    (found,) = compared(home.registry, comparison)
    told = stored_meaning(home.registry, comparison, Commands(samples="S"))
    assert told.beside == [found.sentence]
    assert told.sentences[-1] == "Better than maximum likelihood at the same diversity: seqgan no."
    add_contests(home.registry, comparison)
    rows: dict[int, Any] = {row["trial"]: row.get("beside_likelihood") for row in comparison.rows}
    assert rows[0] is None and [each["answer"] for each in rows[1]] == ["no"]
    assert json.loads(json.dumps(rows[1]))[0]["likelihood"]["generator_updates"] == 60

    report = render_report(home.registry, home.sweep, detailed=3)
    assert found.sentence in report.html and 'id="contest"' in report.html
    assert [each["name"] for each in report.data["beside"]["points"]] == ["seqgan 1.0"]
    assert report.data["beside"]["curves"][0]["bleu_4"] == [values[1] for values in CURVE.values()]
    assert report.data["pretraining"] == {f"{home.sweep}.1.0": 40}
    assert report.data["steps"][f"{home.sweep}.1.0"]["nll_gen"]["step"] == [30, 60]
    names = {name for name, _ in files_of(report)}
    assert {"beside-likelihood.png", "beside-likelihood.csv", "scores-over-steps.csv", "scores-over-steps.png"} <= names


def test_only_trials_that_are_shown_are_told_of(home: Home) -> None:
    home.run(0, "lstm_lm", likelihood(), value=0.9)
    home.run(1, "seqgan", critic(WORSE))
    assert compared(home.registry, compare_trials(home.registry, home.sweep, most=1)) == []
    assert compared(home.registry, compare_trials(home.registry, home.sweep, by="system")) == []
    assert len(compared(home.registry, compare_trials(home.registry, home.sweep, where="system = seqgan"))) == 1


def test_mlflow_has_it_as_a_tag(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.run(0, "lstm_lm", likelihood())
    for seed in (0, 1):
        home.registry.set_mlflow_run(home.run(1, "seqgan", critic(WORSE), seed), f"m{seed}")
    told: dict[str, Any] = {}
    monkeypatch.setattr(MlflowTracker, "amend", lambda self, run, tags: told.update({run: tags}))
    said: list[str] = []
    settings = Settings.load(home.folder)
    tag_runs(home.registry, settings, home.sweep, said.append)
    assert told == {f"m{each.runs[0].seed}": {TAG: each.sentence} for each in contests(home.registry, [home.sweep])[:2]}
    assert said == []

    def away(self: MlflowTracker, run: str, tags: Any) -> None:
        raise Failure("it is away")

    monkeypatch.setattr(MlflowTracker, "amend", away)
    tag_runs(home.registry, settings, home.sweep, said.append)
    assert len(said) == 1 and "it is away" in said[0]
