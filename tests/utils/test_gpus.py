"""Jobs that share a host take different GPUs (nvidia-smi is a stand-in here)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from icmbench.utils.gpus import take_gpus

THREE = ["GPU-aa", "GPU-bb", "GPU-cc"]
HOLD = """
import os, sys
from icmbench.utils.gpus import take_gpus
take_gpus({count})
print(os.environ.get("CUDA_VISIBLE_DEVICES", "all"), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with three GPUs and no locks of other tests."""
    fake = tmp_path / "bin" / "nvidia-smi"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\n" + "".join(f"echo {gpu}\n" for gpu in THREE))
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def _job(count: int) -> tuple[subprocess.Popen[str], str]:
    job = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(count=count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert job.stdout is not None
    return job, job.stdout.readline().strip()


def test_jobs_at_once_take_different_gpus_and_give_them_back() -> None:
    first, one = _job(1)
    second, two = _job(2)
    third, none_left = _job(1)
    assert (one, two, none_left) == ("GPU-aa", "GPU-bb,GPU-cc", "all")
    first.kill()
    first.wait()
    fourth, again = _job(1)
    assert again == "GPU-aa"
    for job in (second, third, fourth):
        job.communicate("")


def test_what_a_user_allows_is_what_is_chosen_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, 7")
    job, taken = _job(1)
    assert taken == "5"
    other, rest = _job(1)
    assert rest == "7"
    for each in (job, other):
        each.communicate("")


@pytest.mark.parametrize("count", [0, 3, 4])
def test_nothing_changes_where_there_is_nothing_to_choose(count: int) -> None:
    assert take_gpus(count) == []
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_host_without_a_driver(tmp_path: Path) -> None:
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    assert take_gpus(1) == []
