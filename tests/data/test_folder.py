"""A folder of images as users have them: every mode, broken files, odd names, and what is said of each."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from aigc_lab.data.base import SPLITS
from aigc_lab.data.folder import Folder
from aigc_lab.data.shared import image_files
from aigc_lab.data.shared.batches import Batches
from aigc_lab.errors import UsageError
from aigc_lab.modalities.base import modality
from aigc_lab.serving import sample_files

RED, GREEN = (255, 0, 0), (0, 255, 0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "pictures"
    path.mkdir()
    return path


def fill(root: Path, count: int, first: int = 0, suffix: str = ".png") -> None:
    """Different images, a pixel of noise each."""
    root.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        values = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(values).save(root / f"{number}{suffix}")


def folder(root: Path, **config: Any) -> Folder:
    kind = Folder.Config.model_validate({"path": str(root), "size": 8} | config, strict=True)
    return Folder(kind, root.parent / "data")


def refusal(root: Path, **config: Any) -> str:
    with pytest.raises(UsageError) as caught:
        _ = folder(root, **config).notes
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


def read(path: Path, **config: Any) -> tuple[Any, list[str]]:
    """[size, size, channels] and the remarks."""
    pixels, remarks = image_files.read_image(
        path, image_files.Reading.model_validate({"size": 8} | config, strict=True)
    )
    return pixels.transpose(1, 2, 0), remarks


# ---- one file


def flat(mode: str, colour: Any) -> Image.Image:
    return Image.new(mode, (20, 20), colour)


def palette(**options: Any) -> Image.Image:
    image = flat("P", 1)
    image.putpalette([0, 0, 255, *RED])
    image.info.update(options)
    return image


def deep(value: int) -> Image.Image:
    return Image.fromarray(np.full((20, 20), value, np.uint16))


@pytest.mark.parametrize(
    ("image", "file", "truth", "remarks"),
    [
        (flat("RGB", RED), "a.png", RED, []),
        (flat("RGB", RED), "A.BMP", RED, []),
        (flat("RGB", RED), "A.TIFF", RED, []),
        (flat("L", 77), "a.png", (77, 77, 77), []),
        (flat("1", 1), "a.png", (255, 255, 255), []),
        (palette(), "a.png", RED, []),
        (palette(transparency=1), "a.png", (255, 255, 255), ["transparent"]),
        (flat("RGBA", (*RED, 255)), "a.png", RED, ["transparent"]),
        (flat("RGBA", (*RED, 0)), "a.png", (255, 255, 255), ["transparent"]),
        (flat("RGBA", (0, 0, 0, 51)), "a.png", (204, 204, 204), ["transparent"]),
        (flat("LA", (0, 51)), "a.png", (204, 204, 204), ["transparent"]),
        (deep(0), "a.png", (0, 0, 0), ["16-bit", "16-bit up to 4095"]),
        (deep(4095), "a.png", (16, 16, 16), ["16-bit", "16-bit up to 4095"]),
        (deep(4096), "a.png", (16, 16, 16), ["16-bit"]),
        (deep(65535), "a.png", (255, 255, 255), ["16-bit"]),
        (deep(257 * 100 + 128), "a.png", (100, 100, 100), ["16-bit"]),
        (deep(257 * 100 + 129), "a.tif", (101, 101, 101), ["16-bit"]),
        (flat("CMYK", (0, 255, 255, 0)), "a.jpg", RED, ["CMYK"]),
        (flat("RGB", RED), "a.jp2", RED, []),
        (flat("RGB", RED), "a.tga", RED, []),
    ],
)
def test_a_mode_becomes_rgb(image: Image.Image, file: str, truth: Any, remarks: list[str], root: Path) -> None:
    image.save(root / file, quality=100) if file.endswith("jpg") else image.save(root / file)
    pixels, said = read(root / file)
    assert pixels.shape == (8, 8, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - truth).max() <= (2 if file.endswith("jpg") else 0)
    assert said == remarks


@pytest.mark.parametrize(
    ("image", "file", "key", "remedy"),
    [
        (flat("RGBA", (*RED, 9)), "a.png", "alpha", "white or black"),
        (deep(9), "a.png", "deep", "scale"),
        (flat("CMYK", (0, 255, 255, 0)), "a.jpg", "cmyk", "convert"),
    ],
)
def test_a_conversion_can_be_refused(image: Image.Image, file: str, key: str, remedy: str, root: Path) -> None:
    fill(root, 5)
    image.save(root / file)
    assert f"data.{key} is refuse; set it to {remedy}" in refusal(root, **{key: "refuse"})
    assert str(root / file) in refusal(root, **{key: "refuse"}, skip_broken=True), "it is not broken"


def test_transparent_pixels_can_be_black(root: Path) -> None:
    flat("RGBA", (*RED, 0)).save(root / "a.png")
    assert read(root / "a.png", alpha="black")[0].max() == 0


def test_sixteen_bits_of_colour_are_seen(root: Path) -> None:
    """Pillow reads them as 8 bits and says nothing: the file's own header knows."""
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    row = b"\0" + struct.pack(">HHH", 65535, 0, 0) * 10
    header = struct.pack(">IIBBBBB", 10, 10, 16, 2, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 10)) + chunk(b"IEND", b"")
    (root / "a.png").write_bytes(file)
    pixels, remarks = read(root / "a.png")
    assert remarks == ["16-bit"] and (pixels == RED).all()


