"""Sentences with classes: what is read of folders and tables, what becomes of classes, and what is refused."""

import csv
import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng

from aigc_lab.data.base import SPLITS
from aigc_lab.data.lines import Lines
from aigc_lab.errors import UsageError

Rows = list[tuple[str, str]]
Make = Callable[..., Lines]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """The dataset of files with these contents, named in a working directory of its own."""
    monkeypatch.chdir(tmp_path)

    def of(files: dict[str, str | bytes], path: str, **options: Any) -> Lines:
        for name, content in files.items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return Lines(Lines.Config(**({"path": path, "min_count": 1} | options)), tmp_path / "data")

    return of


def drawn(count: int, names: str = "xyz", seed: int = 0) -> Rows:
    """Different sentences, each with a class."""
    source = default_rng(seed)
    return [
        (names[number % len(names)], f"{' '.join([*source.choice(list('abcdef'), 4), *f'{number:03}'])}")
        for number in range(count)
    ]


def tsv(rows: Rows, end: str = "\n") -> str:
    return end.join(f"{label}\t{sentence}" for label, sentence in rows)


def folders(rows: Rows, place: str = "mine") -> dict[str, str | bytes]:
    return {
        f"{place}/{name}/{name}.txt": "\n".join(sentence for label, sentence in rows if label == name)
        for name in {label for label, _ in rows}
    }


def pairs(dataset: Lines) -> Counter[tuple[str, str]]:
    """Class and sentence of everything in the three splits, by the names in the shape."""
    names, counted = dataset.shape.class_names, Counter[tuple[str, str]]()
    assert names is not None and dataset.shape.classes == len(names)
    for split in SPLITS:
        samples = dataset.load(split)
        assert samples.labels is not None and samples.labels.dtype == torch.int64
        counted.update(zip((names[label] for label in samples.labels), samples.sentences(), strict=True))
    return counted


def refused(dataset: Lines) -> str:
    with pytest.raises(UsageError) as told:
        dataset.load("train")
    assert "\n" not in str(told.value)
    return str(told.value)


# ---- what is read


def test_folders_and_tables_of_one_content_are_one_dataset(make: Make) -> None:
    rows = drawn(240)
    dataset = make(folders(rows), "mine")
    assert pairs(dataset) == Counter(rows)
    assert dataset.shape.class_names == ("x", "y", "z")
    assert "3 classes: x 80, y 80, z 80 sentences" in dataset.notes
    sheet = io.StringIO()
    writer = csv.writer(sheet, quoting=csv.QUOTE_ALL)
    writer.writerows([("id", "text", "Label"), *((number, text, label) for number, (label, text) in enumerate(rows))])
    same: dict[str, str | bytes] = {
        "unix.tsv": tsv(rows),
        "shuffled.tsv": tsv(rows[::-1]),
        "windows.tsv": b"\xef\xbb\xbf" + tsv(rows, "\r\n").encode() + b"\r\n",
        "named.tsv": "Label\tSentence\n" + tsv(rows),
        "last.tsv": "text\tlabel\n" + "\n".join(f"{sentence}\t{label}" for label, sentence in rows),
        "blank.tsv": tsv(rows).replace("\n", "\n\n"),
        "rows.csv": sheet.getvalue(),
        "windows.csv": b"\xef\xbb\xbf" + sheet.getvalue().encode(),
    }
    for name in same:
        assert make(same, name).digest == dataset.digest, name
    assert make({"table.txt": tsv(rows)}, "table.txt", labels="column").digest == dataset.digest
    assert "239 blank lines are left out" in make(same, "blank.tsv").notes


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["a b", "é", "0"]), st.text("ab,\"'\t\n ;é\u2028", max_size=9)), max_size=12),
    st.sampled_from(["\n", "\r\n"]),
)
def test_a_table_that_the_csv_module_wrote_is_read_as_it_reads_it(
    tmp_path_factory: pytest.TempPathFactory, rows: Rows, end: str
) -> None:
    rows = [*rows, *drawn(40)]
    path = tmp_path_factory.getbasetemp() / "some.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator=end).writerows([("label", "text"), *rows])
    with path.open(newline="", encoding="utf-8") as file:
        expected = [(each["label"], each["text"].strip()) for each in csv.DictReader(file)]
    labels = Lines(Lines.Config(path=str(path)), path.parent)
    read = labels.labels()
    assert read is not None
    assert list(zip(read[0], labels.lines()[0], strict=True)) == [row for row in expected if row[1]]


