"""Writing to a full disk: one line names the file, and nothing half written remains."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from disk import full, small_disk

from icmbench.codecs.classical.cache import Cache, CachedImage
from icmbench.errors import CannotWrite
from icmbench.train.checkpoint import load_checkpoint, save_checkpoint, save_weights
from icmbench.train.lock import TrainingLock
from icmbench.utils.files import atomic_path, writing

LINE = r".*No space left on device"


def test_writing_reports_errors_of_writing_only(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="x: "), writing(tmp_path / "x"):
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise RuntimeError("a library's message") from error
    with pytest.raises(FileNotFoundError), writing(tmp_path / "x"):
        (tmp_path / "missing").read_text()


def test_writers_on_a_full_disk_leave_nothing_half_written(tmp_path: Path) -> None:
    model = torch.nn.Linear(200, 200)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)

    def checkpoint(path: Path, step: int) -> None:
        save_checkpoint(
            path,
            fingerprint="x",
            step=step,
            model=model.state_dict(),
            optimisers={"task": optimiser},
            totals={},
        )

    def table(path: Path) -> None:
        with atomic_path(path) as temporary:
            pd.DataFrame({"x": range(50_000)}).to_parquet(temporary)

    with small_disk(tmp_path / "disk", 2) as disk:
        checkpoint(disk / "checkpoint.pt", 1)
        with full(disk, 20_000):
            for name, write in {
                "checkpoint.pt": lambda path: checkpoint(path, 2),
                "weights.pt": lambda path: save_weights(path, None, model, {}),
                "table.parquet": table,
            }.items():
                with pytest.raises(CannotWrite, match=f"{name}: {LINE}"):
                    write(disk / name)
            with pytest.raises(CannotWrite, match=f"key.zip: {LINE}"):
                Cache(disk / "cache", 1.0).store("key", CachedImage(b"x" * 50_000, b"y", {}))
        left = {str(path.relative_to(disk)) for path in disk.rglob("*") if path.is_file()}
        assert left == {"checkpoint.pt"}
        kept = load_checkpoint(disk / "checkpoint.pt", "x")
        assert kept is not None and kept["step"] == 1  # the last good one


def test_training_lock_survives_a_disk_that_is_full_for_a_while(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        lock = TrainingLock(disk / "training.lock", beat=0.05)
        with lock:
            with full(disk):
                time.sleep(0.3)
            seen = lock.path.read_text()
            time.sleep(0.3)
            assert lock.path.read_text() != seen  # its heartbeat continues
            lock.check()
        assert not lock.path.exists()
