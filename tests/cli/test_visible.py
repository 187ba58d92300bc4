"""What a terminal would obey is shown: in every command that prints what is stored, and in the report."""

import io
import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.progress import Progress

from aigc_lab.cli import completion
from aigc_lab.display.progress import SweepDisplay
from aigc_lab.display.terminal import console as console_of
from aigc_lab.host import visible
from aigc_lab.registry.records import StoredArtifact, StoredPromotion, StoredScalar, StoredScore, StoredVerdict
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry

# A colour, a title, a bell, an 8-bit escape, a turned name, marks that are not seen, a line of its own, rich's markup.
EVIL = "\x1b[31mred\x1b]0;title\x07\x9b2J\u202egnp.exe\u2066\u200b\u061c\ufeff\x7f\rerror: fake\n[blink]x[/none]:bomb:"
# Letters of several scripts with their joiners, a family, a flag of a region.
GOOD = "日本語 שלום العربية می\u200cخواهم 👩\u200d🔬 🏴\U000e0067\U000e0062\U000e007f é"
NAME = f"{EVIL}{GOOD}"

COMMANDS = [
    ["runs"],
    ["show", "RUN"],
    ["compare"],
    ["compare", "SWEEP"],
    ["status"],
    ["status", "SWEEP"],
    ["models"],
    ["list", "experiments"],
    ["judge", "seeds", "SWEEP"],
    ["spool"],
    ["report", "SWEEP", "-o", "page.html"],
    ["delete", "SWEEP", "--dry-run"],
    ["show", f"x{EVIL}"],
    ["sample", f"x{EVIL}"],
    ["sample", f"{EVIL}.safetensors"],
    ["import", f"{EVIL}.tar"],
    ["export", "SWEEP", "-o", f"{EVIL}/x.tar"],
    ["runs", "--state", EVIL],
    ["list", f"x{EVIL}"],
    [f"x{EVIL}"],
    ["runs", f"--{EVIL}"],
    ["runs", "--limit", EVIL],
]
SCRIPT = """
import json, sys
from aigc_lab.cli import main
for given in json.load(open("commands.json")):
    sys.argv = ["aigc-lab", *given]
    try:
        main()
    except SystemExit:
        pass
    sys.__stdout__.flush()
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which everything that has a name has a hostile one."""
    home = tmp_path_factory.mktemp("home")
    with Registry.open(f"sqlite:///{home / 'registry.db'}") as registry:
        sweep = registry.sweep(NAME, "0123456789", {"data": {"name": NAME}}, NAME, "lower", source=NAME)
        registry.trial(sweep, 0, NAME, {NAME: NAME}, {})
        done, failed, going = (registry.run(sweep, 0, seed, "search") for seed in range(3))
        attempt = registry.begin(done, {"host": NAME, NAME: NAME})
        scores = [
            StoredScore(NAME, 1.0, 0.9, 1.1, 50, 0.4, NAME, "lower", kind, 20, split)  # type: ignore[arg-type]
            for kind, split in (("last", "holdout"), ("progress", "reference"))
        ]
        registry.finish(
            done,
            attempt,
            RunState.FINISHED,
            seconds=1.0,
            scores=scores,
            scalars={NAME: StoredScalar(1.0, 0.5, 2.0, 20)},
            artifacts=[StoredArtifact(NAME, "image/png", f"artifacts/{NAME}.png")],
            verdicts=[StoredVerdict.of("collapse", 20, {"verdict": "SEVERE", "reason": NAME, "signature": NAME})],
        )
        registry.finish(failed, registry.begin(failed, {}), RunState.FAILED, reason=NAME)
        registry.begin(going, {"host": NAME})
        registry.promote(StoredPromotion(NAME, 1, done, "last", "d", "0" * 64, f"models/{NAME}", NAME, ""))
        registry.point(NAME, NAME, 1, NAME)
    (home / "experiments").mkdir()
    for name in (f"{EVIL.replace('/', '')}.yaml", f"{GOOD}.yaml"):
        (home / "experiments" / name).write_text(f"# {NAME}\n")
    (home / "spool" / NAME.replace("/", "")).mkdir(parents=True)
    return home


