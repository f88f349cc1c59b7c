"""A copy of the workflow's own files in a folder of its own, run here or on a cluster."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from icmbench.utils.files import read_json

BIN = Path(sys.executable).parent
# Quick answers, for jobs of seconds.
QUICK = ("--max-jobs-per-timespan", "100/1s")
ON_SLURM = ("--profile", "workflow/profiles/slurm", "--slurm-init-seconds-before-status-checks",
            "2", "--latency-wait", "20", *QUICK)  # fmt: skip
HERE = ("--cores", "2", *QUICK)
FILES = ("Snakefile", "profiles", "config.yaml", "workflow", "envs", "data/catalogue.yaml")
TOY = {
    "title": "Toy",
    "version": "1",
    "homepage": "http://example.org/",
    "licence": "none",
    "licence_url": "http://example.org/",
    "account": {"needed": False},
    "citation": "nobody",
    "archives": [{"name": "toy.zip", "unpack": "zip"}],
    "layout": [{"path": "img/*.png", "count": 2}],
}


def copy_files(repository: Path, folder: Path, more: tuple[str, ...] = ()) -> None:
    """Copy the workflow's own files, and ``more`` of the repository."""
    for name in (*FILES, *more):
        source, target = repository / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)


def edit_yaml(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the content of a YAML file."""
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def keep_variants(folder: Path, study: str, kept: tuple[str, ...]) -> None:
    """Leave some variants of a study, and of what scale smoke says of it.

    What refers to the others, such as claims, is the caller's.
    """

    def cut_study(content: dict[str, Any]) -> None:
        content["variants"] = {name: content["variants"][name] for name in kept}
        content["leading"] = None

    def cut_scale(content: dict[str, Any]) -> None:
        own = content["studies"][study]
        own["variants"] = {name: it for name, it in own["variants"].items() if name in kept}

    edit_yaml(folder / f"workflow/studies/{study}.yaml", cut_study)
    edit_yaml(folder / "workflow/scales/smoke.yaml", cut_scale)


class Checkout:
    """The workflow's files in a folder of their own."""

    def __init__(self, folder: Path, repository: Path, config: tuple[str, ...]) -> None:
        self.folder, self.config = folder, config
        copy_files(repository, folder)

    @property
    def root(self) -> Path:
        return self.folder / "results" / "smoke"

    def start(self, *arguments: str, apart: bool = False) -> subprocess.Popen[str]:
        """Start Snakemake, in a process group of its own where it is ``apart``.

        What it says goes to ``said.log``.
        """
        env = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "ICMBENCH_"))}
        env["PYTHONPATH"] = str(self.folder / "workflow")
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # many short jobs: each would compile all anew
        with (self.folder / "said.log").open("a") as log:
            self._started = subprocess.Popen(
                [str(BIN / "snakemake"), *arguments, "--config", "scale=smoke", *self.config],
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                env=env,
                start_new_session=apart,
            )
        return self._started

    @property
    def ended(self) -> bool:
        """Whether the Snakemake that was started last has ended."""
        return self._started.poll() is not None

    def run(self, *arguments: str) -> None:
        """Run Snakemake to its end."""
        assert self.start(*arguments).wait() == 0, self.said[-6000:]

    @property
    def said(self) -> str:
        return (self.folder / "said.log").read_text()

    def weights(self) -> dict[str, str]:
        """Return the digest of every training's weights."""
        runs = [read_json(path) for path in sorted(self.root.glob("runs/**/run.json"))]
        return {run["key"]: run["weights_sha256"] for run in runs}

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return every table, without the seconds that things took."""
        found = {path.name: pd.read_csv(path) for path in self.root.glob("tables/*.csv")}
        found["records"] = pd.read_parquet(self.root / "tables/records.parquet")
        return {
            name: table[[c for c in table.columns if not c.endswith(("_s", "seconds"))]]
            for name, table in found.items()
        }

    def tracked(self) -> dict[str, int]:
        """Return how many runs of each kind MLflow has."""
        program = f"""
import collections, json, mlflow
client = mlflow.MlflowClient("sqlite:///{self.folder}/results/mlflow.db")
ids = [e.experiment_id for e in client.search_experiments()]
runs = client.search_runs(ids, max_results=1000)
kinds = [r.data.tags["kind"] + " " + r.info.status for r in runs]
print(json.dumps(collections.Counter(kinds)))
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1])


def assert_same_results(found: Checkout, expected: Checkout) -> None:
    """Compare weights and tables of two runs."""
    weights = expected.weights()
    assert weights and None not in weights.values()
    assert found.weights() == weights
    tables = expected.tables()
    assert set(found.tables()) == set(tables) and len(tables) >= 5
    for name, table in found.tables().items():
        assert len(table.columns) > 3
        pd.testing.assert_frame_equal(table, tables[name], check_exact=True, obj=name)


def add_fetched_data(checkout: Checkout, repository: Path) -> None:
    """Let the photographs be a fetched data set under DVC."""
    folder = checkout.folder
    scale = folder / "workflow/scales/smoke.yaml"
    content = yaml.safe_load(scale.read_text())
    test = {"images": "img"}
    content["datasets"]["photographs"] = {
        "source": "catalogue",
        "name": "toy",
        "splits": {"test": test},
    }
    scale.write_text(yaml.safe_dump(content))
    (folder / "data/catalogue.yaml").write_text(yaml.safe_dump({"toy": TOY}))
    archive = folder / "data/downloads/toy/toy.zip"
    archive.parent.mkdir(parents=True)
    pixels = np.random.default_rng(0)
    with zipfile.ZipFile(archive, "w") as bundle:
        for name in ("a.png", "b.png"):
            image = BytesIO()
            noise = pixels.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((192, 192)).save(image, "png")
            bundle.writestr(zipfile.ZipInfo(f"img/{name}"), image.getvalue())
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    (folder / ".dvc").mkdir()
    shutil.copy(repository / ".dvc/config", folder / ".dvc/config")
    (folder / ".gitignore").write_text("/data/?*\n!/data/*.dvc\n/.dvc/cache\n/.dvc/tmp\n")
