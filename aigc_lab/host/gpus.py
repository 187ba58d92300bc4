"""GPUs: which of them a process sees, and what it takes of their memory. Whatever asks CUDA for this stands here, in
functions that tests replace.
"""

import os

from aigc_lab.errors import UsageError

#: what hides GPUs from a process: indices or uuids, in the order in which it numbers them; read when CUDA is loaded
VARIABLE = "CUDA_VISIBLE_DEVICES"


def is_gpu(device: str) -> bool:
    return device.startswith("cuda")


def identity(device: str, visible: str | None = None) -> str:
    """The GPU that a process calls `device`, as it is called outside: by its entry in `visible` (by default this
    process's `CUDA_VISIBLE_DEVICES`, which a scheduler may have set), else by its index.

    >>> identity("cuda:1", "GPU-5a,GPU-7c"), identity("cuda", "3"), identity("cuda:2", "")
    ('GPU-7c', '3', '2')

    Raises `UsageError` for a device that the variable does not show.
    """
    index = int(device.partition(":")[2] or 0)
    text = os.environ.get(VARIABLE, "") if visible is None else visible
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    if not entries:
        return str(index)
    if index >= len(entries):
        raise UsageError(f"{device}: {VARIABLE}={text} shows {len(entries)} GPUs; name one of these")
    return entries[index]


def alone(device: str) -> tuple[dict[str, str], str]:
    """Environment variables of a new process that is to see this device only, and what it calls it. Nothing changes for
    a CPU.
    """
    return ({VARIABLE: identity(device)}, "cuda:0") if is_gpu(device) else ({}, device)


def free(device: str) -> int:
    """Bytes that are free on a GPU, whoever takes the others."""
    import torch

    return int(torch.cuda.mem_get_info(device)[0])


def forget(device: str) -> None:
    """Gives back what this process holds of a GPU and does not use, and begins a new peak."""
    import torch

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)


def released(device: str) -> int:
    """Bytes that this process held on a GPU at its peak and holds no more."""
    import torch

    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_reserved(device) - torch.cuda.memory_reserved(device))