def obeyed(text: str) -> set[str]:
    """Characters that a terminal would obey, or that are not seen."""
    text = text.replace(GOOD, "").replace("\n", "").replace("\t", "")
    return {char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")}


def run(home: Path, commands: list[list[str]]) -> tuple[str, str]:
    """Standard output and standard error of all of them, one after the other."""
    sweep = f"{NAME}-01234567"
    known = {"SWEEP": sweep, "RUN": f"{sweep}.0.0"}
    (home / "commands.json").write_text(json.dumps([[known.get(word, word) for word in each] for each in commands]))
    env = {k: v for k, v in os.environ.items() if not k.startswith("AIGC_LAB_") and k != "COLUMNS"}
    env |= {"AIGC_LAB_HOME": str(home), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, cwd=home, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return done.stdout.decode(), done.stderr.decode()


def test_no_command_lets_a_name_speak_to_the_terminal(home: Path) -> None:
    out, err = run(home, COMMANDS)
    assert obeyed(out) == set() and obeyed(err) == set()
    for text in (out, err):
        assert "Traceback" not in text, text
        assert r"\x1b[31mred\x1b]0;title\x07\x9b2J\u202egnp.exe\u2066\u200b\u061c\ufeff\x7f" in text
        assert "\nerror: fake" not in text and "[blink]x[/none]:bomb:" in text
    assert GOOD in out
    for said in ("unknown sweep", "no such file", "cannot be read", "No such command", "unknown kind", "unknown state"):
        assert said in err, said
    page = (home / "page.html").read_text("utf-8")
    shown = page.partition('<script type="application/json"')
    assert obeyed(page.replace(_plotly(), "")) <= set(GOOD) and r"\u202egnp.exe" in shown[0] and GOOD in page


def _plotly() -> str:
    from aigc_lab.web import pages

    return str(pages.inline(pages.plotly()))


def test_json_is_the_names_themselves_and_is_ascii(home: Path) -> None:
    commands = (["runs"], ["show", "RUN"], ["compare"], ["status"], ["models"])
    out, _ = run(home, [[*arguments, "--json"] for arguments in commands])
    assert out.isascii() and obeyed(out) == set()
    for arguments in commands:
        found, end = json.JSONDecoder().raw_decode(out)
        assert NAME in _strings(found), arguments
        out = out[end:].lstrip()
    assert out == ""


def _strings(node: object) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield key
            yield from _strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from _strings(value)


def test_the_shell_is_offered_nothing_that_nobody_could_type(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIGC_LAB_HOME", str(home))
    monkeypatch.delenv("AIGC_LAB_REGISTRY_URL", raising=False)
    monkeypatch.chdir(home)
    assert completion.sweeps("") == completion.runs("") == completion.results("") == []
    assert GOOD in completion.experiments("") and obeyed("".join(completion.experiments(""))) == set()
    assert [name for name in completion.experiments("experiments/") if obeyed(name)] == []


def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Standard error as a terminal."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_on_a_terminal_only_its_own_colours_are_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bars and styles are drawn, through the guard too; of names, whatever says them, nothing is obeyed."""
    stream = terminal(monkeypatch)
    visible.guard()
    with SweepDisplay(console_of(stderr=True), steps=10) as display:
        print(NAME, file=sys.stderr)
        display.say(NAME)
    console = console_of(stderr=True)
    console.print(f"[bold]{NAME}", style="bold")
    with Progress(console=console) as progress:
        progress.update(progress.add_task("bar", total=1), completed=1)
        visible.guard()
        print(NAME, file=sys.stderr)
    shown = stream.getvalue()
    assert "\x1b[1m" in shown and "[bold]" in shown and "\x1b[?25l" in shown
    for bad in ("\x1b[31m", "\x1b]0", "\x07", "\x9b", "\u202e", "\u2066", "\u200b", "\nerror: fake\x1b", "\x1b[5m"):
        assert bad not in shown, bad
    assert shown.count(r"\x1b[31mred") == 4 and GOOD in shown
    guarded: object = sys.stderr
    assert isinstance(guarded, visible.Stream) and guarded.rich_proxied_file is stream


def test_all_that_is_not_seen_is_written_out() -> None:
    """Of all of Unicode: controls, marks, halves; not the signs around digits, nor hieroglyphs' own."""
    every = map(chr, range(sys.maxunicode + 1))
    unseen = {char for char in every if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    kept = {char for char in unseen if visible.line(char) == char}
    assert {unicodedata.name(char).split()[0] for char in kept} <= {"ARABIC", "SYRIAC", "KAITHI", "EGYPTIAN"}
    assert all(visible.line(char).isprintable() for char in unseen - kept)
    assert visible.text("a\n\tb") == "a\n\tb" and visible.line("a\n\tb\r") == r"a\n\tb\r"
    assert visible.line("\U000e0041\ud800\u2028") == r"\U000e0041\ud800\u2028"
    assert visible.line("a\u200db \u200d") == r"a\u200db \u200d" and visible.line(GOOD) == GOOD
