"""Keeps the memory of this process on a CPU: what one step frees, the next one uses."""

from __future__ import annotations

import ctypes

# From <malloc.h>: how many allocations may be mappings of their own, and how much free memory goes back to the kernel.
_M_MMAP_MAX, _M_TRIM_THRESHOLD = -4, -1
_NONE, _NEVER = 0, -1


def keep_memory() -> bool:
    """Tell the C library to keep what is freed; return whether it can (glibc does, musl and macOS have no mallopt).

    Otherwise it maps every large tensor afresh and unmaps it at the end of its life, and the kernel fills page by page
    with zeros what is overwritten at once: several times as long as the arithmetic of a batch of augmentations. What is
    computed stays the same. A run then holds its peak until it ends.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_MAX, _NONE) and mallopt(_M_TRIM_THRESHOLD, _NEVER))
