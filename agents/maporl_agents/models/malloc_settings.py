"""The memory allocator of the process: freed blocks are kept for the next step."""

from __future__ import annotations

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_MOST_KEPT = 2**30  # bytes that are free at the end of the heap
_LARGEST = 2**25  # bytes of a block; larger ones are kept as well only at the cost of a higher peak


def keep_freed_memory() -> bool:
    """Let glibc reuse freed blocks of up to 32 MiB instead of returning them to the system.

    A block that went back to the system is zeroed page by page when it is asked for again, which
    costs a few per cent of an update. Keeping larger blocks too is faster, but with a vocabulary
    of 152,000 words the peak then grows 3.5 times (docs/log.md, 2026-11-30). For programs of
    our own, not for a library's import: it holds for the process.

    Returns:
        Whether it was set: False without glibc, or where the user set MALLOC_* variables.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    limits = {_M_MMAP_THRESHOLD: _LARGEST, _M_TRIM_THRESHOLD: _MOST_KEPT}
    return all(mallopt(option, limit) for option, limit in limits.items())
