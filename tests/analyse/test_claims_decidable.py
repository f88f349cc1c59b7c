"""What may decide a claim: curves that share enough, preconditions that hold; and Kendall's tau."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pandas as pd
import pytest
from pydantic import TypeAdapter
from scipy import stats

from icmbench.analyse.bd_table import bd_results
from icmbench.analyse.claims import claim_tables
from icmbench.analyse.curves import PointFiles, evaluate_folder
from icmbench.config.claims import Claim

Draw = Callable[..., list[PointFiles]]

STATEMENT = {"sentence": "It is so.", "source": "the talk"}
RATE = {"form": "bd", "variant": "new", "anchor": "old", "metric": "accuracy"}
ACCURACY = RATE | {"quantity": "bd_accuracy_points"}
#: Per cent; the rates double from 100 bpp.
QUALITIES = (30.0, 40.0, 50.0, 60.0)


@pytest.fixture
def draw(make_point: Any) -> Draw:
    """Make a curve without any noise: its qualities in percent, and its rates in bpp."""

    def make(
        variant: str,
        qualities: Sequence[float] = QUALITIES,
        rates: Sequence[float] = (100, 200, 400, 800),
    ) -> list[PointFiles]:
        return [
            make_point(variant, index, 100 * rate, quality / 100)
            for index, (rate, quality) in enumerate(zip(rates, qualities, strict=True))
        ]

    return make


def decided(
    points: list[PointFiles], preconditions: dict[str, Any] | None = None, **claims: dict[str, Any]
) -> Any:
    """Return the row of each claim, by name."""
    model = TypeAdapter(dict[str, Claim])
    typed, conditions = (
        model.validate_python({name: STATEMENT | claim for name, claim in given.items()})
        for given in (claims, preconditions or {})
    )
    evaluated = [(point, evaluate_folder(point.folder, 50, 0)) for point in points]
    tables = claim_tables(evaluated, {"study": typed}, {"study": conditions})
    return tables.claims.set_index("claim")


def both(points: list[PointFiles]) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Return a claim on the BD-rate, one on the BD-accuracy, and the row of the BD table."""
    rows = decided(
        points, rate=RATE | {"expect": "not-above"}, accuracy=ACCURACY | {"expect": "not-below"}
    )
    evaluated = [(point, evaluate_folder(point.folder, 50, 0)) for point in points]
    bd = bd_results(evaluated, [("study", "new", "old", ("accuracy",))])
    return rows.loc["rate"], rows.loc["accuracy"], bd.iloc[0]


def test_bd_rate_needs_shared_qualities(draw: Draw) -> None:
    """30 to 60 and 45 to 75 % share 15 of 45; the rates are the same."""
    rate, accuracy, bd = both(draw("old") + draw("new", [45, 55, 65, 75]))
    assert rate["verdict"] == "inconclusive" and "33.3 %" in rate["reason"]
    assert rate["effect"] < 0 and rate["low"] == pytest.approx(rate["effect"])
    assert accuracy["verdict"] == "supported" and accuracy["effect"] == pytest.approx(15.0)
    assert [bd["overlap"], bd["accuracy_overlap"]] == pytest.approx([1 / 3, 1.0])
    assert bd["flags"] == "low-overlap"


def test_bd_accuracy_needs_shared_rates(draw: Draw) -> None:
    """100 to 800 and 400 to 3,200 bpp share one doubling of five; the qualities are the same."""
    rate, accuracy, bd = both(draw("old") + draw("new", rates=[400, 800, 1600, 3200]))
    assert accuracy["verdict"] == "inconclusive" and "20 %" in accuracy["reason"]
    assert rate["verdict"] == "contradicted" and rate["effect"] == pytest.approx(300.0)
    assert [bd["overlap"], bd["accuracy_overlap"]] == pytest.approx([1.0, 0.2])
    assert bd["flags"] == "accuracy:low-overlap"


def test_half_of_the_range_is_enough(draw: Draw) -> None:
    """30 to 60 and 39 to 69 % share 21 of 39; at equal quality one has 0.9 doublings more."""
    rate, _, bd = both(draw("old") + draw("new", [39, 49, 59, 69]))
    assert rate["verdict"] == "supported"
    assert rate["effect"] == pytest.approx(100 * (2**-0.9 - 1))
    assert bd["overlap"] == pytest.approx(21 / 39) and not bd["flags"]


def test_bd_rate_needs_four_points_of_the_envelope(draw: Draw) -> None:
    """The third point costs more than the second and is worse, which BD-accuracy does not mind."""
    rate, accuracy, bd = both(draw("old") + draw("new", [35, 50, 45, 65]))
    assert rate["verdict"] == "inconclusive" and "3 usable points" in rate["reason"]
    assert accuracy["verdict"] == "supported"
    assert (bd["n_points_used"], bd["accuracy_n_points_used"], bd["n_points"]) == (3, 4, 4)


def test_bd_accuracy_over_named_rates_needs_half_of_them(draw: Draw) -> None:
    """Of three doublings the curves cover two, then one."""
    points = draw("old") + draw("new", [35, 45, 55, 65])
    claim = ACCURACY | {"expect": "above"}
    rows = decided(
        points, most=claim | {"rates": [50.0, 400.0]}, least=claim | {"rates": [25.0, 200.0]}
    )
    assert rows.loc["most", "verdict"] == "supported"
    assert rows.loc["least", "verdict"] == "inconclusive"
    assert "33.3 %" in rows.loc["least", "reason"] and rows.loc["least", "notes"] == "low-overlap"


