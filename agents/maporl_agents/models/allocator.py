"""The memory allocator of the process: freed blocks are kept for the next step."""

from __future__ import annotations

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGEST = 2**30  # bytes; the same blocks come again in every step


def keep_freed_memory() -> bool:
    """Let glibc reuse freed blocks of up to 1 GiB instead of returning each to the system.

    A block that went back to the system is zeroed page by page when it is asked for again, which
    costs 8 % of an update of a 5 M model; the peak of memory stays the same (docs/log.md,
    2026-11-30). For programs of our own, not for a library's import: it holds for the process.

    Returns:
        Whether it was set: False without glibc, or where the user set MALLOC_* variables.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(mallopt(option, _LARGEST) for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))