def test_a_tab_in_a_sentence_is_white_space(make: Make) -> None:
    rows = drawn(240)
    tabbed = "\n".join(f" {label} \t{sentence.replace(' ', chr(9))}\t" for label, sentence in rows)
    assert pairs(make({"a.tsv": tabbed}, "a.tsv")) == Counter(rows)


def test_whole_numbers_are_in_their_own_order(make: Make) -> None:
    rows = [(str(number % 11), sentence) for number, (_, sentence) in enumerate(drawn(600))]
    assert make({"a.tsv": tsv(rows)}, "a.tsv").shape.class_names == tuple(map(str, range(11)))
    rows = [(label if label != "10" else "ten", sentence) for label, sentence in rows]
    assert make({"b.tsv": tsv(rows)}, "b.tsv").shape.class_names == (*map(str, range(10)), "ten")


def test_files_of_a_class_lie_at_any_depth_and_others_are_passed_over(make: Make) -> None:
    rows = drawn(240)
    files = folders(rows)
    first = str(files.pop("mine/x/x.txt")).split("\n")
    files |= {"mine/x/1.TXT": "\n".join(first[:9]), "mine/x/deep/2.txt": "\n".join(first[9:])}
    dataset = make(
        files | {"mine/x/a.md": "no", "mine/.git/a.txt": "no", "mine/x/.b.txt": "no", "mine/x/.c/d.txt": "no"}, "mine"
    )
    assert pairs(dataset) == Counter(rows)


def test_without_labels_a_file_is_what_it_was(make: Make) -> None:
    rows = drawn(240)
    sentences = [sentence for _, sentence in rows]
    plain = make({"a.txt": "\n".join(sentences)}, "a.txt")
    assert plain.shape.classes is None and plain.shape.class_names is None
    assert all(plain.load(split).labels is None for split in SPLITS)
    assert make(folders(rows), "mine", labels="none").digest == plain.digest
    assert make({"flat/1.txt": "\n".join(sentences[:9]), "flat/2.txt": "\n".join(sentences[9:])}, "flat").digest == (
        plain.digest
    )
    # A .txt file has no labels unless it is said, tabs or not; and a table has none where it is said.
    whole = make({"a.txt": tsv(rows), "a.tsv": tsv(rows)}, "a.txt")
    assert whole.shape.classes is None and whole.load("train").sentences()[0][:2] in ("x ", "y ", "z ")
    assert make({}, "a.tsv", labels="none").digest == whole.digest


def test_a_second_source_shares_the_classes(make: Make) -> None:
    rows, scored = drawn(240), [(label, f"{sentence} s") for label, sentence in drawn(90, seed=1)]
    dataset = make(folders(rows) | folders(scored, "other"), "mine", scored="other")
    names, train = dataset.shape.class_names, dataset.load("train")
    assert names is not None and train.labels is not None
    assert len(train) == 240 and pairs(dataset).total() == 330
    assert Counter(names[label] for label in train.labels) == Counter("xyz" * 80)


