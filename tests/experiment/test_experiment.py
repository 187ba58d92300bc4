"""Experiment files: what is refused, at which place and with which remedy; overrides; identity; paper defaults."""

import json
from pathlib import Path
from typing import Any, NoReturn

import pytest
from networks_of_users import MINE

from aigc_lab.data.base import Dataset
from aigc_lab.data.digits import Digits
from aigc_lab.data.mnist import MNIST
from aigc_lab.data.ring import Ring
from aigc_lab.errors import UsageError
from aigc_lab.experiment.checks import check_data, check_experiment
from aigc_lab.experiment.configuration import Configuration
from aigc_lab.experiment.experiment import Experiment, load_experiment
from aigc_lab.host import content
from aigc_lab.shape import Modality, Shape

RING = """\
data: {name: ring}
system:
  name: point_gan
  lr: 1e-3
training: {steps: 20, log_every: 10, evaluate_every: 20}
evaluation: {name: points, samples: 400}
objective: {minimize: rkl}
"""
TWO = """\
data: {name: digits}
system:
  choice:
    - name: dcgan
      width: 8
      loss: {choice: [nonsaturating, hinge]}
      lr: {log: [1e-4, 1e-3]}
    - name: vae
      width: 8
      beta: {uniform: [0.5, 2.0]}
training: {steps: 20, log_every: 10, evaluate_every: 20}
evaluation: image-small
objective: {minimize: fd_clf}
search: {trials: 4, seeds: 2}
"""


class Lines:
    """Writes experiment files and tells what is said of them."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "mine.yaml"
        self.data_dir = folder / "data"

    def load(self, text: str, *changes: str) -> Experiment:
        self.file.write_text(text)
        split = [change.partition("=") for change in changes]
        return load_experiment(
            str(self.file), [(key, value, f"--set {key}={value}") for key, _, value in split], data_dir=self.data_dir
        )

    def check(self, text: str, *changes: str) -> None:
        experiment = self.load(text, *changes)
        check_experiment(experiment)
        check_data(experiment)

    def refusal(self, text: str, *changes: str) -> str:
        """The one line that says what is wrong, with `FILE` for the file's path."""
        with pytest.raises(UsageError) as caught:
            self.check(text, *changes)
        assert "\n" not in str(caught.value)
        return str(caught.value).replace(str(self.file), "FILE")


@pytest.fixture
def lines(tmp_path: Path) -> Lines:
    return Lines(tmp_path)


