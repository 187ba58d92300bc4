"""The README is true: its commands run in order from an empty folder, and what it names is there.

`python tests/test_readme.py` writes its glossary anew, from `aigc_lab/display/glossary.py`.
"""

import pkgutil
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import typer
from conftest import Judged, WriterHere
from shell import command

import aigc_lab
from aigc_lab import plugins
from aigc_lab.cli.options import app
from aigc_lab.data.digits import Digits
from aigc_lab.display import glossary
from aigc_lab.experiment.checks import check_experiment
from aigc_lab.experiment.experiment import load_experiment
from aigc_lab.extractors.classifier import Classifier
from aigc_lab.host import content
from aigc_lab.host.settings import Settings
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.samples import Images
from aigc_lab.tracking import writer

ROOT = Path(aigc_lab.__file__).parents[1]
PATH = ROOT / "README.md"
README = PATH.read_text("utf-8")
# Without the fenced blocks, in which a backtick means something else.
PROSE = re.sub(r"^```\w*\n.*?^```$", "", README, flags=re.DOTALL | re.MULTILINE)
SPANS = [" ".join(span.replace(r"\|", "|").split()) for span in re.findall(r"`([^`]+)`", PROSE)]
FILES = dict(re.findall(r"^<!-- own file: (\S+) -->\n```\w+\n(.*?)^```$", README, re.DOTALL | re.MULTILINE))

# ---- commands


class Typed(NamedTuple):
    """A line as it is typed: what is set for it alone, the program, and its words."""

    program: str
    words: list[str]

    @property
    def text(self) -> str:
        return shlex.join([self.program, *self.words])


PROGRAMS = {"aigc-lab", "cd", "curl", "git", "mlflow", "pip", "python", "source", "uv"}


def typed(line: str) -> Typed | None:
    """The command of a line, without `uv run`; None for what a command prints, which may show commands further in."""
    if line[:1].isspace():
        return None
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # an apostrophe of a sentence
        return None
    if words[:2] == ["uv", "run"]:
        words = words[2:]
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    return Typed(words[0], words[1:]) if words and words[0] in {*PROGRAMS, "pytest"} else None


def blocks() -> Iterator[tuple[str, list[str]]]:
    """The language and the lines of each fenced block that may hold commands."""
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE):
        if language in ("", "sh"):
            yield language, text.splitlines()


def in_order() -> list[Typed]:
    """The commands of the blocks. What a command prints stands in a block without a language, and begins otherwise."""
    return [each for _, lines in blocks() for line in lines if (each := typed(line)) is not None]


def of_spans(text: str) -> list[Typed]:
    """The commands of `aigc-lab` that stand in a text, not in a block."""
    spans = [" ".join(span.replace(r"\|", "|").split()) for span in re.findall(r"`([^`]+)`", text)]
    return [Typed("aigc-lab", shlex.split(span)[1:]) for span in spans if span.startswith("aigc-lab ")]


def section(title: str) -> str:
    """The text of a section, its blocks included."""
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text: str, head: str) -> list[list[str]]:
    """The cells of a table, found by how its first line begins."""
    table = text[text.index(f"\n| {head}") + 1 :].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in table]


