"""Claims decided on synthetic curves whose true effect is known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter
from scipy import stats
from scipy.interpolate import PchipInterpolator

from icmbench.analyse.bd_table import bd_results
from icmbench.analyse.bootstrap import percentile_interval
from icmbench.analyse.claims import ClaimTables, claim_tables
from icmbench.analyse.claims.decide import decide
from icmbench.analyse.claims.effects import Effect
from icmbench.analyse.claims.measure import Basis
from icmbench.analyse.curves import PointFiles, evaluate_folder
from icmbench.analyse.run import analyse
from icmbench.config.claims import Claim
from icmbench.metrics.bd_resampled import bd_accuracy_resampled, bd_rate_pct_resampled
from icmbench.plugins import load_modules

IMAGES = 20
#: Tests decide many claims on the same points.
evaluate = lru_cache(evaluate_folder)
STATEMENT = {"sentence": "It is so.", "source": "the talk"}


def decided(points: list[PointFiles], resamples: int = 200, **claims: dict[str, Any]) -> Any:
    """Decide claims on points; the claim's row of each name, and the parts' table."""
    model = TypeAdapter(dict[str, Claim])
    typed = model.validate_python({name: STATEMENT | claim for name, claim in claims.items()})
    evaluated = [(point, evaluate(point.folder, resamples, 0)) for point in points]
    tables: ClaimTables = claim_tables(evaluated, {"study": typed}, scale="mini")
    return tables.claims.set_index("claim"), tables.parts


def one(points: list[PointFiles], resamples: int = 200, **claim: Any) -> pd.Series:
    rows, _ = decided(points, resamples, claim=claim)
    return rows.loc["claim"]


BD = {"form": "bd", "variant": "new", "anchor": "old", "metric": "accuracy"}
AT = {"form": "at_rate", "variant": "new", "anchor": "old", "metric": "accuracy"}


@pytest.fixture
def better(make_curve: Any) -> list[PointFiles]:
    """Of equal rates; ``new`` keeps 5 points more than ``old`` on every image, exactly."""
    return make_curve("old") + make_curve("new", gain=0.05)


def test_an_exact_tie_is_0(make_point: Any) -> None:
    """Both means are 0.2, which the sums of 0.1 and 0.3 miss by their last bits."""
    old = make_point("old", 0, 100, [0.2] * IMAGES)
    new = make_point("new", 0, 100, [0.1, 0.3] * (IMAGES // 2))
    means = [evaluate(point.folder, 200, 0).values["accuracy"] for point in (old, new)]
    assert means[0] != means[1] and means == pytest.approx([0.2, 0.2])
    tie = {"form": "point", "variant": "new", "anchor": "old", "metric": "accuracy"}
    row = one([old, new], **tie, rate_index=0, expect="not-below")
    assert row["effect"] == 0 and row["low"] < 0 < row["high"]


def swapped(points: list[PointFiles]) -> list[PointFiles]:
    """Give each of the two variants the results of the other."""
    other = {"old": "new", "new": "old"}
    return [
        PointFiles(*(p.study, other.get(p.variant, p.variant), p.codec, p.task, p.mode),
                   p.rate_index, p.seed, p.folder)
        for p in points
    ]  # fmt: skip


FORMS: dict[str, dict[str, Any]] = {
    "bd-accuracy": BD | {"quantity": "bd_accuracy_points", "expect": "above"},
    "bd-accuracy-in-range": BD
    | {"quantity": "bd_accuracy_points", "rates": [150.0, 600.0], "expect": "above"},
    "at-rate": AT | {"bpp": 300.0, "expect": "above"},
    "point": AT | {"form": "point", "rate_index": 2, "expect": "above"},
    "each-point": AT | {"form": "point", "rate_index": "each", "expect": "above"},
    "order-at-rate": {"form": "order", "variants": ["new", "old"], "metric": "accuracy",
                      "quantity": "at_rate", "bpp": 300.0, "expect": "better"},
}  # fmt: skip


def test_claims_at_a_rate_that_misses_its_target_are_flagged(better: list[PointFiles]) -> None:
    """Those of a point, not those of curves, which compare at measured rates."""
    claims = TypeAdapter(dict[str, Claim]).validate_python(
        {name: STATEMENT | claim for name, claim in FORMS.items()}
    )
    evaluated = [(point, evaluate(point.folder, 200, 0)) for point in better]
    rate = {(point.variant, point.rate_index): run.rates["bpp"] for point, run in evaluated}
    targets = {
        ("study", "new", 1): rate["new", 1] / 0.91,
        ("study", "new", 2): rate["new", 2] / 1.2,
        ("study", "old", 2): rate["old", 2] / 0.8,
        ("other", "new", 0): 1.0,
    }
    tables = claim_tables(evaluated, {"study": claims}, targets=targets)
    notes = tables.claims.set_index("claim")["notes"]
    flags = [
        f"missed-rate:{name} {rate[name, 2]:.3g} {targets['study', name, 2]:g}"
        for name in ("new", "old")
    ]
    assert notes["point"].split(";") == flags
    assert notes["each-point"].split(";") == flags
    assert not any("missed-rate" in notes[name] for name in set(FORMS) - {"point", "each-point"})
    parts = tables.parts[tables.parts["claim"] == "each-point"]
    assert ["missed-rate" in own for own in parts["notes"]] == [False, False, True, False]


@pytest.mark.parametrize("form", FORMS)
def test_claims_decide_a_known_effect_and_its_reversal(better: list[PointFiles], form: str) -> None:
    """The difference is 5 points on every image, so it is 5 in every resample."""
    row = one(better, **FORMS[form])
    assert row["verdict"] == "supported"
    assert [row["effect"], row["low"], row["high"]] == pytest.approx([5.0] * 3)
    assert row["unit"] == "points"
    flipped = one(swapped(better), **FORMS[form])
    assert flipped["verdict"] == "contradicted"
    assert flipped["effect"] == pytest.approx(-5.0)


def test_bd_claim_equals_the_bd_table(make_curve: Any) -> None:
    points = make_curve("old") + make_curve("new", factor=0.8, noise=2)
    claim = BD | {"expect": "below"}
    row = one(points, **claim)
    evaluated = [(point, evaluate_folder(Path(point.folder), 200, 0)) for point in points]
    (bd,) = bd_results(evaluated, [("study", "new", "old", ("accuracy",))]).to_dict("records")
    assert row["effect"] == bd["bd_rate_pct"]
    assert (row["low"], row["high"]) == (bd["low"], bd["high"])
    assert row["verdict"] == "supported" and row["unit"] == "%"
    assert row["n_resamples_used"] == bd["n_resamples_used"]
    assert one(swapped(points), **claim)["verdict"] == "contradicted"
    assert one(points, **claim, margin=50.0)["verdict"] == "contradicted"  # 50 % are not saved
    order = {"form": "order", "variants": ["new", "old"], "metric": "accuracy", "expect": "better"}
    assert one(points, **order)["effect"] == row["effect"]
    assert one(points, **order)["expect"] == "below"


def test_intervals_of_one_seed_are_percentiles(make_curve: Any) -> None:
    """Of BD table and claims, bit for bit: the allowance for seeds does not change them."""
    points = make_curve("old") + make_curve("new", factor=0.8, noise=2)
    evaluated = [(point, evaluate_folder(Path(point.folder), 200, 0)) for point in points]
    samples: list[Any] = []
    for start in (0, 4):
        runs = [evaluation for _, evaluation in evaluated[start : start + 4]]
        samples += [np.stack([run.rate_samples for run in runs], axis=1)]
        samples += [100 * np.stack([run.value_samples["accuracy"] for run in runs], axis=1)]
    rates = percentile_interval(bd_rate_pct_resampled(*samples))
    accuracies = percentile_interval(bd_accuracy_resampled(*samples))
    (bd,) = bd_results(evaluated, [("study", "new", "old", ("accuracy",))]).to_dict("records")
    assert (bd["low"], bd["high"]) == rates
    assert (bd["accuracy_low"], bd["accuracy_high"]) == accuracies
    row = one(points, **BD, expect="below")
    assert (row["low"], row["high"]) == rates
    row = one(points, **FORMS["point"])
    assert (row["low"], row["high"]) == percentile_interval(samples[3][:, 2] - samples[1][:, 2])


def test_at_rate_claim_interpolates_as_scipy(make_curve: Any) -> None:
    points = make_curve("new")
    evaluated = [evaluate_folder(Path(point.folder), 50, 0) for point in points]
    rates = [e.rates["bpp"] for e in evaluated]
    fit = PchipInterpolator(np.log10(rates), [100 * e.values["accuracy"] for e in evaluated])
    middle = math.sqrt(rates[1] * rates[2])
    claim = {**AT, "anchor": None, "expect": "above", "threshold": 10.0}
    row = one(points, 50, **claim, bpp=middle)
    assert row["effect"] == pytest.approx(float(fit(np.log10(middle))))
    assert row["unit"] == "%" and row["verdict"] == "supported"


def test_point_claim_is_paired_over_images(make_point: Any) -> None:
    """Large differences between images cancel in pairs; differing ones do not."""
    rng = np.random.default_rng(3)
    images = rng.normal(0.5, 0.2, IMAGES)
    noise = rng.normal(0, 0.2, IMAGES)
    claim = AT | {"form": "point", "rate_index": 0, "expect": "above"}
    paired = [make_point("old", 0, 100, images), make_point("new", 0, 100, images + 0.01)]
    assert one(paired, **claim)["verdict"] == "supported"
    noise += 0.01 - noise.mean()  # the same mean difference
    noisy = [make_point("old", 1, 100, images), make_point("new", 1, 100, images + noise)]
    row = one(noisy, **claim | {"rate_index": 1})
    assert row["effect"] == pytest.approx(1.0)
    assert row["low"] < 0 < row["high"]
    assert row["verdict"] == "inconclusive" and row["reason"]


def test_interval_of_a_mean_is_close_to_the_normal_one(make_point: Any) -> None:
    """Coverage follows from the claim's level: 1.96 and 1.645 standard errors."""
    values = np.random.default_rng(1).normal(0.5, 0.1, IMAGES)
    points = [make_point("new", 0, 100, values)]
    error = 100 * values.std() / math.sqrt(IMAGES)
    claim = {"form": "point", "variant": "new", "metric": "accuracy", "rate_index": 0}
    for level, width in ((0.95, 1.96), (0.9, 1.645)):
        row = one(points, 4000, **claim, expect="above", threshold=1.0, level=level)
        assert (row["high"] - row["low"]) / 2 == pytest.approx(width * error, rel=0.06)
        assert f"{100 * level:g} %" in row["scope"] and "4000" in row["scope"]


