"""Views: pixels of coders whose answer is known in closed form, who has which, and what a run keeps of them."""

import hashlib
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness import NoWriter
from scipy.spatial import geometric_slerp
from torch import Tensor, nn

from aigc_lab import api, plugins
from aigc_lab.config import Strict
from aigc_lab.data.pydoc import PyDoc
from aigc_lab.modalities.base import modality_of
from aigc_lab.noise import Draw, draw
from aigc_lab.pictures.interpolation import between_latents, linear, spherical
from aigc_lab.pictures.labelled_grid import labelled_grid
from aigc_lab.pictures.view_captions import CAPTIONS
from aigc_lab.registry.runs import show_run
from aigc_lab.registry.store import Registry
from aigc_lab.runs import views
from aigc_lab.runs.showcase import Showcase
from aigc_lab.samples import Images, Samples
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.base import Phase, System
from aigc_lab.systems.text_vae import TextVAE
from aigc_lab.tracking import writer

SHAPE = Shape(Modality.IMAGES, (1, 2, 2), classes=3, class_names=("ant", "bee", "cat"))
REAL = Images(
    torch.rand((60, 1, 2, 2), generator=torch.Generator().manual_seed(3)), torch.arange(60) // 2 % 3
)  # classes 0 0 1 1 2 2 0 0 …


