"""The profiles: which one Snakemake takes by itself, and what the one for SLURM adds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
SMOKE = ("--config", "scale=smoke", "studies=[chamain2021]")


@pytest.fixture(scope="module")
def folder(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workflow's own files, without results."""
    folder = tmp_path_factory.mktemp("profiles")
    for name in ("config.yaml", "workflow", "envs"):
        (folder / name).symlink_to(repository / name)
    return folder


def dry_run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(BIN / "snakemake"), "--dry-run", *arguments, *SMOKE],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr + done.stdout


def test_the_default_profile_is_found(folder: Path) -> None:
    said = dry_run(folder, "--cores", "1")
    assert "workflow specific profile workflow/profiles/default" in said