@pytest.mark.parametrize(
    ("expect", "margin", "verdict"),
    [
        ("above", 0.0, "supported"),
        ("above", 4.0, "supported"),
        ("above", 6.0, "contradicted"),
        ("not-below", 0.0, "supported"),
        ("below", 0.0, "contradicted"),
        ("not-above", 4.0, "contradicted"),
        ("not-above", 6.0, "supported"),
        ("equal", 4.0, "contradicted"),
        ("equal", 6.0, "supported"),
    ],
)
def test_claims_apply_expectation_and_margin(
    better: list[PointFiles], expect: str, margin: float, verdict: str
) -> None:
    claim = FORMS["at-rate"] | {"expect": expect, "margin": margin}
    assert one(better, 50, **claim)["verdict"] == verdict


def test_claims_on_constant_metrics_are_inconclusive(make_curve: Any) -> None:
    """A detector that finds nothing anywhere makes two variants neither equal nor different."""
    points = make_curve("old") + make_curve("new")
    for expect in ("above", "not-below", "equal"):
        row = one(points, 50, **FORMS["at-rate"] | {"expect": expect, "margin": 1.0})
        assert row["verdict"] == "inconclusive"
        assert "accuracy" in row["reason"]
    # Equal rates are a fact: the two share their bitstreams.
    rate = FORMS["point"] | {"metric": "bpp", "expect": "equal", "margin": 0.001}
    assert one(points, 50, **rate)["verdict"] == "supported"
    # A difference in a few images is one, also where the claim is that there is none.
    points += make_curve("near", gain=0.001)
    equal = FORMS["at-rate"] | {"variant": "near", "expect": "equal", "margin": 1.0}
    assert one(points, 50, **equal)["verdict"] == "supported"