class Linear(System):
    """A coder of three latents, one a pixel: z = c·(x − ½) with log variance v, and x = ½ + z/20; the fourth pixel is
    the class over 10.
    """

    modality = Modality.IMAGES
    gains, log_variances = (1.0, 10.0, 0.01), (-2.0, -1.0, 0.0)

    class Config(Strict):
        pass

    def __init__(self, config: Any, shape: Shape = SHAPE) -> None:
        super().__init__(config, shape)
        self.weight = nn.Parameter(torch.ones(1))

    def phases(self, batch_size: int) -> list[Phase]:
        return []

    def samplers(self) -> list[nn.Module]:
        return [self]

    def latents(self, count: int) -> Draw:
        return Draw((count, 3))

    def encode(self, images: Tensor, *, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mean = (images.flatten(1)[:, :3] - 0.5) * torch.tensor(self.gains)
        return mean, torch.tensor(self.log_variances).expand_as(mean)

    def decode(self, latents: Tensor, *, labels: Tensor | None = None) -> Tensor:
        fourth = torch.zeros(len(latents)) if labels is None else labels / 10
        return torch.cat([0.5 + latents / 20, fourth[:, None]], 1).reshape(-1, 1, 2, 2)

    def sample(self, latents: Tensor, *, labels: Tensor | None = None) -> Images:
        return Images(self.decode(latents, labels=labels))


class OfClasses(Linear):
    conditional = True


def pixels(rows: views.Rows) -> Tensor:
    """[rows, columns, 4]."""
    return rows.samples.values.reshape(len(rows.rows), len(rows.columns), 4)


# ---- what they show


def test_a_traversal_moves_one_latent_and_the_most_active_comes_first() -> None:
    rows = views.traversals(Linear(Linear.Config()), REAL)
    assert rows is not None and rows.columns == ("-2", "-1.5", "-1", "-0.5", "0", "0.5", "1", "1.5", "2")
    means = (REAL.values.flatten(1)[:, :3].double().numpy() - 0.5) * Linear.gains
    variances = means.var(0, ddof=1)
    # The third varies by less than 0.01: it is left out, and that is said.
    assert rows.rows == tuple(f"z{latent}  var {variances[latent]:.2g}" for latent in (1, 0))
    assert rows.note == "1 of 3 latents are inactive (variance at most 0.01) and left out"
    scale = np.sqrt(variances + np.exp(Linear.log_variances))
    for row, latent in enumerate((1, 0)):
        for column, deviation in enumerate(np.linspace(-2, 2, 9)):
            code = means[0].copy()
            code[latent] = means[:, latent].mean() + deviation * scale[latent]
            expected = [*(0.5 + code / 20), 0.0]
            assert pixels(rows)[row, column].tolist() == pytest.approx(expected, abs=1e-5)


def test_of_a_collapsed_code_one_row_is_shown_and_of_a_point_every_latent_that_varies() -> None:
    class Collapsed(Linear):
        gains = (0.0, 0.001, 0.0)

    class Point(Collapsed):
        log_variances = (-math.inf,) * 3

    for kind, said in ((Collapsed, "3 of 3 latents are inactive"), (Point, "2 of 3 latents are inactive")):
        rows = views.traversals(kind(kind.Config()), REAL)
        assert rows is not None and rows.note.startswith(said)
        assert [name[:2] for name in rows.rows] == ["z1"]


def test_a_categorical_code_has_a_column_for_each_category() -> None:
    class OneHot(Linear):
        one_hot_sizes = (2,)
        gains = (0.1, 0.1, 10.0)

        def decode(self, latents: Tensor, *, labels: Tensor | None = None) -> Tensor:
            return torch.cat([latents, torch.zeros(len(latents), 1)], 1).reshape(-1, 1, 2, 2)

    rows = views.traversals(OneHot(OneHot.Config()), REAL)
    assert rows is not None and [name[:2] for name in rows.rows] == ["c0", "z2"]
    shown = pixels(rows)
    assert shown[0, :, :2].tolist() == [[1, 0], [0, 1]] and shown[0, 0, 2] == shown[0, 1, 2]
    assert shown[1, 0, :2].tolist() == shown[1, 1, :2].tolist() and shown[1, 0, 2] < shown[1, 1, 2]
    assert rows.note == "in rows c the categories, in rows z -2 to 2 standard deviations"


def test_a_system_with_categorical_codes_says_how_many_they_are() -> None:
    for kind in shipped():
        fields = kind.Config.model_fields
        if {"categorical", "categories"} <= fields.keys():
            system: Any = kind(kind.Config(), Shape(Modality.IMAGES, (1, 16, 16), classes=10))
            assert system.one_hot_sizes == (system.config.categories,) * system.config.categorical


def test_reconstructions_stand_below_their_originals() -> None:
    rows = views.reconstructions(Linear(Linear.Config()), REAL)
    assert rows.rows == ("real", "decoded", "real", "decoded") and len(rows.columns) == 8
    real, shown = REAL.values.flatten(1), pixels(rows)
    assert torch.equal(shown[[0, 2]].flatten(0, 1), real[:16])
    codes = (real[:16, :3] - 0.5) * torch.tensor(Linear.gains)
    assert torch.allclose(shown[[1, 3]].flatten(0, 1)[:, :3], 0.5 + codes / 20)
    # Few real samples: as many as there are.
    few = views.reconstructions(Linear(Linear.Config()), REAL.take(slice(0, 5)))
    assert (few.rows, len(few.columns)) == (("real", "decoded"), 5)


def test_between_two_codes_lie_the_decoded_points_of_their_line() -> None:
    rows = views.interpolations(Linear(Linear.Config()), REAL)
    assert rows.columns == ("real", "0", "0.2", "0.4", "0.6", "0.8", "1", "real")
    real, shown = REAL.values.flatten(1), pixels(rows)
    codes = (real[:, :3] - 0.5) * torch.tensor(Linear.gains)
    for pair in range(4):
        a, b = 2 * pair, 2 * pair + 1
        assert torch.equal(shown[pair, 0], real[a]) and torch.equal(shown[pair, -1], real[b])
        for column in range(6):
            code = codes[a] + column / 5 * (codes[b] - codes[a])
            assert torch.allclose(shown[pair, 1 + column, :3], 0.5 + code / 20, atol=1e-6)


def test_a_conditional_coder_gets_the_classes_of_its_pictures() -> None:
    system = OfClasses(OfClasses.Config())
    decoded = pixels(views.reconstructions(system, REAL))[[1, 3]].flatten(0, 1)
    assert REAL.labels is not None and torch.allclose(decoded[:, 3], REAL.labels[:16] / 10)
    # A pair is of one class, and of each class there is one.
    shown = REAL.take(torch.tensor([0, 2, 4, 1, 3, 5]))
    rows = views.interpolations(system, shown)
    assert torch.allclose(pixels(rows)[:, 1:-1, 3], torch.tensor([0.0, 0.1, 0.2])[:, None].expand(3, 6))
    assert torch.equal(pixels(rows)[:, 0], shown.values.flatten(1)[:3]) and rows.note.endswith(" of one class")
    one = views.traversals(system, REAL.take(slice(2, None)))
    assert one is not None and torch.allclose(pixels(one)[..., 3], torch.tensor(0.1))


def test_a_column_of_classes_is_one_latent_and_a_row_one_class() -> None:
    rows = views.classes(OfClasses(OfClasses.Config()), REAL)
    assert rows.rows == SHAPE.class_names and len(rows.columns) == 8
    shown = pixels(rows)
    assert torch.equal(shown[0, :, :3], shown[2, :, :3]) and len(set(shown[0, :, 0].tolist())) == 8
    assert torch.allclose(shown[..., 3], torch.tensor([0.0, 0.1, 0.2])[:, None].expand(3, 8))
    many = OfClasses(OfClasses.Config(), Shape(Modality.IMAGES, (1, 2, 2), classes=101))
    rows = views.classes(many, REAL)
    assert rows.note == "20 of 101 classes, evenly chosen" and len(rows.rows) == 20 and len(rows.columns) == 4
    numbers = [int(name) for name in rows.rows]
    assert (numbers[0], numbers[-1]) == (0, 100) and {b - a for a, b in pairwise(numbers)} == {5, 6}
    assert torch.allclose(pixels(rows)[:, 0, 3] * 10, torch.tensor(numbers, dtype=torch.float))


def test_a_grid_has_its_heads_above_and_its_note_below() -> None:
    images = Images(torch.rand(6, 1, 48, 48))
    plain = labelled_grid(images, ["a", "b"])
    whole = labelled_grid(images, ["a", "b"], ["x", "", "x"], "a note")
    assert np.array_equal(whole[20:-20], plain)
    heads, left = whole[:20], plain.shape[1] - 3 * 50 - 2
    ink = (heads != heads[0, 0]).any(2)
    parts = [ink[:, left + 1 + 50 * place : left + 51 + 50 * place] for place in range(3)]
    assert parts[0].any() and not parts[1].any() and np.array_equal(parts[0], parts[2])
    with pytest.raises(ValueError, match="2 heads are none of 3 columns"):
        labelled_grid(images, ["a", "b"], ["x", "y"])


def test_sentences_are_told_line_by_line_with_the_names_of_rows_and_columns() -> None:
    dataset = PyDoc(PyDoc.Config(), Path())
    system = TextVAE(TextVAE.Config(embedding=8, hidden=8, latent_size=2), dataset.shape)
    real = views.real_samples(dataset)
    told = modality_of(real).lines(real) or []
    with views.at_rest(system):
        assert [view.name for view in views.views_of(system)] == ["reconstructions", "interpolations"]
        copies = views.lines(views.reconstructions(system, real))
        between = views.lines(views.interpolations(system, real))
    assert copies[::2] == [f"real | {line}" for line in told[:8]]
    assert len(copies) == 16 and all(line.startswith("decoded | ") for line in copies[1::2])
    assert between[0] == f"pair 1 real | {told[0]}" and between[7] == f"pair 1 real | {told[1]}"
    # Step 0 and step 1 are the two samples decoded, and a note ends the list.
    steps = [line.partition(" | ") for line in between[:-1]]
    assert [head for head, _, _ in steps[9:15]] == [f"pair 2 {step}" for step in ("0", "0.2", "0.4", "0.6", "0.8", "1")]
    decoded = [line.removeprefix("decoded | ") for line in copies[1::2]]
    assert [steps[1][2], steps[6][2], steps[9][2]] == decoded[:3] and len(between) == 33


# ---- ways between latents


def test_the_great_circle_is_that_of_scipy_and_keeps_the_norm() -> None:
    source = torch.Generator().manual_seed(0)
    start, end = (torch.randn(5, 2, 3, generator=source) for _ in range(2))
    at = torch.tensor([0.0, 0.25, 0.5, 1.0])
    unit = [each / each.flatten(1).norm(dim=1)[:, None, None] for each in (start, end)]
    ways = spherical(unit[0], unit[1], at)
    for row in range(5):
        a, b = (each[row].flatten().double().numpy() for each in unit)
        truth = geometric_slerp(a / np.linalg.norm(a), b / np.linalg.norm(b), at.numpy())
        np.testing.assert_allclose(ways[row].flatten(1).numpy(), truth, atol=1e-5)
    # Ends of any norm are met.
    ways = spherical(start, 3 * end, at)
    assert torch.allclose(ways[:, 0], start, atol=1e-5) and torch.allclose(ways[:, -1], 3 * end, atol=1e-5)


def test_ends_of_one_direction_or_of_opposite_ones_are_joined_straight() -> None:
    start, at = torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 0.5, 1.0])
    end = torch.tensor([[3.0], [-2.0]])
    assert torch.equal(spherical(start, end, at), linear(start, end, at))