def named(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_blocks_of_commands_hold_nothing_else() -> None:
    lines = [line for language, lines in blocks() if language == "sh" for line in lines]
    assert lines and not [line for line in lines if typed(line) is None]
    assert len(in_order()) > 20


def parsed(words: list[str]) -> Any:
    """The command that these words name, with the rest of them understood by it. Nothing is run."""
    found: Any = typer.main.get_command(app)
    name = "aigc-lab"
    while words and hasattr(found, "commands") and not words[0].startswith("-"):
        assert words[0] in found.commands, f"{name} has no {words[0]}"
        name, found, words = f"{name} {words[0]}", found.commands[words[0]], words[1:]
    if hasattr(found, "commands"):  # options of the program itself end it: they are only looked up
        assert words, f"{name} is no command"
        assert set(words) <= {option for each in found.params for option in each.opts}
    elif words:  # a name alone is the command's name
        found.make_context(name, [re.sub(r"^\[?([A-Z|]+)\]?$", r"\1", word) for word in words])
    return found


def alternatives(words: list[str]) -> Iterator[list[str]]:
    """`list|verify|clear` as three commands, and numbers where a letter stands for one."""
    words = [{"N": "2", "K": "2", "…": ""}.get(word, word) for word in words]
    for place, word in enumerate(words):
        if re.fullmatch(r"[a-z]+(\|[a-z]+)+", word):
            for each in word.split("|"):
                yield [*words[:place], each, *words[place + 1 :]]
            return
    yield [word for word in words if word]


def everything() -> list[list[str]]:
    """Every `aigc-lab …` of blocks and text, as words."""
    found = [each.words for each in in_order() if each.program == "aigc-lab"]
    return [words for each in [*found, *(each.words for each in of_spans(PROSE))] for words in alternatives(each)]


@pytest.mark.parametrize("words", everything(), ids=" ".join)
def test_every_command_is_understood(words: list[str]) -> None:
    parsed(words)


def every_command(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, found in group.commands.items():
        if hasattr(found, "commands"):
            yield from every_command(found, f"{before}{name} ")
        else:
            yield f"{before}{name}", found


def options(found: Any) -> set[str]:
    return {name for each in found.params for name in (*each.opts, *each.secondary_opts) if name.startswith("-")}


def test_the_table_of_commands_is_whole_and_its_options_are_those_of_its_row() -> None:
    ours = dict(every_command(typer.main.get_command(app)))
    told = set()
    for first, second in rows(section("What else it does"), "command"):
        spans = [shlex.split(span.removeprefix("aigc-lab ")) for span in named(first)]
        typed_here = [words for span in spans for words in alternatives(span)]
        allowed = {option for words in typed_here for option in options(parsed(words))}
        told |= {name for name in ours for words in typed_here if words[: len(name.split())] == name.split()}
        for span in named(second):
            assert {word for word in span.split() if word.startswith("--")} <= allowed, (first, span)
    assert set(ours) - told == set()


def test_every_option_in_the_text_is_one() -> None:
    root = typer.main.get_command(app)
    ours = {option for _, found in every_command(root) for option in options(found)}
    for span in SPANS:
        if span.startswith("-"):
            assert span.split()[0] in ours, span


# ---- what is named


OTHER_KINDS = {
    "extractors": "features",
    "penalties": "penalties",
    "augmentations": "augmentations",
    "optimizers": "optimisers",
    "pruners": "pruners",
    "executors": "executors",
    "modalities": "modalities",
}


def listed(folder: str) -> str:
    """Where the README lists the plugins of a folder."""
    ships = section("What else it does")
    if folder == "data":
        return ships.partition("\nand the datasets ")[2].partition("\n\n")[0]
    if folder in OTHER_KINDS:
        return "\n".join(row[1] for row in rows(ships, "of other") if row[0] == OTHER_KINDS[folder])
    title, head = {"systems": ("The zoo", "system"), "metrics": ("Score what you have", "metric")}[folder]
    return "\n".join(row[0] for row in rows(section(title), head))


@pytest.mark.parametrize("folder", plugins._NOUN)
def test_plugins_that_are_named_are_those_that_ship(folder: str) -> None:
    assert sorted(named(listed(folder))) == plugins.names(folder)


def test_protocols_that_are_named_are_those_that_ship() -> None:
    cells = [row[1] for row in rows(section("What else it does"), "of other") if row[0].startswith("protocols")]
    assert sorted(named("\n".join(cells))) == sorted(path.stem for path in content.folder("evaluation").glob("*.yaml"))


def test_experiments_that_are_named_are_those_that_ship() -> None:
    ship = {path.stem for path in content.folder("experiments").glob("*.yaml")}
    told: set[str] = set()
    for first, _, cost in rows(section("What else it does"), "experiment"):
        names = [name for name in named(first) if not name.startswith("…")]
        assert set(names) <= ship, first
        told |= {*names, *named(cost)}
        for end in (name[1:] for name in named(f"{first} {cost}") if name.startswith("…")):
            assert {f"{name}{end}" for name in names} & ship, (first, end)
            told |= {f"{name}{end}" for name in names}
    assert ship - told == set()


def test_every_path_exists() -> None:
    tops = {"aigc_lab", "tests", "evaluation", "experiments", "dashboards", ".github", ".ci"}
    words = [word.rstrip(":,.") for span in SPANS for word in span.split()]
    found = [word for word in words if "/" in word and word.partition("/")[0] in tops]
    found += re.findall(r"\]\(([^)#:]+)\)", PROSE)
    assert len(found) > 10
    assert [path for path in found if not (ROOT / path).exists()] == []


def test_the_tree_is_the_package() -> None:
    package, _, rest = section("The tree").partition("aigc_lab/\n")[2].partition("\nexperiments/")
    told = {
        name.removesuffix("/") for line in package.splitlines() for name in re.split(r"\s{3,}", line.strip())[0].split()
    }
    there = {path.stem for path in (ROOT / "aigc_lab").iterdir() if path.is_dir() or path.suffix == ".py"}
    assert told == there - {"__init__", "__pycache__", "content"}
    assert all((ROOT / name).is_dir() for name in re.findall(r"^(\w+)/", f"experiments/{rest}", re.MULTILINE))


def test_every_name_of_python_is_one() -> None:
    found = {match[0] for span in SPANS if (match := re.match(r"aigc_lab(\.\w+)+", span))}
    assert len(found) > 10
    for name in found:
        pkgutil.resolve_name(name)


def test_every_variable_is_read_and_every_one_of_ours_is_named() -> None:
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "aigc_lab").rglob("*.py"))
    ours, others = r"AIGC_LAB_[A-Z_]+", r"MLFLOW_[A-Z_]+|OMP_[A-Z_]+"
    told = set(re.findall(rf"\b(?:{ours}|{others})\b", README))
    assert [name for name in told if name not in source] == []
    internal = {name for name in re.findall(ours, source) if name.startswith("AIGC_LAB_UI_")}  # from process to process
    assert set(re.findall(ours, source)) - internal - told == set()