def test_bd_claim_notes_the_flags_of_the_metric(make_curve: Any) -> None:
    points = make_curve("old") + make_curve("new", gain=0.15)
    row = one(points, 50, **BD, expect="below")
    assert row["verdict"] == "inconclusive" and "low-overlap" in row["notes"]


def test_claims_give_the_reason_of_an_undefined_effect(make_curve: Any, make_point: Any) -> None:
    points = make_curve("old") + make_curve("new", factor=100.0)
    points += [make_point("single", 0, 100, 0.5)]
    high = make_curve("high", gain=2.0)  # no common quality, so no BD-rate
    at = FORMS["at-rate"]
    bounds = ("above", "not-above")
    for expect in bounds:
        rows, _ = decided(
            points + high, 50,
            apart=at | {"expect": expect},
            outside=at | {"expect": expect, "anchor": None, "bpp": 1e6},
            bd=BD | {"variant": "high", "expect": expect},
            narrow=BD | {"quantity": "bd_accuracy_points", "rates": [1.0, 2.0], "expect": expect},
            single=at | {"expect": expect, "variant": "single"},
            metric=at | {"expect": expect, "metric": "box_map"},
            trend={"form": "trend", "variant": "single", "metric": "accuracy", "expect": expect},
        )  # fmt: skip
        assert set(rows["verdict"]) == {"inconclusive"}
        assert rows[["effect", "low", "high"]].isna().all().all()
    words = {
        "apart": "outside the rates of new",
        "outside": "outside",
        "bd": "share 0 %",
        "narrow": "between 1 and 2 bpp",
        "single": "form point",
        "metric": "box_map",
        "trend": "one rate point",
    }
    for name, word in words.items():
        assert word in rows.loc[name, "reason"], name


