"""The memory of the CPU allocator between steps."""

import ctypes
import platform

# Of glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3

LARGEST_THRESHOLD = 32 * 2**20  # bytes; glibc refuses more for M_MMAP_THRESHOLD


def keep_freed_memory() -> None:
    """Let the process keep the memory of freed tensors for the next step.

    A training step frees tensors of megabytes and allocates them again. By default glibc may return them to
    the system each time, depending on the order in which they are freed, and every page of them is then
    zeroed anew: 2,700 page faults and 3 of 8 ms in a step of SimpleCNN.
    Other allocators are not changed.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
