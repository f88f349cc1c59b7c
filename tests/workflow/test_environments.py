"""envs/ installs what uv.lock locks."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest


def locked(repository: Path) -> dict[str, str]:
    lock = tomllib.loads((repository / "uv.lock").read_text())
    return {p["name"]: p["version"] for p in lock["package"] if "registry" in p["source"]}


def test_requirements_equal_the_lock(repository: Path) -> None:
    text = (repository / "envs/requirements.lock").read_text()
    pinned = dict(re.findall(r"(?m)^([a-z0-9][\w.-]*)(?:\[[\w,]+\])?==([^\s;\\]+)", text))
    versions = locked(repository)
    assert {"torch", "snakemake", "compressai", "mlflow", "dvc"} <= pinned.keys()
    assert {n: v for n, v in pinned.items() if versions.get(n) != v} == {}
    assert text.count("--hash=sha256:") > len(pinned)


def test_post_deploy_script_has_the_digest_of_the_lock(repository: Path) -> None:
    sys.path.insert(0, str(repository / "envs"))
    try:
        from stamp import stamped
    finally:
        sys.path.pop(0)
    script = (repository / "envs/icmbench.post-deploy.sh").read_text()
    lock = (repository / "envs/requirements.lock").read_bytes()
    assert stamped(script, lock) == script, "run: make lock"
    assert stamped(script, lock + b"\n") != script


def test_lock_is_up_to_date(repository: Path) -> None:
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not on PATH")
    done = subprocess.run(
        [uv, "lock", "--check"], cwd=repository, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