def test_decide_is_inconclusive_with_many_undefined_resamples() -> None:
    """What is left of the resamples is a selection where many are undefined."""
    samples = np.full(100, 5.0)
    effect = Effect("a", "b", "m", "difference", "", "points", 5.0, samples)
    assert decide(effect, "above", 0, 0, 0.95).verdict == "supported"
    samples[:5] = np.nan
    assert decide(effect, "above", 0, 0, 0.95).verdict == "supported"
    samples[5] = np.nan
    decision = decide(effect, "above", 0, 0, 0.95)
    assert decision.verdict == "inconclusive" and "94 of 100" in decision.reason


def measured(
    samples: Any, value: float = 0.0, images: int = 20, quantity: str = "difference"
) -> Effect:
    basis = Basis("data", "test", images, 1, len(samples))
    anchor = None if quantity == "value" else "b"
    drawn = np.asarray(samples, float)
    return Effect("a", anchor, "map", quantity, "", "points", value, drawn,
                  basis=frozenset([basis]))  # fmt: skip


def test_decide_ignores_an_undefined_resample_of_a_constant_metric() -> None:
    samples = np.zeros(1000)
    samples[3] = np.nan
    for expect in ("not-below", "equal"):
        decision = decide(measured(samples), expect, 0, 1, 0.95)
        assert decision.verdict == "inconclusive" and "map" in decision.reason
    value = decide(measured(samples, quantity="value"), "below", 50, 0, 0.95)
    assert value.verdict == "inconclusive" and "map" in value.reason