def test_the_first_frame_of_an_animation(root: Path) -> None:
    flat("RGB", RED).save(root / "a.gif", save_all=True, append_images=[flat("RGB", GREEN)])
    pixels, remarks = read(root / "a.gif")
    assert remarks == ["animated"] and (pixels == RED).all()


def test_the_orientation_of_a_camera_is_applied(root: Path) -> None:
    image = flat("RGB", RED)
    image.paste(GREEN, (0, 0, 20, 10))  # the upper half
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(root / "a.png", exif=exif)
    pixels, _ = read(root / "a.png")
    assert (pixels[0] == RED).all() and (pixels[-1] == GREEN).all()


def test_the_ways_to_a_square(root: Path) -> None:
    wide = Image.new("RGB", (40, 20), RED)
    wide.paste(GREEN, (10, 0, 30, 20))  # the middle square
    wide.save(root / "a.png")
    assert (read(root / "a.png", resize="crop")[0] == GREEN).all()
    assert (read(root / "a.png", resize="stretch")[0][:, 0] == RED).all()
    padded = read(root / "a.png", resize="pad")[0]
    assert padded[0].max() == 0 and (padded[4, 4] == GREEN).all() and (padded[4, 0] == RED).all()


def test_one_channel_is_the_luma(root: Path) -> None:
    flat("RGB", GREEN).save(root / "a.png")
    pixels, _ = read(root / "a.png", channels=1)
    assert pixels.shape == (8, 8, 1) and abs(int(pixels[0, 0, 0]) - 0.587 * 255) < 1


