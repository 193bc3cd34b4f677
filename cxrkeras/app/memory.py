"""How the server's process takes memory."""

import contextlib
import ctypes

M_ARENA_MAX = -8  # of malloc.h


def share_memory_pools() -> None:
    """Let all threads take memory from two pools, if it is called before there are many.

    By default glibc gives threads pools of their own, in which what large images leave behind is kept for ever.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)
