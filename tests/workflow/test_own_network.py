"""A network and images of one's own: examples/own_network, from plan to tables."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from checkout import copy_files

EXAMPLE = "examples/own_network"
# Every verb on every job in one process, which pays for one import of torch.
DRIVER = f"""
import json, sys
from pathlib import Path
from icmbench.cli import main

def run(*arguments):
    assert main(list(map(str, arguments))) == 0, arguments

run("plan", "--config", "{EXAMPLE}/config.yaml", "scale=smoke")
plan = Path("results/smoke/plan")
for verb, folder in (("data", "data"), ("code", "code"), ("evaluate", "evaluate")):
    files = sorted((plan / folder).rglob("*.json"))
    assert files, folder
    for file in files:
        run(verb, file)
run("analyse", "results/smoke")
run("report", "results/smoke")
"""


@pytest.mark.slow
def test_example_of_an_own_network_runs_as_it_is(repository: Path, tmp_path: Path) -> None:
    copy_files(repository, tmp_path, (EXAMPLE,))
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "ICMBENCH_"))}
    own = str(tmp_path / EXAMPLE)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [own, env.get("PYTHONPATH", "")]))
    config = tmp_path / EXAMPLE / "config.yaml"
    config.write_text(config.read_text().replace("[jpeg, webp, x265-420]", "[jpeg, webp]"))
    done = subprocess.run(
        [sys.executable, "-c", DRIVER], cwd=tmp_path, capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    curves = pd.read_csv(tmp_path / "results/smoke/tables/curves.csv")
    own_metric = curves[curves["metric"] == "agreement_miou"].set_index("variant")["value"]
    assert own_metric["original"] == 1.0
    assert own_metric["jpeg"].is_monotonic_increasing and own_metric["jpeg"].max() < 1
    by_class = pd.read_csv(tmp_path / "results/smoke/tables/per_class.csv")
    assert set(by_class["class"]) <= {"dark", "red", "green", "blue"}
    assert (by_class[by_class["variant"] == "original"]["value"] == 1.0).all()
    page = tmp_path / "results/smoke/report/task-semantic-segmentation-agreement.html"
    text = page.read_text()
    assert "Agreement: Mean IoU" in text and "agreement_iou" in text and "Occurrences" in text
