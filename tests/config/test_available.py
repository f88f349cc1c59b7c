"""Scale photos: what cannot be had is left out, said, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from icmbench.config import available
from icmbench.config.job_settings import summary
from icmbench.config.load import load_scale
from icmbench.config.plan import Plan, load_plan
from icmbench.config.plan_lock import write_plan
from icmbench.errors import UserError

LEARNED = {"photos/hyperprior/yolox-nano/baseline", "photos/mbt2018-mean/yolox-nano/baseline"}
MORE_LEARNED = {
    f"photos/{codec}/yolox-nano/baseline"
    for codec in ("cheng2020-attn", "hyperprior-vbr", "mbt2018-mean-vbr")
}


@pytest.fixture
def photos(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that plans scale photos where only some hosts answer."""
    monkeypatch.delenv("ICMBENCH_MIRROR", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def plan(*hosts: str, as_written: bool = False, **more: Any) -> Plan:
        plan.asked = asked = []  # type: ignore[attr-defined]

        def answers(url: str) -> bool:
            asked.append(url)
            return any(host in url for host in hosts)

        monkeypatch.setattr(available, "answers", answers)
        data = {"directory": str(tmp_path / "data")}
        given = {"scale": "photos", "results": str(tmp_path / "results"), "data": data, **more}
        found = load_plan(repository / "config.yaml", given, as_written=as_written)
        assert not (as_written and asked)
        return found

    return plan


EVERYTHING = (
    "cocodataset",
    "amazonaws",
    "pytorch.org",
    "huggingface",
    "r0k.us",
    "githubusercontent",
)


def test_nothing_is_left_out_where_every_address_answers(photos: Any) -> None:
    plan = photos(*EVERYTHING)
    assert set(plan.studies) == {"photos", "classical"} and plan.run.studies == [
        "photos",
        "classical",
    ]
    assert not plan.unavailable and not plan.trained
    names = {role: own.name for role, own in plan.scale.datasets.items()}
    assert names["detection-photographs"] == "coco2017_500"
    assert names["classification-photographs"] == "nips2017"
    assert set(plan.evaluation_curves) >= LEARNED


def test_without_a_network_the_photographs_of_the_repository_are_judged(photos: Any) -> None:
    plan = photos()
    assert plan.run.studies == ["photos", "classical"]
    for role in ("detection-photographs", "photographs"):
        assert plan.scale.datasets[role].name == "photographs"
    curves = set(plan.evaluation_curves)
    assert "photos/jpeg/yolox-nano/baseline" in curves
    assert not any(c in curve for curve in curves for c in ("hyperprior", "mbt2018", "lraspp"))
    said = " ".join(plan.left_out)
    for missing in ("detection-photographs", "mbt2018-mean", "lraspp_mobilenet_v3_large"):
        assert missing in said
    assert summary(plan).left_out == plan.left_out  # which the report shows


def test_one_host_less_leaves_out_only_its_weights(photos: Any) -> None:
    plan = photos(*(host for host in EVERYTHING if host != "amazonaws"))
    assert set(plan.unavailable) == LEARNED
    everything = photos(*(host for host in EVERYTHING if host != "amazonaws"), variants="all")
    assert set(everything.unavailable) == LEARNED | MORE_LEARNED


def test_weights_in_torchs_cache_need_no_network(photos: Any, tmp_path: Path) -> None:
    folder = tmp_path / "torch/hub/checkpoints"
    folder.mkdir(parents=True)
    (folder / "lraspp_mobilenet_v3_large-d234d4ea.pth").touch()
    plan = photos("cocodataset", "r0k.us", "huggingface")
    assert set(plan.unavailable) == LEARNED


def test_a_job_takes_what_the_plan_on_disk_found(photos: Any) -> None:
    plan = photos("cocodataset", "r0k.us")
    write_plan(plan)
    again = photos(*EVERYTHING, as_written=True)
    assert set(again.evaluation_curves) == set(plan.evaluation_curves)


def test_programs_add_their_codecs_where_they_are_found(photos: Any, tmp_path: Path) -> None:
    """Of a scale's own list; VTM takes hours, and is none of the leading variants."""
    names = ("bpg-444-x265", "hm-444", "vtm-444")

    def coded(plan: Plan, study: str) -> list[str]:
        return [n for n in names if any(f"/{n}/" in f"/{v}/" for v in plan.studies[study].variants)]

    plan = photos()
    assert not coded(plan, "photos") and not coded(plan, "classical")
    said = [line for line in plan.left_out if "bpg-444-x265" in line]
    assert [line.split("'")[1] for line in said] == ["photos", "classical"]
    assert all("programs" in line and "bpg-420" not in line for line in said)

    for program in ("bpgenc", "bpgdec", "EncoderAppStatic", "DecoderAppStatic"):
        path = tmp_path / "bin" / program
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    (tmp_path / "bin/encoder_intra_vtm.cfg").touch()
    plan = photos()
    assert coded(plan, "photos") == ["bpg-444-x265"]
    assert coded(plan, "classical") == ["bpg-444-x265", "vtm-444"]
    assert {"bpgenc", "vtm_encoder"} <= set(plan.programs) and not plan.unused
    assert coded(photos(variants="all"), "photos") == ["bpg-444-x265", "vtm-444"]
    write_plan(plan)
    again = photos(as_written=True)
    assert set(again.evaluation_curves) == set(plan.evaluation_curves)
    # Other scales have the codecs that the configuration names.
    assert not coded(photos(scale="mini", studies=["classical"]), "classical")


def test_a_codec_to_look_for_must_be_known(photos: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(folder: Path, name: str) -> Any:
        scale = load_scale(folder, name)
        return scale.model_copy(update={"classical_where_found": ["bpg"]})

    monkeypatch.setattr("icmbench.config.plan.load_scale", load)
    with pytest.raises(UserError, match=r"classical_where_found.*'bpg'.*bpg-444-x265"):
        photos()


# --- study photos in the default run --------------------------------------------------------------


def test_the_default_run_has_the_classifier_where_its_weights_are(
    photos: Any, tmp_path: Path
) -> None:
    default = {"scale": "mini", "studies": ["photos"]}
    plan = photos(*EVERYTHING, **default)
    left = {curve for curve in plan.unavailable if "/efficientnet/" in curve}
    assert set(plan.unavailable) == left and len(left) == 5
    line = plan.left_out[-1]
    assert "tf_efficientnet_lite0.in1k" in line and "not on this machine" in line
    assert "classification-photographs" not in plan.roles

    repository = tmp_path / "hub/models--timm--tf_efficientnet_lite0.in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("abc")
    (repository / "snapshots/abc").mkdir(parents=True)
    (repository / "snapshots/abc/model.safetensors").touch()
    plan = photos(**default)
    assert not plan.unavailable and set(plan.evaluation_curves) >= left
    assert not photos.asked  # no address is asked in the default run


def test_a_study_without_data_at_this_scale_is_named(photos: Any) -> None:
    with pytest.raises(UserError, match="photos"):
        photos(*EVERYTHING, studies=["zhu2024"])
