"""Codecs and a task outside the package: examples/own_codec, from plan to MLflow."""

from __future__ import annotations

import csv
import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from checkout import copy_files
from icmbench.errors import UserError

EXAMPLE = "examples/own_codec"
VARIANTS = {
    "jpeg/edges/baseline",
    "block-dct/edges/baseline",
    "tiny-autoencoder/edges/mse",
}
# Every verb on every job in one process, which pays for one import of torch.
DRIVER = f"""
import sys
from pathlib import Path
from icmbench.cli import main

def run(*arguments):
    assert main(list(map(str, arguments))) == 0, arguments

run("plan", "--config", "{EXAMPLE}/config.yaml", "scale=smoke")
plan = Path("results/smoke/plan")
def each(verb, folder):
    files = sorted((plan / folder).rglob("*.json"))
    assert files, folder
    for file in files:
        run(verb, file)
each("data", "data")
each("code", "code/detection-test/classical")
assert "torch" not in sys.modules  # nor does the registration import it
each("train", "train")
each("encode", "code/detection-test/own")
each("decode", "code/detection-test/own")
each("evaluate", "evaluate")
for verb in ("analyse", "report", "track"):
    run(verb, "results/smoke")
"""
MLFLOW = """
import mlflow
client = mlflow.MlflowClient("sqlite:///results/mlflow.db")
experiments = [e.experiment_id for e in client.search_experiments() if "/own/" in e.name]
for run in client.search_runs(experiments, max_results=100):
    if "edge_f1" in run.data.metrics:
        print(run.data.tags["variant"], run.data.tags["rate_index"])
"""


def call(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "ICMBENCH_"))}
    own = str(folder / EXAMPLE)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [own, env.get("PYTHONPATH", "")]))
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env)


