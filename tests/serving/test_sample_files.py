"""What `aigc-lab sample` writes: block by block, the same as all at once, and nothing when it cannot be finished."""

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aigc_lab import cli
from aigc_lab.errors import UsageError
from aigc_lab.host.capacity import format_bytes, free_memory
from aigc_lab.modalities.base import modality
from aigc_lab.modalities.shared import blocks as stored
from aigc_lab.serving import sample_files

KINDS = {4: modality("images"), 2: modality("points"), 1: modality("text")}
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (7, 8, 8, 3), np.uint8)
POINTS = RANDOM.normal(size=(7, 2)).astype(np.float32)
LINES = np.array(["a b", "", "c", "dé", "e", "f", "g"])


def written(place: Path, blocks: Iterable[Any], n: int, note: dict[str, Any], like: Any) -> Path:
    """Writes arrays like this one: images have four dimensions, points two and sentences one."""
    return sample_files.write(place, KINDS[like.ndim], blocks, n, note)


def blocks(array: Any) -> list[Any]:
    return [array[:3], array[3:6], array[6:]]


@pytest.mark.parametrize("array", [IMAGES, POINTS], ids=["images", "points"])
def test_an_archive_is_what_numpy_writes_of_the_whole(tmp_path: Path, array: Any) -> None:
    place = written(tmp_path / "a.npz", blocks(array), 7, {"n": 7}, array)
    with np.load(place, allow_pickle=False) as found:
        assert sorted(found) == ["note", "samples"]
        assert np.array_equal(found["samples"], array) and found["samples"].dtype == array.dtype
    assert sample_files._note(place) == {"n": 7}
    before = place.read_bytes()
    written(place, [array], 7, {"n": 7}, array)
    assert place.read_bytes() == before


def test_a_folder_holds_all_blocks_and_its_picture_the_first_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "_SHOWN", 4)
    grid = written(tmp_path / "images", blocks(IMAGES), 7, {"n": 7}, IMAGES)
    found = [np.asarray(Image.open(tmp_path / "images" / f"{number:05d}.png")) for number in range(7)]
    assert np.array_equal(found, IMAGES)
    assert Image.open(grid).size == Image.open(written(tmp_path / "four", [IMAGES[:4]], 4, {}, IMAGES)).size
    scatter = written(tmp_path / "points", blocks(POINTS), 7, {"n": 7}, POINTS)
    assert np.array_equal(np.load(tmp_path / "points" / "points.npy"), POINTS)
    four = written(tmp_path / "points4", [POINTS[:4]], 4, {}, POINTS)
    assert scatter.read_bytes() == four.read_bytes()
    for place in (tmp_path / "lines.txt", tmp_path / "lines"):
        path = written(place, blocks(LINES), 7, {"n": 7}, LINES)
        assert path.read_text("utf-8") == "a b\n\nc\ndé\ne\nf\ng\n"
        assert sample_files._note(place) == {"n": 7}


def test_sentences_of_classes_come_with_a_table_that_says_them(tmp_path: Path) -> None:
    names = ["sport", "the\tweather"]
    path = sample_files.write(tmp_path / "o", KINDS[1], blocks(LINES), 7, {"n": 7}, turn=names)
    assert path.read_text("utf-8") == "a b\n\nc\ndé\ne\nf\ng\n"
    table = [line.split("\t") for line in (tmp_path / "o" / "samples.tsv").read_text("utf-8").splitlines()]
    # Over the seams of the blocks, which hold odd numbers of lines.
    assert table == [[("sport", "the weather")[number % 2], line] for number, line in enumerate(LINES)]
    written(tmp_path / "o", [LINES[:2]], 2, {"n": 2}, LINES)
    assert {each.name for each in (tmp_path / "o").iterdir()} == {"samples.txt", "samples.json"}


def test_a_kind_of_before_is_told_no_classes(tmp_path: Path) -> None:
    class Before(type(KINDS[2])):  # type: ignore[misc]
        def write(self, folder: Path, blocks: Any, n: int) -> dict[str, Any]:
            facts: dict[str, Any] = super().write(folder, blocks, n)
            return facts

    sample_files.write(tmp_path / "o", Before(), blocks(POINTS), 7, {"n": 7}, turn=["near", "far"])
    assert np.array_equal(np.load(tmp_path / "o" / "points.npy"), POINTS)
    assert json.loads((tmp_path / "o" / "samples.json").read_text())["classes"] == ["near", "far"]