def test_a_scored_sentence_is_not_trained_on_under_any_class(make: Make) -> None:
    rows, scored = drawn(240), [(label, f"{sentence} a") for label, sentence in drawn(90, seed=1)]
    leaked = [("xyz"["zxy".index(label)], sentence) for label, sentence in scored[:9]]
    dataset = make({"a.tsv": tsv([*rows, *leaked]), "b.tsv": tsv(scored)}, "a.tsv", scored="b.tsv")
    assert pairs(dataset) == Counter([*rows, *scored])
    assert "9 sentences are left out, for a scored split has the same, <unk> for rare words" in dataset.notes


# ---- what becomes of classes


def test_a_sentence_of_several_classes_is_kept_under_each_in_one_split(make: Make) -> None:
    rows = drawn(240)
    shared = [(name, f"d d d d d {' '.join(str(number))}") for name in "xy" for number in range(20)]
    both = [*rows, *shared, *shared[:5]]
    dataset = make({"a.tsv": tsv(both)}, "a.tsv")
    assert pairs(dataset) == Counter(both)
    for split in SPLITS:
        read = dataset.load(split)
        assert read.labels is not None
        classes = Counter(s for s in read.sentences() if s.startswith("d d d d d"))
        assert all(count in (2, 3) for count in classes.values())  # twins are in one split
    assert "20 sentences occur under several classes: kept under each, in one split" in dataset.notes
    assert make({"b.tsv": tsv(both[::-1])}, "b.tsv").digest == dataset.digest
    # What repeats is the sentence with its class.
    assert pairs(make({}, "a.tsv", repeated="drop")) == Counter(set(both))
    assert "5 sentences repeat another: left out (data.repeated)" in make({}, "a.tsv", repeated="drop").notes


def test_classes_stay_with_their_sentences_when_others_are_left_out(make: Make) -> None:
    """Each class has a word of its own: after long ones, rare words and scored ones are gone, all still fit."""
    rows = [
        (label, f"{label} {sentence}{' long' * (number % 5)}") for number, (label, sentence) in enumerate(drawn(900))
    ]
    kept = pairs(make({"a.tsv": tsv(rows)}, "a.tsv", max_length=8, min_count=2, lowercase=True))
    assert 0 < kept.total() < 900
    assert all(sentence.split()[0] == label for label, sentence in kept)


def test_labels_are_a_part_of_the_digest(make: Make) -> None:
    rows = drawn(240)
    other = [("y" if number == 5 else label, sentence) for number, (label, sentence) in enumerate(rows)]
    assert make({"a.tsv": tsv(rows)}, "a.tsv").digest != make({"b.tsv": tsv(other)}, "b.tsv").digest


# ---- what is refused