# ---- the glossary

BEGIN, END = (
    "<!-- glossary: written by `python tests/test_readme.py` from aigc_lab/display/glossary.py -->\n",
    "<!-- end of the glossary -->",
)
WORDS = (
    *("floor", "n", "sampling error", "range", "interval", "signature", "reference", "holdout"),
    *("trial", "run", "seed", "fresh seed", "collapse", "stability", "!", "?"),
    *("~", "P(A better)", "cannot tell"),
)


def glossary_block() -> str:
    """The table of the README: what a ranking shows, and each verdict in one line."""
    told = [("`fd_clf`", glossary.score_text("fd_clf", "lower"))]
    told += [(word, glossary.TERMS[word]) for word in WORDS]
    for kind, texts in (("collapse", glossary.COLLAPSE), ("stability", glossary.STABILITY)):
        told += [(f"{kind} {word}", text) for word, text in texts.items()]
    return "".join(["| word | meaning |\n|---|---|\n", *(f"| {word} | {text} |\n" for word, text in told)])


def test_the_glossary_is_that_of_the_report() -> None:
    assert README.partition(BEGIN)[2].partition(END)[0] == glossary_block()


def test_the_floor_is_explained_for_either_direction() -> None:
    assert "above where lower is better (↓)" in glossary.TERMS["floor"]
    assert "below where higher is better (↑)" in glossary.TERMS["floor"]


# ---- what is said of judges


def test_a_judge_goes_along_with_its_folder(judged: Judged, tmp_path: Path) -> None:
    assert f"`{Settings.load(None).cache.relative_to(Path.cwd())}/classifiers`" in section("By design")

    def silent(text: str) -> None:
        raise AssertionError(f"it is trained again: {text}")

    shutil.copytree(judged.cache / "classifiers", tmp_path / "classifiers")
    there = Classifier.prepare(judged.dataset, cache=tmp_path, weights=WeightsPolicy(), device="cpu", say=silent)
    here = Classifier.prepare(judged.dataset, cache=judged.cache, weights=WeightsPolicy(), device="cpu", say=silent)
    assert there.identity == here.identity


# ---- the commands, run

