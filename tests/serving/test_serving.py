"""The served model, asked through MLflow's own scoring application: what rows may ask for, and what is refused how."""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import mlflow
import numpy as np
import pytest
import torch
from asgi import Answer, ask
from mlflow.models import ModelSignature
from mlflow.pyfunc import scoring_server
from mlflow.types import ColSpec, Schema
from PIL import Image
from systems_of_users import MINE

from aigc_lab import plugins
from aigc_lab.errors import UsageError
from aigc_lab.serving import answering, model, request
from aigc_lab.serving.model import Model
from aigc_lab.serving.package import mlflow_package
from aigc_lab.serving.request import Request
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.base import System
from aigc_lab.text.vocabulary import SPECIAL, Vocabulary
from aigc_lab.tracking import model_registry
from aigc_lab.training.checkpoint import save_weights

PICTURES = Shape(Modality.IMAGES, (1, 16, 16))
POINTS = Shape(Modality.POINTS, (2,), classes=8)
TEXT = Shape(Modality.TEXT, (9,), vocabulary=Vocabulary((*SPECIAL, *"abcdefg")))


class Served:
    """A model in MLflow's form, its scoring application, and the same model without MLflow."""

    def __init__(self, folder: Path, system: str, shape: Shape, config: dict[str, Any]) -> None:
        self.folder = folder
        torch.manual_seed(0)
        kind: type[System] = plugins.find(System, system)  # type: ignore[type-abstract]
        made = kind(kind.Config(**config), shape)
        weights = folder / "files" / "model.safetensors"
        weights.parent.mkdir(parents=True)
        save_weights(made, made.state_dict(), weights, {})
        self.model = Model.of_file(weights)
        package = mlflow_package(weights.parent, self.model.sample(1), made)
        nobody = cast(Any, SimpleNamespace(model_id=None, source_run_id=None))
        model_registry._save(folder / "model", package, nobody)
        self.pyfunc = mlflow.pyfunc.load_model(str(folder / "model"))
        self.app = scoring_server.init(self.pyfunc)

    def ask(self, *rows: dict[str, Any], **params: Any) -> Answer:
        body = {"dataframe_records": list(rows)} | ({"params": params} if params else {})
        return ask(self.app, "POST", "/invocations", body)

    def answers(self, *rows: dict[str, Any], **params: Any) -> Any:
        answer = self.ask(*rows, **params)
        assert answer.status == 200, answer.body
        return answer.json()["predictions"]

    def refuses(self, *rows: dict[str, Any], **params: Any) -> str:
        """What it says, once it has refused as HTTP wants it, without a word of where in the code."""
        answer = self.ask(*rows, **params)
        assert answer.status == 400, answer.body[:300]
        told = answer.json()
        assert told["error_code"] == "INVALID_PARAMETER_VALUE" and "stack_trace" not in told
        return str(told["message"]).rpartition("Error: ")[2]


@pytest.fixture(autouse=True, scope="module")
def _plain_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(answering.MOST, raising=False)
        for name, value in model_registry._ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.setenv(model._SERVED, "false")  # MLflow's application sets it, and other tests come after these
        yield


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Served:
    config = {"latent_size": 4, "width": 4}
    return Served(tmp_path_factory.mktemp("pictures"), "vae", PICTURES, config)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(tmp_path_factory.mktemp("text"), "lstm_lm", TEXT, {})


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Served:
    folder = tmp_path_factory.mktemp("mine")
    (folder / "mine.py").write_text(MINE)
    return Served(folder, str(folder / "mine.py"), POINTS, {})


ROW = '{"dataframe_records": [{"n": 4, "seed": 0}]}'
REFUSED: list[tuple[Any, str]] = [
    ({"n": 0}, "n = 0: ask for at least one sample"),
    ({"n": -3}, "n = -3: ask for at least one sample"),
    ({"n": 1.5}, f"n = 1.5: write a whole number, like {ROW}"),
    ({"n": None}, f"n is missing: say in each row how many samples it asks for, like {ROW}"),
    ({"seed": 3}, f"n is missing: say in each row how many samples it asks for, like {ROW}"),
    ({"n": "4"}, f"n = '4': write a whole number, like {ROW}"),
    ({"n": True}, f"n = True: write a whole number, like {ROW}"),
    ({"n": [1, [2]]}, f"n = [1, [2]]: write a whole number, like {ROW}"),
    ({"n": {"a": {"b": 1}}}, f"n = {{'a': {{'b': 1}}}}: write a whole number, like {ROW}"),
    ({"n": 10**30}, f"n = 1{'0' * 30}: write a whole number, like {ROW}"),
    ({"n": 1001}, "n = 1,001: one answer holds at most 1,000 samples; ask several times, or set AIGC_LAB_SERVE_MAX_N"),
    ({"n": 10**9}, "n = 1,000,000,000: one answer holds at most 1,000 samples"),
    ({"n": 2, "seed": 0.5}, f"seed = 0.5: write a whole number, like {ROW}"),
    ({"n": 2, "seed": {}}, "seed = {}: write a whole number"),
]


