"""Rate and distortion of a folder: images that cannot be used are named, none is left out."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icmbench.commands.rd import rate_distortion
from icmbench.errors import UserError
from icmbench.jobs import ClassicalSpec
from icmbench.plugins import load_modules

JPEG = ClassicalSpec(
    name="jpeg", parameters={"chroma": "4:2:0"}, rate=0, version=1, programs={}, modules=[]
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    load_modules([])
    rng = np.random.default_rng(3)
    for number in range(3):
        image = Image.fromarray(rng.integers(0, 256, (32, 48, 3), np.uint8))
        image.save(tmp_path / f"{number}.png")
    return tmp_path


def test_rd_names_each_cut_image_and_goes_on(folder: Path) -> None:
    for name in ("0.png", "2.png"):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError) as caught:
        rate_distortion(JPEG, folder, [30, 80])
    lines = str(caught.value).splitlines()
    assert len(lines) == 2 and "0.png" in lines[0] and "2.png" in lines[1]


def test_rd_refuses_before_any_work_what_a_header_tells(folder: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.float32)).save(folder / "3.tif")
    with pytest.raises(UserError, match=r"3\.tif.*floating-point") as caught:
        rate_distortion(JPEG, folder, [30])
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no such folder"):
        rate_distortion(JPEG, folder / "nowhere", [30])


def test_rd_says_that_16_bits_are_not_used(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(np.full((32, 48), 4095, np.uint16)).save(folder / "3.png")
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (48, 32)).save(folder / "4.jpg", exif=exif.tobytes())
    with caplog.at_level(logging.WARNING):
        rate_distortion(JPEG, folder, [30])
    assert "12" in caplog.text and "EXIF" in caplog.text
