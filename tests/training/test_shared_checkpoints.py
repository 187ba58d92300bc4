"""Checkpoints of a run that other homes go on from: published after what they name, checked, and the older one taken
where the newest is damaged.
"""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from test_checkpoint import names, nothing, save, told
from test_trainer import fresh, run

from aigc_lab.host import outage, run_folders, shared_files
from aigc_lab.host.files import sha256
from aigc_lab.host.outage import StoreAway
from aigc_lab.host.settings import Settings
from aigc_lab.host.shared_files import Outbox
from aigc_lab.host.store import Store
from aigc_lab.training.checkpoint import Checkpointer, checkpoints, restore_state
from aigc_lab.training.state import TrainingState


@pytest.fixture(scope="module")
def states() -> list[TrainingState]:
    """A run after 1, 2, 3, 4 steps."""
    found = []
    for steps in range(1, 5):
        state, system = fresh()
        system.watch = False
        list(run(state, steps, every=10))
        found.append(state)
    return found


@pytest.fixture
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Settings]]:
    """Two that share a store of files at `tmp_path / "store"`."""
    monkeypatch.setenv("AIGC_LAB_STORE_URL", (tmp_path / "store").as_uri())
    homes = [Settings.load(tmp_path / name) for name in ("a", "b")]
    for home in homes:
        assert shared_files.of(home) is not None
    yield homes
    outage._outages.clear()


def folder(home: Settings) -> Path:
    return run_folders.folder(home, "s", 0, 0)


def steps(home: Settings) -> list[int]:
    return [stored.step for stored in checkpoints(folder(home))]


def published(tmp_path: Path) -> list[str]:
    found = (tmp_path / "store").rglob("*.sha256")
    return sorted(path.name.removesuffix(".sha256") for path in found)


def test_another_home_goes_on_to_the_bit(homes: list[Settings], states: list[TrainingState], tmp_path: Path) -> None:
    ours, theirs = homes
    writer = Checkpointer(folder(ours) / "1", nothing)
    for state in states:
        save(writer, state)
    assert published(tmp_path) == [f"state-00000000{step}.{end}" for step in (3, 4) for end in ("json", "safetensors")]
    newest = next(checkpoints(folder(theirs)))
    assert newest.step == 4 and newest.history == told(4)
    assert sha256(newest.state) == sha256(folder(ours) / "1" / newest.state.name)
    again, system = fresh()
    system.watch = False
    restore_state(again, newest.state)
    for name, tensor in states[3].system.state_dict().items():
        assert torch.equal(again.system.state_dict()[name], tensor)
    assert names(folder(theirs) / "1") == ["state-000000004.json", "state-000000004.safetensors"], "no more than needed"


@pytest.mark.parametrize("lost", ["content", "manifest", "index"])
def test_the_one_before_is_taken_where_the_newest_is_damaged(
    homes: list[Settings], states: list[TrainingState], tmp_path: Path, caplog: pytest.LogCaptureFixture, lost: str
) -> None:
    ours, theirs = homes
    writer = Checkpointer(folder(ours) / "1", nothing)
    for state in states[:2]:
        save(writer, state)
    store = tmp_path / "store" / "checkpoints" / "s" / "0.0" / "1"
    (content,) = store.glob("state-000000002.????????????????.safetensors")
    if lost == "content":
        content.write_bytes(content.read_bytes()[:-1])
    elif lost == "manifest":
        (store / "state-000000002.safetensors.sha256").unlink()
    else:
        (store / "state-000000002.json.sha256").write_bytes(b"{")
    with caplog.at_level(logging.WARNING):
        assert steps(theirs) == [1]
    assert "an older checkpoint is used" in caplog.text
    assert steps(ours) == [2, 1], "whoever has it needs no store"


def test_what_is_damaged_here_is_fetched(homes: list[Settings], states: list[TrainingState]) -> None:
    writer = Checkpointer(folder(homes[0]) / "1", nothing)
    save(writer, states[0])
    (folder(homes[0]) / "1" / "state-000000001.safetensors").write_bytes(b"damaged")
    assert steps(homes[0]) == [1]


def test_a_store_that_cannot_be_asked_does_not_begin_a_run_anew(
    homes: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIGC_LAB_STORE_PATIENCE", "0")
    shared = shared_files.of(homes[1])
    assert shared is not None

    def away(place: str) -> list[str]:
        raise ConnectionError("gone")

    monkeypatch.setattr(shared._driver, "find", away)
    with pytest.raises(StoreAway):
        steps(homes[1])


def test_files_that_a_checkpoint_names_are_published_before_it_and_no_step_waits(
    homes: list[Settings], states: list[TrainingState], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, order, go = homes[0].artifacts / "s" / "a.png", list[tuple[str, str]](), threading.Event()
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"a picture")
    put = Store._put

    def slow(store: Store, key: str, content: bytes) -> None:
        assert go.wait(60)
        order.append((threading.current_thread().name, key.rpartition("/")[2]))
        put(store, key, content)

    monkeypatch.setattr(Store, "_put", slow)
    outbox = Outbox()
    outbox.add(picture)
    writer = Checkpointer(folder(homes[0]) / "1", nothing, outbox)
    save(writer, states[0], wait=False)
    save(writer, states[1], wait=False)  # one is under way: left out
    go.set()
    writer.finish()
    assert [name for _, name in order] == [
        f"{name}.sha256" for name in ("a.png", "state-000000001.safetensors", "state-000000001.json")
    ]
    assert {thread for thread, _ in order} == {"checkpoint"}


def test_a_checkpoint_that_cannot_be_published_is_whole_here_and_said(
    homes: list[Settings], states: list[TrainingState], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIGC_LAB_STORE_PATIENCE", "0")

    def away(store: Store, path: Path, key: str) -> None:
        raise StoreAway("away")

    told_steps: list[int] = []
    writer = Checkpointer(folder(homes[0]) / "1", told_steps.append)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "_send", away)
        with pytest.raises(StoreAway):
            save(writer, states[0])
    assert steps(homes[0]) == [1] and told_steps == [], "nobody is told of a step that others cannot go on from"


def test_what_is_superfluous_after_the_end_is_removed_from_the_store(
    homes: list[Settings], states: list[TrainingState], tmp_path: Path
) -> None:
    for attempt in (1, 2):
        save(Checkpointer(folder(homes[0]) / str(attempt), nothing), states[attempt])
        weights = folder(homes[0]) / str(attempt) / "last.safetensors"
        weights.write_bytes(b"weights")
        shared_files.publish(weights)
    run_folders.collect(homes[1], "s", 0, 0, keep=2, states=False)
    assert published(tmp_path) == ["last.safetensors", "state-000000003.json", "state-000000003.safetensors"]
    run_folders.collect(homes[1], "s", 0, 0, keep=2)
    assert published(tmp_path) == ["last.safetensors"]
    assert sorted(path.name for path in (tmp_path / "store/checkpoints/s/0.0").iterdir() if any(path.iterdir())) == [
        "2"
    ]
