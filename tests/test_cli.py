"""The command line as a process: exit status, errors, logs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image


def call(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "icmbench", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_cli_reports_a_user_error_in_one_line(tmp_path: Path) -> None:
    failed = call("data", "none.json", cwd=tmp_path)
    assert failed.returncode == 1
    assert len(failed.stderr.splitlines()) == 1 and "none.json" in failed.stderr


def test_cli_writes_errors_to_log_and_terminal(tmp_path: Path) -> None:
    failed = call("data", "none.json", "--log", "logs/data.log", cwd=tmp_path)
    assert failed.returncode == 1
    assert (tmp_path / "logs/data.log").read_text() == failed.stderr != ""


def test_cli_writes_everything_else_to_the_log(tmp_path: Path, repository: Path) -> None:
    config = str(repository / "config.yaml")
    assert call("plan", "--config", config, "scale=smoke", cwd=tmp_path).returncode == 0
    job = "results/smoke/plan/data/detection.json"
    done = call("data", job, "--log", "data.log", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    lines = (tmp_path / "data.log").read_text().splitlines()
    assert "results/smoke/data/detection/manifest.json" in lines
    assert "took" in lines[-1]


def test_rd_needs_no_configuration_file(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), "red").save(tmp_path / "1.png")
    done = call("rd", "jpeg", ".", "30", cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["results"]["rate"] == [30]
    refused = call("rd", "jpeg", ".", "30", "--jobs", "0", cwd=tmp_path)
    assert refused.returncode == 2 and "--jobs" in refused.stderr