@pytest.mark.parametrize(
    ("images", "level", "verdict"),
    [
        (1, 0.95, "inconclusive"),
        (5, 0.95, "inconclusive"),
        (6, 0.95, "supported"),
        (5, 0.9, "supported"),
        (7, 0.99, "inconclusive"),
    ],
)
def test_decide_is_inconclusive_with_few_images(images: int, level: float, verdict: str) -> None:
    effect = measured(np.full(200, 5.0), 5.0, images)
    decision = decide(effect, "above", 0, 0, level)
    assert decision.verdict == verdict
    other = decide(effect, "below", 0, 0, level)
    assert other.verdict == ("contradicted" if verdict == "supported" else "inconclusive")
    if verdict == "inconclusive":
        assert f"{images} " in decision.reason
        assert (decision.low, decision.high) == (5.0, 5.0)


def test_decide_is_inconclusive_with_few_resamples() -> None:
    for count, verdict in ((1, "inconclusive"), (39, "inconclusive"), (40, "supported")):
        decision = decide(measured(np.full(count, 5.0), 5.0), "above", 0, 0, 0.95)
        assert decision.verdict == verdict
    assert decide(measured(np.zeros(1)), "equal", 0, 1, 0.95).verdict == "inconclusive"


def test_at_rate_claim_at_the_end_of_a_curve_is_inconclusive(better: list[PointFiles]) -> None:
    """A fixed rate just inside the curve lies outside it in about half of the resamples."""
    end = evaluate_folder(Path(better[0].folder), 50, 0).rates["bpp"] * 1.0001
    row = one(better, **AT, bpp=end, expect="above")
    assert row["verdict"] == "inconclusive" and "resamples" in row["reason"]
    assert one(better, **AT, bpp=2 * end, expect="above")["verdict"] == "supported"


def test_claims_about_missing_points_are_not_run(better: list[PointFiles]) -> None:
    at = FORMS["at-rate"]
    rows, parts = decided(
        better, 50,
        variant=at | {"anchor": "absent"},
        point=AT | {"form": "point", "rate_index": 7, "expect": "above"},
        difference={"form": "difference", "first": BD, "second": BD | {"anchor": "absent"},
                    "expect": "above"},
        order={"form": "order", "variants": ["new", "absent", "old"], "metric": "accuracy",
               "quantity": "at_rate", "bpp": 300.0},
        denied={"form": "order", "variants": ["absent", "old", "new"], "metric": "accuracy",
                "quantity": "at_rate", "bpp": 300.0},
        stated={"form": "count", "variant": "new", "key": "complexity.macs", "expect": "above"},
    )  # fmt: skip
    assert rows["verdict"].to_dict() == {
        "denied": "contradicted",  # one pair suffices
        "difference": "not run",
        "order": "not run",
        "point": "not run",
        "stated": "not run",
        "variant": "not run",
    }
    assert "absent" in rows.loc["variant", "reason"]
    assert "rate index 7" in rows.loc["point", "reason"]
    assert "complexity.macs" in rows.loc["stated", "reason"]
    assert rows.loc["order", ["n_parts", "n_supported"]].tolist() == [3, 1]
    own = parts[parts["claim"] == "order"]
    assert own["verdict"].tolist() == ["not run", "supported", "not run"]


