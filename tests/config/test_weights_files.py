"""Weights of one's own in a study: what the plan checks, which jobs depend on which files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from compressai.zoo.image import model_architectures

from icmbench.config.job_settings import (
    encode_curves,
    evaluate_curve,
    train_job,
    weights_jobs,
    write_files,
)
from icmbench.config.own_weights import check_own_weights
from icmbench.config.plan import Plan, Point, load_plan
from icmbench.errors import UserError
from icmbench.registry import CODECS, CodecEntry
from icmbench.workflow import Workflow

CODEC = "bmshj2018-hyperprior"
VARIANT = {
    "label": "Mine", "codec": CODEC, "task": "reconstruction", "mode": "file",
    "dataset": "detection", "ladder": "quality", "codec_from": "pretrained",
}  # fmt: skip
TRAINING = {
    "parts": ["codec"],
    "loss": {"bpp": 1.0, "mse": 0.01},
    "schedule": "s",
    "origin": "ours",
}
STUDY: dict[str, Any] = {
    "name": "own", "title": "Own", "summary": "Own.",
    "reference": {"authors": "I", "venue": "here", "year": 2026},
    "ladders": {
        "quality": {"parameter": "quality", "values": [3, 6], "origin": "ours"},
        "gain": {"parameter": "gain", "values": [0.3, 1.0], "origin": "ours"},
        "down": {"parameter": "gain", "values": [1.0, 0.3], "origin": "ours"},
        "zero": {"parameter": "gain", "values": [0.0, 1.0], "origin": "ours"},
    },
    "schedules": {"s": {
        "steps": 2, "batch_size": 2, "origin": "ours",
        "optimisers": {k: {"name": "adam", "lr": 1.0e-3} for k in ("codec", "auxiliary")},
    }},
}  # fmt: skip


@pytest.fixture
def make(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes a plan of a study with some variants, beside the files."""
    monkeypatch.delenv("ICMBENCH_MIRROR", raising=False)
    (tmp_path / "mine").mkdir()

    def plan(scale: str = "smoke", ladders: Any = None, **variants: dict[str, Any]) -> Plan:
        study = {**STUDY, "ladders": {**STUDY["ladders"], **(ladders or {})}}
        study["variants"] = {name: {**VARIANT, **own} for name, own in variants.items()}
        (tmp_path / "mine/own.yaml").write_text(yaml.safe_dump(study))
        overrides = {
            "scale": scale, "studies": ["own"], "study_folders": [str(tmp_path / "mine")],
            "results": str(tmp_path / "results"), "data": {"directory": str(tmp_path / "data")},
        }  # fmt: skip
        return load_plan(repository / "config.yaml", overrides)

    return plan


@pytest.fixture
def checkpoints(tmp_path: Path, make: Any) -> list[Path]:
    paths = []
    for number in (1, 2):
        torch.manual_seed(number)
        paths.append(tmp_path / f"mine/q{number}.pth.tar")
        torch.save(model_architectures[CODEC](16, 16).state_dict(), paths[-1])
    return paths


FILES = [{"file": "q1.pth.tar"}, {"file": "q2.pth.tar"}]


def curve_jobs(plan: Plan) -> Any:
    (curve,) = encode_curves(plan).values()
    return curve.jobs


# --- published weights ----------------------------------------------------------------------------


def test_the_ladder_selects_published_weights(make: Any) -> None:
    plan = make("paper", a={}, b={"codec_from": {"variant": "a"}, "dataset": "photographs"})
    for curve in encode_curves(plan).values():
        assert [job.codec.weights.rate for job in curve.jobs] == [3, 6]
        assert all("quality-" in job.key for job in curve.jobs)