# ---- what ships


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Dataset, split: str) -> NoReturn:
        raise AssertionError(f"{self.name} was loaded")

    for kind in (Digits, MNIST, Ring):
        monkeypatch.setattr(kind, "load", refuse)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str]]:
    """The change that tells an experiment on a user's folder where it is."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(3):
        (folder / f"{number}.png").touch()
    return [("data.path", str(folder), "--set")]


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with nothing in it but captions: their words are a part of what networks are built from."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "text").mkdir()
    words = ("a", "dog", "cat", "on", "the", "street", "red", "bus", "table", "with")
    lines = [" ".join(words[(number * each) % 10] for each in range(1, 9)) + f" {number % 97}" for number in range(500)]
    (folder / "text" / "coco_train.txt").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("name", content.names("experiments"))
def test_every_experiment_that_ships_is_right(name: str, pictures: list[tuple[str, str, str]], captions: Path) -> None:
    check_experiment(load_experiment(name, pictures if name == "folder" else [], data_dir=captions))
    assert [each.name for each in captions.iterdir()] == ["text"]


@pytest.mark.parametrize("name", content.names("evaluation"))
def test_every_protocol_that_ships_loads(lines: Lines, name: str) -> None:
    experiment = lines.load(RING.replace("{name: points, samples: 400}", name))
    assert experiment.protocol.name == name
    assert [metric.gives for metric in experiment.metrics]


# ---- what a metric needs of the systems


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("elbo", "metric elbo: it needs a system with an encoder (encode, decode, log_likelihood), and dcgan has none"),
        (
            "cas",
            "metric cas: labels missing: dcgan and vae are not conditional, so their samples come without their "
            "classes; set `conditional` of dcgan, and choose a system that is in place of vae, as cgan",
        ),
    ],
)
def test_a_system_that_a_metric_cannot_score_is_refused(lines: Lines, metric: str, said: str) -> None:
    score = {"cas": "cas_accuracy"}.get(metric, metric)
    changes = f"evaluation={{name: image-small, metrics: [{metric}]}}", f"objective={{maximize: {score}}}"
    place = f"--set evaluation={{name: image-small, metrics: [{metric}]}}: evaluation: protocol image-small: "
    assert lines.refusal(TWO, *changes) == place + said
    if metric == "elbo":
        # Without the one that cannot, it is fine.
        lines.check(TWO, "system={name: vae, width: 8}", *changes)
    else:
        told = lines.refusal(TWO, "system={name: vae, width: 8}", *changes)
        assert told.endswith("without their classes; choose a system that is, as cgan")


@pytest.mark.parametrize("system", ["wae_mmd", "rae", "vae_gan", "vq_vae"])
def test_an_autoencoder_without_a_density_is_reconstructed_and_has_no_elbo(lines: Lines, system: str) -> None:
    name = f"system={{name: {system}, width: 8}}"
    said = lines.refusal(TWO, name, "evaluation={name: image-small, metrics: [elbo]}", "objective={maximize: elbo}")
    assert said.endswith(f"(encode, decode, log_likelihood), and {system} has no log_likelihood")
    changes = "evaluation={name: image-small, metrics: [reconstruction]}", "objective={minimize: reconstruction_mse}"
    lines.check(TWO, name, *changes)
    said = lines.refusal(TWO, *changes)
    assert said.endswith(
        "metric reconstruction: it needs a system that encodes (encode, decode), and dcgan has no encoder"
    )


@pytest.mark.parametrize(
    ("metrics", "score"),
    [("elbo", "kl"), ("elbo", "active_units"), ("elbo", "mutual_information"), ("memorisation", "fd_gap_clf")],
)
def test_what_describes_a_system_is_no_objective(lines: Lines, metrics: str, score: str) -> None:
    changes = f"evaluation={{name: image-small, metrics: [{metrics}]}}", f"objective={{maximize: {score}}}"
    said = lines.refusal(TWO, "system={name: vae, width: 8}", *changes)
    assert f"{score} describes a system: neither more nor less of it is better; choose another score" in said


# ---- what is refused


@pytest.mark.parametrize(
    ("old", "new", "place", "said"),
    [
        # unknown keys, at every level
        ("training:", "trainin: 1\ntraining:", "FILE:5: trainin: ", "unknown key; did you mean training?"),
        ("steps: 20", "steps: 20, stepz: 3", "FILE:5: training.stepz: ", "did you mean steps or stacked?"),
        ("steps: 20", "stepz: 20", "FILE:5: training.stepz: ", "did you mean steps or stacked?"),
        ("lr: 1e-3", "lrr: 1e-3", "FILE:4: system.lrr: ", "did you mean lr?"),
        ("{name: ring}", "{name: ring, sigm: 1.0}", "FILE:1: data.sigm: ", "did you mean sigma?"),
        ("samples: 400", "sample: 400", "FILE:6: ", "unknown key; did you mean samples"),
        ("minimize: rkl", "minimise: rkl", "FILE:7: objective.minimise: ", "did you mean minimize"),
        ("objective:", "search: {trial: 3}\nobjective:", "FILE:7: search.trial: ", "did you mean trials?"),
        ("objective:", "confirm: {topp: 3}\nobjective:", "FILE:7: confirm.topp: ", "did you mean top?"),
        # wrong types
        ("steps: 20", "steps: many", "FILE:5: training.steps: ", 'valid integer, not "many"'),
        ("steps: 20", "steps: '20'", "FILE:5: training.steps: ", 'not "20"'),
        ("steps: 20", "steps: 20.5", "FILE:5: training.steps: ", "not 20.5"),
        ("steps: 20", "steps: true", "FILE:5: training.steps: ", "not true"),
        ("steps: 20", "steps: ", "FILE:5: training.steps: ", "not null"),
        ("lr: 1e-3", "lr: fast", "FILE:4: system.lr: ", 'not "fast"'),
        ("lr: 1e-3", "lr: true", "FILE:4: system.lr: ", "not true"),
        ("lr: 1e-3", "lr: .inf", "FILE:4: system.lr: ", "finite"),
        ("lr: 1e-3", "lr: .nan", "FILE:4: system.lr: ", "finite"),
        ("lr: 1e-3", "loss: 7", "FILE:4: system.loss: ", "'hinge' or 'relativistic', not 7"),
        ("{name: ring}", "ring", "FILE:1: data: ", 'not "ring"'),
        ("{name: points, samples: 400}", "[points]", "FILE:6: evaluation", "not"),
        ("{minimize: rkl}", "rkl", "FILE:7: objective: ", 'not "rkl"'),
        ("training: {steps: 20, log_every: 10, evaluate_every: 20}", "training: 7", "FILE:5: training: ", "not 7"),
        ("objective:", "search:\nobjective:", "FILE:7: search: ", "not null"),
        # impossible values
        ("steps: 20", "steps: -20", "FILE:5: training.steps: ", "greater than or equal to 1, not -20"),
        ("steps: 20", "steps: 0", "FILE:5: training.steps: ", "not 0"),
        ("lr: 1e-3", "lr: -1e-3", "FILE:4: system.lr: ", "greater than 0, not -0.001"),
        ("lr: 1e-3", "lr: {log: [0, 1]}", "FILE:4: system.lr.log: ", "must be above 0"),
        ("lr: 1e-3", "lr: {log: [1e-3, 1e-4]}", "FILE:4: system.lr.log: ", "swap them"),
        ("lr: 1e-3", "lr: {uniform: [0, 1]}", "FILE:4: system.lr", "greater than 0, not 0"),
        ("lr: 1e-3", "critic_layers: {choice: [1, 0]}", "FILE:4: system.", "greater than or equal to 1, not 0"),
        (
            "evaluate_every: 20",
            "evaluate_every: 25",
            "FILE:5: training.evaluate_every: ",
            "not a multiple of log_every (10)",
        ),
        ("samples: 400", "samples: 20", "FILE:6: evaluation: ", "8 modes need at least 160 samples, not 20"),
        ("samples: 400", "samples: 10001", "FILE:6: evaluation.samples: ", "set evaluation.samples to 10000 or less"),
        ("samples: 400", "metrics: []", "FILE:6: ", "at least 1"),
        # unknown names
        ("name: ring", "name: rign", "FILE:1: data.name: ", "unknown dataset 'rign'; did you mean ring?"),
        ("point_gan", "pointgan", "FILE:3: system.name: ", "unknown system 'pointgan'; did you mean point_gan?"),
        ("name: points", "name: pionts", "FILE:6: evaluation: ", "unknown protocol 'pionts'; did you mean points?"),
        ("rkl", "rlk", "FILE:7: objective.minimize: ", "unknown score of protocol points 'rlk'; did you mean rkl?"),
        ("samples: 400", "metrics: [mode]", "", "unknown metric 'mode'; did you mean modes?"),
        ("samples: 400", "metrics: [{modes: {replicate: 50}}]", "", "did you mean replicates?"),
        # what does not fit together
        (
            "{name: ring}",
            "{name: digits}",
            "FILE:3: system.name: ",
            "point_gan makes points, and dataset digits holds images",
        ),
        ("name: points, samples: 400", "name: image-small", "FILE:6: evaluation: ", "need labelled images"),
        (
            "minimize: rkl",
            "maximize: rkl",
            "FILE:7: objective.maximize: ",
            "rkl is better when it is lower; use minimize",
        ),
        (
            "minimize: rkl",
            "minimize: hq",
            "FILE:7: objective.minimize: ",
            "hq is better when it is higher; use maximize",
        ),
        ("minimize: rkl", "minimize: rkl, maximize: hq", "FILE:7: objective: ", "one of them only"),
        ("{minimize: rkl}", "{}", "FILE:7: objective: ", "give minimize or maximize"),
        # holes where none may stand
        (
            "samples: 400",
            "samples: {int: [400, 500]}",
            "FILE:6: evaluation.samples: ",
            "in system and in training only",
        ),
        ("name: ring", "name: {choice: [ring]}", "FILE:1: data.name: ", "in system and in training only"),
        ("{minimize: rkl}", "{choice: [{minimize: rkl}]}", "FILE:7: objective: ", "in system and in training only"),
        ("name: point_gan", "name: {choice: [point_gan]}", "FILE:3: system.name: ", "a choice of mappings"),
        # missing
        ("data: {name: ring}\n", "", "FILE:1: data: ", "this key is missing"),
        ("steps: 20, ", "", "FILE:5: training.steps: ", "this key is missing"),
        ("  name: point_gan\n", "", "FILE:2: system: ", "it needs a name"),
        ("{name: ring}", "{}", "FILE:1: data: ", "it needs a name"),
        ("name: points, ", "", "FILE:6: evaluation: ", "name a protocol"),
    ],
)
def test_a_mistake_is_told_at_its_place(lines: Lines, old: str, new: str, place: str, said: str) -> None:
    assert old in RING
    message = lines.refusal(RING.replace(old, new, 1))
    assert message.startswith(place)
    assert said in message


def test_every_packing_is_tried_with_every_batch(lines: Lines) -> None:
    good = "{log_every: 10, evaluate_every: 20, steps: 20, batch_size: {choice: [64, 128]}}"
    text = RING.replace("{steps: 20, log_every: 10, evaluate_every: 20}", good)
    lines.check(text, "system.packing={choice: [1, 2, 4]}")
    bad = text.replace("[64, 128]", "[64, 66]")
    assert "packing 4 does not divide the batch of 66" in lines.refusal(bad, "system.packing={choice: [1, 2, 4]}")
    assert "packing 3 does not divide the batch of 64" in lines.refusal(text, "system.packing={int: [1, 4]}")


@pytest.mark.parametrize(
    ("system", "data", "said"),
    [
        (
            "{name: dcgan, packing: 3}",
            "digits",
            "packing 3 does not divide the batch of 64; set training.batch_size to 63",
        ),
        ("{name: sngan}", "large", "it makes square pictures of 16, 32, 64 pixels, not 20×20"),
        ("{name: dcgan, network: infogan}", "odd", "it makes pictures whose sides are multiples of 4, not 18×18"),
        ("{name: dcgan, loss: minimax, clip: 0.1}", "digits", "those of the minimax loss vanish by themselves"),
        ("{name: dcgan, update: simultaneous, n_critic: 2}", "digits", "simultaneous updates are one of each network"),
        ("{name: point_gan, augment: diffaugment}", "ring", "augment: diffaugment changes images"),
        ("{name: point_gan, penalty: consistency}", "ring", "compares mirrored and moved pictures, not points"),
        ("{name: r3gan, width: 5, groups: 3}", "digits", "groups 3 do not divide the 10 channels of width × expansion"),
        ("{name: dirac}", "ring", "it plays with single points on a line, dataset dirac's, not points 2"),
    ],
)
def test_variants_that_do_not_fit_are_refused_with_the_reason(
    lines: Lines, monkeypatch: pytest.MonkeyPatch, system: str, data: str, said: str
) -> None:
    sides = {"large": 20, "odd": 18}
    if data in sides:
        shape = Shape(Modality.IMAGES, (1, sides[data], sides[data]), classes=10)
        monkeypatch.setattr(Digits, "shape", shape)
    text = f"data: {{name: {'ring' if data == 'ring' else 'digits'}}}\nsystem: {system}\n"
    text += "training: {steps: 20, log_every: 10, evaluate_every: 20}\n"
    text += (
        "evaluation: points\nobjective: {minimize: rkl}\n"
        if data == "ring"
        else ("evaluation: image-small\nobjective: {minimize: fd_clf}\n")
    )
    message = lines.refusal(text)
    assert message.startswith("FILE:2: system")
    assert said in message


@pytest.mark.parametrize(
    ("system", "said"),
    [
        ("system: 5", "FILE:2: system: it should hold keys and values, not 5"),
        ("system:", "FILE:2: system: "),
        (
            "system: point_gan",
            'FILE:2: system: it should hold keys and values, not "point_gan"; write {name: point_gan}',
        ),
        ("system: [point_gan]", "FILE:2: system: "),
        ("system: {choice: [point_gan]}", "FILE:2: system.choice[0]: "),
    ],
)
def test_a_system_is_a_mapping(lines: Lines, system: str, said: str) -> None:
    text = RING.replace("system:\n  name: point_gan\n  lr: 1e-3", system)
    assert lines.refusal(text).startswith(said)


def test_a_hole_is_not_a_file(lines: Lines) -> None:
    body = RING.replace("\n", "\n    ").rstrip()
    assert "in system and in training only" in lines.refusal(f"choice:\n  - {body}\n")


def test_options_that_are_not_first_are_checked(lines: Lines) -> None:
    message = lines.refusal(TWO.replace("beta:", "latent: 3\n      beta:"))
    assert message.startswith("FILE:10: system.choice[1].latent: unknown key; did you mean latent_size?")
    message = lines.refusal(TWO.replace("hinge]", "hing]"))
    assert message.startswith("FILE:6: system.choice[0].loss.choice[1]: ")


def test_an_impossible_combination_shows_itself_when_it_is_built(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture of another size is refused by the networks themselves, and they take no memory: on the meta device."""
    from aigc_lab.shape import Modality, Shape
    from aigc_lab.systems import dcgan

    devices = []
    build = dcgan.DCGAN.__init__

    def watched(self: Any, config: Any, shape: Any) -> None:
        build(self, config, shape)
        devices.append(next(self.parameters()).device.type)

    monkeypatch.setattr(dcgan.DCGAN, "__init__", watched)
    check_experiment(lines.load(TWO))
    assert set(devices) == {"meta"}
    monkeypatch.setattr(Digits, "shape", Shape(Modality.IMAGES, (1, 17, 17), classes=10))
    message = lines.refusal(TWO)
    assert message.startswith("FILE:4: system.choice[0]: ")
    assert "dcgan cannot be built for dataset digits (images 1×17×17): " in message