def test_order_claim_has_the_verdict_of_its_worst_pair(make_curve: Any) -> None:
    gains = {"a": 0.3, "b": 0.2, "c": 0.1}
    points = [p for name, gain in gains.items() for p in make_curve(name, gain=gain)]
    order = {"form": "order", "metric": "accuracy", "quantity": "at_rate", "bpp": 300.0,
             "expect": "better"}  # fmt: skip
    row = one(points, 50, **order, variants=["a", "b", "c"])
    assert (row["verdict"], row["n_parts"], row["n_supported"]) == ("supported", 3, 3)
    assert row["effect"] == pytest.approx(10.0)  # the narrowest pair, not the widest
    wrong = one(points, 50, **order, variants=["b", "a", "c"])
    assert (wrong["verdict"], wrong["n_supported"]) == ("contradicted", 2)
    assert (wrong["variant"], wrong["anchor"]) == ("b", "a")
    assert wrong["effect"] == pytest.approx(-10.0)
    near = order | {"expect": "not-worse", "margin": 11.0}
    assert one(points, 50, **near, variants=["b", "a", "c"])["verdict"] == "supported"


def test_difference_claim_subtracts_two_effects(make_curve: Any) -> None:
    """Gains of 5 and 2 points differ by 3, whatever the images are."""
    points = make_curve("old") + make_curve("new", gain=0.05)
    points += make_curve("old2", noise=2) + make_curve("new2", gain=0.02, noise=2)
    first = {k: v for k, v in FORMS["bd-accuracy"].items() if k != "expect"}
    second = first | {"variant": "new2", "anchor": "old2"}
    claim = {"form": "difference", "first": first, "second": second, "expect": "above"}
    rows, parts = decided(points, 100, claim=claim)
    row = rows.loc["claim"]
    assert [row["effect"], row["low"], row["high"]] == pytest.approx([3.0] * 3)
    assert row["verdict"] == "supported" and row["n_parts"] == 1
    assert parts["side"].tolist() == ["", "first", "second"]
    assert parts["effect"].tolist() == pytest.approx([3.0, 5.0, 2.0])
    assert parts["verdict"].tolist() == ["supported", "", ""]
    alike = claim | {"expect": "equal"}
    assert one(points, 100, **alike, margin=4.0)["verdict"] == "supported"
    assert one(points, 100, **alike, margin=2.0)["verdict"] == "contradicted"
    back = claim | {"first": second, "second": first}
    assert one(points, 100, **back)["verdict"] == "contradicted"


def test_trend_claim_checks_every_step_or_the_ends(make_point: Any) -> None:
    points = [make_point("new", i, 1000 * 2**i, a) for i, a in enumerate([0.2, 0.4, 0.39, 0.5])]
    trend = {"form": "trend", "variant": "new", "metric": "accuracy", "expect": "above"}
    row = one(points, 50, **trend)
    assert (row["verdict"], row["n_parts"], row["n_supported"]) == ("contradicted", 3, 2)
    assert row["effect"] == pytest.approx(-1.0) and row["at"] == "20 to 40 bpp"
    assert one(points, 50, **trend | {"expect": "not-below"}, margin=2.0)["verdict"] == "supported"
    ends = one(points, 50, **trend, between="ends")
    assert ends["verdict"] == "supported" and ends["effect"] == pytest.approx(30.0)


def test_point_claim_compares_points_values_and_rates(make_point: Any) -> None:
    points = [make_point("old", 0, 2400, 0.9)]
    points += [make_point("new", i, 100 * 2**i, 0.8 + 0.05 * i, psnr=15.0 + i) for i in range(2)]
    point = {"form": "point", "variant": "new", "rate_index": "each"}
    within = point | {"anchor": "old", "metric": "accuracy", "expect": "not-below"}
    assert one(points, 50, **within, margin=11.0)["verdict"] == "supported"
    row = one(points, 50, **within, margin=6.0)
    assert row["verdict"] == "contradicted" and row["n_supported"] == 1
    psnr = one(points, 50, **point, metric="psnr", expect="below", threshold=20.0)
    assert psnr["verdict"] == "supported" and psnr["unit"] == "dB"
    assert psnr["effect"] == pytest.approx(16.0)  # the one nearest to the threshold
    rate = one(points, 50, **point | {"rate_index": "lowest"}, metric="bpp", anchor="old",
               expect="below")  # fmt: skip
    assert rate["effect"] == pytest.approx(-23.0) and rate["unit"] == "bpp"
    steps = one(points, 50, **point | {"rate_index": 1}, anchor="new", anchor_rate_index=0,
                metric="accuracy", expect="above")  # fmt: skip
    assert steps["effect"] == pytest.approx(5.0) and "against rate index 0" in steps["at"]
    ends = one(points, 50, **point | {"rate_index": "lowest"}, anchor="new",
               anchor_rate_index="highest", metric="accuracy", expect="below")  # fmt: skip
    assert ends["effect"] == pytest.approx(-5.0) and "against rate index 1" in ends["at"]


def test_at_rate_claim_uses_original_images_at_every_rate(make_curve: Any, make_point: Any) -> None:
    load_modules([])
    (reference,) = (make_point("old", 0, 2400, 0.9),)
    fields = {**vars(reference), "codec": "uncoded"}
    points = [*make_curve("new"), PointFiles(**fields)]
    row = one(points, 50, **AT, bpp=300.0, expect="below")
    alone = one(points, 50, **AT | {"anchor": None}, bpp=300.0, expect="below")
    assert row["effect"] == pytest.approx(alone["effect"] - 90)
    assert row["verdict"] == "supported"


def test_claims_about_other_scales_are_not_run(better: list[PointFiles]) -> None:
    claim = FORMS["bd-accuracy"]
    assert one(better, **claim, scales=["mini"])["verdict"] == "supported"
    row = one(better, **claim, scales=["paper"])
    assert row["verdict"] == "not run" and "paper" in row["reason"]


def test_count_claim_reads_evaluate_json(better: list[PointFiles]) -> None:
    for variant, parameters in (("old", 50), ("new", 40)):
        folder = next(p.folder for p in better if p.variant == variant and p.rate_index == 0)
        content = {"complexity": {"parameters": {"total": parameters}}}
        (folder / "evaluate.json").write_text(json.dumps(content))
    count = {"form": "count", "variant": "new", "key": "complexity.parameters.total"}
    row = one(better, 50, **count, anchor="old", expect="below")
    assert row["verdict"] == "supported" and row["unit"] == "%"
    assert row["effect"] == pytest.approx(-20.0)
    assert one(swapped(better), 50, **count, anchor="old", expect="below")["verdict"] == (
        "contradicted"
    )
    assert one(better, 50, **count, expect="below", threshold=30.0)["verdict"] == "contradicted"
    assert one(better, 50, **count | {"rate_index": 1}, expect="below")["verdict"] == "not run"


def test_claims_average_seeds_and_widen_the_interval(make_curve: Any) -> None:
    """Gains of 8 and -2 points in two training runs: 3 on average, but it may be either."""
    old = [p for seed in (0, 1) for p in make_curve("old", seed=seed)]
    new = make_curve("new", gain=0.08) + make_curve("new", gain=-0.02, seed=1)
    # Of two seeds: 3 +- 12.7 sd(8, -2)/sqrt(2) points.
    wide = 3 + np.array([-1, 1]) * stats.t.isf(0.025, 1) * 5
    for name in ("at-rate", "point", "bd-accuracy"):
        row = one(old + new, 1000, **FORMS[name])
        assert row["effect"] == pytest.approx(3.0, abs=0.01), name
        assert [row["low"], row["high"]] == pytest.approx(wide, rel=0.05), name
        assert row["verdict"] == "inconclusive" and "2 seeds" in row["scope"]
    alone = one(old[:4] + new[:4], **FORMS["at-rate"])
    assert alone["verdict"] == "supported" and alone["effect"] == pytest.approx(8.0)
    for word in ("20 images", "embedded", "val", "1 seed", "95 %", "200 resamples"):
        assert word in alone["scope"]