@pytest.mark.parametrize(("law", "low", "high"), [("uniform", -1.0, 1.0), ("unit", 0.0, 1.0)])
def test_uniform_latents_stay_uniform_on_the_way(law: Any, low: float, high: float) -> None:
    start, end = (draw(Draw((400, 100), law), law, side) for side in range(2))
    way = between_latents(law, start, end, torch.tensor([0.0, 0.5, 1.0]))
    assert torch.allclose(way[:, 0], start, atol=1e-4) and torch.allclose(way[:, 2], end, atol=1e-4)
    middle = way[:, 1]
    assert low <= middle.min() and middle.max() <= high
    # The straight line's middle would have a standard deviation smaller by √2.
    assert middle.std().item() == pytest.approx((high - low) / math.sqrt(12), rel=0.01)


# ---- who has them


def shipped() -> list[Any]:
    return [plugins.find(System, name) for name in plugins.names("systems")]


def test_every_system_has_the_views_that_it_can_have() -> None:
    names = {plugins.name_of(kind): kind for kind in shipped()}
    images = Shape(Modality.IMAGES, (1, 16, 16), classes=10)

    def of(name: str, shape: Shape = images) -> list[str]:
        return [view.name for view in views.views_of(names[name](names[name].Config(), shape))]

    coder = ["reconstructions", "interpolations", "traversals"]
    assert of("vae") == of("rae") == of("hvae") == of("vq_vae") == coder
    assert of("ns_gan") == ["interpolations"]
    assert of("point_gan", Shape(Modality.POINTS, (2,))) == []
    assert [view.name for view in views.views_of(OfClasses(OfClasses.Config()))] == [*coder, "classes"]
    assert {view.name for view in views.VIEWS} == CAPTIONS.keys()