TABLE = tsv(drawn(240))
BAD: dict[str, tuple[dict[str, str | bytes], dict[str, Any], str]] = {
    "no tab": (
        {"a.tsv": "x\ta\r\n\r\nx b\r\n"},
        {"path": "a.tsv"},
        "data.path: a.tsv: line 3 has no tab; write a label, a tab and the sentence, or set data.labels to none, which "
        "takes each line for a sentence",
    ),
    "no label": ({"a.tsv": "x\ta\n\tb\n"}, {"path": "a.tsv"}, "data.path: a.tsv: line 2 has no label; give it one"),
    "no sentence": ({"a.tsv": "x\t\ny\t \n"}, {"path": "a.tsv"}, "data.path: a.tsv: holds no sentence; give a label"),
    "one class": ({"a.tsv": "x\ta\nx\tb\n"}, {"path": "a.tsv"}, "lines: all sentences are of one class (x); give two"),
    "latin 1": (
        {"a.tsv": b"x\ta\nx\t\xe9\n"},
        {"path": "a.tsv"},
        "data.path: a.tsv: line 2, byte 7 (0xe9) is not UTF-8",
    ),
    "empty": ({"a.csv": b""}, {"path": "a.csv"}, "data.path: a.csv: is empty"),
    "columns without names": (
        {"a.csv": "x,a\ny,b\n"},
        {"path": "a.csv"},
        "data.path: a.csv: line 1 should name the columns, label and text among them, and is 'x,a'; add such a line",
    ),
    "semicolons": ({"a.csv": "label;text\nx;a"}, {"path": "a.csv"}, "and is 'label;text'; add such a line, or save it"),
    "comma": (
        {"a.csv": 'label,text\nx,"a, b"\ny,a, b\n'},
        {"path": "a.csv"},
        "data.path: a.csv: line 3 has 3 columns, and line 1 has 2; quote a sentence with commas",
    ),
    "no label in a row": ({"a.csv": "label,text\n,a\n"}, {"path": "a.csv"}, "data.path: a.csv: line 2 has no label"),
    "open quotes": (
        {"a.csv": 'label,text\nx,"a\n'},
        {"path": "a.csv"},
        "data.path: a.csv: line 2 is no CSV (unexpected",
    ),
    "small class": (
        {"a.tsv": f"{TABLE}\nrare\tone of its own"},
        {"path": "a.tsv"},
        "lines: class 'rare' has 1 sentence, and none in the reference split; give the class more sentences, or leave",
    ),
    "label last": (
        {"a.tsv": "\n".join("\t".join(line.split("\t")[::-1]) for line in TABLE.split("\n"))},
        {"path": "a.tsv"},
        "lines: 240 sentences of 240 classes; each class needs one in each of three splits (in a table, the label",
    ),
    "folder without a class": (
        {"flat/a.txt": "a\nb"},
        {"path": "flat", "labels": "folders"},
        "data.labels: folders, and flat has no sub-folder; make one for each class, or set it to none",
    ),
    "folder without text": ({"flat/a.md": "a"}, {"path": "flat"}, "data.path: flat: holds no .txt file; name a folder"),
    "one folder": ({"a/x/1.txt": "a\nb"}, {"path": "a"}, "lines: all sentences are of one class (x); give two or more"),
    "empty class": (
        {"a/x/1.txt": "a\nb", "a/y/1.md": "a"},
        {"path": "a"},
        "data.path: a/y: the class has no .txt file; fill the folder, or remove it",
    ),
    "empty file": (
        {"a/x/1.txt": "a", "a/y/1.txt": "\n"},
        {"path": "a"},
        "data.path: a/y/1.txt: holds blank lines only",
    ),
    "loose file": (
        {"a/x/1.txt": "a", "a/y/1.txt": "b", "a/readme.txt": "c"},
        {"path": "a"},
        "data.path: a/readme.txt lies in no class folder; move it to one or away, or set data.labels to none",
    ),
    "splits": (
        {"a/train/x/1.txt": "a", "a/test/x/1.txt": "b"},
        {"path": "a"},
        "data.path: a: its folders are splits (test, train), and no classes; name a/train, and the one to be scored",
    ),
    "file as folders": ({"a.txt": "a"}, {"path": "a.txt", "labels": "folders"}, "data.labels: folders, and a.txt is a"),
    "folder as column": (
        {"a/x/1.txt": "a"},
        {"path": "a", "labels": "column"},
        "data.labels: column, and a is a folder",
    ),
    "scored without": (
        {"a.tsv": TABLE, "b.txt": "a\nb"},
        {"path": "a.tsv", "scored": "b.txt"},
        "data.scored: b.txt has no labels, and data.path has some; give both labels, or set data.labels to none",
    ),
    "unknown class": (
        {"a.tsv": TABLE, "b.tsv": tsv([("new", f"{sentence} s") for _, sentence in drawn(9)])},
        {"path": "a.tsv", "scored": "b.tsv"},
        "lines: class 'new' has 9 sentences, and none in the train split",
    ),
}


@pytest.mark.parametrize(("files", "options", "told"), BAD.values(), ids=BAD)
def test_what_has_no_classes_is_refused(
    make: Make, files: dict[str, str | bytes], options: dict[str, Any], told: str
) -> None:
    assert told in refused(make(files, **options))
