"""Faults of a configuration stop before any job, naming file, key, value and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from icmbench.config.load import load_run, merge, read_yaml
from icmbench.config.plan import Plan, load_plan
from icmbench.config.points import Point
from icmbench.config.reference import reference
from icmbench.errors import UserError

STUDY = "chamain2021"


@pytest.fixture
def files(repository: Path, tmp_path: Path) -> Any:
    """Return a function that changes one file of a copied configuration and loads it."""
    for folder in ("scales", "studies"):
        (tmp_path / folder).mkdir()
        for path in (repository / "workflow" / folder).glob("*.yaml"):
            (tmp_path / folder / path.name).write_text(path.read_text())
    (tmp_path / "config.yaml").write_text((repository / "config.yaml").read_text())

    def load(name: str, change: dict[str, Any], **run: Any) -> Plan:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(merge(yaml.safe_load(path.read_text()), change)))
        overrides = {"scale": "smoke", **run}
        return load_plan(tmp_path / "config.yaml", overrides, tmp_path)

    return load


@pytest.mark.parametrize("scale", ["smoke", "mini", "paper", "paper-check"])
def test_every_shipped_scale_is_consistent(repository: Path, scale: str) -> None:
    plan = load_plan(repository / "config.yaml", {"scale": scale})
    assert plan.trained and plan.evaluated


STUDY_FAULTS = [
    ({"colour": 1}, ["unknown key 'colour'", "allowed:", "variants"]),
    ({"ladders": {"beta": {"values": "low"}}}, ["ladders.beta.values", "'low'"]),
    ({"schedules": {"codec-base": {"stepz": 3}}}, ["schedules.codec-base.stepz", "'steps'"]),
    ({"schedules": {"codec-base": {"steps": "many"}}}, ["codec-base.steps", "'many'"]),
    ({"schedules": {"codec-base": {"steps": 2.5}}}, ["codec-base.steps", "2.5"]),
    ({"comparisons": [{"anchor": "nothing", "variants": ["x"], "metrics": ["box_map"]}]},
     ["comparisons.0", "'nothing'", "allowed:", "jpeg/faster-rcnn/baseline"]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), STUDY_FAULTS)
def test_fault_in_a_study_file(files: Any, change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        files(f"studies/{STUDY}.yaml", change)
    for word in [f"{STUDY}.yaml", *words]:
        assert word in str(caught.value)


def variant(name: str, **change: Any) -> dict[str, Any]:
    return {"variants": {name: change}}


J_FT, T_FT = "hyperprior/faster-rcnn/j-ft", "hyperprior/faster-rcnn/t-ft"
VARIANT_FAULTS = [
    (variant(J_FT, codec="bpg2"), ["'bpg2' is no codec", "allowed:", "bmshj2018-hyperprior"]),
    (variant(J_FT, task="yolo"), ["'yolo' is no task", "faster-rcnn"]),
    (variant(J_FT, dataset="moon"), ["'moon' is no data set role", "detection"]),
    (variant(J_FT, ladder="gamma"), ["'gamma' is no ladder", "beta"]),
    (variant(J_FT, codec_from={"variant": "nowhere"}), ["'nowhere' is no variant", T_FT]),
    (variant(J_FT, codec_from={"variant": "jpeg/faster-rcnn/t-ft"}), ["has codec 'jpeg'"]),
    (variant(J_FT, task_from={"variant": "uncoded/faster-rcnn/pretrained", "rate": 3}),
     ["3 is out of range", "0 to 0"]),
    (variant(J_FT, task_from={"variant": "uncoded/faster-rcnn/pretrained", "rate": "same"}),
     ["needs 2 rates", "has 1"]),
    (variant(J_FT, task_from="pretrained"), ["no published weights for backbone 'small'"]),
    (variant(J_FT, train={"parts": ["codec.brain"]}), ["'codec.brain'", "codec.analysis"]),
    (variant(J_FT, train={"loss": {"beauty": 1.0}}), ["'beauty' is no loss term", "bpp"]),
    (variant(J_FT, train={"loss": {"bpp": "$lambda"}}), ["'$lambda'", "$beta"]),
    (variant(J_FT, codec_from="random",
             train={"loss": {"bpp": {"target": 1.0, "continues": True}}}),
     ["the codec comes from no training"]),
    (variant(J_FT, train={"schedule": "never"}), ["'never' is no schedule", "codec-base"]),
    (variant(J_FT, train={"schedule": "codec-base"}), ["lacks 'task'", J_FT]),
    (variant("jpeg/faster-rcnn/t-ft", ladder="beta"), ["varies 'beta'", "takes 'quality'"]),
    (variant("jpeg/faster-rcnn/t-ft", ladder=None), ["needs one over 'quality'"]),
    (variant("jpeg/faster-rcnn/t-ft", codec_from="random"), ["has no weights"]),
    (variant("hyperprior/faster-rcnn/baseline", codec_from="random"), ["trains nothing"]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), VARIANT_FAULTS)
def test_impossible_variant(files: Any, change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        files(f"studies/{STUDY}.yaml", change)
    for word in [f"{STUDY}.yaml", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scael": "mini"}, ["unknown key 'scael'", "did you mean 'scale'"]),
        ({"seeds": ["a"]}, ["seeds", "'a'"]),
        ({"seeds": [0, 0]}, ["seeds", "twice"]),
        ({"anchors": ["bgp"]}, ["'bgp' is no anchor", "jpeg"]),
        ({"modules": ["no_such_module"]}, ["modules", "no_such_module"]),
        ({"analysis": {"bd_method": "spline"}}, ["analysis.bd_method", "'spline'"]),
    ],
)
def test_fault_in_config_yaml(files: Any, change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        files("config.yaml", change)
    for word in words:
        assert word in str(caught.value)


def test_detection_of_cut_images_is_refused(files: Any) -> None:
    cut = {"source": "catalogue", "name": "coco2017", "short_side": 256, "center_crop": 256,
           "splits": {"test": {"images": "val2017"}}}  # fmt: skip
    change = {"datasets": {"cut": cut}, "studies": {STUDY: variant(J_FT, dataset="cut")}}
    with pytest.raises(UserError, match=r"dataset': 'cut' has a center_crop, which boxes and"):
        files("scales/smoke.yaml", change)


def test_unknown_scale_and_study_name_what_there_is(files: Any) -> None:
    with pytest.raises(UserError, match=r"unknown scale 'huge'.*allowed: mini, paper"):
        files("config.yaml", {}, scale="huge")
    with pytest.raises(UserError, match=r"unknown study 'x2020'.*allowed: anchors, chamain2021"):
        files("config.yaml", {}, studies=["x2020"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runtime": {"threds": 2}}, r"smoke\.yaml: unknown key 'runtime\.threds'.*'threads'"),
        (
            {"codecs": {"bmshj2018-hyperprior": {"q": 1}}},
            r"smoke\.yaml, section 'codecs\.bmshj2018-hyperprior': unknown key 'q'; allowed: ",
        ),
        ({"codecs": {"vtm9": {}}}, r"smoke\.yaml: key 'codecs': 'vtm9' is no codec"),
        (
            {"chunks": {"photograph": {"jpeg": 2}}},
            r"key 'chunks': 'photograph' is no data set role",
        ),
        (
            {"chunks": {"photographs": {"vtm444": 2}}},
            r"key 'chunks\.photographs': 'vtm444' is no anchor; allowed: .*vtm-444",
        ),
        ({"chunks": {"photographs": {"jpeg": 0}}}, r"'chunks\.photographs\.jpeg': 0 is no number"),
        ({"studies": {"zhang2021": {}}}, r"key 'studies': 'zhang2021' is no study; .*zhang2022"),
    ],
)
def test_fault_in_a_scale_file_names_it(files: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        files("scales/smoke.yaml", change)


def test_key_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("scale: mini\nscale: smoke\n")
    with pytest.raises(UserError, match="'scale' is given twice"):
        read_yaml(path)


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_run(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("scale: [")
    with pytest.raises(UserError, match=r"broken\.yaml: not valid YAML"):
        load_run(broken)


def test_reference_page_is_up_to_date(repository: Path) -> None:
    page = (repository / "docs" / "configuration.md").read_text()
    assert page == reference(), "run: python -m icmbench reference"


def test_weights_flow_along_the_chain(smoke_plan: Plan) -> None:
    point = Point(STUDY, J_FT, 0, 0)
    assert smoke_plan.source(point, "codec").place == Point(STUDY, J_FT, 1, 0)
    first = Point(STUDY, J_FT, 1, 0)
    mse = Point(STUDY, "hyperprior/reconstruction/mse", 1, 0)
    assert smoke_plan.source(first, "codec").place == mse
    detector = Point(STUDY, "uncoded/faster-rcnn/pretrained", 0, 0)
    assert smoke_plan.source(first, "task").place == detector


def test_baseline_and_task_fine_tuning_share_one_encoding(smoke_plan: Plan) -> None:
    keys = {
        smoke_plan.encode_key(Point(STUDY, f"hyperprior/faster-rcnn/{mode}", 1, 0), "test")
        for mode in ("baseline", "t-ft")
    }
    assert keys == {f"detection-test/{STUDY}/hyperprior/reconstruction/mse/rate1-seed0"}


def test_leaving_an_anchor_out_drops_its_variants(files: Any) -> None:
    plan = files("config.yaml", {}, anchors=[], studies=[STUDY])
    assert not any("jpeg" in point.variant for point in plan.points)
    anchors = [c.anchor for c in plan.studies[STUDY].comparisons]
    assert anchors and not any("jpeg" in anchor for anchor in anchors)


def test_plan_files_are_left_alone_when_nothing_changed(smoke_plan: Plan) -> None:
    smoke_plan.write()
    before = {p: p.stat().st_mtime_ns for p in smoke_plan.root.rglob("*.json")}
    smoke_plan.write()
    assert before == {p: p.stat().st_mtime_ns for p in smoke_plan.root.rglob("*.json")}
    assert len(before) > 20
