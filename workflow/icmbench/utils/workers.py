"""Worker processes that end with the process they work for, however it ends."""

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
    """Return a pool whose workers do not outlive this process.

    Those of a plain pool wait for ever on a queue that nobody fills when this process is killed.

    Args:
        processes: how many.
        start: how they are started; None leaves it to Python.
        initializer: called in each of them with ``initargs``.
    """
    return ProcessPoolExecutor(
        processes, get_context(start), initializer=_begin, initargs=(initializer, initargs)
    )


def _begin(initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initializer is not None:
        initializer(*initargs)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
