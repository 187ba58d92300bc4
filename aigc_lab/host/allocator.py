"""The C library's memory: what a program frees is kept for what it asks for next."""

import ctypes
from contextlib import suppress
from functools import cache

# `mallopt`'s parameters, as glibc's malloc.h numbers them; and bytes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT, _LARGEST = 512 << 20, 32 << 20


@cache
def keep_freed_memory() -> None:
    """Keeps up to 512 MB that this process frees, once and for good: tensors of a megabyte, as stacks of replicas make
    them by the dozen in every step, would otherwise be mapped and zeroed anew each time. Does nothing where the C
    library is not glibc.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _LARGEST)
        library.mallopt(_TRIM_THRESHOLD, _KEPT)