def broken_files(root: Path) -> dict[str, str]:
    """Files that are no image, and a word of the reason."""
    fill(root, 1, first=900, suffix=".jpg")
    whole = (root / "900.jpg").read_bytes()
    (root / "900.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "empty.png").touch()
    (root / "page.JPG").write_text("<html>404</html>")
    (root / "nowhere.png").symlink_to(root / "gone.png")
    Image.fromarray(np.zeros((9, 9), np.float32)).save(root / "float.tif")
    return {
        "900.jpg": "runcated",
        "empty.png": "not an image",
        "page.JPG": "not an image",
        "nowhere.png": "No such file",
        "float.tif": "mode F",
    }


def test_a_broken_file_has_a_reason(root: Path) -> None:
    for name, word in broken_files(root).items():
        with pytest.raises(image_files.Broken, match=word):
            read(root / name)


# ---- the folder


def test_broken_files_are_named_or_skipped_and_counted(root: Path) -> None:
    fill(root, 60)
    broken = broken_files(root)
    message = refusal(root)
    assert "5 of 65 images" in message and "900.jpg (" in message and "2 more" in message and "--skip-broken" in message
    data = folder(root, skip_broken=True)
    assert sum(len(data.load(split)) for split in SPLITS) == 60
    assert any("5 broken images left out: 900.jpg (" in note for note in data.notes)
    assert len(broken) == 5


def test_what_is_found(root: Path) -> None:
    fill(root, 4, suffix=".JPG")
    fill(root / "Größe 大 é", 4, first=10, suffix=".Png")
    fill(root / "a" / "b" / "c", 4, first=20)
    (root / "loop").symlink_to(root)
    (root / "a" / "twice").symlink_to(root / "a")
    for name in (".DS_Store", "Thumbs.db", "notes.txt", "a/table.csv", ".hidden.png", "a/photo.heic"):
        (root / name).write_text("x")
    fill(root / ".cache", 2, first=30)
    data = folder(root)
    assert sum(len(data.load(split)) for split in SPLITS) == 12
    assert data.shape.classes is None and "without labels" in data.notes[0]
    assert "3 other files not read" in data.notes[-1] and "1 .txt" in data.notes[-1] and "1 .heic" in data.notes[-1]


@pytest.mark.parametrize("suffix", [".avif", ".jp2", ".J2K", ".tga"])
def test_formats_that_pillow_reads_are_read(root: Path, suffix: str) -> None:
    if suffix.lower() not in image_files.readable():
        pytest.skip(f"this Pillow was built without {suffix}")
    fill(root, 6, suffix=suffix)
    files, others = image_files.find_images(root)
    assert len(files) == 6 and not others
    data = folder(root)
    assert sum(len(data.load(split)) for split in SPLITS) == 6 and len(data.notes) == 1


def test_a_format_that_this_pillow_cannot_read_is_counted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(root, 4)
    fill(root, 2, first=10, suffix=".jp2")
    monkeypatch.setattr("PIL.features.check", lambda feature: False)
    image_files.readable.cache_clear()
    try:
        assert folder(root).notes[-1] == "2 other files not read (2 .jp2)"
    finally:
        image_files.readable.cache_clear()


def test_a_contact_sheet_is_no_picture_of_the_set(root: Path) -> None:
    """Only where `samples.json` says that it is one; a picture that is named `grid.png` by chance is a picture."""
    blocks = [np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)]
    sample_files.write(root / "made", modality("images"), blocks, 40, {"run": "a.0.0"})
    assert (root / "made" / "grid.png").is_file()
    fill(root / "other", 3)
    shutil.copy(root / "other" / "0.png", root / "other" / "grid.png")
    files, others = image_files.find_images(root)
    assert len(files) == 44 and "made/grid.png" not in {file.name for file in files}
    assert others == {"grid.png": 1}  # named in a note that says less than one of `aigc-lab sample`
    note = {"run": "a.0.0", "n": 40, "seed": 0, "aigc_lab": "1"}
    sample_files.write(root / "made", modality("images"), blocks, 40, note, force=True)
    assert image_files.find_images(root)[1] == {}
    sample_files.write(root / "made", modality("images"), blocks, 40, {"run": "a.0.0"}, force=True)
    (root / "other" / "samples.json").write_text('{"files": ["grid.png"]}')  # somebody else's
    files, others = image_files.find_images(root)
    assert len(files) == 44 and others == {"grid.png": 1, ".json": 1}


def test_small_and_grey_pictures_that_are_changed_are_said(root: Path) -> None:
    for number in range(20):
        values = np.random.default_rng(number).integers(0, 256, (16, 16), np.uint8)
        Image.fromarray(values).save(root / f"{number}.png")
    said = (
        "20 of 20 pictures are enlarged to 32×32 (--set data.size=16 keeps them); "
        "20 of 20 are grey, and become RGB (--set data.channels=1 keeps them)"
    )
    assert said in folder(root, size=32).notes and said in folder(root, size=32).notes  # of the kept copy as well
    assert (
        "20 of 20 pictures are enlarged to 32×32 (--set data.size=16 keeps them)"
        in folder(root, size=32, channels=1).notes
    )
    assert len(folder(root, size=16, channels=1).notes) == 1
    fill(root, 10, 20)  # of 8×8, in colours
    assert "30 of 30 pictures are enlarged to 32×32; 20 of 30 are grey, and become RGB" in folder(root, size=32).notes