@pytest.mark.parametrize(
    ("name", "array"), [("o", IMAGES), ("o", POINTS), ("o", LINES), ("o.npz", POINTS), ("o.txt", LINES)]
)
def test_whatever_ends_it_leaves_nothing_or_what_was_there(tmp_path: Path, name: str, array: Any) -> None:
    def torn(error: BaseException) -> Iterator[Any]:
        yield array[:3]
        yield array[3:6]
        raise error

    for _ in range(2):
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises(KeyboardInterrupt):
            written(tmp_path / name, torn(KeyboardInterrupt()), 9, {"n": 9}, array)
        with pytest.raises(UsageError, match=f"-o .*{name}: cannot be written .No space left on device."):
            written(tmp_path / name, torn(OSError(28, "No space left on device")), 9, {"n": 9}, array)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        assert {path.name for path in tmp_path.iterdir()} <= {name, "o.json"}
        written(tmp_path / name, blocks(array), 7, {"n": 7}, array)  # the second time, over what is there


def endless(array: Any) -> Iterator[Any]:
    yield array
    raise AssertionError("more than one block was drawn")


@pytest.mark.parametrize(
    ("name", "array", "needed"),
    [("o", IMAGES, r"4\.0 PB"), ("o", POINTS, r"8\.0 TB"), ("o.npz", POINTS, r"\d+\.\d TB"), ("o.txt", LINES, "TB")],
)
def test_more_than_the_disk_holds_is_refused_after_one_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, array: Any, needed: str
) -> None:
    monkeypatch.setattr(sample_files, "free_disk", lambda _: 10**9)
    with pytest.raises(UsageError, match=rf"-n 1,000,000,000,000: .* about .*{needed}, and 1\.0 GB are free where "):
        written(tmp_path / name, endless(array), 10**12, {}, array)
    monkeypatch.setattr(sample_files, "free_disk", lambda _: 10**18)
    monkeypatch.setattr(sample_files, "free_files", lambda _: 5000)
    if array is IMAGES:
        with pytest.raises(UsageError, match="-n 5,001: a file for each picture is more than the 5,000 that can be"):
            written(tmp_path / name, endless(array), 5001, {}, array)
    assert list(tmp_path.iterdir()) == []


def test_pictures_of_a_longer_earlier_call_go_and_other_files_stay(tmp_path: Path) -> None:
    written(tmp_path / "o", blocks(IMAGES), 7, {"n": 7}, IMAGES)
    (tmp_path / "o" / "mine.png").touch()
    written(tmp_path / "o", [IMAGES[:2]], 2, {"n": 2}, IMAGES)
    names = {path.name for path in (tmp_path / "o").iterdir()}
    assert names == {"00000.png", "00001.png", "grid.png", "samples.json", "mine.png"}
    # As it was told before there were counts; names that lead elsewhere are not followed.
    (tmp_path / "kept.png").touch()
    named = ["00000.png", "00001.png", "grid.png", "../kept.png"]
    (tmp_path / "o" / "samples.json").write_text(json.dumps({"note": {}, "files": named}))
    written(tmp_path / "o", [IMAGES[:1]], 1, {"n": 1}, IMAGES)
    assert not (tmp_path / "o" / "00001.png").exists() and (tmp_path / "kept.png").exists()


def test_a_picture_of_the_users_is_not_overwritten_by_a_longer_call(tmp_path: Path) -> None:
    place = tmp_path / "o"
    written(place, [IMAGES[:2]], 2, {"n": 2}, IMAGES)
    (place / "00003.png").write_text("mine")
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    with pytest.raises(UsageError, match=r"-o .*o: 00003.png is no sample of an earlier call; .* --force"):
        written(place, blocks(IMAGES), 7, {"n": 7}, IMAGES)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["o"]
    sample_files.write(place, KINDS[4], blocks(IMAGES), 7, {"n": 7}, force=True)
    assert (place / "00003.png").read_bytes() != b"mine"


SAMPLED = {"n": 7, "seed": 0, "aigc_lab": "0.1.0"}


@pytest.mark.parametrize("name", ["o.npy", "o.png", "o.tsv", "o.csv", "o.jsonl"])
def test_a_folder_is_not_named_as_a_file_of_another_kind(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=rf"{name}: name a folder, or a file that ends in .npz or .txt"):
        sample_files.check_place(tmp_path / name, SAMPLED, force=False)


