"""Text of one's own: a UTF-8 file, one sentence a line; with classes, a folder for each, or a table."""

import os
from functools import cached_property
from pathlib import Path

from pydantic import Field

from aigc_lab.data.shared.sentences import Sentences
from aigc_lab.errors import UsageError
from aigc_lab.host.files import is_file
from aigc_lab.text.labelled_files import Labelled, Source, read_labelled


class Lines(Sentences):
    """Sentences of the file or folder `path`, looked for in the working directory, then in the data folder. With a
    second one, `scored`, train is all of the first, and reference and holdout are halves of the second.

    Labels: the class is the first folder below `path`, whose .txt files are read, one sentence a line; or the first
    column of a file with a tab behind it; or the column `label` beside the column `text` of a CSV file. `auto` uses
    sub-folders, and the column of .tsv and .csv files, and takes no labels from anything else.
    """

    class Config(Sentences.Config):
        path: str = Field(description="a UTF-8 file, one sentence a line; a table with labels; a folder of classes")
        scored: str | None = Field(None, description="a file or folder whose sentences are only scored against")
        labels: Source = Field("auto", description="where classes are; auto: sub-folders, and .tsv and .csv files")

    def lines(self) -> tuple[list[str], list[str]]:
        first, second = self._read
        return first.sentences, second.sentences

    def labels(self) -> tuple[list[str], list[str]] | None:
        first, second = self._read
        return None if first.labels is None else (first.labels, second.labels or [])

    @cached_property
    def _read(self) -> tuple[Labelled, Labelled]:
        config = self.config
        first = read_labelled(self._find("path", config.path), config.labels, "data.path")
        if config.scored is None:
            return first, Labelled([], None, 0)
        second = read_labelled(self._find("scored", config.scored), config.labels, "data.scored")
        if (first.labels is None) != (second.labels is None):
            labelled, other = ("path", "scored") if second.labels is None else ("scored", "path")
            raise UsageError(
                f"data.{other}: {getattr(config, other)} has no labels, and data.{labelled} has some; give both "
                "labels, or set data.labels to none"
            )
        return first, second

    @property
    def notes(self) -> list[str]:
        notes, blank = super().notes, sum(each.blank for each in self._read)
        return [*notes, f"{blank:,} blank lines are left out"] if blank else notes

    def _find(self, key: str, name: str) -> Path:
        file = Path(name).expanduser()
        for path in (file, self.data_dir / file):
            if is_file(path) or os.path.isdir(path):
                return path
        where = "" if file.is_absolute() else f", nor in the data folder {self.data_dir} (AIGC_LAB_DATA_DIR)"
        raise UsageError(f"data.{key}: {name}: no such file here{where}")
