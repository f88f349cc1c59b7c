"""Faults of a configuration stop before any job, naming file, key, value and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from icmbench.config.load import load_run, merge, read_yaml
from icmbench.config.plan import Plan, load_plan
from icmbench.config.resources import check_resources
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


@pytest.mark.parametrize("scale", ["smoke", "mini", "zoo", "zoo-photos", "paper", "paper-check"])
def test_every_shipped_scale_is_consistent(repository: Path, scale: str) -> None:
    plan = load_plan(repository / "config.yaml", {"scale": scale})
    assert plan.trained and plan.evaluated


STUDY_FAULTS = [
    ({"colour": 1}, ["unknown key 'colour'", "variants"]),
    ({"ladders": {"beta": {"values": "low"}}}, ["ladders.beta.values", "'low'"]),
    ({"ladders": {"lambda": {"pilot": {"bpp": [0.1]}}}}, ["ladders.lambda.pilot.bpp", "[0.1]"]),
    ({"ladders": {"lambda": {"pilot": {"bpp": [0.1, 0.2], "steps": 9000}}}},
     ["pilot.steps", "9000"]),
    ({"schedules": {"codec-base": {"stepz": 3}}}, ["schedules.codec-base.stepz", "'steps'"]),
    ({"schedules": {"codec-base": {"steps": "many"}}}, ["codec-base.steps", "'many'"]),
    ({"schedules": {"codec-base": {"steps": 2.5}}}, ["codec-base.steps", "2.5"]),
    ({"comparisons": [{"anchor": "nothing", "variants": ["x"], "metrics": ["box_map"]}]},
     ["comparisons.0", "'nothing'", "hevc/faster-rcnn/baseline"]),
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
    (variant(J_FT, codec="bpg2"), ["codec", "'bpg2'", "bmshj2018-hyperprior"]),
    (variant(J_FT, task="yolo"), ["task", "'yolo'", "faster-rcnn"]),
    (variant(J_FT, dataset="moon"), ["data set role", "'moon'", "detection"]),
    (variant(J_FT, ladder="gamma"), ["ladder", "'gamma'", "beta"]),
    (variant(J_FT, codec_from={"variant": "nowhere"}), ["variant", "'nowhere'", T_FT]),
    (variant(J_FT, codec_from={"variant": "hevc/faster-rcnn/t-ft"}), ["codec_from", "'x265-444'"]),
    (variant(J_FT, task_from={"variant": "uncoded/faster-rcnn/pretrained", "rate": 3}),
     ["task_from.rate", "3", "0 to 0"]),
    (variant(J_FT, task_from={"variant": "uncoded/faster-rcnn/pretrained", "rate": "same"}),
     ["task_from.rate", "'same'", "2", "1"]),
    (variant(J_FT, task_from="pretrained"), ["task_from", "pretrained", "'faster-rcnn'"]),
    (variant(J_FT, train={"parts": ["codec.brain"]}), ["'codec.brain'", "codec.analysis"]),
    (variant(J_FT, train={"loss": {"beauty": 1.0}}), ["loss", "'beauty'", "bpp"]),
    (variant(J_FT, train={"loss": {"bpp": "$lambda"}}), ["'$lambda'", "$beta"]),
    (variant(J_FT, codec_from="random",
             train={"loss": {"bpp": {"target": 1.0, "continues": True}}}),
     ["loss.bpp.continues", "codec_from"]),
    (variant(J_FT, train={"schedule": "never"}), ["schedule", "'never'", "codec-base"]),
    (variant(J_FT, train={"schedule": "codec-base"}), ["optimisers", "'task'", J_FT]),
    ({"schedules": {"codec-base": {"short_sides": [64]}}}, ["'codec-base'", "short_sides"]),
    (variant("hevc/faster-rcnn/t-ft", ladder="beta"), ["ladder", "'beta'", "'qp'"]),
    (variant("hevc/faster-rcnn/t-ft", ladder=None), ["ladder", "'qp'"]),
    (variant("hevc/faster-rcnn/t-ft", codec_from="random"), ["codec_from", "random"]),
    (variant("hyperprior/faster-rcnn/baseline", codec_from="random"), ["codec_from", "random"]),
    (variant("hevc/faster-rcnn/baseline", task_from="random"), ["task_from", "random"]),
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
        ({"scael": "mini"}, ["'scael'", "'scale'"]),
        ({"seeds": ["a"]}, ["seeds", "'a'"]),
        ({"seeds": [0, 0]}, ["seeds", "[0, 0]"]),
        ({"classical_codecs": ["jpgg"]}, ["classical_codecs", "'jpgg'", "'jpeg'"]),
        ({"modules": ["no_such_module"]}, ["modules", "no_such_module"]),
        ({"analysis": {"bd_method": "spline"}}, ["analysis.bd_method", "'spline'"]),
    ],
)
def test_fault_in_config_yaml(files: Any, change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        files("config.yaml", change)
    for word in words:
        assert word in str(caught.value)


def test_detection_of_cropped_images_is_refused(files: Any) -> None:
    crop = {"source": "catalogue", "name": "coco2017", "short_side": 256, "center_crop": 256,
            "splits": {"test": {"images": "val2017"}}}  # fmt: skip
    change = {"datasets": {"crop": crop}, "studies": {STUDY: variant(J_FT, dataset="crop")}}
    with pytest.raises(UserError, match=r"dataset': 'crop'.*center_crop"):
        files("scales/smoke.yaml", change)


def test_detector_reads_images_of_one_size_in_training_and_evaluation(files: Any) -> None:
    role = {"datasets": {"detection-voc": {"short_side": 400}}}
    with pytest.raises(UserError, match=r"dataset': 'detection-voc'.*short_side 400.* reads 800"):
        files("scales/paper.yaml", role, scale="paper", studies=["tang2025"])


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("scale", "huge", ["'huge'", "mini"]), ("studies", ["x2020"], ["'x2020'", "chamain2021"])],
)
def test_unknown_scale_and_study_list_the_known_ones(
    files: Any, key: str, value: Any, words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        files("config.yaml", {}, **{key: value})
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"runtime": {"threds": 2}}, ["runtime.threds", "'threads'"]),
        ({"codecs": {"bmshj2018-hyperprior": {"q": 1}}}, ["codecs.bmshj2018-hyperprior", "'q'"]),
        ({"codecs": {"elic2022": {"quantisation": "noise"}}},
         ["codecs.elic2022", "quantisation", "'noise'", "mixed"]),
        ({"codecs": {"vtm9": {}}}, ["codecs", "'vtm9'"]),
        ({"chunks": {"photograph": {"jpeg": 2}}}, ["chunks", "'photograph'", "photographs"]),
        ({"chunks": {"photographs": {"vtm444": 2}}}, ["chunks.photographs", "'vtm444'", "vtm-444"]),
        ({"chunks": {"photographs": {"jpeg": 0}}}, ["chunks.photographs.jpeg", "0"]),
        ({"studies": {"zhang2021": {}}}, ["studies", "'zhang2021'", "zhang2022"]),
        ({"datasets": {"detection": {"source": "embedded-scenes", "test": "no"}}},
         ["datasets.detection.test", "'no'"]),
        ({"datasets": {"kodak": {"source": "catalogue", "name": "kodak", "splits": {"test": {
            "images": "."}}, "otherwise": {"source": "embedded-scenes", "split": 1}}}},
         ["datasets.kodak.otherwise.split", "radius"]),
    ],
)  # fmt: skip
def test_fault_in_a_scale_file_names_key_and_value(
    files: Any, change: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        files("scales/smoke.yaml", change)
    assert all(word in str(caught.value) for word in ["smoke", *words])


PHOTOGRAPHS = {"scale": "paper-check", "studies": ["classical"], "classical_codecs": ["jpeg"]}


def fetched(name: str, **split: str) -> dict[str, Any]:
    test = {"images": "val2017", **split}
    return {"datasets": {"photographs": {"name": name, "splits": {"test": test}}}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"studies": {"classical": {"ladders": {"jpeg-quality": {"values": [30, 400]}}}}},
         ["classical.yaml", "ladders.jpeg-quality.values", "400", "95"]),
        (fetched("coco2071"),
         ["datasets.photographs.name", "'coco2071'", "'coco2017'"]),
        (fetched("coco2017", images="val2018"),
         ["datasets.photographs.splits.test.images", "'val2018'", "val2017/*.jpg"]),
        (fetched("coco2017", annotations="instances_val.json"),
         ["datasets.photographs.splits.test.annotations", "instances_val2017.json"]),
    ],
)  # fmt: skip
def test_what_jobs_would_miss_is_refused_with_the_plan(
    files: Any, tmp_path: Path, change: dict[str, Any], words: list[str]
) -> None:
    """Whatever the checkout has fetched: files of a data set that is there are looked up."""
    data = {"directory": str(tmp_path / "data")}
    plan = files("scales/paper-check.yaml", change, **PHOTOGRAPHS, data=data)
    with pytest.raises(UserError) as caught:
        check_resources(plan)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_files_of_a_data_set_that_is_there_are_looked_up(files: Any, tmp_path: Path) -> None:
    change = fetched("coco2017", annotations="instances_val2017.json")
    data = {"directory": str(tmp_path / "data")}
    run = {**PHOTOGRAPHS, "data": data}
    check_resources(files("scales/paper-check.yaml", change, **run))
    (tmp_path / "data/coco2017/val2017").mkdir(parents=True)
    with pytest.raises(UserError, match=r"annotations.*is not in .*data/coco2017$"):
        check_resources(files("scales/paper-check.yaml", change, **run))


def test_read_yaml_refuses_a_key_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("scale: mini\nscale: smoke\n")
    with pytest.raises(UserError, match="'scale'"):
        read_yaml(path)


def test_load_run_names_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml"):
        load_run(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("scale: [")
    with pytest.raises(UserError, match=r"broken\.yaml"):
        load_run(broken)
