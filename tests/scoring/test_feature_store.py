"""Features are computed once and never wrongly remembered; the classifier that makes them is not taken on trust."""

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Judged
from safetensors.torch import load
from torch import Tensor, nn

from aigc_lab.errors import Failure, UsageError
from aigc_lab.extractors import base, classifier
from aigc_lab.extractors.classifier import Classifier
from aigc_lab.host.files import locked, write_atomically
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.samples import Images, Points
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.statistics.frechet import frechet_distance


class Counting(base.Extractor):
    """The mean and the first pixel of every image; it counts the images that it was shown."""

    short = "counting"

    def __init__(self, identity: str = "counting:1", logits: bool = True) -> None:
        self.identity = identity
        self.network = nn.Linear(1, 1)
        self.logits = logits
        self.shown = 0
        self.before: Callable[[], object] = lambda: None

    @classmethod
    def check(cls, *arguments: Any) -> None: ...

    @classmethod
    def prepare(cls, *arguments: Any, **options: Any) -> "Counting":
        return cls()

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        self.before()
        self.shown += len(images)
        flat = images.float().flatten(1)
        vectors = torch.stack([flat.mean(1), flat[:, 0]], 1)
        return vectors, vectors * 2 if self.logits else None


@pytest.fixture
def images(judged: Judged) -> Images:
    return judged.dataset.load("reference").take(slice(0, 30))


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def store(judged: Judged, tmp_path: Path, said: list[str]) -> Callable[..., tuple[FeatureStore, Counting]]:
    def build(**options: Any) -> tuple[FeatureStore, Counting]:
        store = FeatureStore(judged.dataset, cache=tmp_path, weights=WeightsPolicy(), device="cpu", say=said.append)
        extractor = store._extractors["counting"] = Counting(**options)
        return store, extractor

    return build


def stored(folder: Path) -> list[Path]:
    return sorted((folder / "features").iterdir())


@pytest.mark.parametrize("logits", [True, False])
def test_a_second_object_reads_what_the_first_computed(store: Any, images: Images, logits: bool) -> None:
    first, one = store(logits=logits)
    features = first.real("counting", images)
    assert one.shown == 30
    assert first.real("counting", images) is features
    second, two = store(logits=logits)
    again = second.real("counting", images.take(slice(None)))
    assert (one.shown, two.shown) == (30, 0)
    assert torch.equal(again.vectors, features.vectors)
    assert torch.equal(features.vectors[:, 1], images.values[:, 0, 0, 0].float())
    assert (again.logits is None) == (not logits)
    if features.logits is not None and again.logits is not None:
        assert torch.equal(again.logits, features.logits)


