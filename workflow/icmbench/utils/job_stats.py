"""What a job takes: its memory allocator, and the last line of its log.

Snakemake's own benchmarks read the whole memory map of a job twice a second, 27 ms each time for a
process with torch, and count no CPU time after the last look.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from contextlib import suppress

# malloc.h of glibc
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST = 32 << 20  # glibc takes no larger one


def keep_freed_memory() -> None:
    """Let glibc keep what a training step frees for the next; other C libraries do as they do.

    By default large tensors go back to the kernel, which clears every page of them anew: a tenth of
    the CPU time of face analysis on 128 x 128 images. The largest memory of a process stays.
    """
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def cost(wall_s: float) -> str:
    """Return one line: wall seconds, CPU seconds, largest memory; with those of programs it ran."""
    own, programs = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    cpu_s = own.ru_utime + own.ru_stime + programs.ru_utime + programs.ru_stime
    unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes on Linux
    memory_mb = max(own.ru_maxrss, programs.ru_maxrss) / unit
    return f"took {wall_s:.1f} s, {cpu_s:.1f} CPU s, {memory_mb:.0f} MB"