def test_too_few_real_samples_are_found_before_any_training(lines: Lines) -> None:
    message = lines.refusal(TWO, "evaluation.samples=401")
    assert message == (
        "--set evaluation.samples=401: evaluation.samples: protocol image-small takes 401 samples, and the reference "
        "split of digits has 400; set evaluation.samples to 400 or less"
    )


def test_an_unknown_experiment_is_told_its_neighbours(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown experiment 'digit'; did you mean digits?"):
        load_experiment("digit", data_dir=tmp_path)
    with pytest.raises(UsageError, match=r"nowhere\.yaml: no such file"):
        load_experiment("nowhere.yaml", data_dir=tmp_path)


# ---- --set


def filled(experiment: Experiment) -> Any:
    return experiment.resolve(lambda hole: hole.ends()[0]).data


def test_set_a_dotted_key(lines: Lines) -> None:
    experiment = lines.load(RING, "training.steps=40", "system.lr=5e-4", "system.loss=hinge")
    check_experiment(experiment)
    assert filled(experiment)["training"]["steps"] == 40
    assert filled(experiment)["system"] == {"name": "point_gan", "lr": 5e-4, "loss": "hinge"}


def test_set_reads_yaml(lines: Lines) -> None:
    experiment = lines.load(
        RING, "training={steps: 40, log_every: 20, evaluate_every: 20}", "system.lr={log: [1e-4, 1e-2]}"
    )
    check_experiment(experiment)
    assert filled(experiment)["training"] == {"steps": 40, "log_every": 20, "evaluate_every": 20}
    assert [(hole.name, hole.low, hole.high) for hole in experiment.holes] == [("system.lr", 1e-4, 1e-2)]


def test_set_in_an_option_of_a_choice(lines: Lines) -> None:
    experiment = lines.load(TWO, "system.dcgan.lr=3e-4", "system.vae.beta={choice: [1.0, 2.0]}")
    assert [hole.name for hole in experiment.holes] == ["system", "system.dcgan.loss", "system.vae.beta"]


@pytest.mark.parametrize("change", ["system=vae", "system.name=vae"])
def test_set_decides_a_choice_by_name(lines: Lines, change: str) -> None:
    experiment = lines.load(TWO, change)
    check_experiment(experiment)
    assert experiment.systems == ["vae"]
    assert [hole.name for hole in experiment.holes] == ["system.beta"]
    assert lines.refusal(TWO, change, "system.beta=-1").startswith("--set system.beta=-1: system.beta: ")
    assert lines.refusal(TWO.replace("[0.5, 2.0]", "[2.0, 0.5]"), change).startswith("FILE:10: system.beta.uniform: ")


VARIANTS = TWO.replace(
    "name: vae\n      width: 8\n      beta: {uniform: [0.5, 2.0]}", "name: dcgan\n      width: 16\n      lr: 1e-3"
)


def test_variants_of_one_system_compete(lines: Lines) -> None:
    experiment = lines.load(VARIANTS)
    check_experiment(experiment)
    assert experiment.systems == ["dcgan width=8", "dcgan width=16"]
    assert experiment.defaults("dcgan width=8") == {"system.0.loss": "nonsaturating", "system.0.lr": 2e-4}
    assert experiment.defaults("dcgan width=16") == {}

    def resolved(system: str) -> Configuration:
        return experiment.resolve(lambda hole: system if hole.name == "system" else hole.ends()[0])

    plans = [resolved(system) for system in experiment.systems]
    assert [plan.system for plan in plans] == ["dcgan", "dcgan"]
    assert plans[0].chosen == {"width": 8, "loss": "nonsaturating", "lr": 1e-4}
    assert plans[1].chosen == {"width": 16}
    assert plans[1].title == "dcgan width=16"


def test_set_in_a_variant_goes_by_its_number_and_in_a_file_by_its_stem(lines: Lines) -> None:
    experiment = lines.load(VARIANTS, "system.0.lr=2e-4", "system.1.loss=hinge")
    assert [hole.name for hole in experiment.holes] == ["system", "system.0.loss"]
    assert lines.refusal(VARIANTS, "system.lr=1") == (
        "--set system.lr=1: system is a choice of dcgan width=8, dcgan width=16; write system.0.lr or system.1.lr"
    )
    experiment = lines.load(VARIANTS, "system=dcgan width=16")
    assert filled(experiment)["system"] == {"name": "dcgan", "width": 16, "lr": 1e-3}
    mine = lines.load(TWO.replace("name: vae", "name: ./my/own.py"), "system.own.beta=2.0")
    assert mine.document.data["system"]["choice"][1] == {"name": "./my/own.py", "width": 8, "beta": 2.0}


def test_set_decides_all(lines: Lines) -> None:
    experiment = lines.load(TWO, "system=dcgan", "system.loss=hinge", "system.lr=1e-3")
    check_experiment(experiment)
    assert experiment.holes == []
    assert filled(experiment)["system"] == {"name": "dcgan", "width": 8, "loss": "hinge", "lr": 1e-3}


def test_set_names_a_plugin(lines: Lines) -> None:
    experiment = lines.load(TWO, "system=point_gan", "data=ring", "evaluation=points", "objective={minimize: rkl}")
    check_experiment(experiment)
    assert filled(experiment)["system"] == {"name": "point_gan"}


def test_set_makes_the_sections_that_a_file_may_leave_out(lines: Lines) -> None:
    for text in (RING, RING + "confirm:\n"):
        experiment = lines.load(text, "search.trials=3", "confirm.top=2", "evaluation.samples=500")
        check_experiment(experiment)
        assert experiment.file.search.trials == 3
        assert experiment.file.confirm is not None
        assert experiment.file.confirm.top == 2
        assert experiment.protocol.samples == 500
    experiment = lines.load(RING.replace("{name: points, samples: 400}", "points"), "evaluation.samples=500")
    assert (experiment.protocol.name, experiment.protocol.samples) == ("points", 500)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("training.stepz=5", "--set training.stepz=5: training.stepz: unknown key; did you mean steps or stacked?"),
        ("trainin.steps=5", "--set trainin.steps=5: trainin: unknown key; did you mean training?"),
        ("training.step.more=5", "--set training.step.more=5: step: unknown key; did you mean steps?"),
        ("training.steps=-5", "--set training.steps=-5: training.steps: "),
        ("training.steps=many", '--set training.steps=many: training.steps: it should be a valid integer, not "many"'),
        ("training.steps.x=5", "--set training.steps.x=5: training.steps is a value and has no keys"),
        ("training=[1,", "--set training=[1,:1:4: YAML syntax: "),
        ("training..steps=5", "--set training..steps=5: a key looks like training.steps"),
        ("=5", "--set =5: a key looks like training.steps"),
        (
            "system.lr=1e-3",
            "--set system.lr=1e-3: system is a choice of dcgan, vae; write system.dcgan.lr or system.vae.lr",
        ),
        ("system.dcgn.lr=1", "--set system.dcgn.lr=1: system is a choice of dcgan, vae; "),
        ("system.dcgan.lr={log: [1, 0]}", "--set system.dcgan.lr={log: [1, 0]}: system.choice[0].lr.log: "),
        ("system=vea", "--set system=vea: system.name: unknown system 'vea'; did you mean vae or hvae or cvae?"),
        ("system={name: vae, beta: -1.0}", "--set system={name: vae, beta: -1.0}: system.beta: "),
        ("data={name: ring, modes: 0}", "--set data={name: ring, modes: 0}: data.modes: "),
        ("evaluation.samples=0", "--set evaluation.samples=0: samples: "),
    ],
)
def test_set_errors_name_the_option(lines: Lines, change: str, said: str) -> None:
    assert lines.refusal(TWO, change).startswith(said)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ("search.sampler=gpp", 'not "gpp"; did you mean gp?'),
        ("search.pruner=medain", "did you mean median?"),
        ("training.batch_size={chioce: [2, 32]}", 'not {"chioce": [2, 32]}; did you mean choice?'),
        ("system={chioce: [{name: vae}]}", "; did you mean choice?"),
        ("search.sampler=quite other", 'not "quite other"'),
    ],
)
def test_a_misspelt_word_gets_the_nearest(lines: Lines, change: str, hint: str) -> None:
    assert lines.refusal(TWO, change).endswith(hint)