QUICK = "--trials 2 --steps 4 --set training.evaluate_every=4 --set training.log_every=4 --set confirm=null"
#: a command -> what is added to it, so that minutes are seconds
SHORT = {
    "aigc-lab sweep digits": QUICK,
    "aigc-lab sweep pydoc --workers 2": f"{QUICK} --trials 1 --workers 1 --set evaluation.samples=50",
    "aigc-lab promote digits": "--force --reason quick",  # four steps teach nothing
    "aigc-lab promote digits@1": "--force --reason quick",
}
#: a command, or how it begins -> why it is not run
NOT_RUN = {
    "git clone": "there is a checkout",
    "cd aigc-lab": "of the clone",
    "pip install uv": "a download",
    "pytest -n logical": "these tests",
    "source .venv/bin/activate": "the environment of these tests serves",
    "mlflow models serve": "a server: tests/serving/test_serving.py",
    "curl localhost:5000": "asks that server",
    "aigc-lab evaluate --generated samples/ --reference cifar10": "downloads CIFAR-10 and Inception's weights",
}


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None) -> Path:
    """A folder with what a reader brings, `photos/`, `real.txt` and `history.csv`, and nothing else; no network."""
    real = Digits(Digits.Config(), Path()).load("train")
    assert isinstance(real, Images)
    (tmp_path / "photos").mkdir()
    for number, picture in enumerate(real.take(slice(0, 400)).values[:, 0].numpy()):
        _png(tmp_path / "photos" / f"{number}.png", picture)
    things = ("cat", "dog", "house", "tree", "river", "child", "road", "light", "word", "stone")
    lines = [f"the {a} sees a {b} near the {c}" for a in things for b in things for c in things if a != b != c]
    (tmp_path / "real.txt").write_text("".join(f"{line}\n" for line in lines))
    values = np.geomspace(100, 10, 12)
    (tmp_path / "history.csv").write_text("step,fid\n" + "".join(f"{i},{value}\n" for i, value in enumerate(values)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(writer, "Writer", WriterHere)
    for name in ("HOME", "REGISTRY_URL", "OPTUNA_URL", "DATA_DIR", "WEIGHTS_DIR"):
        monkeypatch.delenv(f"AIGC_LAB_{name}", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def _png(path: Path, picture: Any) -> None:
    from PIL import Image

    Image.fromarray(picture).save(path)


def run_all(commands: Iterable[Typed]) -> list[str]:
    """Runs the commands of `aigc-lab`, shortened; what was run."""
    ran = []
    for each in commands:
        if any(each.text.startswith(begins) for begins in NOT_RUN):
            continue
        assert each.program == "aigc-lab", f"{each.text}: run it, or say in NOT_RUN why not"
        told = command(*each.words, *shlex.split(SHORT.get(each.text, "")))
        assert told.code == 0, f"{each.text}: {told.errors}"
        ran.append(each.text)
    return ran


def test_what_is_shortened_and_what_is_not_run_is_in_the_readme() -> None:
    texts = [each.text for each in in_order()]
    assert [each for each in SHORT if each not in texts] == []
    assert [each for each in NOT_RUN if not any(text.startswith(each) for text in texts)] == []


def test_the_commands_run_in_order_from_an_empty_folder(empty: Path) -> None:
    ran = run_all(in_order())
    assert len(ran) > 15
    made = {path.name for path in empty.iterdir()}
    assert {".aigc-lab", "samples-digits-1", "samples", "samples.txt"} <= made


def own_files_in_order() -> list[Typed]:
    text = re.sub(r"^```\w*\n.*?^```$", "", section("Bring your own"), flags=re.DOTALL | re.MULTILINE)
    return [each for each in of_spans(text) if len(each.words) > 1 and each.words[-1] != "FILE"]


FEW = {"captions": "evaluation.samples=50"}  # what 800 lines allow


def with_keys() -> list[Typed]:
    """The sweeps and trainings that the text shows with `--set`."""
    return [each for each in of_spans(PROSE) if each.words[0] in ("sweep", "train") and "--set" in each.words]


@pytest.mark.parametrize("each", with_keys(), ids=lambda each: each.text)
def test_experiments_take_the_keys_that_are_set(empty: Path, each: Typed) -> None:
    for name, text in FILES.items():
        (empty / name).write_text(text, "utf-8")
    settings = [word for before, word in zip(each.words, each.words[1:], strict=False) if before == "--set"]
    settings += [FEW[each.words[1]]] if each.words[1] in FEW else []
    parts = [setting.partition("=") for setting in settings]
    changes = [(key, value, f"--set {key}={value}") for key, _, value in parts]
    check_experiment(load_experiment(each.words[1], changes, data_dir=empty))


@pytest.mark.slow
def test_the_commands_on_own_files_run_in_order(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in FILES.items():
        (empty / name).write_text(text, "utf-8")
    commands = own_files_in_order()
    few = {name: f" --set {setting}" for name, setting in FEW.items()}
    short = {each.text: f"{QUICK}{few.get(each.words[1], '')}" for each in commands if each.words[0] == "sweep"}
    monkeypatch.setattr(f"{__name__}.SHORT", SHORT | short)
    assert len(run_all(commands)) > 12


if __name__ == "__main__":
    before, _, rest = README.partition(BEGIN)
    PATH.write_text(f"{before}{BEGIN}{glossary_block()}{END}{rest.partition(END)[2]}", "utf-8")
