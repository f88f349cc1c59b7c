"""A GPU of its own for each job, where several share a host and no scheduler assigns GPUs.

Snakemake counts the resource ``gpu`` but assigns no device to a job; without this, all jobs of a
host would compute on the first GPU. SLURM shows a job only its own GPUs, so nothing is left to do.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from pathlib import Path

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_PATIENCE_S = 20.0  # for nvidia-smi


def take_gpus(count: int) -> list[str]:
    """Let this process and its children see ``count`` GPUs that no other job of this user holds.

    They are held until the process ends. Call it before CUDA starts. If the job sees no more GPUs
    than it needs, or too few are free, nothing changes; in the latter case jobs share.

    Returns:
        The GPUs taken, by their names in ``CUDA_VISIBLE_DEVICES``; empty where nothing changed.
    """
    seen = _visible()
    if count < 1 or len(seen) <= count:
        return []
    held: dict[str, int] = {}
    for gpu in seen:
        handle = _hold(f"gpu-{gpu.replace('/', '-')}")
        if handle is not None:
            held[gpu] = handle
        if len(held) == count:
            os.environ[_VISIBLE] = ",".join(held)
            return list(held)
    for handle in held.values():
        os.close(handle)
    return []


def _visible() -> list[str]:
    """Return the GPUs that this process may use, without starting CUDA."""
    if _VISIBLE in os.environ:
        return [name for part in os.environ[_VISIBLE].split(",") if (name := part.strip())]
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        listing = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return listing.stdout.split()


def _hold(name: str) -> int | None:
    """Return an open file that locks a name for this user's other jobs until it is closed.

    The end of the process closes it, too. None where another job holds the lock, or no lock file
    can be made.
    """
    path = Path(tempfile.gettempdir()) / f"icmbench-{os.getuid()}-{name}.lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle
