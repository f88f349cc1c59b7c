"""Kills at random moments: each lap through the workflow must end as the undisturbed one did.

``pytest -m faults tests/faults/test_kills.py`` prints its tally. ``FAULT_KILLS`` and ``FAULT_SEED``
in the environment ask for other numbers than 200 and 0, ``FAULT_MINUTES`` for an end before that.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from fault_study import prepare, prepare_short
from killer import AIMED, Killer
from same_results import assert_same, assert_same_files

from checkout import HERE

KILLS = int(os.environ.get("FAULT_KILLS", "200"))
MINUTES = float(os.environ.get("FAULT_MINUTES", "inf"))
SEED = int(os.environ.get("FAULT_SEED", "0"))
MOST_LAPS = 8
# What a failed job may be tried again, so that a killed one does not end the whole run.
RETRIES = ("--retries", "4")
CLEARED = ("results", ".snakemake", "data/toy", "data/toy.manifest.json", "data/toy.files.sha256",
           "data/toy.dvc", "data/.icmbench", ".dvc/cache", ".dvc/tmp")  # fmt: skip


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(6 * 3600)
def test_kills_change_no_result(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = prepare(tmp_path / "undisturbed", repository)
    calm = Killer(expected, SEED, HERE, 0)
    calm.measure()
    assert set(calm.spans) == set(AIMED)

    disturbed = prepare(tmp_path / "disturbed", repository)
    killer = Killer(disturbed, SEED, (*HERE, *RETRIES), KILLS, MINUTES, calm.spans)
    litter: list[str] = []
    while not killer.done:
        if killer.kills:
            clear(disturbed.folder)
        killer.lap()
        left = assert_same(disturbed, expected, tmp_path / "scratch")
        litter += left
        with capsys.disabled():
            print(
                f"\n{killer.tally()}\nidentical after lap; {len(left)} hidden temporary files left"
            )
    with capsys.disabled():
        print(f"hidden temporary files left in all: {Counter(map(kind, litter))}")
    hit = Counter(kill.rule for kill in killer.kills)
    assert len(killer.kills) < 200 or all(hit[rule] >= 3 for rule in AIMED), hit


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kills_change_no_table(repository: Path, tmp_path: Path) -> None:
    """The short variant: data fetched, a classical codec, an evaluation, the tables."""
    target = ("results/smoke/tables/bd.csv",)
    expected = prepare_short(tmp_path / "undisturbed", repository)
    calm = Killer(expected, SEED, target + HERE, 0)
    calm.measure()
    disturbed = prepare_short(tmp_path / "disturbed", repository)
    killer = Killer(disturbed, SEED, (*target, *HERE, *RETRIES), 5, spans=calm.spans)
    # A moment that is drawn may come after its job's end, more so where the machine is busy.
    for _ in range(MOST_LAPS):
        killer.lap()
        assert_same_files(disturbed, expected)
        if len(killer.kills) >= 3:
            break
        clear(disturbed.folder)
    assert len(killer.kills) >= 3, killer.tally()


def clear(folder: Path) -> None:
    """Leave the folder as it was before its first lap."""
    for name in CLEARED:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def kind(name: str) -> str:
    """Return which file a temporary one would have become."""
    return Path(name).name.lstrip(".").split("-")[0] + Path(name).suffix