def test_what_was_set_no_longer_stands_in_the_file(lines: Lines) -> None:
    """A key inside a replaced section is not told to be at the line of the old one."""
    change = "system={name: point_gan, lr: -1.0}"
    assert lines.refusal(RING, change).startswith(f"--set {change}: system.lr: ")
    later = lines.refusal(RING, "training.steps=-1", "training={steps: -2}")
    assert later.startswith("--set training={steps: -2}: training.steps: ")


# ---- identity


def test_the_digest_is_of_what_the_file_says(lines: Lines) -> None:
    digest = lines.load(TWO).digest
    reordered = "\n".join(reversed(TWO.replace("system:\n", "").splitlines()[-4:]))
    body = "\n".join(["# a comment", "", *TWO.splitlines()[:-4], "", reordered])
    assert lines.load(body).digest == digest
    assert lines.load(TWO.replace("{name: digits}", "\n  name:   'digits'  # which")).digest == digest
    assert lines.load(TWO, "search.trials=400").digest == digest
    assert lines.load(TWO, "training.steps=20").digest == digest
    assert lines.load(TWO.replace("1e-4", "0.0001")).digest == digest


def test_the_number_of_trials_is_no_part_of_it_where_the_file_has_no_search(lines: Lines) -> None:
    text = RING.replace("1e-3", "{log: [1e-4, 1e-2]}")
    digest = lines.load(text).digest
    assert lines.load(text, "search.trials=3").digest == digest
    assert lines.load(text, "search.seeds=3").digest != digest


