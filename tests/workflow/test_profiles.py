"""The profiles: Snakemake's default one, and what the one for SLURM adds."""

from __future__ import annotations

import re
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
    for name in ("Snakefile", "profiles", "config.yaml", "workflow", "envs"):
        (folder / name).symlink_to(repository / name)
    return folder


def dry_run(folder: Path, *arguments: str, config: tuple[str, ...] = ()) -> str:
    done = subprocess.run(
        [str(BIN / "snakemake"), "--dry-run", "--printshellcmds", *arguments, *SMOKE, *config],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr + done.stdout


def test_profile_default_is_found(folder: Path) -> None:
    said = dry_run(folder, "--cores", "1")
    assert "workflow specific profile profiles/default" in said


def test_profile_accepts_seeds_on_the_command_line(folder: Path) -> None:
    said = dry_run(folder, "--cores", "1", config=("seeds=[0,1,2]",))
    assert "rate0-seed2/weights.pt" in said


def test_profile_slurm_extends_the_default(folder: Path) -> None:
    said = dry_run(folder, "--profile", "workflow/profiles/slurm")
    assert "profiles workflow/profiles/slurm and workflow specific profile" in said
    assert "slurm_partition" not in said and "slurm_account" not in said and "gpu" not in said


def test_profile_slurm_cluster_settings_reach_the_jobs(folder: Path) -> None:
    site = "cluster={account: us, partition: short, gpu_partition: fast, max_minutes: 5}"
    said = dry_run(folder, "--profile", "workflow/profiles/slurm", config=(site,))
    jobs = re.findall(r"(?s)rule (\w+):\n.*?resources: ([^\n]*)", said)
    trained = [resources for rule, resources in jobs if rule == "train"]
    assert len(trained) == 12
    # This scale uses no GPU, so no job goes to the GPU partition.
    assert all("slurm_partition=short" in r and "runtime=5" in r for r in trained)
    assert not any("fast," in resources for _, resources in jobs)
    assert "slurm_account" not in dict(jobs)["track"]  # runs where Snakemake runs


def test_profile_slurm_cuts_no_threads(folder: Path) -> None:
    said = dry_run(folder, "--profile", "workflow/profiles/slurm", config=("scale=paper",))
    trained = re.findall(r"rule train:\n(?:    .*\n)*?    threads: (\d+)", said)
    assert trained and set(trained) == {"16"}
    said = dry_run(
        folder,
        "--profile",
        "workflow/profiles/slurm",
        config=("scale=paper", "cluster={max_cores: 4}"),
    )
    assert set(re.findall(r"rule train:\n(?:    .*\n)*?    threads: (\d+)", said)) == {"4"}
