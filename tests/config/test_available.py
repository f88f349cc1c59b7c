"""Scale photos: what cannot be had is left out, said, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from icmbench.config import available
from icmbench.config.job_settings import summary
from icmbench.config.plan import Plan, load_plan
from icmbench.config.plan_lock import write_plan
from icmbench.errors import UserError

LEARNED = {"photos/hyperprior/yolox-nano/baseline", "photos/mbt2018-mean/yolox-nano/baseline"}


@pytest.fixture
def photos(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that plans scale photos where only some hosts answer."""
    monkeypatch.delenv("ICMBENCH_MIRROR", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))

    def plan(*hosts: str, as_written: bool = False, **more: Any) -> Plan:
        asked: list[str] = []

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
    assert plan.run.studies == ["photos"]  # Kodak has no stand-in
    assert plan.scale.datasets["detection-photographs"].name == "photographs"
    curves = set(plan.evaluation_curves)
    assert "photos/jpeg/yolox-nano/baseline" in curves
    assert not any(c in curve for curve in curves for c in ("hyperprior", "mbt2018", "lraspp"))
    said = " ".join(plan.left_out)
    for missing in ("detection-photographs", "kodak", "mbt2018-mean", "lraspp_mobilenet_v3_large"):
        assert missing in said
    assert summary(plan).left_out == plan.left_out  # which the report shows


def test_one_host_less_leaves_out_only_its_weights(photos: Any) -> None:
    plan = photos(*(host for host in EVERYTHING if host != "amazonaws"))
    assert set(plan.unavailable) == LEARNED


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


def test_a_study_without_data_at_this_scale_is_named(photos: Any) -> None:
    with pytest.raises(UserError, match="photos"):
        photos(*EVERYTHING, studies=["zhu2024"])
