"""`snakemake --use-conda` from nothing to report and MLflow, with the whole lock installed."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conda_checkout import Checkout, Client, copy_checkout, requirement
from packaging.requirements import Requirement

pytestmark = [pytest.mark.conda, pytest.mark.slow, pytest.mark.timeout(3600)]

VARIANTS = ["uncoded/faster-rcnn/pretrained", "hyperprior/reconstruction/mse",
            "hyperprior/faster-rcnn/baseline", "jpeg/faster-rcnn/baseline"]  # fmt: skip
CONFIG = ("--config", "scale=smoke", "studies=[chamain2021]")
# Appended to the copied package: every process that imports it says who it is.
WITNESS = """

def _witness() -> None:
    import importlib.util, json, os, sys
    line = {"arguments": sys.orig_argv, "prefix": sys.prefix, "package": __file__,
            "leak": importlib.util.find_spec("leak_path") is not None}
    with open(os.path.join(os.path.dirname(__file__), "witness.jsonl"), "a") as file:
        file.write(json.dumps(line) + "\\n")

_witness()
"""


def shorten(folder: Path) -> None:
    """Leave the study few variants, which still need every verb and train codec and detector."""
    path = folder / "workflow/studies/chamain2021.yaml"
    study = yaml.safe_load(path.read_text())
    for key in ("claims", "images", "published"):
        del study[key]
    study["variants"] = {name: study["variants"][name] for name in VARIANTS}
    study["comparisons"] = [
        {"anchor": VARIANTS[3], "variants": [VARIANTS[2]], "metrics": ["box_map"]}
    ]
    path.write_text(yaml.safe_dump(study, sort_keys=False))


@pytest.fixture(scope="module")
def run(
    repository: Path, client: Client, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Checkout]:
    """A checkout that was run once; a folder of the user's own is on PYTHONPATH."""
    copy = copy_checkout(repository, tmp_path_factory.mktemp("run"), client)
    shorten(copy.folder)
    with (copy.folder / "workflow/icmbench/__init__.py").open("a") as file:
        file.write(WITNESS)
    own = copy.folder / "own"
    own.mkdir()
    (own / "leak_path.py").touch()
    path = f"{copy.folder / 'workflow'}:{own}"
    done = copy.snakemake("--use-conda", *CONFIG, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr[-6000:] + done.stdout[-3000:]
    yield copy
    shutil.rmtree(copy.folder / ".snakemake", ignore_errors=True)  # up to 6 GB


@pytest.fixture(scope="module")
def witnesses(run: Checkout) -> list[dict[str, Any]]:
    lines = (run.folder / "workflow/icmbench/witness.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def verb(witness: dict[str, Any]) -> str | None:
    """Return the verb of a job's process; None for its workers and for Snakemake."""
    found = re.search(r"-m icmbench (\w+)", " ".join(witness["arguments"]))
    return found[1] if found else None


def is_snakemake(witness: dict[str, Any]) -> bool:
    return any(Path(word).name == "snakemake" for word in witness["arguments"][:2])


def test_every_job_ran_inside_the_environment(
    run: Checkout, witnesses: list[dict[str, Any]]
) -> None:
    (environment,) = run.environments
    jobs = [witness for witness in witnesses if not is_snakemake(witness)]
    verbs = {verb(witness) for witness in jobs} - {None}
    assert verbs == {"data", "train", "code", "encode", "decode", "evaluate", "analyse",
                     "report", "track"}  # fmt: skip
    assert {witness["prefix"] for witness in jobs} == {str(environment)}
    package = str(run.folder / "workflow/icmbench/__init__.py")
    assert {witness["package"] for witness in witnesses} == {package}


def test_the_users_path_stays_outside(witnesses: list[dict[str, Any]]) -> None:
    assert not any(witness["leak"] for witness in witnesses if not is_snakemake(witness))
    outside = [witness for witness in witnesses if is_snakemake(witness)]
    assert outside and all(witness["leak"] for witness in outside)  # Snakemake itself has it
    assert {witness["prefix"] for witness in outside} == {sys.prefix}


def test_it_trained_and_reported(run: Checkout) -> None:
    root = run.folder / "results/smoke"
    rows = list(csv.DictReader((root / "tables/curves.csv").open()))
    assert {row["variant"] for row in rows} == set(VARIANTS)
    assert len(list(root.rglob("weights.pt"))) == 3
    assert json.loads((root / "tracking.json").read_text())["status"] == "done"
    assert (root / "report/index.html").stat().st_size > 1000


def test_the_environment_is_the_lock(run: Checkout, repository: Path) -> None:
    """Every package of the lock that is for this platform, in its version, and nothing else."""
    (environment,) = run.environments
    text = (repository / "envs/requirements.lock").read_text()
    lines = re.findall(r"(?m)^([a-z0-9][^\\\n]*)", text)
    wanted = [Requirement(line.strip()) for line in lines]
    pinned = {
        r.name: str(r.specifier).removeprefix("==")
        for r in wanted
        if r.marker is None or r.marker.evaluate()
    }
    assert len(pinned) > 150
    found = run.packages(environment)
    assert found.pop(run.folder.as_uri()) == "editable"
    assert {name.lower().replace("_", "-"): v for name, v in found.items()} == pinned


def test_its_parts_are_loaded_from_it(run: Checkout) -> None:
    (environment,) = run.environments
    names = ("torch", "torchvision", "compressai", "pycocotools", "mlflow", "icmbench")
    program = f"import {', '.join(names)}\nfor m in ({', '.join(names)}): print(m.__file__)"
    done = subprocess.run(
        [environment / "bin/python", "-I", "-c", program], cwd="/", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    *others, package = done.stdout.split()
    assert len(others) == 5 and all(Path(p).is_relative_to(environment) for p in others)
    assert package == str(run.folder / "workflow/icmbench/__init__.py")


@pytest.mark.parametrize("option", [["--use-conda"], ["--sdm", "conda"], []])
def test_again_there_is_nothing_to_do(run: Checkout, option: list[str]) -> None:
    done = run.snakemake(*option, *CONFIG)
    assert done.returncode == 0 and "Nothing to be done" in done.stderr, done.stderr[-2000:]
    assert "Creating conda environment" not in done.stderr and len(run.environments) == 1


def test_a_new_lock_repeats_no_finished_job(run: Checkout, repository: Path) -> None:
    lock = (repository / "envs/requirements.lock").read_text()
    run.write_lock(requirement(lock, "filelock"))
    done = run.snakemake("--use-conda", "--dry-run", *CONFIG)
    run.write_lock(lock)
    said = done.stdout + done.stderr
    assert "will be created" in said  # the environment
    assert done.returncode == 0 and "Nothing to be done" in said, said[-2000:]


def test_a_job_as_an_executor_starts_it_on_a_node(run: Checkout) -> None:
    """Snakemake's own remote mode, which the SLURM executor calls inside the allocation.

    The last test: it writes results anew.
    """
    witness = run.folder / "workflow/icmbench/witness.jsonl"
    witness.unlink()
    base = str(run.client.base)
    done = run.snakemake("--snakefile", str(run.folder / "Snakefile"), "--mode", "remote",
                         "--target-jobs", "analyse:", "--allowed-rules", "analyse", "--force",
                         "--nolock", "--deployment-method", "conda", "--conda-base-path", base,
                         *CONFIG)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    jobs = [w for w in map(json.loads, witness.read_text().splitlines()) if verb(w)]
    assert [verb(w) for w in jobs] == ["analyse"]
    assert jobs[0]["prefix"] == str(run.environments[0])
