"""Tensors on the host, and the file that is made of them: the format's own library is the judge."""

import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from aigc_lab.training import host_copy
from aigc_lab.training.host_copy import HostCopy

TYPES = sorted(host_copy._TYPES, key=str)
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
FACTS = st.dictionaries(NAMES, NAMES, max_size=2)


def made(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    size = torch.empty(shape, dtype=dtype).nbytes
    made = torch.randint(0, 2 if dtype == torch.bool else 256, (size,), dtype=torch.uint8)
    return made.view(dtype).view(shape)


def content(tensor: Tensor) -> tuple[torch.dtype, tuple[int, ...], bytes]:
    """What has to come back, of any pattern of bits."""
    return tensor.dtype, tuple(tensor.shape), bytes(tensor.contiguous().flatten().view(torch.uint8).numpy())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.dictionaries(NAMES, st.tuples(SHAPES, st.sampled_from(TYPES)), max_size=6), min_size=1, max_size=3),
    FACTS,
    st.sampled_from([1, 7, 1 << 20]),
)
def test_what_was_copied_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: list[dict[str, tuple[tuple[int, ...], torch.dtype]]],
    facts: dict[str, str],
    piece: int,
) -> None:
    path = tmp_path_factory.mktemp("copy") / "a.safetensors"
    copy = HostCopy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host_copy, "_PIECE", piece)
        for names in drawn:  # one buffer after the other, larger or smaller
            tensors = {name: made(*form) for name, form in names.items()}
            copy.take(tensors)()
            digest = copy.write(path, facts)
            assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
            found = load_file(path)
            assert {name: content(value) for name, value in found.items()} == {
                name: content(value) for name, value in tensors.items()
            }
            with safe_open(path, "pt") as file:
                assert (file.metadata() or {}) == facts


def test_the_file_is_the_one_that_the_library_writes(tmp_path: Path) -> None:
    tensors = {"b": torch.randn(3, 5), "a": torch.arange(4), "c": torch.tensor([True]), "scalar": torch.tensor(2.5)}
    copy = HostCopy()
    copy.take(tensors)()
    copy.write(tmp_path / "a", {"step": "7"})
    assert (tmp_path / "a").read_bytes() == save(tensors, {"step": "7"})


def test_what_changes_after_the_copy_is_not_in_the_file(tmp_path: Path) -> None:
    weights = torch.arange(6.0).view(2, 3).to(memory_format=torch.contiguous_format).t()  # not contiguous
    copy = HostCopy()
    copy.take({"weights": weights})()
    before = weights.clone()
    weights.zero_()
    copy.write(tmp_path / "a", {})
    assert torch.equal(load_file(tmp_path / "a")["weights"], before)


def test_the_buffer_is_used_again(tmp_path: Path) -> None:
    copy = HostCopy()
    copy.take({"a": torch.ones(1000)})
    place = copy._buffer.data_ptr()
    copy.take({"a": torch.zeros(10)})
    assert copy._buffer.data_ptr() == place
    copy.write(tmp_path / "a", {})
    assert torch.equal(load_file(tmp_path / "a")["a"], torch.zeros(10))
