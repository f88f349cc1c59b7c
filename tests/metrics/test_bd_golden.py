"""BD results against published values and values of the reference package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from icmbench.metrics.bd import METHODS, bd_accuracy, bd_rate_pct

REFERENCE = Path(__file__).parents[1] / "reference"
VECTORS = json.loads((REFERENCE / "bd_vectors.json").read_text())["cases"]
PUBLISHED = Path(__file__).parents[2] / "workflow/studies/published"
GOLDEN = json.loads((REFERENCE / "bd_golden.json").read_text())


def curve(name: str) -> tuple[list[float], list[float]]:
    """Rates and qualities of e.g. ``kodak:hm`` or ``vectors:VCEG-M33:anchor``."""
    source, _, rest = name.partition(":")
    if source == "kodak":
        results = json.loads((PUBLISHED / f"{GOLDEN['kodak_files'][rest]}.json").read_text())[
            "results"
        ]
        return results["bpp"], results["psnr-rgb"]
    if source == "vectors":
        case, side = rest.split(":")
        points = VECTORS[case][side]
    else:
        points = GOLDEN[source][rest]
    return [rate for rate, _ in points], [quality for _, quality in points]


def last_digit(printed: str) -> float:
    """Half a unit of the last printed digit."""
    return 0.5 * 10.0 ** -len(printed.partition(".")[2]) * (1 + 1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_bd_reproduces_published_values(case: dict[str, Any], method: Any) -> None:
    curves = (*curve(case["anchor"]), *curve(case["test"]))
    for function, key in ((bd_rate_pct, "bd_rate_pct"), (bd_accuracy, "bd_accuracy")):
        if method in case[key]:
            printed = case[key][method]
            result = function(*curves, method=method)
            assert result.value == pytest.approx(float(printed), abs=last_digit(printed))
            assert result.method == method
            assert not any(flag.startswith("non-monotone") for flag in result.flags)


@pytest.mark.parametrize("name", VECTORS)
def test_bd_reproduces_the_vectors(name: str) -> None:
    curves = (*curve(f"vectors:{name}:anchor"), *curve(f"vectors:{name}:test"))
    rate = bd_rate_pct(*curves, method="cubic").value
    psnr = bd_accuracy(*curves, method="cubic").value
    published = VECTORS[name]["published"]
    if published:
        assert rate == pytest.approx(published["bd_rate_cubic_poly_pct"], abs=5.1e-7)
        assert psnr == pytest.approx(published["bd_psnr_cubic_poly_db"], abs=5.1e-7)
    computed = VECTORS[name]["computed_here"]
    assert rate == pytest.approx(computed["bd_rate_cubic_poly_pct"], abs=1e-6)
    assert psnr == pytest.approx(computed["bd_psnr_cubic_poly_db"], abs=1e-6)
    for method in METHODS:
        result = bd_rate_pct(*curves, method=method)
        assert result.value == pytest.approx(
            computed[f"bd_rate_{method}_FAU_LMS_package"], abs=1e-6
        )
        result = bd_accuracy(*curves, method=method)
        assert result.value == pytest.approx(
            computed[f"bd_psnr_{method}_FAU_LMS_package"], abs=1e-6
        )


@pytest.mark.parametrize("codec", GOLDEN["zhu2024_kodak"]["printed"])
def test_bd_rate_reproduces_zhu2024(codec: str) -> None:
    anchor_rate, anchor_psnr = curve("kodak:hm")
    rate, psnr = curve(f"kodak:{codec}")
    result = bd_rate_pct(anchor_rate[:4], anchor_psnr[:4], rate[:4], psnr[:4], method="cubic")
    assert result.value == pytest.approx(GOLDEN["zhu2024_kodak"]["printed"][codec], abs=0.05)


def test_bd_rate_refuses_an_unstable_cubic() -> None:
    curves = (*curve("saturated:anchor"), *curve("saturated:test"))
    cubic = bd_rate_pct(*curves, method="cubic")
    assert cubic.value != cubic.value
    assert "cubic-unstable" in cubic.flags
    assert bd_rate_pct(*curves, method="pchip").flags == ()
    assert bd_accuracy(*curves, method="cubic").flags == ()