def test_claims_need_more_than_two_seeds_that_agree(make_curve: Any) -> None:
    """Gains of 5 and 4 points: without an allowance for two seeds the claim was supported."""
    old = make_curve("old")
    new = make_curve("new", gain=0.05) + make_curve("new", gain=0.04, seed=1)
    for name in ("at-rate", "bd-accuracy", "each-point"):
        assert one(old + new, **FORMS[name])["verdict"] == "inconclusive", name
        assert one(old + new[:4], **FORMS[name])["verdict"] == "supported", name
    # Ten that agree as well do.
    more = [p for s in range(10) for p in make_curve("new", gain=0.05 - 0.01 * (s % 2), seed=s)]
    for name in ("point", "bd-accuracy"):
        assert one(old + more, **FORMS[name])["verdict"] == "supported", name


def test_difference_claim_cancels_shared_seeds(make_point: Any) -> None:
    """Both gains are over one anchor, whose seeds differ widely: their difference is 3 points."""
    points = []
    for seed, shift in enumerate((0.0, 0.3)):
        for index in range(2):
            points += [make_point("old", index, 100 * 2**index, 0.3 + shift, seed=seed)]
    for index, gain in enumerate((0.1, 0.07)):
        points += [make_point("new", index, 100 * 2**index, 0.3 + gain)]
    at = {"form": "point", "variant": "new", "anchor": "old", "metric": "accuracy"}
    first, second = at | {"rate_index": 0}, at | {"rate_index": 1}
    row = one(points, form="difference", first=first, second=second, expect="above")
    assert [row["effect"], row["low"], row["high"]] == pytest.approx([3.0] * 3)
    assert row["verdict"] == "supported"
    assert one(points, **first, expect="below")["verdict"] == "inconclusive"
    trend = {"form": "trend", "variant": "old", "metric": "accuracy", "expect": "not-below"}
    assert one(points, **trend, margin=1.0)["verdict"] == "inconclusive"


def test_claims_on_different_images_are_inconclusive(better: list[PointFiles]) -> None:
    folder = Path(next(p.folder for p in better if p.variant == "new"))
    renamed = pd.read_parquet(folder / "records.parquet")
    renamed["image_id"] = [f"x{i}" for i in range(IMAGES)]
    renamed.to_parquet(folder / "records.parquet")
    (folder / "statistics-acc.npz").unlink()
    row = one(better, 50, **FORMS["at-rate"] | {"metric": "psnr"})
    assert row["verdict"] == "inconclusive" and "images" in row["reason"]


def test_claim_tables_repeat_byte_for_byte(
    tmp_path: Path, better: list[PointFiles], make_point: Callable[..., PointFiles]
) -> None:
    typed = TypeAdapter(dict[str, Claim]).validate_python(
        {name: STATEMENT | claim for name, claim in FORMS.items()}
    )
    for name, points in (("one", better), ("two", better[::-1])):
        analyse(points, [], tmp_path / name, resamples=50, claims={"study": typed, "none": {}})
    for name in ("claims", "claims_parts"):
        first, second = (tmp_path / run / f"tables/{name}.csv" for run in ("one", "two"))
        assert first.read_bytes() == second.read_bytes()
    table = pd.read_csv(tmp_path / "one/tables/claims.csv")
    assert list(table["claim"]) == sorted(FORMS)
    assert set(table["verdict"]) == {"supported"}
    parts = pd.read_csv(tmp_path / "one/tables/claims_parts.csv")
    assert (parts.groupby("claim").size() == table.set_index("claim")["n_parts"]).all()
    analyse(better, [], tmp_path / "without", resamples=5)
    assert not (tmp_path / "without/tables/claims.csv").exists()
