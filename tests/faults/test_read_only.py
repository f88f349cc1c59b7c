"""A results folder that cannot be written: one line names it before any job starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from disk import set_read_only, small_disk
from fault_study import prepare_short

from checkout import HERE, Checkout
from icmbench.errors import CannotWrite
from icmbench.utils.files import check_writable, write_text

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_read_only_results_folder_stops_the_run_before_any_job(
    repository: Path, tmp_path: Path
) -> None:
    checkout = prepare_short(tmp_path, repository)
    with small_disk(tmp_path / "results", 20) as disk:
        set_read_only(disk, True)
        _assert_refused(checkout)
        set_read_only(disk, False)
        # A run that is half done: the plan exists and need not be written.
        assert checkout.start(*HERE, "--dry-run").wait() == 0, checkout.said
        set_read_only(disk, True)
        _assert_refused(checkout)
        with pytest.raises(CannotWrite, match=r"x\.json: .*Read-only"):
            write_text(disk / "x.json", "{}")


def _assert_refused(checkout: Checkout) -> None:
    before = len(checkout.said) if (checkout.folder / "said.log").exists() else 0
    assert checkout.start(*HERE).wait() == 1
    said = checkout.said[before:]
    assert any("results/smoke: " in x and "Read-only file system" in x for x in said.splitlines())
    assert "Traceback" not in said and "rule " not in said, said


def test_check_writable_checks_the_parent_of_a_missing_folder(tmp_path: Path) -> None:
    check_writable(tmp_path / "results/smoke")
    with small_disk(tmp_path / "disk", 1) as disk:
        set_read_only(disk, True)
        with pytest.raises(CannotWrite, match="results/smoke"):
            check_writable(disk / "results/smoke")
