"""Log messages and progress bars: to standard error, one line an event."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import TypeVar

Item = TypeVar("Item")


def setup_logging() -> None:
    """Send the package's log messages to standard error, warnings marked as such."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    logger = logging.getLogger("icmbench")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return f"icmbench: {level}{super().format(record)}"


def progress(items: Iterable[Item], description: str, total: int | None = None) -> Iterable[Item]:
    """Iterate with a progress bar on a terminal; in log files and on clusters without one."""
    from tqdm import tqdm

    return tqdm(items, description, total, disable=None, mininterval=1.0, leave=False)