@pytest.mark.parametrize(
    ("ladder", "words"),
    [
        ({"parameter": "quality", "values": [1, 2, 3, 4, 9]}, ["quality 9", "1, 2, 3, 4"]),
        ({"parameter": "lambda", "values": [0.002]}, ["lambda 0.002", "0.0018"]),
        ({"parameter": "beta", "values": [1]}, ["'beta'", "quality or lambda"]),
    ],
)
def test_values_without_published_weights_are_refused(
    make: Any, ladder: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        make("paper", ladders={"quality": {**ladder, "origin": "ours"}}, a={})
    assert all(word in str(caught.value) for word in ["own.yaml", "variants.a", *words])


# --- files ----------------------------------------------------------------------------------------


def test_jobs_depend_on_files_beside_the_study(make: Any, checkpoints: list[Path]) -> None:
    training = {"codec_from": FILES, "train": TRAINING, "evaluate": False}
    plan = make(a={"codec_from": FILES}, b=training)
    check_own_weights(plan)
    jobs = curve_jobs(plan)
    assert [job.codec.weights.source for job in jobs] == list(map(str, checkpoints))
    assert all(job.codec.starts_pretrained for job in jobs)
    workflow = Workflow(plan)
    folder = Path(jobs[0].key).parent.relative_to("detection-test")

    class Wildcards:
        split, curve, key = "detection-test", str(folder), "own/b/rate1-seed0"

    assert set(map(str, checkpoints)) <= set(workflow.coding_inputs(Wildcards))
    assert str(checkpoints[1]) in workflow.train_inputs(Wildcards)
    assert str(checkpoints[0]) not in workflow.train_inputs(Wildcards)


def test_an_older_file_in_place_of_another_changes_the_job(
    make: Any, checkpoints: list[Path]
) -> None:
    before = [job.codec.weights.sha256 for job in curve_jobs(make(a={"codec_from": FILES}))]
    shutil.copy(checkpoints[1], checkpoints[0])
    os.utime(checkpoints[0], (0, 0))
    after = [job.codec.weights.sha256 for job in curve_jobs(make(a={"codec_from": FILES}))]
    assert after == [before[1], before[1]] != before


def test_variants_with_the_same_files_share_bitstreams(make: Any, checkpoints: list[Path]) -> None:
    task = {"task": "faster-rcnn", "task_from": {"file": "detector.pth"}, "codec_from": FILES}
    plan = make(a={"codec_from": FILES}, b=task, c={"codec_from": list(reversed(FILES))})
    assert len(encode_curves(plan)) == 2
    (job, _) = evaluate_curve(plan, "own/b").jobs
    assert job.task.weights.source == str(checkpoints[0].with_name("detector.pth"))


def test_a_moved_study_finds_what_its_files_coded(
    make: Any, checkpoints: list[Path], tmp_path: Path, repository: Path
) -> None:
    before = make(a={"codec_from": FILES})
    moved = tmp_path / "moved/here"
    shutil.copytree(tmp_path / "mine", moved / "mine")
    folders = {"study_folders": [str(moved / "mine")], "results": str(moved / "results")}
    overrides = {"scale": "smoke", "studies": ["own"], **folders}
    after = load_plan(repository / "config.yaml", overrides)
    assert list(encode_curves(after)) == list(encode_curves(before))


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ({"codec_from": FILES[:1]}, ["1 files", "2 rates"]),
        ({"codec_from": FILES[0]}, ["q1.pth.tar", "one file for each"]),
        ({"codec_from": {"file": "a", "url": "https://b"}}, ["codec_from", "either"]),
        ({"codec_from": {"url": "https://b/c"}}, ["codec_from", "sha256"]),
        ({"codec_from": {"file": "a", "rate": 0}}, ["codec_from.rate", "unknown key"]),
        ({"codec_from": [{"file": "a", "of": "elic2022"}] * 2}, ["codec_from.of", "elic2022"]),
        ({"codec": f"{CODEC}-vbr", "codec_from": FILES[0]}, ["'quality'", "'gain'"]),
        ({"codec": f"{CODEC}-vbr", "ladder": "down", "codec_from": FILES[0]}, ["1.0, 0.3", "gain"]),
        ({"codec": f"{CODEC}-vbr", "ladder": "zero", "codec_from": FILES[0]}, ["gain 0", "above"]),
        ({"codec": f"{CODEC}-vbr", "ladder": "gain", "codec_from": "random", "train": TRAINING},
         ["ladder", "without a ladder"]),
    ],
)  # fmt: skip
def test_impossible_weights_are_refused(
    make: Any, variant: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        make(a=variant)
    assert all(word in str(caught.value) for word in ["own.yaml", *words])


def test_what_cannot_load_is_found_with_the_plan(make: Any, checkpoints: list[Path]) -> None:
    good = {"codec_from": FILES}
    other = {"codec": "mbt2018-mean", "codec_from": FILES}
    missing = {"codec_from": [FILES[0], {"file": "q3.pth.tar"}]}
    with pytest.raises(UserError) as caught:
        check_own_weights(make(good=good, other=other, missing=missing))
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all("own.yaml" in line and "codec_from" in line for line in lines)
    assert {"variants.other" in line for line in lines} == {True, False}
    assert sum("q3.pth.tar" in line for line in lines) == 1


def test_a_checked_file_is_not_built_again(
    make: Any, checkpoints: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_own_weights(make(a={"codec_from": FILES}))
    monkeypatch.setattr("icmbench.config.own_weights._build", lambda _: pytest.fail("built"))
    check_own_weights(make(a={"codec_from": FILES}))


def test_one_file_of_variable_rate_has_every_rate(make: Any) -> None:
    gains = {"codec": f"{CODEC}-vbr", "ladder": "gain"}
    stage = {**gains, "ladder": None, "codec_from": "random", "train": TRAINING, "evaluate": False}
    plan = make(a={**gains, "codec_from": {"file": "v.pth"}}, stage=stage,
                b={**gains, "codec_from": {"variant": "stage", "rate": 0}})  # fmt: skip
    for curve in encode_curves(plan).values():
        assert [job.codec.rate for job in curve.jobs] == [0.3, 1.0]
        assert len({job.codec.weights.source for job in curve.jobs}) == 1
        assert len({job.output for job in curve.jobs}) == 2
    assert train_job(plan, Point("own", "stage", 0, 0)).codec.rate is None
    write_files(plan)


def test_weights_at_an_address_are_fetched_into_the_data_folder(make: Any, tmp_path: Path) -> None:
    own = {"url": "https://example.org/a/q%201.pth?x=1", "sha256": "ab" * 32}
    plan = make(a={"codec_from": [own, own]})
    check_own_weights(plan)  # it is not there yet, which is no fault
    ((name, job),) = weights_jobs(plan).items()
    assert job.output == str(tmp_path / "data/weights" / name) and name.startswith("abab")
    assert {j.codec.weights.source for j in curve_jobs(plan)} == {job.output}


def test_files_that_a_users_codec_reads_are_inputs(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.bin").write_bytes(b"1")
    known = CODECS[CODEC]
    entry = CodecEntry(
        name="mine", kind="learned", parameters=known.parameters,
        implementation=known.implementation, pretrained=lambda _: True,
        pretrained_files=lambda _: [str(tmp_path / "own.bin")],
    )  # fmt: skip
    monkeypatch.setitem(CODECS._entries, "mine", entry)
    plan = make("paper", a={"codec": "mine"})
    weights = curve_jobs(plan)[0].codec.weights
    assert weights.inputs == [str(tmp_path / "own.bin")]
    before = weights.digest()
    (tmp_path / "own.bin").write_bytes(b"2")
    assert weights.digest() != before
