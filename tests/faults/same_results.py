"""Whether a disturbed run left what an undisturbed one leaves, file by file.

What may differ is listed here and nowhere else.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd

from checkout import Checkout

# Seconds that something took and moments at which it happened, by key of JSON files, column of
# tables, metric of MLflow.
TIMES = frozenset({
    "started", "finished", "time", "wall_seconds", "cpu_seconds", "images_per_second",
    "encode_s", "decode_s", "reconstruct_s", "evaluate_cpu_seconds", "evaluate_wall_seconds",
    "train_cpu_seconds", "train_wall_seconds",
})  # fmt: skip
# Files that hold some of these: their digests differ, so they are compared themselves.
TIMED = (".json", ".jsonl", ".parquet")
# MLflow's tags that hold identifiers of runs, or digests of files with times in them.
TAGS = frozenset({"icmbench.content", "icmbench.values", "mlflow.parentRunId"})
# Snakemake's own words and measurements; the store, compared run by run; what the import did.
APART = ("smoke/logs", "mlflow.db", "mlartifacts", "smoke/tracking.json")


def assert_same(found: Checkout, expected: Checkout, scratch: Path) -> list[str]:
    """Compare all that two whole runs left, as :func:`assert_same_files`, and pages and MLflow.

    Args:
        found: the disturbed run.
        expected: the undisturbed run.
        scratch: a folder that is not there yet.
    """
    left = assert_same_files(found, expected)
    _assert_same_pages(found, expected, scratch)
    assert tracked(found) == tracked(expected)
    return left


def assert_same_files(found: Checkout, expected: Checkout) -> list[str]:
    """Compare results and data; return the temporary files that the first run left behind."""
    left = []
    for part in ("results", "data"):
        one, other = _files(found.folder / part), _files(expected.folder / part)
        # A killed process cannot remove its temporary file; the name hides it from all readers.
        hidden = {name for name in one - other if any(p.startswith(".") for p in Path(name).parts)}
        left += sorted(f"{part}/{name}" for name in hidden)
        assert one - hidden == other, f"{part}: {sorted((one - hidden) ^ other)}"
        for name in sorted(other):
            if not name.endswith(".html"):
                assert_same_file(found.folder / part / name, expected.folder / part / name)
    return left


def _files(folder: Path) -> set[str]:
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    return {name for name in names if not name.startswith((*APART, ".icmbench"))}


def assert_same_file(one: Path, other: Path) -> None:
    """Compare two files: tables and JSON without times, all others by bytes."""
    if one.suffix == ".parquet":
        frames = [pd.read_parquet(path) for path in (one, other)]
        kept = [frame[[c for c in frame.columns if c not in TIMES]] for frame in frames]
        assert len(kept[0]) and list(frames[0].columns) == list(frames[1].columns), one
        pd.testing.assert_frame_equal(*kept, check_exact=True, obj=str(one))
    elif one.suffix in (".json", ".jsonl"):
        texts = [path.read_text() for path in (one, other)]
        if one.suffix == ".jsonl":
            texts = [f"[{','.join(text.splitlines())}]" for text in texts]
        values = [without_times(json.loads(text)) for text in texts]
        assert values[0] == values[1], one
    elif one.parent.parent.name == "cache":  # its facts hold times
        members = ("bitstream.bin", "decoded.png")
        with zipfile.ZipFile(one) as found, zipfile.ZipFile(other) as wanted:
            assert [found.read(n) for n in members] == [wanted.read(n) for n in members], one
    elif one.suffix == ".sha256":
        lists = [path.read_text().splitlines() for path in (one, other)]
        kept = [[line for line in lines if not line.endswith(TIMED)] for lines in lists]
        assert kept[0] == kept[1], one
    else:
        assert one.read_bytes() == other.read_bytes(), one


def without_times(value: Any) -> Any:
    """Return parsed JSON without the keys of :data:`TIMES`."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def _assert_same_pages(found: Checkout, expected: Checkout, scratch: Path) -> None:
    """Compare the pages with those that the undisturbed results make with the other's times.

    Called when all files that the report reads are known to be the same but for times.
    """
    root = scratch / "results/smoke"
    for part in ("results/smoke", "data"):
        shutil.copytree(expected.folder / part, scratch / part, symlinks=True)
    # With the lists of digests, which name files with times in them.
    timed = [
        path for kind in ("parquet", "json", "sha256") for path in found.root.rglob(f"*.{kind}")
    ]
    for path in timed:
        if (target := root / path.relative_to(found.root)).exists():
            target.unlink()  # a second name of the undisturbed file, perhaps
            shutil.copy(path, target)
    shutil.rmtree(root / "report")
    env = {**os.environ, "PYTHONPATH": str(expected.folder / "workflow")}
    command = [sys.executable, "-m", "icmbench", "report", "results/smoke"]
    subprocess.run(command, cwd=scratch, env=env, check=True, capture_output=True)
    pages = {path.name for path in (found.root / "report").glob("*.html")}
    assert len(pages) > 3 and pages == {path.name for path in (root / "report").glob("*.html")}
    for name in sorted(pages):
        path = found.root / "report" / name
        assert path.read_bytes() == (root / "report" / name).read_bytes(), path
    shutil.rmtree(scratch)


def tracked(checkout: Checkout) -> dict[str, Any]:
    """Return what MLflow holds, by the key of each run."""
    database = sqlite3.connect(f"file:{checkout.folder}/results/mlflow.db?mode=ro", uri=True)
    query = database.execute
    keys = dict(query("SELECT run_uuid, value FROM tags WHERE key = 'run_key'"))
    names = dict(query("SELECT experiment_id, name FROM experiments"))
    held: dict[str, Any] = {}
    rows = query("SELECT run_uuid, experiment_id, name, status, lifecycle_stage FROM runs")
    alive = [row for row in rows if row[-1] == "active"]
    for run, experiment, name, status, _ in alive:
        tags = dict(query("SELECT key, value FROM tags WHERE run_uuid = ?", (run,)))
        metrics = query("SELECT key, step, value FROM metrics WHERE run_uuid = ?", (run,))
        models = query("SELECT name, current_stage FROM model_versions WHERE run_id = ?", (run,))
        key = f"{names[experiment]} {keys[run]}"
        assert key not in held, f"two runs {key}"
        assert status == "FINISHED" and "icmbench.content" in tags, (key, status)
        held[key] = {
            "name": name,
            "parent": keys.get(tags.get("mlflow.parentRunId", "")),
            "tags": {k: v for k, v in tags.items() if k not in TAGS},
            "params": dict(query("SELECT key, value FROM params WHERE run_uuid = ?", (run,))),
            "metrics": sorted(m for m in metrics if m[0].rpartition("/")[2] not in TIMES),
            "models": sorted(m for m in models if m[1] != "Deleted_Internal"),
        }
    database.close()
    assert len(held) > 2
    return held
