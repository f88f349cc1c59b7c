"""Whether a disturbed run leaves the files of an undisturbed one. Differences allowed: times."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd

from checkout import Checkout

sys.path.insert(0, str(Path(__file__).parents[1] / "track"))

from stored import Stored

#: Durations and moments, by key of JSON files, column of tables, metric of MLflow.
TIMES = frozenset({
    "started", "finished", "time", "wall_seconds", "cpu_seconds", "images_per_second",
    "encode_s", "decode_s", "reconstruct_s", "evaluate_cpu_seconds", "evaluate_wall_seconds",
    "train_cpu_seconds", "train_wall_seconds",
})  # fmt: skip
# Files with times in them; their digests differ, so they are compared themselves.
TIMED = (".json", ".jsonl", ".parquet")
# Logs, and what is compared on its own: MLflow's store run by run, pages by _assert_same_pages.
APART = ("smoke/logs", "mlflow.db", "mlartifacts", "smoke/tracking.json", ".icmbench")


def assert_same(found: Checkout, expected: Checkout, scratch: Path) -> None:
    """Compare files, pages and MLflow runs of a disturbed and an undisturbed run.

    ``scratch``: a folder that does not exist.
    """
    assert_same_files(found, expected)
    _assert_same_pages(found, expected, scratch)
    assert tracked(found) == tracked(expected)


def assert_same_files(found: Checkout, expected: Checkout, without: tuple[str, ...] = ()) -> None:
    """Compare results and data.

    A killed process cannot remove its temporary files, whose names begin with a dot.
    """
    for part in ("results", "data"):
        one, other = (_files(checkout.folder / part, without) for checkout in (found, expected))
        assert one == other, f"{part}: {sorted(one ^ other)}"
        for name in sorted(other):
            if not name.endswith(".html"):
                assert_same_file(found.folder / part / name, expected.folder / part / name)


def _files(folder: Path, without: tuple[str, ...]) -> set[str]:
    paths = [path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()]
    return {
        str(path)
        for path in paths
        if not str(path).startswith((*APART, *without))
        and not any(name.startswith(".") for name in path.parts)
    }


def assert_same_file(one: Path, other: Path) -> None:
    """Compare two files: tables and JSON without times, all others by bytes."""
    if one.suffix == ".parquet":
        frames = [pd.read_parquet(path) for path in (one, other)]
        kept = [frame.drop(columns=list(TIMES & set(frame.columns))) for frame in frames]
        assert len(kept[0])
        pd.testing.assert_frame_equal(*kept, check_exact=True, obj=str(one))
    elif one.suffix in (".json", ".jsonl"):
        texts = [path.read_text() for path in (one, other)]
        if one.suffix == ".jsonl":
            texts = [f"[{','.join(text.splitlines())}]" for text in texts]
        assert without_times(json.loads(texts[0])) == without_times(json.loads(texts[1])), one
    elif one.parent.parent.name == "cache":  # its facts contain times
        members = ("bitstream.bin", "decoded.png")
        with zipfile.ZipFile(one) as found, zipfile.ZipFile(other) as wanted:
            assert [found.read(n) for n in members] == [wanted.read(n) for n in members], one
    elif one.suffix == ".sha256":
        lines = [[x for x in path.read_text().splitlines() if not x.endswith(TIMED)]
                 for path in (one, other)]  # fmt: skip
        assert lines[0] == lines[1], one
    else:
        assert one.read_bytes() == other.read_bytes(), one


def without_times(value: Any) -> Any:
    """Return parsed JSON without the keys of :data:`TIMES`."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def _assert_same_pages(found: Checkout, expected: Checkout, scratch: Path) -> None:
    """Compare the pages with a report of the undisturbed results with the other's times.

    All files that the report reads are known to be equal except for times.
    """
    root = scratch / "results/smoke"
    for part in ("results/smoke", "data"):
        shutil.copytree(expected.folder / part, scratch / part, symlinks=True)
    for kind in ("parquet", "json", "sha256"):
        for path in found.root.rglob(f"*.{kind}"):
            if (target := root / path.relative_to(found.root)).exists():
                target.unlink()  # it may be a hard link to the undisturbed file
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
    """Return the content of MLflow's store without times, by the key of each run."""
    content = Stored(checkout.root).content()
    assert len(content) > 2
    for run in content.values():
        status, *_ = run.pop("times")
        assert status == "FINISHED"
        run["metrics"] = {
            name: values
            for name, values in run["metrics"].items()
            if name.rpartition("/")[2] not in TIMES
        }
        run["versions"] = len(run["versions"])  # earlier versions of replaced runs stay
        run["tags"] = {k: v for k, v in run["tags"].items() if not k.startswith("icmbench.")}
    return content