def test_twelve_bits_in_sixteen_are_warned_of(root: Path) -> None:
    for number in range(6):
        deep(600 * number + 300).save(root / f"{number}.png")
    notes = folder(root).notes
    assert "converted images: 6 16-bit (data.deep=scale)" in notes
    assert any(note.startswith("no 16-bit value is above 4095") for note in notes)
    deep(5000).save(root / "bright.png")
    assert not any("4095" in note for note in folder(root).notes)


def test_classes_are_the_top_folders(root: Path) -> None:
    for number, name in enumerate(("dogs", "cats/small", "cats/big")):
        fill(root / name, 20, first=100 * number)
    data = folder(root)
    assert data.shape.classes == 2 and "2 classes" in data.notes[0]
    labels = torch.cat([torch.as_tensor(data.load(split).labels) for split in SPLITS])
    assert torch.bincount(labels).tolist() == [40, 20]
    assert data.class_names is not None and len(data.class_names) == 2
    assert folder(root, labels="none").shape.classes is None is folder(root, labels="none").class_names
    fill(root, 1, first=999)
    assert folder(root).shape.classes is None
    assert "999.png lies in none" in refusal(root, labels="folders")


def test_a_class_that_is_not_in_every_split_is_named(root: Path) -> None:
    data = folder(root)
    lonely = root / "lonely" / "1.png"
    lonely.parent.mkdir()
    Image.fromarray(np.full((32, 32, 3), 77, np.uint8)).save(lonely)
    for number in range(40):
        for name in ("a", "b"):
            (root / name).mkdir(exist_ok=True)
            pixels = np.random.default_rng([number, len(name), ord(name)]).integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    loose = [path for path in root.iterdir() if path.is_file()]
    for path in loose:
        path.unlink()
    data = folder(root)
    assert any(note.startswith("1 classes have too few images to be in every split: lonely;") for note in data.notes)


def test_labels_go_with_their_pictures(root: Path) -> None:
    for name, colour in (("red", RED), ("green", GREEN)):
        (root / name).mkdir(parents=True)
        for number in range(20):
            Image.new("RGB", (8, 8), tuple(max(c - number, 0) for c in colour)).save(root / name / f"{number}.png")
    data = folder(root)
    for split in SPLITS:
        samples = data.load(split)
        assert samples.labels is not None
        assert torch.equal(samples.values[:, 0, 0, 0] > samples.values[:, 1, 0, 0], samples.labels == 1)


def pictures(data: Folder) -> dict[str, set[bytes]]:
    return {split: {row.tobytes() for row in data.load(split).values.numpy()} for split in SPLITS}


def test_splits_follow_the_pixels_and_not_the_names(root: Path) -> None:
    fill(root, 100)
    first = pictures(folder(root))
    assert [len(first[split]) for split in SPLITS] == [70, 15, 15]
    fill(root / "new", 1, first=1000)
    (root / "0.png").rename(root / "zzz.png")
    after = pictures(folder(root))
    assert all(len(first[split] - after[split]) <= 1 for split in SPLITS)


def test_copies_are_never_in_two_splits(root: Path) -> None:
    fill(root, 40)
    for number in range(40):
        for copy in range(number % 4):
            shutil.copy(root / f"{number}.png", root / f"copy{copy} of {number}.png")
    data = folder(root)
    found = pictures(data)
    assert found["train"].isdisjoint(found["reference"]) and found["train"].isdisjoint(found["holdout"])
    assert found["reference"].isdisjoint(found["holdout"])
    assert sum(len(data.load(split)) for split in SPLITS) == 100
    assert any("60 images are copies" in note for note in data.notes)