@pytest.mark.parametrize(("row", "said"), REFUSED)
def test_what_cannot_be_asked_for_is_refused_in_a_sentence(pictures: Served, row: Any, said: str) -> None:
    assert pictures.refuses(row).startswith(said)
    assert "\n" not in pictures.refuses(row)


def test_rows_are_bounded_together(pictures: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pictures.refuses({"n": 600}, {"n": 401}).startswith("n = 1,001 in all: one answer holds at most 1,000")
    assert pictures.refuses().startswith("no rows: ask for samples like {")
    monkeypatch.setenv(answering.MOST, "5")
    assert len(pictures.answers({"n": 5})) == 5
    assert pictures.refuses({"n": 6}).startswith("n = 6: one answer holds at most 5 samples")
    monkeypatch.setenv(answering.MOST, "many")
    assert pictures.refuses({"n": 1}).startswith("AIGC_LAB_SERVE_MAX_N=many: write how many")


def test_large_samples_are_bounded_by_their_size(pictures: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "_MOST_NUMBERS", 2560)
    said = (
        "n = 11: of 256 numbers each, they are more than the 2,560 that one answer may hold; ask for at most 10 at once"
    )
    assert pictures.refuses({"n": 11}) == f"{said}, or for format png"
    assert len(pictures.answers({"n": 10})) == 10
    assert len(pictures.answers({"n": 11}, format="png")) == 11
    monkeypatch.setattr(answering, "_MOST_BYTES", 2560)
    assert pictures.refuses({"n": 11}, format="grid").startswith("n = 11: of 256 bytes of pixels each")


def test_a_row_gives_what_it_gives_alone(pictures: Served) -> None:
    rows: list[dict[str, Any]] = [{"n": 3, "seed": 1}, {"n": 700, "seed": 0}, {"n": 1, "seed": 5}]
    together = np.array(pictures.answers(*rows), np.uint8)
    assert np.array_equal(together, np.concatenate([pictures.model.sample(row["n"], row["seed"]) for row in rows]))
    assert together.shape == (704, 16, 16, 1)
    assert np.array_equal(pictures.answers({"n": 2}), pictures.model.sample(2, seed=0))  # where no row has a seed
    assert np.array_equal(pictures.answers({"n": 2.0, "seed": 7.0}), pictures.model.sample(2, seed=7))


def test_rows_share_a_block_and_memory_is_that_of_a_block(pictures: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    sample = pictures.model.system.sample

    def counted(latents: Any, **options: Any) -> Any:
        seen.append(len(latents))
        return sample(latents, **options)

    monkeypatch.setattr(pictures.model.system, "sample", counted)
    assert sum(map(len, pictures.model.blocks([Request(5, seed) for seed in range(100)]))) == 500
    assert seen == [500]
    assert [len(block) for block in pictures.model.blocks([Request(1207)])] == [500, 500, 207]
    assert set(seen) == {500}


def test_a_seed_that_is_null_is_drawn_and_told(pictures: Served) -> None:
    first, second = (pictures.answers({"n": 2, "seed": None}, format="records") for _ in range(2))
    seeds = {record["seed"] for record in (*first, *second)}
    assert len(seeds) == 2  # one a row
    again = pictures.answers({"n": 2, "seed": first[0]["seed"]})
    assert again == [record["sample"] for record in first]
    mixed = pictures.answers({"n": 1, "seed": 4}, {"n": 1, "seed": None}, {"n": 1}, format="records")
    assert mixed[0]["seed"] == 4 and len({record["seed"] for record in mixed}) == 3


def decoded(png: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def test_pictures_come_as_png(pictures: Served) -> None:
    records = pictures.answers({"n": 2, "seed": 3}, {"n": 1, "seed": 4}, format="png")
    assert [(record["row"], record["seed"]) for record in records] == [(0, 3), (0, 3), (1, 4)]
    found = np.stack([decoded(record["png"]) for record in records])
    assert np.array_equal(found, np.concatenate([pictures.model.sample(2, 3), pictures.model.sample(1, 4)])[..., 0])
    (grid,) = pictures.answers({"n": 9, "seed": 3}, format="grid")
    assert (grid["row"], grid["seed"], grid["n"]) == (0, 3, 9) and decoded(grid["png"]).shape[2] == 3
    told = "choose one of array, records, png, grid"
    assert pictures.refuses({"n": 1}, format="gif") == f"format = 'gif': {told}"


def test_classes_are_asked_for_by_row(conditional: Served) -> None:
    rows: list[dict[str, Any]] = [
        {"n": 2, "seed": 0, "label": 3},
        {"n": 3, "seed": 0, "label": None},
        {"n": 1, "seed": 0, "label": 7},
    ]
    points = np.array(conditional.answers(*rows))
    assert points.round(-1)[:, 0].tolist() == [30, 30, 0, 10, 20, 70]
    records = conditional.answers(*rows, format="records")
    assert [record["label"] for record in records] == [3, 3, 0, 1, 2, 7] and "class" not in records[0]
    for wrong, said in (
        (8, "8"),
        (0.5, "0.5"),
        (True, "True"),
        ([1, 2], "[1, 2]"),
        ({}, "{}"),
        ("-1", "'-1'"),
        ("x", "x"),
    ):
        assert conditional.refuses({"n": 1, "label": wrong}) == f"label {said}: mine knows the classes 0 to 7"
    # As tables and forms of other programs write it.
    assert np.array(conditional.answers({"n": 1, "label": "5"}, {"n": 1, "label": 4.0})).round(-1)[:, 0].tolist() == [
        50,
        40,
    ]
    assert conditional.refuses({"n": 1}, format="png").startswith("format = png: mine makes points, of which there are")
    (plot,) = conditional.answers({"n": 40}, format="grid")
    assert decoded(plot["png"]).ndim == 3


def test_text_is_drawn_as_each_row_asks(text: Served) -> None:
    rows: list[dict[str, Any]] = [
        {"n": 2, "temperature": 0.5, "prefix": "a b"},
        {"n": 1, "temperature": 0.5, "prefix": "a b"},
        {"n": 2},
    ]
    lines = text.answers(*(row | {"seed": 3} for row in rows))
    alone = text.model.sample(2, 3, temperature=0.5, prefix="a b").tolist()
    assert lines == [*alone, alone[0], *text.model.sample(2, 3).tolist()]
    assert all(line.startswith("a b") for line in lines[:3])
    (record,) = text.answers({"n": 1, "seed": 3}, format="records")
    assert record == {"row": 0, "seed": 3, "sample": str(text.model.sample(1, 3)[0])}
    for row, said in (
        ({"temperature": -1}, "temperature -1: give one from 0"),
        ({"temperature": "hot"}, "temperature = 'hot': write a number, like 0.8"),
        ({"top_k": 0}, "top-k 0: keep at least"),
        ({"top_k": 1.5}, "top_k = 1.5: write a whole number"),
        ({"top_p": 2}, "top-p 2: give a probability"),
        ({"prefix": 3}, "prefix = 3: write the words"),
        ({"prefix": "zebra"}, "'zebra': not among the 10 words of this model"),
    ):
        assert text.refuses({"n": 1, **row}).startswith(said)
    assert text.refuses({"n": 1}, format="grid").startswith("format = grid: lstm_lm makes text")


def test_more_than_memory_holds_is_refused_before_it_is_drawn(
    pictures: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request, "free_memory", lambda: 8_000_000)
    monkeypatch.delenv(model._SERVED)
    with pytest.raises(UsageError, match=r"n = 1,000,000,000: so many samples take 512.0 GB of memory, and 8\.0 MB"):
        pictures.model.sample(10**9)
    assert len(pictures.model.sample(501)) == 501


def test_what_was_promoted_before_is_still_served_and_bounded(pictures: Served, tmp_path: Path) -> None:
    """The code beside the weights is a copy: older ones ask `Model.sample` row by row."""
    mlflow.pyfunc.save_model(
        tmp_path / "model",
        python_model=str(Path(__file__).parents[1] / "fixtures" / "pyfunc_before.py"),
        artifacts={"model": str(pictures.folder / "files")},
        signature=ModelSignature(Schema([ColSpec("long", "n"), ColSpec("long", "seed", required=False)])),
        pip_requirements=[],
    )
    app = scoring_server.init(mlflow.pyfunc.load_model(str(tmp_path / "model")))
    rows = [{"n": 2, "seed": 3}, {"n": 1, "seed": 4}]
    given = ask(app, "POST", "/invocations", {"dataframe_records": rows})
    assert given.json()["predictions"] == pictures.answers(*rows)
    refused = ask(app, "POST", "/invocations", {"dataframe_records": [{"n": 10**9}]})
    assert refused.status == 400 and b"n = 1,000,000,000: one answer holds at most 1,000 samples" in refused.body


@pytest.mark.slow
def test_as_it_is_served(pictures: Served) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["models", "serve", "-m", str(pictures.folder / "model"), "--env-manager", "local", "-p", str(port)]
    server = subprocess.Popen([sys.executable, "-m", "mlflow", *words], start_new_session=True)

    def post(row: dict[str, Any]) -> tuple[int, Any]:
        body = json.dumps({"dataframe_records": [row], "params": {"format": "png"}}).encode()
        url = f"http://127.0.0.1:{port}/invocations"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    try:
        until = time.monotonic() + 120
        while time.monotonic() < until and server.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
                break
            time.sleep(0.5)
        status, told = post({"n": 2, "seed": 3})
        assert status == 200
        assert np.array_equal(
            [decoded(record["png"]) for record in told["predictions"]], pictures.model.sample(2, 3)[..., 0]
        )
        status, told = post({"n": 10**9})
        assert status == 400 and "n = 1,000,000,000: one answer holds at most 1,000 samples" in told["message"]
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
