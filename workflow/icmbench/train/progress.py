"""What a training run reports: metrics.jsonl, run.json, and a bar or a few lines of progress."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from icmbench.summaries import RunStatus, TrainingSummary
from icmbench.utils.files import atomic_path, write_json

logger = logging.getLogger(__name__)

_REPORT_EVERY_S = 60.0
_SHOWN = 4  # loss terms in a line; metrics.jsonl has all


class MetricsLog:
    """The append-only ``metrics.jsonl`` of a training run.

    Args:
        path: the file; None for a process that writes none.
        first_step: rows of later steps are dropped; they will be written again.
    """

    def __init__(self, path: Path | None, first_step: int) -> None:
        self._stream: TextIO | None = None
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            _drop_rows_after(path, first_step)
        self._stream = path.open("a", encoding="utf-8")

    def write(self, step: int, split: str, values: dict[str, float]) -> None:
        """Append one row; it is in the file when this returns."""
        if self._stream is not None:
            row = {"step": step, "time": time.time(), "split": split, "values": values}
            self._stream.write(json.dumps(row) + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()


def _drop_rows_after(path: Path, step: int) -> None:
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
    """``run.json`` of a training run, written at every change.

    Args:
        path: the file; None for a process that writes none.
        content: at the start.
    """

    def __init__(self, path: Path | None, content: TrainingSummary) -> None:
        self.path, self.content = path, content
        self.update()

    def update(self, **values: Any) -> None:
        """Change values and write the file."""
        self.content = self.content.model_copy(update=values)
        if self.path is not None:
            write_json(self.path, self.content.model_dump(mode="json"))

    def end(self, status: RunStatus, **values: Any) -> None:
        """Write how the run ended."""
        self.update(status=status, finished=time.time(), **values)


class Clock:
    """Speed of this process, and seconds of the whole run over all processes that resumed it.

    Args:
        totals: ``wall_seconds`` and ``cpu_seconds`` before this process.
        processes: ranks, which work equally much.
    """

    def __init__(self, totals: dict[str, float], processes: int) -> None:
        self._before, self._processes = totals, processes
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def seconds(self) -> float:
        """Return the wall time since this process began to train."""
        return max(time.monotonic() - self._wall, 1e-9)

    def totals(self) -> dict[str, float]:
        """Return ``wall_seconds`` and ``cpu_seconds`` of the run until now."""
        cpu = (time.process_time() - self._cpu) * self._processes
        return {
            "wall_seconds": self._before["wall_seconds"] + self.seconds(),
            "cpu_seconds": self._before["cpu_seconds"] + cpu,
        }


class Progress:
    """A bar on a terminal; elsewhere a line at the start, one a minute and one at the end.

    Args:
        key: of the operating point.
        first_step: steps done before.
        steps: of the schedule.
        shown: False reports nothing.
    """

    def __init__(self, key: str, first_step: int, steps: int, shown: bool = True) -> None:
        self.key, self.steps, self.shown = key, steps, shown
        self._first, self._start = first_step, time.monotonic()
        self._reported = self._start
        disable = None if shown else True  # None: not on a terminal
        self._bar = tqdm(total=steps, initial=first_step, desc=key, disable=disable, leave=False)
        if shown:
            logger.info("%s: training from step %d to %d", key, first_step, steps)

    def update(self, step: int, values: dict[str, float]) -> None:
        """Report that ``step`` steps are done, with the loss terms that were logged last."""
        self._bar.update()
        now = time.monotonic()
        due = self._bar.disable and now - self._reported > _REPORT_EVERY_S
        if self.shown and (due or step == self.steps):
            self._reported = now
            self._bar.clear()
            rate = (step - self._first) / max(now - self._start, 1e-9)
            terms = [f"{n} {v:.4g}" for n, v in values.items() if "." not in n][:_SHOWN]
            logger.info(
                "%s: step %d of %d, %.1f steps/s, %.0f s left, %s",
                *(self.key, step, self.steps, rate, (self.steps - step) / rate, ", ".join(terms)),
            )

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()
