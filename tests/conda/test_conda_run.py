"""`snakemake --use-conda` from nothing to report and MLflow, with the whole lock installed."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conda_checkout import CondaCheckout
from packaging.requirements import Requirement

from checkout import edit_yaml, keep_variants

pytestmark = [pytest.mark.conda, pytest.mark.slow, pytest.mark.timeout(3600)]

VARIANTS = ("uncoded/faster-rcnn/pretrained", "hyperprior/reconstruction/mse",
            "hyperprior/faster-rcnn/baseline", "hevc/faster-rcnn/baseline")  # fmt: skip
# Appended to the copied package: every process that imports it records where it runs.
WITNESS = """

def _witness() -> None:
    import importlib.util, json, os, sys
    line = {"arguments": sys.orig_argv, "prefix": sys.prefix, "package": __file__,
            "leak": importlib.util.find_spec("leak_path") is not None}
    with open(os.path.join(os.path.dirname(__file__), "witness.jsonl"), "a") as file:
        file.write(json.dumps(line) + "\\n")

_witness()
"""


def shorten(study: dict[str, Any]) -> None:
    """Leave a study nothing but one comparison of its ``VARIANTS``.

    They still need every verb, and train codec and detector.
    """
    for key in ("claims", "preconditions", "visual_comparisons", "published"):
        del study[key]
    study["comparisons"] = [
        {"anchor": VARIANTS[3], "variants": [VARIANTS[2]], "metrics": ["box_map"]}
    ]


@pytest.fixture(scope="module")
def run(conda_checkout: CondaCheckout) -> Iterator[CondaCheckout]:
    """The checkout after one run; PYTHONPATH names a folder of the user's own."""
    folder = conda_checkout.folder
    keep_variants(folder, "chamain2021", VARIANTS)
    edit_yaml(folder / "workflow/studies/chamain2021.yaml", shorten)
    with (folder / "workflow/icmbench/__init__.py").open("a") as file:
        file.write(WITNESS)
    (folder / "own").mkdir()
    (folder / "own/leak_path.py").touch()
    done = conda_checkout.snakemake("--use-conda", python_path=(folder / "own",))
    assert done.returncode == 0, done.stderr[-6000:] + done.stdout[-3000:]
    yield conda_checkout
    shutil.rmtree(folder / ".snakemake", ignore_errors=True)  # up to 6 GB


@pytest.fixture(scope="module")
def witnesses(run: CondaCheckout) -> dict[bool, list[dict[str, Any]]]:
    """Return the processes by whether they were Snakemake itself."""
    lines = (run.folder / "workflow/icmbench/witness.jsonl").read_text().splitlines()
    found: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for line in map(json.loads, lines):
        found[any(Path(word).name == "snakemake" for word in line["arguments"][:2])].append(line)
    return found


def test_conda_runs_every_job_in_the_environment(
    run: CondaCheckout, witnesses: dict[bool, list[dict[str, Any]]]
) -> None:
    jobs = witnesses[False]
    calls = (re.search(r"-m icmbench (\w+)", " ".join(job["arguments"])) for job in jobs)
    assert {call[1] for call in calls if call} == {
        "data", "train", "code", "encode", "decode", "evaluate", "analyse", "report", "track"
    }  # fmt: skip
    assert {job["prefix"] for job in jobs} == {str(run.environment)}
    assert {job["package"] for job in jobs} == {str(run.folder / "workflow/icmbench/__init__.py")}


def test_conda_keeps_the_users_path_outside(
    witnesses: dict[bool, list[dict[str, Any]]],
) -> None:
    assert not any(job["leak"] for job in witnesses[False])
    assert all(one["leak"] and one["prefix"] == sys.prefix for one in witnesses[True])
    assert witnesses[True]


def test_conda_run_has_results(run: CondaCheckout) -> None:
    root = run.folder / "results/smoke"
    rows = list(csv.DictReader((root / "tables/curves.csv").open()))
    assert {row["variant"] for row in rows} == set(VARIANTS)
    assert json.loads((root / "tracking.json").read_text())["status"] == "done"
    assert (root / "report/index.html").stat().st_size > 1000


def test_conda_installs_exactly_the_lock(run: CondaCheckout, repository: Path) -> None:
    text = (repository / "envs/requirements.lock").read_text()
    wanted = [Requirement(line.strip()) for line in re.findall(r"(?m)^([a-z0-9][^\\\n]*)", text)]
    pinned = {
        r.name: str(r.specifier).removeprefix("==")
        for r in wanted
        if r.marker is None or r.marker.evaluate()
    }
    found = run.packages()
    assert found.pop(run.folder.as_uri()) == "editable"
    assert {name.lower().replace("_", "-"): v for name, v in found.items()} == pinned


@pytest.mark.parametrize("option", [["--use-conda"], []])
def test_conda_second_call_has_nothing_to_do(run: CondaCheckout, option: list[str]) -> None:
    done = run.snakemake(*option)
    assert done.returncode == 0 and "Nothing to be done" in done.stderr, done.stderr[-2000:]
    assert "Creating conda environment" not in done.stderr