def test_folders_named_as_splits_are_the_splits(root: Path) -> None:
    fill(root / "train" / "a", 20)
    fill(root / "train" / "b", 20, first=100)
    fill(root / "test" / "a", 5, first=200)
    fill(root / "test" / "b", 5, first=300)
    shutil.copy(root / "test" / "a" / "200.png", root / "train" / "a" / "leak.png")
    data = folder(root)
    assert data.shape.classes == 2
    held = {np.asarray(Image.open(path)).transpose(2, 0, 1).tobytes() for path in (root / "test").rglob("*.png")}
    found = pictures(data)
    assert found["holdout"] == held and held.isdisjoint(found["train"]) and held.isdisjoint(found["reference"])
    assert "as its folders say" in data.notes[0] and any("1 left out" in note for note in data.notes)
    assert folder(root, splits="shares").shape.classes == 2, "then they are classes"
    assert "by the hash" in folder(root, splits="shares").notes[0]


# ---- what is kept


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many files each decoding was given."""
    asked: list[int] = []
    true: Callable[..., Any] = image_files.decode

    def counting(root: Path, names: list[str], *rest: Any) -> Any:
        asked.append(len(names))
        return true(root, names, *rest)

    monkeypatch.setattr("aigc_lab.data.folder.decode", counting)
    return asked


def test_files_are_decoded_once(root: Path, decoded: list[int]) -> None:
    fill(root, 30)
    first = folder(root).digest
    assert folder(root).digest == first and decoded == [30]
    folder(root, size=16).digest  # noqa: B018
    assert decoded == [30, 30]
    fill(root, 1)  # the same picture, written again
    os.utime(root / "0.png", (1, 1))
    assert folder(root).digest == first and decoded == [30, 30, 30]


def test_a_large_set_stays_on_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(root, 50)
    truth = folder(root)
    digest = truth.digest
    monkeypatch.setattr(image_files, "MAPPED_FROM", 1000)
    real: Any = np.load
    modes: list[Any] = []

    def load(*arguments: Any, mmap_mode: Any) -> Any:
        modes.append(mmap_mode)
        return real(*arguments, mmap_mode=mmap_mode)

    monkeypatch.setattr(np, "load", load)
    mapped = folder(root)
    assert mapped.digest == digest and modes == ["c"]
    batches, others = Batches(mapped.load("train"), 16, 0), Batches(truth.load("train"), 16, 0)
    assert torch.equal(batches[3].values, others[3].values)
    # A private map: what a process writes stays with it.
    mapped.load("train").values.zero_()
    assert folder(root).digest == digest


def test_no_half_written_copy_is_left(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(root, 10)

    def full(handle: int) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="no space"):
            folder(root).load("train")
    assert list((root.parent / "data" / "decoded").iterdir()) == []


# ---- what cannot be


def test_no_folder_is_named() -> None:
    data = Folder(Folder.Config(), Path())
    with pytest.raises(UsageError, match="--set data.path="):
        _ = data.shape


def test_a_path_that_is_no_folder(root: Path) -> None:
    assert "no such folder" in refusal(root / "missing")
    (root / "file.png").touch()
    assert "is a file" in refusal(root / "file.png")


def test_too_few_images(root: Path) -> None:
    assert "holds no images" in refusal(root)
    for name in ("a.txt", "b.txt", "c.csv"):
        (root / name).write_text("x")
    assert "holds no images and 3 other files (2 .txt, 1 .csv)" in refusal(root)
    fill(root, 1)
    assert "holds 1 image and" in refusal(root)
    for copy in range(5):
        shutil.copy(root / "0.png", root / f"copy{copy}.png")
    assert "1 different images, too few" in refusal(root)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(root: Path) -> None:
    fill(root / "locked", 5)
    (root / "locked").chmod(0)
    try:
        assert "Permission denied" in refusal(root) and "locked" in refusal(root)
    finally:
        (root / "locked").chmod(0o700)


def test_a_folder_that_fails_to_be_read_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(root / "locked", 5)
    true = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return true(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert "locked" in refusal(root) and "Permission denied" in refusal(root)
