from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icmbench.analyse.compressai_json import read_curve_file, write_curve_files
from icmbench.analyse.curves import evaluate_folder
from icmbench.errors import UserError

PUBLISHED = Path(__file__).parents[2] / "workflow/studies/published"


def test_read_curve_file_sorts_by_rate() -> None:
    path = PUBLISHED / "jpeg2000.json"
    published = json.loads(path.read_text())["results"]
    assert published["bpp"] == sorted(published["bpp"], reverse=True)
    curve = read_curve_file(path)
    assert curve.name == "JPEG2000"
    assert curve.results["bpp"].tolist() == sorted(published["bpp"])
    assert (np.diff(curve.results["psnr-rgb"]) > 0).all()
    assert set(curve.results["psnr-rgb"]) == set(published["psnr-rgb"])
    assert "ms-ssim-rgb" not in read_curve_file(PUBLISHED / "paper-elic2022_mse.json").results


def test_read_curve_file_accepts_null_and_missing_name(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"results": {"bpp": [2, 1], "psnr-rgb": [null, 30]}}')
    curve = read_curve_file(path)
    assert (curve.name, curve.description) == ("", "")
    assert np.array_equal(curve.results["psnr-rgb"], [30, np.nan], equal_nan=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", r"results\.bpp"),
        ("[1]", r"results\.bpp"),
        ('{"results": {"bpp": [1, 2], "psnr-rgb": [1]}}', r"results\.psnr-rgb"),
        ('{"results": {"bpp": ["a"]}}', r"results\.bpp"),
    ],
)
def test_read_curve_file_refuses_malformed_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_curve_file(path)


def test_write_curve_files_averages_seeds(tmp_path: Path, make_point: Any) -> None:
    psnr = np.full(20, 40.0)
    psnr[0] = np.inf
    points = [
        make_point("a/b.c", 0, 400, 0.7, psnr=psnr),
        make_point("a/b.c", 1, 100, 0.4, seed=0),
        make_point("a/b.c", 1, 200, 0.6, seed=1),
    ]
    evaluated = [(point, evaluate_folder(point.folder, 5, 0)) for point in points]
    paths = write_curve_files(tmp_path / "curves", evaluated)
    assert paths == {("study", "a/b.c"): tmp_path / "curves/study/a/b.c.json"}
    content = json.loads(paths["study", "a/b.c"].read_text())
    assert sorted(content) == ["description", "name", "results"]
    assert content["results"] == {
        "bpp": pytest.approx([1.5, 4.0]),
        "accuracy": pytest.approx([0.5, 0.7]),
        "ms-ssim-rgb": pytest.approx([0.9, 0.9]),
        "psnr-rgb": [30.0, None],
        "psnr-ycbcr-611": [31.0, 31.0],
    }
    assert read_curve_file(paths["study", "a/b.c"]).results["bpp"] == pytest.approx([1.5, 4.0])
