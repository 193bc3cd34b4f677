"""How the server's process takes memory."""

import contextlib
import ctypes
import gc

M_ARENA_MAX = -8  # of malloc.h


def share_memory_pools() -> None:
    """Let all threads take memory from two pools, if it is called before there are many.

    By default glibc gives each thread a pool of its own, which never releases the memory of large images.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


def give_back_memory() -> None:
    """Give free memory back to the system, as after a network was compiled, which takes gigabytes for a while."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
