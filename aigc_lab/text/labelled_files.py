"""Sentences with classes: folders of text files, and tables of label and sentence. Errors name file and line."""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from aigc_lab.errors import UsageError
from aigc_lab.text.sentence_files import read_lines, read_text

Source = Literal["auto", "folders", "column", "none"]

#: files that `auto` reads as tables
TABLES = (".tsv", ".csv")
# Names of the second column. The first is `label`.
_SENTENCE = ("text", "sentence")
# Folders of a published set that are its splits, and no classes.
_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "holdout", "reference"}


class Labelled(NamedTuple):
    """Sentences, the class of each (None without labels), and the number of lines without a sentence."""

    sentences: list[str]
    labels: list[str] | None
    blank: int


def read_labelled(path: Path, source: Source, key: str) -> Labelled:
    """Sentences of a file or a folder, stripped of white space. `auto` takes classes from sub-folders, and from the
    column of a .tsv or .csv file; a folder without sub-folders, and any other file, then has none.

    Raises `UsageError` that names the option `key`, the file, its line and the remedy.
    """
    if os.path.isdir(path):
        return _read_folder(path, source, key)
    if source == "folders":
        raise UsageError(f"data.labels: folders, and {path} is a file; name a folder with a sub-folder for each class")
    table = path.suffix.lower() in TABLES if source == "auto" else source == "column"
    if not table:
        sentences, blank = read_lines(path, key)
        return Labelled(sentences, None, blank)
    rows = _csv_rows(path, key) if path.suffix.lower() == ".csv" else _tsv_rows(path, key)
    return _gathered(rows, f"{key}: {path}")


def read_every_row(path: Path, key: str) -> tuple[list[str], list[str]] | None:
    """Sentences and classes of the lines of a .tsv file, blank ones included as two empty texts; None for any other
    file, and for one whose first line has no tab. Raises `UsageError` as `read_labelled` does.
    """
    if path.suffix.lower() != ".tsv" or "\t" not in read_text(path, key).lstrip("\n").partition("\n")[0]:
        return None
    rows = list(_tsv_rows(path, key))
    return [sentence for _, sentence in rows], [label for label, _ in rows]


def _gathered(rows: Iterator[tuple[str, str]], name: str) -> Labelled:
    """Rows of label and sentence in columns. Raises `UsageError` if no row has a sentence."""
    sentences, labels, blank = list[str](), list[str](), 0
    for label, sentence in rows:
        if sentence:
            sentences.append(sentence)
            labels.append(label)
        else:
            blank += 1
    if not sentences:
        raise UsageError(f"{name}: holds no sentence; give a label and a sentence in each line")
    return Labelled(sentences, labels, blank)


# ---- class folders


def _read_folder(folder: Path, source: Source, key: str) -> Labelled:
    if source == "column":
        raise UsageError(
            f"data.labels: column, and {folder} is a folder; name a file of label and sentence, or set it to folders"
        )
    classes = sorted(each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    if source == "none" or (source == "auto" and not classes):
        files = _text_files(folder)
        if not files:
            raise UsageError(f"{key}: {folder}: holds no .txt file; name a folder of text files, one sentence a line")
        read = [read_lines(file, key) for file in files]
        return Labelled([each for sentences, _ in read for each in sentences], None, sum(blank for _, blank in read))
    _refuse_classes(folder, classes, key)
    sentences, labels, blank = list[str](), list[str](), 0
    for name in classes:
        files = _text_files(folder / name)
        if not files:
            raise UsageError(f"{key}: {folder / name}: the class has no .txt file; fill the folder, or remove it")
        for file in files:
            lines, empty = read_lines(file, key)
            sentences += lines
            labels += [name] * len(lines)
            blank += empty
    return Labelled(sentences, labels, blank)


def _refuse_classes(folder: Path, classes: Sequence[str], key: str) -> None:
    """Raises `UsageError` for sub-folders that are no classes."""
    if not classes:
        raise UsageError(
            f"data.labels: folders, and {folder} has no sub-folder; make one for each class, or set it to none"
        )
    if {name.lower() for name in classes} <= _SPLITS:
        first = next((name for name in classes if name.lower().startswith("train")), classes[0])
        raise UsageError(
            f"{key}: {folder}: its folders are splits ({', '.join(classes)}), and no classes; name {folder / first}, "
            "and the one to be scored against as data.scored; or set data.labels to none"
        )
    loose = next((each.name for each in sorted(folder.iterdir()) if _is_text(each)), None)
    if loose is not None:
        raise UsageError(
            f"{key}: {folder / loose} lies in no class folder; move it to one or away, or set data.labels to none"
        )


def _is_text(path: Path) -> bool:
    return path.suffix.lower() == ".txt" and not path.name.startswith(".") and path.is_file()


def _text_files(folder: Path) -> list[Path]:
    """The .txt files at any depth, in the order of their paths; hidden ones are passed over."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [path for name in files if _is_text(path := Path(place) / name)]
    return sorted(found)


# ---- tables


def _tsv_rows(path: Path, key: str) -> Iterator[tuple[str, str]]:
    """Label and sentence of each line, parted at its first tab: further ones are white space of the sentence. A first
    line of column names (`label`, and `text` or `sentence`) is none; where it has the label last, so have all lines.
    """
    label_last = False
    for number, line in enumerate(read_text(path, key).split("\n"), 1):
        names = tuple(each.strip().lower() for each in line.split("\t"))
        if number == 1 and len(names) == 2 and "label" in names and set(names) & set(_SENTENCE):
            label_last = names[1] == "label"
            continue
        if not line.strip():
            yield "", ""
            continue
        if "\t" not in line:
            raise UsageError(
                f"{key}: {path}: line {number} has no tab; write a label, a tab and the sentence, or set data.labels "
                "to none, which takes each line for a sentence"
            )
        parts = line.rpartition("\t")[::-1] if label_last else line.partition("\t")
        yield _checked(parts[0].strip(), parts[2].strip(), f"{key}: {path}: line {number}")


def _csv_rows(path: Path, key: str) -> Iterator[tuple[str, str]]:
    """Label and sentence of each row, by the column names in the first."""
    reader = csv.reader(io.StringIO(read_text(path, key), newline=""), strict=True)
    try:
        header = [each.strip().lower() for each in next(reader)]
        column = next((name for name in _SENTENCE if name in header), None)
        if "label" not in header or column is None:
            raise UsageError(
                f"{key}: {path}: line 1 should name the columns, label and text among them, and is "
                f"{','.join(header)[:60]!r}; add such a line, or save it with commas between the columns"
            )
        label, text = header.index("label"), header.index(column)
        for row in reader:
            place = f"{key}: {path}: line {reader.line_num}"
            if row and len(row) != len(header):
                raise UsageError(
                    f"{place} has {len(row)} columns, and line 1 has {len(header)}; quote a sentence with commas"
                )
            yield _checked(row[label].strip(), row[text].strip(), place) if row else ("", "")
    except csv.Error as error:
        raise UsageError(f"{key}: {path}: line {reader.line_num} is no CSV ({error}); close its quotes") from None


def _checked(label: str, sentence: str, place: str) -> tuple[str, str]:
    if sentence and not label:
        raise UsageError(f"{place} has no label; give it one, or remove the line")
    return label, sentence