def test_whatever_changes_the_features_changes_the_key(store: Any, images: Images, tmp_path: Path) -> None:
    store()[0].real("counting", images)
    pixel = images.values.clone()
    pixel[17, 0, 3, 3] ^= 1
    others = [replace(images, values=pixel), images.take(torch.arange(29, -1, -1)), images.take(slice(0, 29))]
    for number, other in enumerate(others):
        fresh, extractor = store()
        fresh.real("counting", other)
        assert extractor.shown == len(other)
        assert len(stored(tmp_path)) == number + 2
    fresh, extractor = store(identity="counting:2")
    fresh.real("counting", images)
    assert extractor.shown == 30


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:4], lambda b: b"", lambda b: b"x" * 300])
def test_a_damaged_file_is_computed_again(
    store: Any, images: Images, tmp_path: Path, said: list[str], damage: Callable[[bytes], bytes]
) -> None:
    truth = store()[0].real("counting", images)
    (file,) = stored(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    fresh, extractor = store()
    assert torch.equal(fresh.real("counting", images).vectors, truth.vectors)
    assert extractor.shown == 30
    assert str(file) in said[-1]
    assert file.read_bytes() == whole


def test_generated_samples_are_never_stored(store: Any, images: Images, tmp_path: Path) -> None:
    fresh, extractor = store()
    fresh.made("counting", images)
    fresh.made("counting", images)
    assert extractor.shown == 60 and not (tmp_path / "features").exists()
    with pytest.raises(UsageError, match="points"):
        fresh.made("counting", Points(torch.zeros(3, 2)))


def test_blocks_do_not_change_features(images: Images) -> None:
    extractor = Counting()
    assert torch.equal(extractor.extract(images, block=7).vectors, extractor.extract(images).vectors)


def test_two_that_compute_at_once_leave_one_whole_file(store: Any, images: Images, tmp_path: Path) -> None:
    barrier = threading.Barrier(4)
    results: list[Tensor] = []

    def work() -> None:
        fresh, extractor = store()
        extractor.before = barrier.wait
        results.append(fresh.real("counting", images).vectors)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(torch.equal(result, results[0]) for result in results)
    assert len(stored(tmp_path)) == 1, "no temporary file is left"
    fresh, extractor = store()
    fresh.real("counting", images)
    assert extractor.shown == 0


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path, contents = tmp_path / "file", [bytes([value]) * 200_000 for value in range(4)]
    write_atomically(path, contents[0])

    def write(content: bytes) -> None:
        for _ in range(15):
            write_atomically(path, content)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(handle: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.fixture
def own(judged: Judged, tmp_path: Path) -> Judged:
    """A copy of the trained classifier, to be damaged."""
    shutil.copytree(judged.cache / "classifiers", tmp_path / "classifiers")
    return Judged(judged.dataset, tmp_path)


def prepared(where: Judged, said: list[str] | None = None) -> Classifier:
    say = (lambda text: None) if said is None else said.append
    return Classifier.prepare(where.dataset, cache=where.cache, weights=WeightsPolicy(), device="cpu", say=say)


def weights_of(where: Judged) -> Path:
    (file,) = (where.cache / "classifiers").glob("*.safetensors")
    return file


def index_of(where: Judged) -> Path:
    (file,) = (where.cache / "classifiers").glob("*.json")
    return file


@pytest.fixture
def training(own: Judged, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trainings that were asked for; each gives at once what the first one gave."""
    asked: list[str] = []
    weights = weights_of(own).read_bytes()

    def train(dataset: Any, device: str, rounds: int) -> tuple[bytes, dict[str, object]]:
        asked.append(dataset.name)
        return weights, {}

    monkeypatch.setattr(classifier, "_train", train)
    return asked


def test_the_classifier_knows_digits(judged: Judged) -> None:
    """Measured here and not read from its own file, on the holdout that its gate does not look at."""
    holdout = judged.dataset.load("holdout")
    logits = prepared(judged).extract(holdout).logits
    assert logits is not None and holdout.labels is not None
    accuracy = (logits.argmax(1) == holdout.labels).double().mean().item()
    assert accuracy > 0.95
    facts = json.loads(index_of(judged).read_text())
    assert abs(facts["accuracy"] - accuracy) < 0.05
    assert facts["fd_by_noise"] == sorted(facts["fd_by_noise"])


def test_a_stored_classifier_is_read_and_not_trained(own: Judged, training: list[str], images: Images) -> None:
    said: list[str] = []
    first, second = prepared(own, said), prepared(own, said)
    assert training == said == []
    assert first.identity == second.identity == f"clf:digits:{weights_of(own).stem[:8]}"
    assert torch.equal(first.extract(images).vectors, second.extract(images).vectors)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "absent", "index"])
def test_a_damaged_classifier_is_trained_again(own: Judged, training: list[str], damage: str) -> None:
    file, index = weights_of(own), index_of(own)
    whole, facts = file.read_bytes(), json.loads(index.read_text())
    if damage == "flipped":
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif damage == "truncated":
        file.write_bytes(whole[: len(whole) // 2])
    elif damage == "absent":
        file.unlink()
    else:
        index.write_text(index.read_text()[:40])
    said: list[str] = []
    prepared(own, said)
    assert training == ["digits"] and len(said) == 2
    assert file.read_bytes() == whole
    assert json.loads(index.read_text())["sha256"] == facts["sha256"]
    prepared(own)
    assert len(training) == 1


def test_of_two_that_find_none_one_trains(
    own: Judged, training: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    index_of(own).unlink()
    both, train = threading.Barrier(2), classifier._train
    waiting = threading.Event()

    def door(path: Path) -> Any:
        if both.wait(timeout=30) == 0:
            waiting.set()
        return locked(path)

    def slow(*arguments: Any) -> Any:
        assert waiting.wait(timeout=30)  # both have seen that there is none
        return train(*arguments)

    monkeypatch.setattr(classifier, "locked", door)
    monkeypatch.setattr(classifier, "_train", slow)
    made: list[Classifier] = []
    threads = [threading.Thread(target=lambda: made.append(prepared(own))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert training == ["digits"] and len({each.identity for each in made}) == 1 and len(made) == 2
    assert sorted(path.suffix for path in (tmp_path / "classifiers").iterdir()) == [".json", ".safetensors"]


def test_other_data_has_another_classifier(own: Judged, training: list[str]) -> None:
    class Fewer(type(own.dataset)):  # type: ignore[misc]
        name = "digits"

        def load(self, split: Any) -> Images:
            whole: Images = super().load(split)
            return whole.take(slice(1, None))

    prepared(Judged(Fewer(own.dataset.config, Path()), own.cache))
    assert training == ["digits"]
    assert len(list((own.cache / "classifiers").glob("*.json"))) == 2


def test_an_untrained_classifier_is_refused(judged: Judged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "_STEPS", 1)
    for _ in range(2):  # and again, without another training
        with pytest.raises(
            Failure, match=r"digits.*it sorts \d+ of 400 reference pictures right \(\d+\.\d%; 90% needed\)"
        ):
            prepared(Judged(judged.dataset, tmp_path))
        monkeypatch.setattr(classifier, "fit", None)
    assert [path.suffix for path in tmp_path.rglob("*.*")] == [".refused"], "no weights"


@pytest.mark.parametrize("blind", ["noise", "modes"])
def test_a_judge_that_does_not_see_damage_is_refused(
    own: Judged, training: list[str], monkeypatch: pytest.MonkeyPatch, blind: str
) -> None:
    """Accurate on clean digits, and its distances do not rise with the damage."""
    index_of(own).unlink()
    true, calls = frechet_distance, list[int]()

    def distance(a: Tensor, b: Tensor) -> float:
        calls.append(len(a))
        # The probe looks at noise in four strengths, then at dropped modes in four.
        return 1.0 if (len(calls) <= 4) == (blind == "noise") else true(a, b)

    monkeypatch.setattr(classifier, "frechet_distance", distance)
    with pytest.raises(Failure, match="must rise"):
        prepared(own)
    assert len(calls) == 8 and not list((own.cache / "classifiers").glob("*.json"))


def test_training_writes_what_it_names(judged: Judged) -> None:
    facts = json.loads(index_of(judged).read_text())
    assert facts["sha256"] == weights_of(judged).stem
    assert facts["data"] == judged.dataset.digest
    assert set(load(weights_of(judged).read_bytes())) == set(prepared(judged).network.state_dict())