def test_a_published_bd_rate_without_shared_accuracy_decides_nothing(draw: Draw) -> None:
    """TIC and Adapt-ICMH on ImageNet: a later paper prints -88.573 % for these points."""
    tic = draw("old", [51.12, 57.86, 63.86, 68.28], [154, 222, 331, 474])
    adapt = draw("new", [69.84, 72.53, 74.72, 75.62], [86, 140, 214, 327])
    rate, _, _ = both(tic + adapt)
    assert rate["verdict"] == "inconclusive" and "share 0 %" in rate["reason"]


def test_order_and_difference_need_shared_curves(draw: Draw) -> None:
    points = draw("old") + draw("new", [45, 55, 65, 75]) + draw("far", [44, 54, 64, 74])
    order = {"form": "order", "variants": ["new", "old"], "metric": "accuracy"}
    sides = {"first": RATE, "second": RATE | {"variant": "far", "anchor": "new"}}
    rows = decided(
        points, order=order, difference={"form": "difference", "expect": "below"} | sides
    )
    assert set(rows["verdict"]) == {"inconclusive"}
    assert rows["reason"].str.contains("33.3 %").all()


def test_precondition_that_holds_leaves_the_claim_decided(draw: Draw) -> None:
    """The base codec needs 20 % more bits than the reference at every quality."""
    points = draw("old") + draw("new", [35, 45, 55, 65])
    points += draw("base", rates=[120, 240, 480, 960])
    competent = RATE | {"variant": "base", "expect": "not-above", "threshold": 25.0}
    claim = ACCURACY | {"expect": "above", "preconditions": ["competent"]}
    row = decided(points, {"competent": competent}, claim=claim).loc["claim"]
    assert row["verdict"] == "supported"
    assert row["preconditions"] == "competent: supported (20 %)"


def test_claims_are_not_decided_unless_preconditions_hold(draw: Draw) -> None:
    points = draw("old") + draw("new", [35, 45, 55, 65])
    points += draw("slow", rates=[150, 300, 600, 1200]) + draw("apart", [58, 68, 78, 88])
    points += draw("longer", [60.8, 70, 80, 90])
    competent = RATE | {"expect": "not-above", "threshold": 25.0}
    saturated = {"form": "point", "variant": "longer", "metric": "accuracy", "rate_index": 0,
                 "anchor": "old", "anchor_rate_index": 3, "expect": "not-above"}  # fmt: skip
    conditions = {
        "competent": competent | {"variant": "slow"},
        "comparable": competent | {"variant": "apart"},
        "present": competent | {"variant": "absent"},
        "saturated": saturated | {"threshold": 0.5},
        "nearly": saturated | {"threshold": 1.0},
    }
    claim = ACCURACY | {"expect": "above"}
    claims: dict[str, Any] = {name: claim | {"preconditions": [name]} for name in conditions}
    claims["second"] = claim | {"preconditions": ["nearly", "competent"]}
    claims["other"] = claim | {"variant": "absent", "preconditions": ["competent"]}
    order = {"form": "order", "variants": ["old", "new"], "metric": "accuracy"}
    claims["order"] = order | {"preconditions": ["competent"]}
    rows = decided(points, conditions, **claims)
    assert rows["verdict"].to_dict() == {
        "comparable": "not decided",
        "competent": "not decided",
        "nearly": "supported",
        "order": "not decided",
        "other": "not run",
        "present": "not run",
        "saturated": "not decided",
        "second": "not decided",
    }
    words = {
        "comparable": ("comparable", "inconclusive", "3.45 %"),
        "competent": ("competent", "50 %"),
        "present": ("present", "absent"),
        "saturated": ("saturated", "0.8 points"),
        "second": ("competent", "50 %"),
    }
    for name, expected in words.items():
        for word in expected:
            assert word in rows.loc[name, "reason"], name
    # What was measured is still there.
    assert rows.loc["competent", ["effect", "low", "high"]].tolist() == pytest.approx([5.0] * 3)


@pytest.mark.parametrize("quantity", ["at_rate", "bd_accuracy_points", "bd_rate_pct"])
def test_order_claim_has_kendalls_tau_beside_the_verdict(draw: Draw, quantity: str) -> None:
    gains = {"a": 3.0, "b": 5.0, "c": 1.0, "d": 2.0}
    points = [p for name, gain in gains.items() for p in draw(name, [q + gain for q in QUALITIES])]
    claim = {"form": "order", "variants": list(gains), "metric": "accuracy", "quantity": quantity}
    claim |= {"bpp": 300.0} if quantity == "at_rate" else {}
    row = decided(points, claim=claim | {"expect": "better"}).loc["claim"]
    expected = stats.kendalltau([4, 3, 2, 1], list(gains.values())).statistic
    assert (row["tau"], row["tau_pairs"]) == (pytest.approx(expected), 6)
    assert row["verdict"] == "contradicted"
    falling = sorted(gains, key=lambda name: -gains[name])
    assert all(gains[one] > gains[two] for one, two in pairwise(falling))
    right = decided(points, claim=claim | {"variants": falling}).loc["claim"]
    assert (right["tau"], right["verdict"]) == (1.0, "supported")


def test_kendalls_tau_leaves_out_pairs_that_decide_nothing(draw: Draw) -> None:
    """``a`` shares 38 % of its qualities with ``c``, and 67 % or more with ``b``."""
    points = draw("a", [45, 55, 65, 75]) + draw("b", [37, 47, 57, 67])
    points += draw("c", [29, 39, 49, 59])
    order = {"form": "order", "metric": "accuracy"}
    rows = decided(
        points,
        three=order | {"variants": ["a", "b", "c"]},
        one=order | {"variants": ["c", "a"]},
        point=RATE | {"variant": "a", "anchor": "b", "expect": "below"},
    )
    assert rows.loc["three", ["tau", "tau_pairs"]].tolist() == [1.0, 2]
    assert rows.loc["one", "tau_pairs"] == 0
    assert rows.loc[["one", "point"], "tau"].isna().all()