def test_codes_that_leave_out_a_part_bring_back_no_picture() -> None:
    class Partial(Linear):
        reconstructs = False

    shown = {view.name: view.draw for view in views.views_of(Partial(Partial.Config()))}
    assert shown == {"interpolations": views.latent_interpolations, "traversals": views.traversals}


def test_nothing_that_a_system_computes_in_a_view_changes_it() -> None:
    class Restless(Linear):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.norm = nn.BatchNorm2d(1)

        def encode(self, images: Tensor, *, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
            torch.randn(1)
            return super().encode(self.norm(images))

    system = Restless(Restless.Config())
    before, stream = {name: value.clone() for name, value in system.state_dict().items()}, torch.get_rng_state()
    with views.at_rest(system):
        views.reconstructions(system, REAL)
        assert not system.norm.training
    assert system.norm.training and torch.equal(torch.get_rng_state(), stream)
    assert all(torch.equal(value, before[name]) for name, value in system.state_dict().items())


# ---- what a run keeps

RUN = {
    "data": {"name": "digits"},
    "system": {"name": "vae", "network": "infogan", "width": 4, "latent_size": 4},
    "training": {"steps": 4, "batch_size": 16, "log_every": 2, "evaluate_every": 2, "threads": 1},
    "evaluation": {"name": "vae", "metrics": ["reconstruction"], "samples": 200},
    "objective": {"minimize": "reconstruction_mse"},
}
FAMILIES = ("interpolations", "reconstructions", "samples", "traversals")


def train(home: Path, **changes: Any) -> dict[str, Any]:
    return api.train({"name": "mine", **RUN, **changes}, home=home, device="cpu")


def kept(home: Path, run: str) -> dict[str, str]:
    """sha256 of the file of each artifact and of the weights."""
    with Registry.open(f"sqlite:///{home / 'registry.db'}") as registry:
        page = show_run(registry, run)
    files = [(file["name"], file["path"]) for file in page["artifacts"] if file["name"] != "curves"]
    files += [(file["kind"], file["path"]) for file in page["checkpoints"]]
    return {name: hashlib.sha256(Path(path).read_bytes()).hexdigest() for name, path in files}


@pytest.fixture(autouse=True)
def no_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "Writer", NoWriter)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "Writer", NoWriter)
        return kept(home, train(home)["run"])


def test_a_run_keeps_its_views_of_every_evaluation_and_of_the_result(whole: dict[str, str]) -> None:
    steps = ["", *(f"/{step:06d}" for step in (0, 2, 4))]
    assert whole.keys() == {f"{family}{step}" for family in FAMILIES for step in steps} | {"last", "selected"}
    for family in FAMILIES:
        assert whole[family] == whole[f"{family}/000004"] != whole[f"{family}/000002"]


def test_a_run_that_goes_on_shows_the_same(
    whole: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    show: Callable[[Showcase, int], None] = Showcase.show

    def interrupted(self: Showcase, step: int) -> None:
        if step == 4:
            raise KeyboardInterrupt
        show(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Showcase, "show", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    assert kept(tmp_path, train(tmp_path)["run"]) == whole


def test_without_views_a_run_has_the_same_weights(
    whole: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "VIEWS", ())
    bare = kept(tmp_path, train(tmp_path)["run"])
    assert bare == {name: digest for name, digest in whole.items() if name in bare}
    assert bare.keys() == whole.keys() - {name for name in whole if name.partition("/")[0] in CAPTIONS}


def test_a_view_that_fails_costs_no_run(
    whole: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(system: Any, real: Samples) -> views.Rows:
        raise RuntimeError("no such code")

    broken = tuple(view._replace(draw=fails) if view.name == "traversals" else view for view in views.VIEWS)
    monkeypatch.setattr(views, "VIEWS", broken)
    found = kept(tmp_path, train(tmp_path)["run"])
    assert found == {name: digest for name, digest in whole.items() if not name.startswith("traversals")}
    said = [record.getMessage() for record in caplog.records if "traversals" in record.getMessage()]
    assert len(said) == 1 and said[0].endswith("no traversals at step 0: RuntimeError: no such code")
