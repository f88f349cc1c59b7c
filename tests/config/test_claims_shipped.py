"""The claims of tang2025 and zhang2022 are about what is run, and quote what the papers say."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import bjontegaard
import pandas as pd
import pytest

from icmbench.analyse.claims.decide import claimed_side
from icmbench.config.claim_checks import claim_faults
from icmbench.config.claims import DifferenceClaim, OrderClaim, PointEffect, claim_variants
from icmbench.config.load import load_scale, load_study
from icmbench.config.study import Study
from icmbench.metrics.catalogue import PIXEL_METRICS
from icmbench.plugins import load_modules
from icmbench.registry import TASKS

LATENTS = "layered/face-analysis/end-to-end"
APART = "layered/face-analysis/separate"
IMAGES = "uncoded/face-analysis/original"
BPG = "bpg/face-analysis/baseline"


@pytest.fixture
def shipped(repository: Path) -> Any:
    load_modules([])

    def load(name: str, scale: str) -> Study:
        workflow = repository / "workflow"
        return load_study(workflow / "studies", name, load_scale(workflow / "scales", scale))

    return load


@pytest.mark.parametrize("scale", ["smoke", "mini", "paper"])
@pytest.mark.parametrize(("name", "least"), [("tang2025", 12), ("zhang2022", 8)])
def test_claims_are_about_what_is_evaluated(
    shipped: Any, name: str, least: int, scale: str
) -> None:
    study = shipped(name, scale)
    assert len(study.claims) >= least

    def metrics(variant: Any) -> tuple[str, ...]:
        return (*TASKS[variant.task].metrics, *PIXEL_METRICS)

    assert claim_faults(name, study, metrics) == []
    for key, claim in study.claims.items():
        assert claim.sentence.endswith(".") and claim.source, key
        for variant in claim_variants(claim):
            assert study.variants[variant].evaluate, (key, variant)


@pytest.mark.parametrize("scale", ["smoke", "mini", "paper-check", "paper"])
def test_the_context_model_is_compared_at_equal_lambda(shipped: Any, scale: str) -> None:
    study = shipped("tang2025", scale)
    claim = study.claims["context-shortens-bitstreams"]
    ladders = [study.ladders[study.variants[name].ladder] for name in claim_variants(claim)]
    # A pilot steers both codecs to one rate, whatever their lambda.
    assert [ladder.pilot is None for ladder in ladders] == [scale in claim.scales] * 2
    weights = [ladder.values[-1] for ladder in ladders]
    assert weights[0] == weights[1] == min(ladders[0].values)
    assert claim.rate_index == claim.anchor_rate_index == "highest"


@pytest.mark.parametrize("name", ["tang2025", "zhang2022"])
def test_networks_that_learned_nothing_support_no_claim(shipped: Any, name: str) -> None:
    study = shipped(name, "mini")
    for key, claim in study.claims.items():
        if claim.expect in ("not-below", "not-above", "equal"):
            assert claim.preconditions, key


def test_an_order_on_photographs_needs_a_codec_that_is_competent_there(
    shipped: Any, repository: Path
) -> None:
    study = shipped("zhu2024", "mini")
    claim = study.claims["order-by-psnr"]
    stated = [study.preconditions[name] for name in claim.preconditions]
    (own,) = [c for c in stated if set(claim_variants(c)) <= set(claim.variants)]
    bd = pd.read_csv(repository / "results/record/mini/bd.csv")
    row = bd[(bd["variant"] == own.variant) & (bd["anchor"] == own.anchor)].iloc[0]
    # Codecs of scale mini are trained on scenes.
    assert row["metric"] == own.metric and row["bd_rate_pct"] > own.margin


@pytest.mark.parametrize(("name", "least"), [("tang2025", 2), ("zhang2022", 4)])
def test_networks_of_the_run_of_record_pass_the_preconditions(
    shipped: Any, repository: Path, name: str, least: int
) -> None:
    curves = pd.read_csv(repository / "results/record/mini/curves.csv")
    curves = curves[curves["study"] == name]

    def percent(effect: PointEffect) -> float:
        of_variant = (curves["variant"] == effect.variant) & (curves["metric"] == effect.metric)
        return 100 * float(curves[of_variant].sort_values("bpp")["value"].iloc[-1])

    passed = 0
    for key, claim in shipped(name, "mini").preconditions.items():
        parts = [claim.first, claim.second] if isinstance(claim, DifferenceClaim) else [claim]
        assert all(part.rate_index in (0, "highest") for part in parts)
        if {part.variant for part in parts} <= set(curves["variant"]):
            first, second = (*map(percent, parts), 0.0)[:2]
            assert first - second > claim.threshold, key
            passed += 1
    assert passed >= least


@pytest.mark.parametrize("scale", ["paper-check", "paper"])
@pytest.mark.parametrize("name", ["chamain2021", "zhu2024", "tang2025", "zhang2022"])
def test_compared_curves_divide_their_bits_by_the_same_pixels(
    shipped: Any, repository: Path, name: str, scale: str
) -> None:
    study, datasets = (
        shipped(name, scale),
        load_scale(repository / "workflow/scales", scale).datasets,
    )
    for comparison in study.comparisons:
        roles = {study.variants[v].dataset for v in (comparison.anchor, *comparison.variants)}
        counted = {getattr(datasets[role], "rate_pixels", "native") for role in roles}
        assert len(counted) == 1, (comparison.anchor, roles)


def test_a_pilots_rate_is_that_of_the_images_it_saw(shipped: Any) -> None:
    study = shipped("tang2025", "paper")
    assert study.target_rate("dicm/feature-probe/proposed", 0) == 0.05
    assert study.target_rate("dicm/feature-faster-rcnn/proposed", 0) is None


@pytest.mark.parametrize("name", ["tang2025", "zhang2022"])
def test_what_was_published_supports_the_claim(shipped: Any, name: str) -> None:
    study = shipped(name, "paper")
    for key, claim in study.claims.items():
        if claim.published is None or isinstance(claim, OrderClaim):
            continue
        low, high = claimed_side(claim.expect, claim.threshold, claim.margin)
        assert low <= claim.published <= high, key


def test_effects_of_zhang2022_follow_from_its_tables(shipped: Any) -> None:
    """The same file holds the tables' cells and the effects that claims quote."""
    study = shipped("zhang2022", "paper")

    def column(variant: str, metric: str, group: str) -> list[float]:
        cells = study.published
        return [
            cell.value
            for cell in cells
            if (cell.variant, cell.metric, cell.group) == (variant, metric, group)
        ]

    def attributes(variant: str) -> list[float]:
        return [100 * value for value in column(variant, "attribute_accuracy", "Attributes")]

    latents, bpg = attributes(LATENTS), attributes(BPG)
    rates, bpg_rates = (column(v, "bpp", "Attributes") for v in (LATENTS, BPG))
    parsing = [100 * value for value in column(LATENTS, "miou", "Parsing")]
    single = column("layered/face-attributes/separate", "attribute_accuracy", "Parameters")
    both = column(APART, "attribute_accuracy", "Parameters")
    gain = bjontegaard.bd_psnr(
        rates, latents, bpg_rates, bpg, method="pchip",
        require_matching_points=False, min_overlap=0,
    )  # fmt: skip
    effects = {
        "attributes-near-images": min(latents) - attributes(IMAGES)[0],
        "attributes-saturate": latents[-1] - latents[1],
        "bpg-above-latents": gain,
        "multi-task-helps-attributes": 100 * (both[0] - single[0]),
        "fewer-parameters": column(APART, "parameters", "Parameters")[0],
        "parsing-rises-with-rate": parsing[-1] - parsing[0],
        "parsing-rises-at-every-step": min(b - a for a, b in pairwise(parsing)),
    }
    quoted = {k: c.published for k, c in study.claims.items() if c.published is not None}
    assert quoted == pytest.approx(effects, abs=0.005)
    others = [
        cell.value
        for cell in study.published
        if cell.group == "Parameters" and cell.metric == "parameters" and cell.variant is None
    ]
    # "Most published networks": all but one are at or above the threshold.
    assert sum(value < study.claims["fewer-parameters"].threshold for value in others) == 1
