"""What every modality that ships must do; that these contracts can fail; and a user's file."""

from pathlib import Path

import pytest

from aigc_lab import plugins
from aigc_lab.commands.check import check_file
from aigc_lab.contracts.base import Contract, ContractResult, examine
from aigc_lab.contracts.modalities import MODALITY, Case
from aigc_lab.data.base import Dataset
from aigc_lab.errors import UsageError
from aigc_lab.modalities.base import ModalityKind

NAMES = plugins.names("modalities")
WAVEFORM = Path(__file__).parents[1] / "modalities" / "waveform.py"


def case_of(modality: str, dataset: str) -> Case:
    kind = plugins.find(Dataset, dataset)  # type: ignore[type-abstract]
    return Case(plugins.find(ModalityKind, modality), kind(kind.Config(), Path()))  # type: ignore[type-abstract]


@pytest.mark.parametrize("contract", MODALITY, ids=lambda contract: contract.name.replace(" ", "_"))
@pytest.mark.parametrize("name", NAMES)
def test_a_modality_that_ships_keeps_its_contracts(name: str, contract: Contract[Case]) -> None:
    kind = plugins.find(ModalityKind, name)  # type: ignore[type-abstract]
    assert kind.example is not None and kind().panel("random" if kind.is_image else None)
    contract.check(case_of(name, kind.example))


def test_so_does_one_of_a_users() -> None:
    results = list(examine(MODALITY, {"": case_of(str(WAVEFORM), str(WAVEFORM))}, WAVEFORM))
    assert [(result.contract, result.message) for result in results if result.state != "kept"] == []


# ---- that they can fail

SAMPLES_HEAD = '''"""Echoes (nobody 2026)."""
import numpy
import torch
from aigc_lab import noise
from aigc_lab.data.base import Dataset
from aigc_lab.modalities.base import ModalityKind, uniform
from aigc_lab.samples import Modality, Samples
from aigc_lab.shape import Shape

ECHO = Modality("echo")
'''
MINE = (
    SAMPLES_HEAD
    + """
class Echoes(Samples):
    modality = ECHO

    def canonical(self):
        self.check()
        return Echoes(self.values.float(), self.labels)

class Echo(ModalityKind):
    samples = Echoes
    noun = "echoes"
    is_vector = True
    array_dimensions = frozenset({2})

    def picture(self, samples, modes=None):
        shown = samples.canonical().values[:8].sigmoid()
        return (255 * shown[..., None].expand(-1, -1, 3)).byte().numpy()
    # more

class Rooms(Dataset):
    @property
    def shape(self):
        return Shape(ECHO, (6,))

    def load(self, split):
        return Echoes(torch.randn((400, 6), generator=noise.generator("rooms", split)))
"""
)
# Another method of the class, in the place of the comment.
MORE = "    # more\n"


def more(code: str) -> dict[str, str]:
    return {MORE: "".join(f"    {line}\n" for line in code.splitlines())}


