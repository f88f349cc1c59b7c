"""Coding with a classical codec: shares, the cache, failures of single images."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from icmbench.codecs.base import RgbImage
from icmbench.codecs.classical.pillow import Jpeg
from icmbench.data.dataset import Split
from icmbench.data.specs import FetchedImages, ImageSplit
from icmbench.errors import UserError
from icmbench.evaluate.classical import DecodingFiles, code_share
from icmbench.evaluate.coded import coded_fingerprint, coded_rows, decoded_archives
from icmbench.jobs import ClassicalJob, CodedImages, Optimiser, Schedule
from icmbench.registry import CODECS
from icmbench.train.batches import batches
from icmbench.utils.files import read_json


def rows_of(*jobs: ClassicalJob) -> pd.DataFrame:
    return coded_rows(CodedImages(folders=[job.output for job in jobs]), jobs[0].quality)


def resized(job: ClassicalJob, rate_pixels: str) -> ClassicalJob:
    """Return the job on the same images as a fetched data set, which may be resized and cropped."""
    place = ImageSplit(images="test.zip", annotations="instances_test.json")
    settings = FetchedImages.model_validate(
        {
            "source": "catalogue",
            "name": "toy",
            "splits": {"test": place},
            "short_side": 64,
            "center_crop": 48,
            "rate_pixels": rate_pixels,
        }
    )
    dataset = job.dataset.model_copy(update={"settings": settings})
    return job.model_copy(update={"dataset": dataset})


def count_encodings(monkeypatch: pytest.MonkeyPatch, fail_on: int | None = None) -> list[int]:
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


def test_code_share_leaves_bitstreams_images_and_rows(classical_job: ClassicalJob) -> None:
    state = code_share(classical_job)
    folder = Path(classical_job.output)
    assert state.parent == folder
    rows = rows_of(classical_job)
    assert list(rows["image_id"]) == [str(i) for i in Split(classical_job.dataset, "test").ids]
    assert rows["roundtrip_ok"].all() and (rows["pixels"] == 128 * 128).all()
    assert rows["bits_estimated"].isna().all()
    with (
        zipfile.ZipFile(folder / "bitstreams.zip") as streams,
        zipfile.ZipFile(folder / "decoded.zip") as images,
    ):
        for row in rows.itertuples():
            data = streams.read(f"{row.image_id}.bin")
            assert row.bits == 8 * len(data)
            # Another reader of JPEG gives the same samples.
            with (
                Image.open(io.BytesIO(data)) as image,
                Image.open(io.BytesIO(images.read(f"{row.image_id}.png"))) as kept,
            ):
                assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(kept))


@pytest.mark.parametrize(("counted", "pixels"), [("native", 128 * 128), ("coded", 48 * 48)])
def test_code_share_counts_pixels_as_the_data_set_sets(
    classical_job: ClassicalJob, counted: str, pixels: int
) -> None:
    job = resized(classical_job, counted)
    code_share(job)
    rows = rows_of(job)
    assert set(rows["pixels"]) == {pixels}
    split = Split(job.dataset, "test", [Path(job.output) / "decoded.zip"])
    for found, index in zip(rows["psnr"], range(len(split)), strict=True):  # of what was coded
        error = split.original(index).astype(float) - split.image(index)
        assert found == pytest.approx(10 * np.log10(255**2 / np.mean(error**2)))


def test_coded_fingerprint_changes_with_pixels_and_bits(classical_job: ClassicalJob) -> None:
    jobs = [resized(classical_job, counted) for counted in ("native", "coded")]
    jobs.append(
        classical_job.model_copy(
            update={"codec": classical_job.codec.model_copy(update={"rate": 41.0})}
        )
    )
    prints = set()
    for job in jobs:
        code_share(job)
        prints.add(coded_fingerprint(CodedImages(folders=[job.output])))
    assert len(prints) == 3


def test_shares_divide_the_images_and_read_as_one(
    classical_job: ClassicalJob, tmp_path: Path
) -> None:
    code_share(classical_job)
    whole = rows_of(classical_job).set_index("image_id")["bits"].to_dict()
    shares = [
        classical_job.model_copy(
            update={"chunk": i, "chunks": 3, "output": str(tmp_path / f"chunk{i}of3")}
        )
        for i in range(3)
    ]
    for job in shares:
        code_share(job)
    assert [len(rows_of(job)) for job in shares] == [2, 1, 1]
    assert rows_of(*shares).set_index("image_id")["bits"].to_dict() == whole
    split = Split(
        classical_job.dataset, "test", [Path(job.output) / "decoded.zip" for job in shares]
    )
    alone = Split(classical_job.dataset, "test", [Path(classical_job.output) / "decoded.zip"])
    for index in range(len(split)):
        assert np.array_equal(split.image(index), alone.image(index))


def test_second_job_takes_everything_from_the_cache(
    classical_job: ClassicalJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read_json(code_share(classical_job))
    calls = count_encodings(monkeypatch)
    other = classical_job.model_copy(update={"output": str(tmp_path / "another-study")})
    assert read_json(code_share(other)) == first
    assert rows_of(other).equals(rows_of(classical_job))  # times included
    assert not calls


def test_without_a_cache_a_repeated_job_leaves_the_same_state(
    classical_job: ClassicalJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = classical_job.cache.model_copy(update={"limit_gb": 0})
    job = classical_job.model_copy(update={"cache": cache})
    first = code_share(job).read_bytes()
    calls = count_encodings(monkeypatch)
    # Times differ, bits and images do not: nothing downstream is repeated.
    assert code_share(job).read_bytes() == first
    assert len(calls) == 4
    assert not Path(job.cache.directory).exists()


def test_one_failing_image_does_not_lose_the_others(
    classical_job: ClassicalJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_encodings(monkeypatch, fail_on=2)
    with pytest.raises(UserError, match=r"image \d+: bpgenc: .* exit code 3.*\n.*1 of 4 images"):
        code_share(classical_job)
    assert len(calls) == 4
    assert not list(Path(classical_job.output).iterdir())
    code_share(classical_job)
    assert len(calls) == 5  # only the missing one


def test_decoder_of_another_size_is_an_error(
    classical_job: ClassicalJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Jpeg, "external", True)  # decode in this process, where it can be changed
    monkeypatch.setattr(Jpeg, "decode", lambda self, data: np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UserError, match=r"\(8, 8, 3\)"):
        code_share(classical_job)


def test_image_that_decodes_differently_is_counted(
    classical_job: ClassicalJob, monkeypatch: pytest.MonkeyPatch
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
    code_share(classical_job)
    assert list(rows_of(classical_job)["roundtrip_ok"]) == [False, True, True, True]


@pytest.mark.parametrize(("codec", "rate"), [("jpeg", 30), ("x265-444", 42)])
def test_bitstreams_decode_in_the_loader_to_the_images_that_were_kept(
    classical_job: ClassicalJob, tmp_path: Path, codec: str, rate: float
) -> None:
    """The same batches, also from loader processes; the images need not be kept for it."""
    parameters = CODECS[codec].parameters().model_dump()
    spec = classical_job.codec.model_copy(
        update={"name": codec, "rate": rate, "parameters": parameters}
    )
    settings = {"codec": spec, "split": "train", "chunks": 2, "quality": []}
    kept, alone = [
        [
            classical_job.model_copy(
                update={**settings, "chunk": i, "keep_images": keep, "output": str(tmp_path / name)}
            )
            for i, name in enumerate((f"{keep}0", f"{keep}1"))
        ]
        for keep in (True, False)
    ]
    for job in (*kept, *alone):
        code_share(job)
    coded, streams = (CodedImages(folders=[job.output for job in jobs]) for jobs in (kept, alone))
    assert coded_fingerprint(coded) == coded_fingerprint(streams)
    assert not list(tmp_path.glob("False*/decoded.zip"))
    schedule = Schedule(
        steps=2,
        batch_size=4,
        optimisers={"task": Optimiser(name="adam", lr=0.1)},
        origin="ours",
    )
    dataset, files = classical_job.dataset, DecodingFiles(streams, spec)
    read = list(
        batches(Split(dataset, "train", decoded_archives(coded)), 0, schedule, range(2), "boxes")
    )
    for workers in (0, 2):
        split = Split(dataset, "train", files)
        found = list(batches(split, 0, schedule, range(2), "boxes", workers=workers))
        for one, other in zip(found, read, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one.images, other.images, strict=True))
    assert split.size(0) == (128, 128)
    originals = Split(dataset, "train")
    assert not np.array_equal(originals.image(0), split.image(0))
    (Path(streams.folders[1]) / "bitstreams.zip").unlink()
    with pytest.raises(UserError, match=r"bitstreams\.zip"):
        DecodingFiles(streams, spec)
