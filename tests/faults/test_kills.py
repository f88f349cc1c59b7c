"""Kills at random moments: each lap through the workflow must end like an undisturbed run.

The long test: ``pytest -m faults -s tests/faults/test_kills.py``. ``FAULT_KILLS`` and
``FAULT_SEED`` in the environment replace 200 kills and seed 0; ``FAULT_MINUTES`` ends it earlier.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest
from fault_study import prepare, prepare_short
from killer import ALL_RULES, Killer
from same_results import assert_same, assert_same_files

from checkout import HERE

KILLS = int(os.environ.get("FAULT_KILLS", "200"))
MINUTES = float(os.environ.get("FAULT_MINUTES", "inf"))
SEED = int(os.environ.get("FAULT_SEED", "0"))
RETRIES = ("--retries", "4")  # so that a killed job does not end the run
CLEARED = ("results", ".snakemake", "data/toy", "data/toy.manifest.json", "data/toy.files.sha256",
           "data/toy.dvc", "data/.icmbench", ".dvc/cache", ".dvc/tmp")  # fmt: skip


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(6 * 3600)
def test_kills_change_no_result(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = prepare(tmp_path / "undisturbed", repository)
    spans = Killer(expected, SEED, HERE).measure()
    assert set(spans) == set(ALL_RULES)
    disturbed = prepare(tmp_path / "disturbed", repository)
    killer = Killer(disturbed, SEED, (*HERE, *RETRIES), KILLS, spans)
    end = time.monotonic() + 60 * MINUTES
    while len(killer.kills) < KILLS and time.monotonic() < end:
        clear(disturbed.folder)
        killer.lap()
        assert_same(disturbed, expected, tmp_path / "scratch")
        with capsys.disabled():
            print(f"\n{len(killer.kills)} kills, seed {SEED}: {Counter(killer.kills)}")
    hits = Counter(rule for rule, _, _ in killer.kills)
    assert len(killer.kills) < 200 or all(hits[rule] >= 3 for rule in ALL_RULES), hits


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_three_kills_change_no_table(repository: Path, tmp_path: Path) -> None:
    """The short variant: fetched data, a classical codec, an evaluation, the tables."""
    target = ("results/smoke/tables/bd.csv", *HERE)
    expected = prepare_short(tmp_path / "undisturbed", repository)
    spans = Killer(expected, SEED, target).measure()
    disturbed = prepare_short(tmp_path / "disturbed", repository)
    killer = Killer(disturbed, SEED, (*target, *RETRIES), 3, spans)
    for _ in range(8):  # a job may end before its moment
        clear(disturbed.folder)
        killer.lap()
        assert_same_files(disturbed, expected)
        if len(killer.kills) == 3:
            return
    raise AssertionError(killer.kills)


def clear(folder: Path) -> None:
    """Return the folder to its state before the first lap."""
    for name in CLEARED:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
