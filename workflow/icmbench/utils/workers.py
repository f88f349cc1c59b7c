"""Worker processes that exit when their parent process dies."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from typing import Any, Literal


def worker_pool(
    processes: int,
    start: Literal["fork", "spawn"] | None = None,
    initializer: Callable[..., object] | None = None,
    initargs: tuple[Any, ...] = (),
) -> ProcessPoolExecutor:
    """Return a pool whose workers exit when this process is killed; a plain pool's would hang.

    Args:
        processes: number of workers.
        start: start method; None uses Python's default.
        initializer: called in each worker with ``initargs``.
        initargs: arguments of ``initializer``.
    """
    return ProcessPoolExecutor(
        processes, get_context(start), initializer=_begin, initargs=(initializer, initargs)
    )


def _begin(initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    if initializer is not None:
        initializer(*initargs)


def _exit_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
