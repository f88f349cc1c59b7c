"""``metrics.jsonl``: which of its rows MLflow does not have yet."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """The values of one step of one split.

    Attributes:
        end: offset behind the row in its file, in bytes.
        step: training step.
        time_ms: when it was written, in Unix milliseconds.
        values: by MLflow's name of the metric, ``<split>/<name>``.
    """

    end: int
    step: int
    time_ms: int
    values: dict[str, float]


@dataclass(frozen=True)
class Position:
    """How much of a file was imported; it is kept in MLflow itself, so it cannot get lost.

    Attributes:
        offset: bytes imported, always up to the end of a row.
        digest: SHA-256 of these bytes: a training that resumes drops the rows after its checkpoint,
            and one that starts anew writes others.
        steps: last step imported, by split.
    """

    offset: int = 0
    digest: str = hashlib.sha256().hexdigest()
    steps: dict[str, int] | None = None


@dataclass(frozen=True)
class News:
    """What a file holds beyond a position.

    Attributes:
        rows: rows to import, in the order of the file; of rows of the same step the last one.
        position: the position after importing them.
        rewritten: whether rows that were imported have been dropped or replaced since. ``rows`` and
            ``position`` then say nothing: import into a new run from the start.
    """

    rows: list[Row]
    position: Position
    rewritten: bool = False


def read_news(path: Path, position: Position) -> News:
    """Return what ``path`` holds beyond ``position``; a missing file is an empty one.

    A last row without its line end is still being written and waits; a row that is not valid JSON
    was cut off by a kill and is left out.
    """
    data = path.read_bytes() if path.is_file() else b""
    data = data[: data.rfind(b"\n") + 1]
    if hashlib.sha256(data[: position.offset]).hexdigest() != position.digest:
        return News([], position, rewritten=True)
    rows: dict[tuple[str, int], Row] = {}
    steps = dict(position.steps or {})
    end = position.offset
    for line in data[position.offset :].splitlines(keepends=True):
        end += len(line)
        parsed = _parse(line)
        if parsed is None:
            continue
        split, step = parsed["split"], parsed["step"]
        if step <= (position.steps or {}).get(split, -1):
            return News([], position, rewritten=True)
        rows.pop((split, step), None)  # the last one counts, and stands where it stands
        values = {f"{split}/{k}": float(v) for k, v in parsed["values"].items() if v is not None}
        rows[split, step] = Row(end, step, round(parsed["time"] * 1000), values)
        steps[split] = max(step, steps.get(split, -1))
    return News(list(rows.values()), Position(end, hashlib.sha256(data).hexdigest(), steps))


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        parsed: dict[str, Any] = json.loads(line)
        return parsed if {"split", "step", "time", "values"} <= parsed.keys() else None
    except (ValueError, AttributeError):
        return None
