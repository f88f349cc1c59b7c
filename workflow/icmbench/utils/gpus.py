"""A GPU of its own for each job, where several share a host and no scheduler deals GPUs out.

Snakemake counts the resource ``gpu`` but hands no device to a job; without this every job of a host
would compute on the first. SLURM shows a job only its own GPUs, and then nothing is left to choose.
"""

from __future__ import annotations

import os
import subprocess

from icmbench.utils.machine_lock import hold

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_PATIENCE_S = 20.0  # for nvidia-smi


def take_gpus(count: int) -> list[str]:
    """Let this process and those it starts see ``count`` GPUs that no other job of ours holds.

    They are held until the process ends. To be called before CUDA starts. Nothing changes where the
    job sees no more GPUs than it needs, and where too few are free: then jobs share.

    Returns:
        The GPUs taken, as ``CUDA_VISIBLE_DEVICES`` names them; none where nothing changed.
    """
    seen = _visible()
    if count < 1 or len(seen) <= count:
        return []
    held: dict[str, int] = {}
    for gpu in seen:
        handle = hold(f"gpu-{gpu.replace('/', '-')}")
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
        told = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return told.stdout.split()
