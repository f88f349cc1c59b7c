"""The whole smoke run of a study on two nodes of SLURM, beside the same run without it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from machine import NODES, Cluster

from checkout import HERE, ON_SLURM, Checkout, add_fetched_data, assert_same_results
from icmbench.utils.files import read_json

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(3600)]

CONFIG = ("studies=[chamain2021]", "classical_codecs=[jpeg]")


@pytest.fixture(scope="module")
def here(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = Checkout(tmp_path_factory.mktemp("here"), repository, CONFIG)
    add_fetched_data(checkout, repository)
    checkout.run(*HERE)
    return checkout


@pytest.fixture(scope="module")
def there(cluster: Cluster, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = Checkout(tmp_path_factory.mktemp("there"), repository, CONFIG)
    add_fetched_data(checkout, repository)
    checkout.run(*ON_SLURM, "--jobs", "4")
    return checkout


def test_weights_and_tables_are_the_same(there: Checkout, here: Checkout) -> None:
    assert len(here.weights()) == 15
    assert_same_results(there, here)


def test_both_nodes_worked_and_the_cluster_was_not_flooded(
    there: Checkout, cluster: Cluster
) -> None:
    own = [job for job in cluster.ended() if job["WorkDir"] == str(there.folder)]
    assert {job["JobState"] for job in own} == {"COMPLETED"}
    assert {job["NodeList"] for job in own} == set(NODES)
    # What ran where Snakemake runs never became a job.
    submitted = set(re.findall(r"slurm_logs/(\w+)/", there.said))
    assert "rule_train" in submitted
    assert not {"rule_track", "rule_fetch_dataset"} & submitted
    counts = {rule: int(n) for rule, n in re.findall(r"(?m)^(\w+) +(\d+)$", there.said)}
    alone = sum(counts[rule] for rule in ("generate_dataset", "train", "evaluate"))
    curves, anchors, tables = counts["encode"], 1, 1  # 4 jobs of JPEG
    assert counts["encode"] == counts["decode"] and counts["code_anchor"] == 4
    assert len(own) == alone + curves + anchors + tables


def test_mlflow_has_one_writer_and_every_run(there: Checkout, here: Checkout) -> None:
    assert read_json(there.root / "tracking.json")["status"] == "done"
    assert there.tracked() == here.tracked()
    assert sum(there.tracked().values()) > 20


def test_dvc_pointers_are_intact(there: Checkout, here: Checkout) -> None:
    pointer = there.folder / "data/toy.dvc"
    manifest = read_json(there.folder / "data/toy.manifest.json")
    assert yaml.safe_load(pointer.read_text())["outs"][0]["md5"] == manifest["dvc_md5"]
    assert pointer.read_text() == (here.folder / "data/toy.dvc").read_text()
    assert len(list((there.folder / "data/toy/img").glob("*.png"))) == 2


def test_again_there_is_nothing_to_do(there: Checkout, cluster: Cluster) -> None:
    before = len(cluster.ended())
    there.run(*HERE)  # without the cluster: where a job ran is no reason to repeat it
    assert there.said.count("Nothing to be done") == 1
    assert len(cluster.ended()) == before
