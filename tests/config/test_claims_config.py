"""Faults of claims stop before any job; the shipped claims are complete at every scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from icmbench.config.claim_checks import claim_faults
from icmbench.config.claims import (
    Claim,
    OrderClaim,
    PointEffect,
    claim_variants,
    effect_unit,
)
from icmbench.config.load import check, load_study
from icmbench.config.plan import load_plan
from icmbench.config.study import Study
from icmbench.errors import UserError
from icmbench.metrics.catalogue import PIXEL_METRICS
from icmbench.plugins import load_modules
from icmbench.registry import TASKS

STUDY = """
name: toy
title: Toy
reference: {authors: A, venue: V, year: 2020}
summary: S.
ladders: {quality: {parameter: quality, values: [5, 10], origin: ours}}
variants:
  a: &a {label: A, codec: jpeg, task: faster-rcnn, mode: m, dataset: detection, ladder: quality,
         task_from: pretrained}
  b: *a
  photo: {label: P, codec: jpeg, task: reconstruction, mode: m, dataset: photographs,
          ladder: quality}
"""
WORDS = {"sentence": "So.", "source": "talk"}
BD = {"form": "bd", "variant": "a", "anchor": "b", "metric": "box_map"}
AT = {"form": "at_rate", "variant": "a", "anchor": "b", "metric": "box_map", "bpp": 0.1}
POINT = {**AT, "form": "point", "rate_index": 0}
del POINT["bpp"]
ORDER = {"form": "order", "variants": ["a", "b"], "metric": "box_map"}
ABOVE = {"expect": "above"}


def study(**claim: Any) -> Study:
    content = yaml.safe_load(STUDY) | {
        "claims": {"it": WORDS | claim},
        "preconditions": {"competent": WORDS | BD | {"expect": "not-above", "threshold": 25.0}},
    }
    return check(Study, content, "toy.yaml")


def faults(**claim: Any) -> list[str]:
    load_modules([])

    def metrics(variant: Any) -> tuple[str, ...]:
        return (*TASKS[variant.task].metrics, *PIXEL_METRICS)

    return claim_faults("toy.yaml", study(**claim), metrics)


SOUND: list[dict[str, Any]] = [
    BD | ABOVE,
    AT | {"bpp": 0.1, "anchor": None, "expect": "below", "threshold": 20.0, "metric": "psnr"},
    POINT | ABOVE | {"metric": "bpp", "rate_index": "each"},
    POINT | ABOVE | {"anchor": "a", "anchor_rate_index": 1},
    ORDER,
    ORDER | {"preconditions": ["competent"]},
    ORDER | {"quantity": "at_rate", "bpp": 0.2},
    {"form": "difference", "first": AT, "second": POINT, "expect": "equal", "margin": 1.0},
    {"form": "trend", "variant": "a", "metric": "psnr", "expect": "not-below"},
    {"form": "count", "variant": "a", "anchor": "photo", "key": "complexity.macs",
     "expect": "below"},
]  # fmt: skip


@pytest.mark.parametrize("claim", SOUND, ids=lambda claim: str(claim["form"]))
def test_sound_claims_have_no_fault(claim: dict[str, Any]) -> None:
    assert faults(**claim) == []


FAULTY: list[tuple[dict[str, Any], list[str]]] = [
    (BD | ABOVE | {"variant": "c"}, ["claims.it.variant", "'c'", "a, b, photo"]),
    (BD | ABOVE | {"anchor": "c"}, ["claims.it.anchor", "'c'"]),
    (BD | ABOVE | {"metric": "beauty"}, ["claims.it.metric", "'beauty'", "box_map", "psnr"]),
    (BD | ABOVE | {"metric": "bpp"}, ["claims.it.metric", "'bpp'"]),
    (BD | ABOVE | {"anchor": "a"}, ["claims.it.anchor"]),
    (BD | ABOVE | {"anchor": "photo", "metric": "psnr"}, ["photographs"]),
    (BD | ABOVE | {"rates": [0.2, 0.1], "quantity": "bd_accuracy_points"}, ["claims.it.rates"]),
    (BD | ABOVE | {"rates": [0.1, 0.2]}, ["claims.it.rates", "bd_accuracy_points"]),
    (BD | {"expect": "equal"}, ["claims.it.margin"]),
    (BD | ABOVE | {"preconditions": ["competnt"]},
     ["claims.it.preconditions", "'competnt'", "did you mean 'competent'"]),
    (POINT | ABOVE | {"anchor": None, "anchor_rate_index": 1}, ["claims.it.anchor_rate_index"]),
    (
        POINT | ABOVE | {"rate_index": 1, "anchor": "a", "anchor_rate_index": 1},
        ["claims.it.anchor"],
    ),
    (ORDER | {"variants": ["a", "b", "a"]}, ["claims.it.variants", "'a'"]),
    (ORDER | {"variants": ["a", "d"]}, ["claims.it.variants.1", "'d'"]),
    (ORDER | {"variants": ["a", "photo"], "metric": "psnr"}, ["claims.it.variants"]),
    (ORDER | {"quantity": "at_rate"}, ["claims.it.bpp"]),
    (ORDER | {"bpp": 0.1}, ["claims.it.bpp"]),
    ({"form": "difference", "first": BD, "second": AT} | ABOVE,
     ["claims.it.second", "'points'", "'%'"]),
    ({"form": "difference", "first": POINT | {"rate_index": "each"}, "second": AT} | ABOVE,
     ["claims.it.first.rate_index"]),
    ({"form": "difference", "first": AT, "second": AT | {"variant": "c"}} | ABOVE,
     ["claims.it.second.variant", "'c'"]),
    ({"form": "trend", "variant": "c", "metric": "psnr"} | ABOVE, ["claims.it.variant", "'c'"]),
    ({"form": "count", "variant": "c", "key": "k"} | ABOVE, ["claims.it.variant", "'c'"]),
]  # fmt: skip


@pytest.mark.parametrize(("claim", "words"), FAULTY)
def test_faults_are_named(claim: dict[str, Any], words: list[str]) -> None:
    lines = faults(**claim)
    assert lines
    assert all(line.startswith("toy.yaml: key 'claims.it.") for line in lines)
    for word in words:
        assert any(word in line for line in lines), (word, lines)


def test_preconditions_are_checked_as_claims_are() -> None:
    load_modules([])
    content = study(**BD, **ABOVE).model_dump()
    content["preconditions"]["competent"] |= {"anchor": "c", "preconditions": ["competent"]}
    lines = claim_faults("toy.yaml", Study.model_validate(content), lambda _: ("box_map",))
    assert len(lines) == 2
    assert "'preconditions.competent.anchor': 'c'" in lines[0]
    assert "'preconditions.competent.preconditions'" in lines[1]


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        (BD | ABOVE | {"form": "feeling"}, ["claims.it", "feeling"]),
        (BD | {"expect": "nicer"}, ["expect", "nicer"]),
        (BD, ["expect", "is missing"]),
        (BD | ABOVE | {"level": 95.0}, ["level", "95.0"]),
        (BD | ABOVE | {"margin": -1.0}, ["margin", "-1.0"]),
        (BD | ABOVE | {"colour": 1}, ["unknown key", "colour"]),
        (POINT | ABOVE | {"rate_index": -1}, ["rate_index", "-1"]),
        (AT | ABOVE | {"bpp": -1.0}, ["bpp", "-1.0"]),
        (AT | ABOVE | {"bpp": "lowest"}, ["bpp", "lowest"]),
        (ORDER | {"variants": ["a"]}, ["variants"]),
    ],
)
def test_wrong_types_are_one_line_each(claim: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        study(**claim)
    for word in ["toy.yaml", *words]:
        assert word in str(caught.value)


def test_a_fault_in_a_shipped_file_stops_the_plan(repository: Path, tmp_path: Path) -> None:
    for folder in ("scales", "studies"):
        (tmp_path / folder).mkdir()
        for path in (repository / "workflow" / folder).glob("*.yaml"):
            (tmp_path / folder / path.name).write_text(path.read_text())
    path = tmp_path / "studies/chamain2021.yaml"
    content = yaml.safe_load(path.read_text())
    content["claims"]["joint-over-task"]["variant"] = "hyperprior/faster-rcnn/z-ft"
    path.write_text(yaml.safe_dump(content))
    overrides = {"scale": "smoke", "studies": ["chamain2021"]}
    with pytest.raises(UserError, match=r"claims.joint-over-task.variant.*'hyperprior/faster-rcnn"):
        load_plan(repository / "config.yaml", overrides, tmp_path)
    # zhu2024 only borrows trainings from it.
    load_plan(repository / "config.yaml", overrides | {"studies": ["zhu2024"]}, tmp_path)


@pytest.mark.parametrize("scale", ["smoke", "mini", "paper"])
def test_shipped_claims(repository: Path, scale: str) -> None:
    plan = load_plan(repository / "config.yaml", {"scale": scale})
    for name, least in (("chamain2021", 8), ("zhu2024", 7)):
        claims = plan.studies[name].claims
        assert len(claims) >= least
        for claim in claims.values():
            assert claim.sentence.endswith(".") and claim.source


def test_published_effects_follow_from_the_published_numbers(repository: Path) -> None:
    """What claims quote is what the same file quotes elsewhere."""
    plan = load_plan(repository / "config.yaml", {"scale": "paper", "studies": ["chamain2021"]})
    chamain = load_study(repository / "workflow/studies", "chamain2021", plan.scale)
    quoted = {(c.variant, c.metric): c.value for c in chamain.published}
    checked = 0
    for claim in chamain.claims.values():
        if claim.published is None or isinstance(claim, OrderClaim):
            continue
        variant, anchor, metric = (getattr(claim, k, None) for k in ("variant", "anchor", "metric"))
        value = quoted[variant, metric] - (quoted[anchor, metric] if anchor else 0.0)
        assert claim.published == pytest.approx(value * (1 if metric == "psnr" else 100))
        checked += 1
    assert checked == 3


def test_variants_and_units() -> None:
    def typed(**claim: Any) -> Claim:
        return study(**claim).claims["it"]

    assert claim_variants(typed(**ORDER)) == ["a", "b"]
    both = typed(form="difference", first=BD, second=BD | {"variant": "photo"}, **ABOVE)
    assert claim_variants(both) == ["a", "b", "photo"]
    assert claim_variants(typed(form="trend", variant="a", metric="psnr", **ABOVE)) == ["a"]
    units = {"box_map": "points", "psnr": "dB", "bpp": "bpp"}
    for metric, unit in units.items():
        assert effect_unit(PointEffect(**POINT | {"metric": metric})) == unit
    assert effect_unit(PointEffect(**POINT | {"anchor": None})) == "%"