@pytest.fixture(scope="module")
def checkout(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the workflow's own files and of the example."""
    folder = tmp_path_factory.mktemp("own")
    copy_files(repository, folder, (EXAMPLE,))
    return folder


@pytest.fixture(scope="module")
def run(checkout: Path) -> Path:
    """The checkout after every job has run."""
    done = call(checkout, sys.executable, "-c", DRIVER)
    assert done.returncode == 0, done.stderr[-6000:]
    return checkout


@pytest.fixture
def own(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that imports a module of the example."""
    monkeypatch.syspath_prepend(str(repository / EXAMPLE))
    for name in ("block_dct", "edges"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module


@pytest.mark.slow
def test_own_codec_is_in_the_tables(run: Path) -> None:
    rows = list(csv.DictReader((run / "results/smoke/tables/curves.csv").open()))
    edges = {(r["variant"], r["codec"], r["rate_index"]) for r in rows if r["metric"] == "edge_f1"}
    assert {variant for variant, _, _ in edges} == VARIANTS and len(edges) == 4 + 4 + 2
    assert {codec for _, codec, _ in edges} == {"jpeg", "block-dct", "tiny-autoencoder"}
    values = [float(r["value"]) for r in rows if r["metric"] == "edge_f1"]
    assert all(0 <= value <= 1 for value in values) and len(set(values)) > 8
    compared = csv.DictReader((run / "results/smoke/tables/bd.csv").open())
    assert {r["variant"] for r in compared} == VARIANTS - {"jpeg/edges/baseline"}


@pytest.mark.slow
def test_own_codec_bitstreams_are_real(run: Path) -> None:
    records = pd.read_parquet(run / "results/smoke/tables/records.parquet")
    own_ones = records[records["codec"] != "jpeg"]
    assert len(own_ones) == 6 * 12 and own_ones["roundtrip_ok"].all()
    dct = records[records["codec"] == "block-dct"].groupby("rate_index")[["bits", "psnr"]].mean()
    assert dct["bits"].is_monotonic_increasing and dct["psnr"].is_monotonic_increasing
    learned = records[records["codec"] == "tiny-autoencoder"]
    # The range coder spends about what the entropy model estimates.
    assert (learned["bits"] / learned["bits_estimated"]).between(0.9, 1.5).all()


@pytest.mark.slow
def test_own_codec_is_in_the_report(run: Path) -> None:
    pages = "".join(p.read_text() for p in (run / "results/smoke/report").glob("**/*.html"))
    for text in ("A codec and a task of one", "Block DCT", "Tiny autoencoder", "Edge F1 (%)"):
        assert text in pages
    assert (run / "results/smoke/report/task-edges.html").is_file()  # the family of its metric
    assert (run / "results/smoke/report/figures/own-rate-edge_f1.svg").stat().st_size > 1000


@pytest.mark.slow
def test_own_codec_is_in_mlflow(run: Path) -> None:
    done = call(run, sys.executable, "-c", MLFLOW)
    points = {tuple(line.split()) for line in done.stdout.splitlines()}
    assert {(variant, rate) for variant in VARIANTS for rate in ("0", "1")} <= points, done.stderr


@pytest.mark.slow
def test_own_codec_runs_in_snakemake(checkout: Path) -> None:
    options = ["--configfile", f"{EXAMPLE}/config.yaml", "--config", "scale=smoke", "results=fresh"]
    snakemake = str(Path(sys.executable).parent / "snakemake")
    done = call(checkout, snakemake, "--dry-run", "-p", "--cores", "1", *options)
    assert done.returncode == 0, done.stderr[-3000:]
    listing = done.stdout + done.stderr
    assert "fresh/smoke/runs/own/tiny-autoencoder/edges/mse/rate1-seed0/weights.pt" in listing
    assert "fresh/smoke/encoded/detection-test/classical/block-dct/decoded.json" in listing
    assert "rule report" in listing


def test_own_study_folder_errors_are_one_line(repository: Path, checkout: Path) -> None:
    def plan(*changes: tuple[str, str]) -> str:
        text = (checkout / EXAMPLE / "config.yaml").read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (checkout / "changed.yaml").write_text(text)
        done = call(checkout, sys.executable, "-m", "icmbench", "plan", "--config", "changed.yaml")
        assert done.returncode == 1
        return done.stderr

    folder = "[examples/own_codec/studies]"
    missing = plan((folder, "[nowhere]"))
    assert "'study_folders'" in missing and "nowhere" in missing and missing.count("\n") == 1
    unknown = plan(("studies: [own]", "studies: [owm]"))
    assert "unknown study 'owm'" in unknown and "chamain2021" in unknown and " own" in unknown
    twice = plan((folder, "[examples/own_codec/studies, examples/own_codec/../own_codec/studies]"))
    assert "in two files" in twice
    module = plan(("[own_codec]", "[own_codek]"))
    assert "changed.yaml: key 'modules': cannot import 'own_codek'" in module


@pytest.mark.parametrize("shape", [(16, 24, 3), (13, 21, 3), (1, 1, 3)])
def test_block_dct_codes_any_size(own: Any, shape: tuple[int, ...]) -> None:
    codec = own("block_dct").BlockDct(SimpleNamespace(chroma=1.0), rate=1)
    ramp = np.add.outer(np.arange(shape[0]) * 7, np.arange(shape[1]) * 5)[..., None]
    image = (np.add(ramp, [0, 60, 120]) % 256).astype(np.uint8)
    encoded = codec.encode(image)
    assert encoded.reconstruction.shape == shape
    assert encoded.pixels_coded == -(-shape[0] // 8) * -(-shape[1] // 8) * 64
    error = encoded.reconstruction.astype(float) - image
    assert 10 * np.log10(255**2 / (error**2).mean()) > 40  # dB; any block out of place costs 20


def test_block_dct_refuses_damaged_bitstreams(own: Any) -> None:
    codec = own("block_dct").BlockDct(SimpleNamespace(chroma=2.0), rate=20)
    data = codec.encode(np.zeros((16, 16, 3), np.uint8)).data
    for damaged in (data[:-3], data[:5] + b"\0" + data[6:]):
        with pytest.raises(UserError, match="damaged"):
            codec.decode(damaged)
    with pytest.raises(UserError, match="from 1 to 255"):
        own("block_dct").BlockDct(SimpleNamespace(chroma=2.0), rate=0.5)


def test_edges_find_the_step(own: Any) -> None:
    edges = own("edges")
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, 4:] = 255
    found = edges.edges(image, 0.5)
    assert (found.sum(axis=0) == [0, 0, 0, 8, 8, 0, 0, 0]).all()
    assert edges.f1(found, found) == 1.0
    moved = np.roll(found, 1, axis=1)
    assert edges.f1(found, moved) == 0.5  # one of two columns is hit, one of two is right
    none = np.zeros_like(found)
    assert edges.f1(none, none) == 1.0 and edges.f1(found, none) == 0.0
