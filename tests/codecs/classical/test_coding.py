"""One job of a classical codec: chunks, the cache, failures of single images."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icmbench.codecs.base import RgbImage
from icmbench.codecs.classical.pillow import Jpeg
from icmbench.data.dataset import Split
from icmbench.errors import UserError
from icmbench.evaluate.classical import code_chunk
from icmbench.evaluate.rows import coded_fingerprint, coded_rows
from icmbench.utils.files import read_json


@pytest.fixture
def job(tmp_path: Path, scenes: dict[str, Any]) -> dict[str, Any]:
    return {
        "key": "detection-test/classical/jpeg/quality-40",
        "output": str(tmp_path / "encoded"),
        "codec": {"name": "jpeg", "kind": "classical", "parameters": {"chroma": "4:2:0"},
                  "rate": 40.0, "programs": {}},
        "dataset": scenes,
        "split": "test",
        "chunks": 1,
        "cache": {"directory": str(tmp_path / "cache"), "limit_gb": 1.0},
        "modules": [],
    }  # fmt: skip


def counting(monkeypatch: pytest.MonkeyPatch, fail_on: int | None = None) -> list[int]:
    """Count encodings of this process; let one fail."""
    calls: list[int] = []
    original = Jpeg.compress

    def compress(self: Jpeg, image: RgbImage) -> Any:
        calls.append(1)
        if fail_on is not None and len(calls) == fail_on:
            raise UserError("bpgenc: `bpgenc -q 40` ended with exit code 3: no space left")
        return original(self, image)

    monkeypatch.setattr(Jpeg, "compress", compress)
    return calls


def test_leaves_files_and_rows(job: dict[str, Any], scenes: dict[str, Any]) -> None:
    path = code_chunk(job, 0)
    rows = read_json(path)["rows"]
    assert len(rows) == 4
    folder = Path(job["output"])
    for row in rows:
        stream = folder / "bitstreams" / f"{row['image_id']}.bin"
        assert row["bits"] == 8 * stream.stat().st_size
        assert row["roundtrip_ok"] and row["pixels"] == 128 * 128
        # Another reader of JPEG gives the same samples.
        with (
            Image.open(stream) as image,
            Image.open(folder / "decoded" / (stream.stem + ".png")) as kept,
        ):
            assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(kept))
    with zipfile.ZipFile(Path(scenes["folder"]) / "test.zip") as archive:
        assert {Path(n).stem for n in archive.namelist()} == {r["image_id"] for r in rows}
    coded = {"rows": "chunks", "state": [str(path)]}
    frame = coded_rows(coded)
    assert list(frame["bits"]) == [row["bits"] for row in rows]
    assert frame["bits_estimated"].isna().all()


@pytest.mark.parametrize("counted", ["native", "coded"])
def test_rates_are_per_pixel_as_the_data_set_says(job: dict[str, Any], counted: str) -> None:
    job["dataset"] = {**job["dataset"], "short_side": 64, "center_crop": 48, "rate_pixels": counted}
    rows = read_json(code_chunk(job, 0))["rows"]
    split = Split(job["dataset"], "test")
    assert [row["pixels"] for row in rows] == [split.rate_pixels(i) for i in range(4)]
    assert {row["pixels"] for row in rows} == {{"native": 128 * 128, "coded": 48 * 48}[counted]}


def test_other_pixels_are_another_fingerprint(job: dict[str, Any]) -> None:
    prints = []
    for counted in ("native", "coded"):
        job["dataset"] = {**job["dataset"], "short_side": 64, "rate_pixels": counted}
        coded = {"rows": "chunks", "state": [str(code_chunk(job, 0))]}
        prints.append(coded_fingerprint(coded))
    assert prints[0] != prints[1]


def test_chunks_share_the_images(job: dict[str, Any]) -> None:
    whole = {row["image_id"]: row["bits"] for row in read_json(code_chunk(job, 0))["rows"]}
    job["chunks"] = 3
    paths = [code_chunk(job, chunk) for chunk in range(3)]
    parts = [read_json(path)["rows"] for path in paths]
    assert [len(rows) for rows in parts] == [2, 1, 1]
    assert {row["image_id"]: row["bits"] for rows in parts for row in rows} == whole
    assert [path.name for path in paths] == [f"chunk{i}of3.json" for i in range(3)]
    with pytest.raises(UserError, match="chunk 3; allowed: 0 to 2"):
        code_chunk(job, 3)


def test_a_second_job_takes_everything_from_the_cache(
    job: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read_json(code_chunk(job, 0))
    calls = counting(monkeypatch)
    job["output"] = str(tmp_path / "another-study")
    second = read_json(code_chunk(job, 0))
    assert not calls
    assert second == first
    job["codec"]["rate"] = 41.0
    code_chunk(job, 0)
    assert len(calls) == 4


def test_no_cache_codes_again(job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    job["cache"]["limit_gb"] = 0
    first = read_json(code_chunk(job, 0))
    calls = counting(monkeypatch)
    second = read_json(code_chunk(job, 0))
    assert len(calls) == 4
    # Times differ, bits and images do not: nothing downstream need be repeated.
    assert second["fingerprint"] == first["fingerprint"]
    assert not Path(job["cache"]["directory"]).exists()


def test_one_failing_image_does_not_lose_the_others(
    job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counting(monkeypatch, fail_on=2)
    with pytest.raises(UserError, match=r"image \d+: bpgenc: .* exit code 3.*\n.*1 of 4 images"):
        code_chunk(job, 0)
    assert len(calls) == 4
    assert not list(Path(job["output"]).glob("chunk*.json"))
    assert code_chunk(job, 0).is_file()
    assert len(calls) == 5  # only what was missing


def test_a_decoder_of_another_size_is_an_error(
    job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Jpeg, "external", True)  # decode in this process, where it can be changed
    monkeypatch.setattr(Jpeg, "decode", lambda self, data: np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UserError, match=r"decoded to \(8, 8, 3\)"):
        code_chunk(job, 0)


def test_a_image_that_differs_is_counted(
    job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Jpeg.decode
    monkeypatch.setattr(Jpeg, "external", True)
    calls: list[int] = []

    def decode(self: Jpeg, data: bytes) -> RgbImage:
        calls.append(1)
        image = original(self, data).copy()
        if len(calls) == 1:  # the decoder's turn for the first image; the check here is next
            image[0, 0, 0] ^= 1
        return image

    monkeypatch.setattr(Jpeg, "decode", decode)
    rows = read_json(code_chunk(job, 0))["rows"]
    assert [row["roundtrip_ok"] for row in rows] == [False, True, True, True]


def test_fingerprint_needs_the_chunk(tmp_path: Path) -> None:
    assert coded_fingerprint(None) is None
    missing = tmp_path / "chunk0of2.json"
    with pytest.raises(UserError, match=r"chunk0of2\.json: no such file"):
        coded_fingerprint({"state": [str(missing)]})
    other = tmp_path / "chunk1of2.json"
    for path, name in ((missing, "a"), (other, "b")):
        path.write_text(json.dumps({"fingerprint": name}))
    both = coded_fingerprint({"state": [str(missing), str(other)]})
    assert both not in ("a", "b", coded_fingerprint({"state": [str(other), str(missing)]}))