NO_VECTORS = {"    is_vector = True\n": "    judge_extractor = None\n"}
BREAKS: dict[str, tuple[str, dict[str, str]]] = {
    "it says what its samples are": ("give each a plain name", more('overview = "../echo.png"')),
    "samples have one form": ("of canonical samples changes them", {"self.values.float()": "self.values.float() / 2"}),
    "samples without a score are refused": ("canonical() takes samples with one nan", {"        self.check()\n": ""}),
    "an array keeps every number": (
        "are other samples",
        more("def array(self, samples):\n    return samples.canonical().values.half().float().numpy()"),
    ),
    "what is written can be read": (
        "other.npy is not there",
        more(
            "def write(self, folder, blocks, n):\n"
            "    super().write(folder, blocks, n)\n"
            '    return {"files": ["other.npy"]}'
        ),
    ),
    "bad files are refused by name": (
        "raises NotFinite",
        more("def read_array(self, values, name, numbers):\n    return Echoes(values.float()).canonical()"),
    ),
    "other samples are not compared": (
        "mismatch() says None",
        more("def mismatch(self, generated, reference, names):\n    return None"),
    ),
    "many few and no samples are shown": (
        "of 1 samples is uint8 [6, 3]",
        {"shown[..., None].expand(-1, -1, 3)": "shown.squeeze(0)[..., None].expand(*shown.squeeze(0).shape, 3)"},
    ),
    "the trivial sampler is a baseline": (
        "are copies of real ones",
        more("def trivial(self, train, count):\n    return train.take(slice(0, count))"),
    ),
    "noise is drawn by its key": (
        "of two keys is the same",
        more("def noise(self, like, count, *key):\n    return Echoes(uniform(like, count, ()))"),
    ),
    "its scores measure it": ("panel() names fid: ", more('def panel(self, features):\n    return ["fid"]')),
    "samples are told apart": (
        "depends on the others",
        more("def vectors(self, samples):\n    return samples.values - samples.values.mean(0)"),
    ),
    "sound samples are found sound": (
        "of sound samples: train is odd",
        more('def fault_of_stored(self, name, samples, shape):\n    return f"{name} is odd"'),
    ),
}
FURTHER: list[tuple[str, str, dict[str, str]]] = [
    ("it says what its samples are", "noun is empty", {'noun = "echoes"': 'noun = " "'}),
    ("it says what its samples are", "datasets store torch.float32", more("stored_dtype = torch.uint8")),
    (
        "an array keeps every number",
        "array() of 300 samples is (1, 6)",
        more("def array(self, samples):\n    return numpy.zeros((1, 6))"),
    ),
    (
        "what is written can be read",
        "are read back as",
        more(
            "def read_array(self, values, name, numbers):\n"
            "    return Echoes(2 * super().read_array(values, name, numbers).values)"
        ),
    ),
    (
        "bad files are refused by name",
        "it is taken for samples",
        more("def read_array(self, values, name, numbers):\n    return Echoes(values.nan_to_num())"),
    ),
    ("many few and no samples are shown", "float32", {".byte().numpy()": ".numpy()"}),
    (
        "the trivial sampler is a baseline",
        "gives others when it is called again",
        more("def trivial(self, train, count):\n    return Echoes(torch.randn(count, 6))"),
    ),
    (
        "the trivial sampler is a baseline",
        "makes 1 different samples",
        more("def trivial(self, train, count):\n    return Echoes(train.values.mean(0).expand(count, -1))"),
    ),
    (
        "noise is drawn by its key",
        "differs from call to call",
        more("def noise(self, like, count, *key):\n    return Echoes(torch.rand(count, 6))"),
    ),
    (
        "samples are told apart",
        "content() is no key",
        NO_VECTORS
        | more("def content(self, samples):\n    return [bytes([row]) for row in range(len(samples) % 256)] * 2"),
    ),
    (
        "sound samples are found sound",
        "blank returns [1, 6]",
        more("def blank(self, shape, count, labels):\n    return Echoes(torch.zeros(1, 6))"),
    ),
]


def examined(folder: Path, changes: dict[str, str]) -> list[ContractResult]:
    text = MINE
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "mine.py"
    path.write_text(text)
    return list(examine(MODALITY, {"": case_of(str(path), str(path))}, path))


def test_a_sound_file_keeps_all(tmp_path: Path) -> None:
    assert [(result.contract, result.message) for result in examined(tmp_path, {}) if result.state != "kept"] == []
    assert BREAKS.keys() == {contract.name for contract in MODALITY}


@pytest.mark.parametrize("contract", BREAKS)
def test_a_contract_catches_the_modality_that_breaks_it(contract: str, tmp_path: Path) -> None:
    said, changes = BREAKS[contract]
    broken = [result for result in examined(tmp_path, changes) if result.state == "broken"]
    assert contract in [result.contract for result in broken]
    assert said in next(result.message for result in broken if result.contract == contract)


@pytest.mark.parametrize(("contract", "said", "changes"), FURTHER, ids=[said for _, said, _ in FURTHER])
def test_and_the_other_faults_of_each(contract: str, said: str, changes: dict[str, str], tmp_path: Path) -> None:
    broken = {result.contract: result.message for result in examined(tmp_path, changes) if result.state == "broken"}
    assert said in broken[contract]


# ---- the command


def test_the_command_checks_a_modality_on_the_dataset_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    rows = check_file("./mine.py", None, [], json=False, home=None)
    assert {row["state"] for row in rows} == {"kept"} and len(rows) > len(MODALITY), "its dataset's too"
    assert f"✓ {MODALITY[0].name}" in capsys.readouterr().out
    (tmp_path / "mine.py").write_text(MINE.partition("class Rooms")[0])
    with pytest.raises(UsageError, match="Echo: no dataset of its samples is known; name one with --data"):
        check_file("./mine.py", None, [], json=False, home=None)
    with pytest.raises(UsageError, match="Echo is of echo, and dataset digits holds images"):
        check_file("./mine.py", "digits", [], json=False, home=None)
    assert {row["state"] for row in check_file("points", None, [], json=False, home=None)} == {"kept"}
