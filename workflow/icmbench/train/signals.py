"""The wish to stop: a signal that the training loop obeys between two steps."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class Interrupted(Exception):
    """SIGTERM or SIGINT came, and the checkpoint is saved."""


class StopSignal:
    """Notes SIGTERM and SIGINT while it is entered, instead of ending the process."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._handlers: dict[int, Any] = {}

    @property
    def received(self) -> bool:
        """Whether a signal came."""
        return self.number is not None

    def __str__(self) -> str:
        """Return its name; another rank may have received it."""
        return signal.Signals(self.number or signal.SIGTERM).name

    def __enter__(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._handlers[number] = signal.signal(number, self._note)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
