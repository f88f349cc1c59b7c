"""What a training says while it runs: a line on the terminal, rows in metrics.jsonl, run.json."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from icmbench.utils.files import atomic_path, write_json


class MetricsLog:
    """The append-only ``metrics.jsonl`` of a run.

    Args:
        path: the file; None for a process that writes none.
        resume_step: rows after this step are dropped; they will be written again.
    """

    def __init__(self, path: Path | None, resume_step: int) -> None:
        self._stream: TextIO | None = None
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            _keep_until(path, resume_step)
        self._stream = path.open("a", encoding="utf-8")

    def write(self, step: int, split: str, values: dict[str, float]) -> None:
        """Append one row; it is on disk when this returns."""
        if self._stream is None:
            return
        row = {"step": step, "time": time.time(), "split": split, "values": values}
        self._stream.write(json.dumps(row) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()


def _keep_until(path: Path, step: int) -> None:
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (json.JSONDecodeError, KeyError):
            continue  # the last line of a killed process may be half written
    with atomic_path(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")


class RunFile:
    """``run.json``: what the training is, how far it is and how it ended.

    Args:
        path: the file; None for a process that writes none.
        fixed: what does not change.
    """

    def __init__(self, path: Path | None, fixed: dict[str, Any]) -> None:
        self.path = path
        self.content: dict[str, Any] = {
            "status": "running",
            "started": time.time(),
            "finished": None,
            "steps_done": 0,
            "final": {},
            "weights_sha256": None,
            "error": None,
            **fixed,
        }

    def update(self, **values: Any) -> None:
        """Change values and write the file."""
        self.content.update(values)
        if self.path is not None:
            write_json(self.path, self.content)


def report_progress(key: str, step: int, steps: int, rate: float, values: dict[str, float]) -> None:
    """Print one line: where the training is, how fast, how long it will take."""
    left = (steps - step) / rate if rate > 0 else float("inf")
    shown = " ".join(f"{name} {value:.4g}" for name, value in values.items() if "." not in name)
    # Who reads along may be gone first where a whole job is told to stop.
    with suppress(BrokenPipeError):
        print(
            f"{key}: step {step}/{steps}, {rate:.1f} steps/s, {left:.0f} s left, {shown}",
            file=sys.stderr,
            flush=True,
        )
