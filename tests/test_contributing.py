"""CONTRIBUTING names what is there: every path in it exists, and so does a place for every kind of plugin."""

import re
from pathlib import Path

import aigc_lab
from aigc_lab import plugins

ROOT = Path(aigc_lab.__file__).parent.parent
TEXT = (ROOT / ".github" / "CONTRIBUTING.md").read_text("utf-8")


def paths() -> list[str]:
    """What stands in backticks and looks like a path, words of a command included."""
    words = [word for quoted in re.findall(r"`([^`]+)`", TEXT) for word in quoted.split()]
    return [word.rstrip(":") for word in words if "/" in word]


def test_every_path_exists() -> None:
    found = paths()
    assert len(found) > 30
    for path in found:
        place = ROOT / path
        assert place.parent.is_dir() if "NAME" in path else place.exists(), path


def test_the_table_has_a_row_for_each_folder_of_plugins() -> None:
    for folder in plugins._NOUN:
        assert f"`aigc_lab/{folder}/NAME.py`" in TEXT
    for folder in ("experiments", "evaluation"):
        assert f"`{folder}/NAME.yaml`" in TEXT
    assert "`tests/benchmarks/bench_NAME.py`" in TEXT