def test_a_file_of_features_is_a_part_of_the_experiment(
    lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = "evaluation: {name: image-small, metrics: [{fd: {features: ./mine.py}}]}"
    text = TWO.replace("evaluation: image-small", own).replace("fd_clf", "fd_mine")
    network = tmp_path / "mine.py"
    network.write_text(MINE.replace("SEED", "1"))
    digest = lines.load(text).digest
    lines.check(text)
    monkeypatch.chdir("/")  # it lies beside the experiment, wherever that is begun
    assert lines.load(text).digest == digest != lines.load(TWO).digest
    network.write_text(MINE.replace("SEED", "2"))
    assert lines.load(text).digest != digest
    network.unlink()
    assert "mine.py" in lines.refusal(text)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1e-4", "1e-5"),
        ("steps: 20", "steps: 21"),
        ("seeds: 2", "seeds: 3"),
        ("[nonsaturating, hinge]", "[hinge, nonsaturating]"),
        ("image-small", "image-fid"),
        ("search:", "confirm: {}\nsearch:"),
        ("minimize", "maximize"),
        ("digits", "mnist"),
    ],
)
def test_any_other_change_is_another_experiment(lines: Lines, old: str, new: str) -> None:
    assert old in TWO
    assert lines.load(TWO.replace(old, new, 1)).digest != lines.load(TWO).digest