def test_lines_are_replaced_only_where_their_note_says_that_they_were_sampled(tmp_path: Path) -> None:
    place = written(tmp_path / "o.txt", blocks(LINES), 7, SAMPLED, LINES)
    other = SAMPLED | {"seed": 1}
    sample_files.check_place(place, other, force=False)
    before = place.read_bytes()
    place.write_text("mine")
    os.utime(place, ns=(0, 0))
    with pytest.raises(UsageError, match=r"o\.txt was changed after it was sampled"):
        sample_files.check_place(place, other, force=False)
    place.write_bytes(before)
    sample_files.check_place(place, other, force=False)
    place.with_suffix(".json").write_text(json.dumps(SAMPLED))  # as earlier versions wrote it
    os.utime(place, ns=(0, place.with_suffix(".json").stat().st_mtime_ns + 1))
    with pytest.raises(UsageError, match=r"o\.txt was changed after it was sampled"):
        sample_files.check_place(place, other, force=False)
    sample_files.check_place(place, other, force=True)
    place.with_suffix(".json").write_text('{"n": 7, "seed": 0}')
    with pytest.raises(UsageError, match="holds something else"):
        sample_files.check_place(place, other, force=False)


OTHER = SAMPLED | {"seed": 1}


@pytest.mark.parametrize("array", [IMAGES, POINTS, LINES], ids=["images", "points", "text"])
def test_a_copy_of_a_folder_is_no_change_and_other_content_is_one_of_whatever_age(tmp_path: Path, array: Any) -> None:
    shown = written(tmp_path / "o", blocks(array), 7, SAMPLED, array)
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "o", copy, copy_function=shutil.copyfile)
    os.utime(copy / "samples.json", ns=(0, 0))  # a copy is written in any order
    sample_files.check_place(copy, OTHER, force=False)
    (copy / shown.name).write_text("mine")
    os.utime(copy / shown.name, ns=(0, 0))
    os.utime(copy / "samples.json")
    with pytest.raises(UsageError, match=rf"{shown.name} was changed after it was sampled; .* --force"):
        sample_files.check_place(copy, OTHER, force=False)


@pytest.mark.parametrize("count", [2, 7], ids=["fewer", "as many"])
@pytest.mark.parametrize("old", [True, False], ids=["a note of earlier versions", "a note"])
def test_a_replacement_that_was_killed_is_known_as_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, old: bool
) -> None:
    place = tmp_path / "o"
    written(place, blocks(IMAGES), 7, SAMPLED, IMAGES)
    if old:
        facts = json.loads((place / "samples.json").read_text("utf-8"))
        (place / "samples.json").write_text(json.dumps({key: facts[key] for key in ("note", "files", "images")}))
    first = {path.name: path.read_bytes() for path in place.iterdir()}
    replace = os.replace
    done: list[str] = []

    def killed(source: Any, target: Any) -> None:
        if Path(target).parent == place and Path(target).suffix == ".png":
            if done:
                raise KeyboardInterrupt
            done.append(Path(target).name)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            written(place, [255 - IMAGES[:count]], count, OTHER, IMAGES)
    assert (place / done[0]).read_bytes() != first[done[0]]  # the first picture is new
    for note in (SAMPLED, OTHER, SAMPLED | {"seed": 2}):
        sample_files.check_place(place, note, force=False)
    kept = next(name for name in ("00000.png", "00001.png") if name not in done)
    before = (place / kept).read_bytes()
    assert before == first[kept]
    (place / kept).write_text("mine")
    with pytest.raises(UsageError, match=f"{kept} was changed after it was sampled"):
        sample_files.check_place(place, SAMPLED | {"seed": 2}, force=False)
    (place / kept).write_bytes(before)
    written(place, [255 - IMAGES[:count]], count, OTHER, IMAGES)
    written(tmp_path / "at once", [255 - IMAGES[:count]], count, OTHER, IMAGES)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "at once").iterdir()
    }


def test_lines_whose_replacement_was_killed_are_known_as_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = written(tmp_path / "o.txt", blocks(LINES), 7, SAMPLED, LINES)
    replace = os.replace

    def killed(source: Any, target: Any) -> None:
        replace(source, target)
        if Path(target) == place:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            written(place, [LINES[:2]], 2, OTHER, LINES)
    assert place.read_text("utf-8") == "a b\n\n"
    sample_files.check_place(place, SAMPLED | {"seed": 2}, force=False)


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written .File name too long"):
        sample_files.check_place(tmp_path / ("a" * 300), {}, force=False)


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (1_550_000, "1.5 MB"),
        (10**400, "10,000,000,000,000,000,000"),
    ],
)
def test_sizes_are_spelled(count: int, said: str) -> None:
    assert format_bytes(count).startswith(said)


def test_free_memory_is_known_here() -> None:
    free = free_memory()
    assert free is None or 0 < free < 10**15


@pytest.mark.parametrize("words", [["-n", "0"], ["-n", "-1"], ["-n", "1.5"], ["-n", "9" * 300], ["--seed", "9" * 300]])
def test_numbers_are_bounded_by_their_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["aigc-lab", "sample", "toy", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert words[0] in capsys.readouterr().err
