"""Copies of tensors on the host, in the layout of the file, so that writing them needs no second copy.

The format is safetensors (https://github.com/huggingface/safetensors#format): eight bytes with the length of a JSON
header, the header, and the tensors' bytes. Its library reads these files; writing through it would give the file before
its hash is known, which is then a second pass over all bytes.
"""

import hashlib
import itertools
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

# Names of the dtypes in the format.
_TYPES = {
    torch.complex64: "C64",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.uint64: "U64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
}
# Bytes that are written and hashed at a time: few enough to stay in the processor's cache.
_PIECE = 1 << 20


class HostCopy:
    """Copy of tensors in one buffer on the host. The buffer is reused as long as it is large enough: fresh memory costs
    more than the copy itself, and pinned memory far more.
    """

    def __init__(self) -> None:
        self._buffer = torch.empty(0, dtype=torch.uint8)
        self._pinned = False
        self._size = 0
        self._header: dict[str, object] = {}

    def take(self, tensors: Mapping[str, Tensor]) -> Callable[[], object]:
        """Copies the tensors, and returns a function that waits until they are on the host. Copies from a GPU are
        queued behind its last step, so the next step needs no wait.

        Raises `KeyError` for a dtype that the format does not have.
        """
        # Large numbers first: each tensor begins at a multiple of its numbers' size.
        ordered = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
        ends = list(itertools.accumulate(tensor.nbytes for _, tensor in ordered))
        places = {name: (end - tensor.nbytes, end) for (name, tensor), end in zip(ordered, ends, strict=True)}
        self._size = ends[-1] if ends else 0
        on_gpu = any(tensor.is_cuda for tensor in tensors.values())
        if self._buffer.numel() < self._size or self._pinned != on_gpu:
            self._buffer = torch.empty(self._size, dtype=torch.uint8, pin_memory=on_gpu)
            self._pinned = on_gpu
        self._header = {
            name: {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": list(places[name])}
            for name, tensor in ordered
        }
        for name, tensor in ordered:
            start, stop = places[name]
            target = self._buffer[start:stop].view(tensor.dtype).view(tensor.shape)
            target.copy_(tensor.detach(), non_blocking=tensor.is_cuda)
        queued = []
        for device in {tensor.device for tensor in tensors.values() if tensor.is_cuda}:
            with torch.cuda.device(device):  # an event is of the current device's queue, which may be another one
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record()
            queued.append(event)

        def wait() -> None:
            for event in queued:
                event.synchronize()

        return wait

    def write(self, path: Path, facts: Mapping[str, str]) -> str:
        """Writes the copy with `facts` as the file's metadata, and returns the sha256 of the file."""
        text = json.dumps({"__metadata__": dict(facts)} | self._header, separators=(",", ":"), ensure_ascii=False)
        header = text.encode()
        header += b" " * (-len(header) % 8)  # the numbers are to begin at a multiple of their size
        digest = hashlib.sha256()
        content = self._buffer[: self._size].numpy()
        pieces = (content[start : start + _PIECE].data for start in range(0, self._size, _PIECE))
        with path.open("wb", buffering=0) as file:
            for piece in itertools.chain([memoryview(struct.pack("<Q", len(header)) + header)], pieces):
                digest.update(piece)
                rest = piece
                while rest:  # a nearly full disk takes a part, and refuses the next
                    rest = rest[file.write(rest) :]
        return digest.hexdigest()
