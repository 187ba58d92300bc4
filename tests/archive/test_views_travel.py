"""Views of a run are verified, sent again, exported, imported and deleted like its samples."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import WriterHere

from aigc_lab import api
from aigc_lab.archive import deletion, export, import_
from aigc_lab.commands import rebuild
from aigc_lab.commands.verify import verify_sweeps
from aigc_lab.host.settings import Settings
from aigc_lab.registry.store import Registry
from aigc_lab.tracking import writer

RUN = {
    "name": "mine",
    "data": {"name": "digits"},
    "system": {"name": "vae", "network": "infogan", "width": 4, "latent_size": 2},
    "training": {"steps": 4, "batch_size": 16, "log_every": 2, "evaluate_every": 2, "threads": 1},
    "evaluation": {"name": "vae", "metrics": ["reconstruction"], "samples": 200},
    "objective": {"minimize": "reconstruction_mse"},
}
FAMILIES = ("interpolations", "reconstructions", "samples", "traversals")


class Home:
    def __init__(self, path: Path) -> None:
        self.path, self.settings = path, Settings.load(path)

    def verify(self) -> list[str]:
        with Registry.open(self.settings.registry_url, home=self.path) as registry:
            return verify_sweeps(registry, self.settings).problems

    def rebuild(self) -> list[Any]:
        with Registry.open(self.settings.registry_url, home=self.path) as registry:
            return list(rebuild.rebuild(registry, self.settings, "mine"))

    def images(self, name: str = "*") -> list[Path]:
        return sorted((self.path / "artifacts" / "mlflow").rglob(f"images/{name}"))

    def shown(self) -> set[tuple[str, int]]:
        """Keys and steps of the pictures that MLflow has in both sizes."""
        found = [re.match(r"(\w+)~grid\+step\+(\d+)\+", path.name) for path in self.images()]
        pairs = [(match[1], int(match[2])) for match in found if match]
        return {pair for pair in pairs if pairs.count(pair) == 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("trained") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "Writer", WriterHere)
        for name in list(os.environ):
            if name.startswith("AIGC_LAB_") or name == "MLFLOW_TRACKING_URI":
                patch.delenv(name)
        api.train(RUN, home=folder, device="cpu")
        yield Home(folder)


EVERY = {(family, step) for family in FAMILIES for step in (0, 2, 4)}


def test_what_is_lost_is_told_and_sent_again(trained: Home) -> None:
    assert trained.verify() == [] and trained.shown() == EVERY
    (lost,) = trained.images("traversals~grid+step+2+*.webp")
    (torn,) = trained.images("reconstructions~grid+step+4+*.png")
    content = torn.read_bytes()
    lost.unlink()
    torn.unlink()  # the home's is the same file
    torn.write_bytes(content[:-40])
    (said,) = {text.partition(": ")[0] for text in trained.verify()}
    assert [text.removeprefix(f"{said}: ").partition(";")[0] for text in trained.verify()] == [
        "MLflow lacks the traversals of step 2",
        "the reconstructions of step 4 in MLflow are damaged",
    ]
    trained.rebuild()
    assert trained.verify() == [] and trained.shown() == EVERY
    (mine,) = trained.path.glob("artifacts/mine-*/*/reconstructions/000004.png")
    (torn,) = trained.images("reconstructions~grid+step+4+*.png")
    whole = mine.read_bytes()
    mine.unlink()
    mine.write_bytes(whole[:-40])
    (text,) = trained.verify()
    assert text.endswith(f"{mine} is cut off, or damaged; MLflow's is whole: cp --remove-destination {torn} {mine}")
    shutil.copyfile(torn, mine)
    assert trained.verify() == []


def test_they_arrive_elsewhere_and_go_with_their_run(trained: Home, tmp_path: Path) -> None:
    file = export.export("mine", trained.settings, tmp_path / "mine.tar", force=False).path
    other = Home(tmp_path / "other")
    import_.import_(file, other.settings, lambda _: None, trust_code=False)
    assert other.verify() == [] and other.shown() == EVERY
    here, there = (
        {
            path.relative_to(home.path).as_posix(): path.read_bytes()
            for path in home.path.glob("artifacts/mine-*/**/*.png")
        }
        for home in (trained, other)
    )
    assert here == there and len(here) == len(EVERY) + len(FAMILIES)
    deletion.delete("mine", other.settings, lambda _: None, lambda _: True, dry_run=False)
    assert not list(other.path.glob("artifacts/**/*.png"))
