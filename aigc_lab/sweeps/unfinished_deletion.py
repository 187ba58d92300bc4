"""Deletions that were begun and not finished: each has left a note in the home, and its sweep is not worked on."""

import json
from dataclasses import dataclass

from aigc_lab.errors import UsageError
from aigc_lab.host.settings import Settings


@dataclass(frozen=True)
class Doomed:
    """What is to go: a sweep, or one `run` of it."""

    sweep: str
    run: str | None

    @property
    def name(self) -> str:
        return self.run or self.sweep


def refuse_unfinished(settings: Settings, sweep: str) -> None:
    """Raises `UsageError` for a sweep whose deletion was interrupted."""
    for note in unfinished_deletions(settings):
        if note.sweep == sweep:
            raise UsageError(f"the deletion of {note.name} was interrupted; finish it: aigc-lab delete {note.name}")


def unfinished_deletions(settings: Settings) -> list[Doomed]:
    """What the notes name, in the order of their names."""
    return [Doomed(**json.loads(path.read_bytes())) for path in sorted((settings.home / "deleting").glob("*.json"))]