# ---- trials


def test_a_trial_has_what_was_chosen_by_short_names(lines: Lines) -> None:
    experiment = lines.load(TWO.replace("batch", "batch"), "training.batch_size={choice: [32, 64]}")
    plan = experiment.resolve(lambda hole: hole.ends()[-1])
    assert plan.system == "vae"
    assert plan.chosen == {"beta": 2.0, "training.batch_size": 64}
    assert plan.values == {"system": "vae", "system.vae.beta": 2.0, "training.batch_size": 64}
    assert plan.system_config.beta == 2.0
    assert json.loads(json.dumps(plan.data)) == plan.data


def test_paper_defaults_of_the_holes_that_have_them_in_range(lines: Lines) -> None:
    experiment = lines.load(TWO, "training.batch_size={choice: [32, 64]}", "training.ema={choice: [0.5, 0.9]}")
    assert experiment.defaults("dcgan") == {
        "system.dcgan.loss": "nonsaturating",
        "system.dcgan.lr": 2e-4,
        "training.batch_size": 64,
    }
    assert experiment.defaults("vae") == {"system.vae.beta": 1.0, "training.batch_size": 64}
    narrow = lines.load(TWO, "system.dcgan.lr={log: [1e-3, 1e-2]}", "system.dcgan.loss={choice: [hinge]}")
    assert narrow.defaults("dcgan") == {}
    single = lines.load(RING, "system.lr={log: [1e-5, 1e-2]}")
    assert single.defaults("point_gan") == {"system.lr": 1e-4}


@pytest.mark.parametrize("name", content.names("experiments"))
def test_shipped_defaults_are_in_range(name: str, pictures: list[tuple[str, str, str]], captions: Path) -> None:
    experiment = load_experiment(name, pictures if name == "folder" else [], data_dir=captions)
    holes = {hole.name: hole for hole in experiment.holes}
    every = {system: experiment.defaults(system) for system in experiment.systems}
    assert holes.keys() <= {"system"} or any(every.values())  # a range may leave out what a paper took for longer runs
    for system, defaults in every.items():
        assert all(value in holes[key] for key, value in defaults.items())
        chosen = {"system": system} | defaults
        experiment.resolve(lambda hole, chosen=chosen: chosen.get(hole.name, hole.ends()[0]))  # type: ignore[misc]
