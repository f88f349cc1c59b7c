"""Lock the plan so that a concurrent run cannot overwrite the files that jobs read.

Snakemake refuses a second run in a directory only after it has read the Snakefile, by which time a
second run with other settings would have replaced the plan under the first one's jobs.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from icmbench.config.job_settings import are_written, write_files
from icmbench.config.plan import Plan
from icmbench.errors import UserError

# Held as long as the process lives; the kernel releases them, also of a killed process.
_held: dict[Path, FileLock] = {}


def write_plan(plan: Plan) -> None:
    """Write a plan's files and keep others from writing a different plan there.

    Where another process keeps them, a plan that is already written is left alone: a dry run beside
    a run, or a second run that Snakemake is about to refuse.

    Raises:
        UserError: where another process keeps a plan that differs.
    """
    if _keep(plan.root):
        write_files(plan)
    elif not are_written(plan):
        raise UserError(
            f"{plan.root}: a run with different settings is in progress; wait for it to finish, "
            "or set another folder with key 'results'"
        )


def _keep(root: Path) -> bool:
    path = root.absolute() / ".plan.lock"
    if path in _held:
        return True
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        # A file system without locks: as before there were any.
        with suppress(NotImplementedError):
            lock.acquire(timeout=0)
    except Timeout:
        return False
    _held[path] = lock
    return True
