"""A text file of one's own: UTF-8, one sentence a line."""

import os
from pathlib import Path

from pydantic import Field

from aigc_lab.data.shared.sentences import Sentences
from aigc_lab.errors import UsageError
from aigc_lab.host.files import is_file
from aigc_lab.text.sentence_files import read_lines


class Lines(Sentences):
    """Sentences of the file `path`, looked for in the working directory, then in the data folder. With a second file
    `scored`, train is the whole first file, and reference and holdout are halves of the second.
    """

    class Config(Sentences.Config):
        path: str = Field(description="a UTF-8 file, one sentence a line")
        scored: str | None = Field(None, description="a file whose sentences are only scored against")

    def lines(self) -> tuple[list[str], list[str]]:
        sentences, blank = read_lines(self._find("path", self.config.path), "data.path")
        scored, more = ([], 0) if self.config.scored is None else self._scored(self.config.scored)
        self._blank = blank + more
        return sentences, scored

    def _scored(self, name: str) -> tuple[list[str], int]:
        return read_lines(self._find("scored", name), "data.scored")

    @property
    def notes(self) -> list[str]:
        notes = super().notes
        return [*notes, f"{self._blank:,} blank lines are left out"] if self._blank else notes

    def _find(self, key: str, name: str) -> Path:
        file = Path(name).expanduser()
        for path in (file, self.data_dir / file):
            if is_file(path):
                return path
            if os.path.isdir(path):
                raise UsageError(f"data.{key}: {path} is a folder; name a text file, one sentence a line")
        where = "" if file.is_absolute() else f", nor in the data folder {self.data_dir} (AIGC_LAB_DATA_DIR)"
        raise UsageError(f"data.{key}: {name}: no such file here{where}")
