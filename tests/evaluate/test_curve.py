"""A curve from bitstreams to records: what it leaves, what is repeated, and damaged files."""

from __future__ import annotations

import math
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from coding_jobs import evaluate_job, save_random_weights

from icmbench.analyse.curves import evaluate_folder
from icmbench.data.dataset import Split
from icmbench.data.specs import DatasetSpec
from icmbench.errors import UserError
from icmbench.evaluate.classical import code_share
from icmbench.evaluate.coded import (
    COLUMNS,
    Archives,
    coded_fingerprint,
    coded_rows,
    latents_from_bytes,
    read_rows,
    write_rows,
)
from icmbench.evaluate.curve import decode_curve, encode_curve, evaluate_curve
from icmbench.evaluate.records import read_records
from icmbench.jobs import ClassicalJob, CodedImages, EncodeJob
from icmbench.utils.files import read_json


def code(jobs: list[EncodeJob]) -> bytes:
    """Encode and decode a curve; return both manifests."""
    return encode_curve(jobs).read_bytes() + decode_curve(jobs).read_bytes()


def times(jobs: list[EncodeJob]) -> list[list[float]]:
    """Return the times of a curve, which differ if anything is done again."""
    return [
        [
            row[name]
            for row in read_rows(Path(job.output) / "decoded.parquet")
            for name in ("encode_s", "decode_s")
        ]
        for job in jobs
    ]


def test_learned_codec_from_bitstreams_to_records(
    encode_jobs: list[EncodeJob], scenes: DatasetSpec, tmp_path: Path
) -> None:
    code(encode_jobs)
    folder = Path(encode_jobs[0].output)
    job = evaluate_job(tmp_path, scenes, [str(folder)])
    evaluate_curve([job])
    records = read_records(Path(job.output) / "records.parquet")
    with zipfile.ZipFile(folder / "bitstreams.zip") as streams:
        sizes = {Path(i.filename).stem: 8 * i.file_size for i in streams.infolist()}
    assert records.set_index("image_id")["bits"].to_dict() == sizes
    assert records["roundtrip_ok"].all()
    split = Split(scenes, "test", [folder / "decoded.zip"])
    for row, index in zip(records.itertuples(), range(len(split)), strict=True):
        error = split.original(index).astype(float) - split.image(index)
        assert row.psnr == pytest.approx(10 * math.log10(255**2 / np.mean(error**2)))
    evaluation = read_json(Path(job.output) / "evaluate.json")
    assert evaluation["metrics"]["bpp"] == records["bits"].sum() / records["pixels"].sum()
    assert set(evaluation["complexity"]["macs_per_pixel"]) == {
        "encode", "decode", "reconstruct", "task"
    }  # fmt: skip
    assert evaluation["complexity"]["macs_per_pixel"]["decode"] > 0


def test_chunks_of_a_learned_codec_are_its_curve(
    encode_jobs: list[EncodeJob], scenes: DatasetSpec, tmp_path: Path
) -> None:
    """Three jobs of four images leave the bitstreams and the rate that one job leaves."""
    code(encode_jobs)
    whole = coded_rows(CodedImages(folders=[encode_jobs[0].output])).set_index("image_id")
    folders = []
    for chunk in range(3):
        name = f"chunk{chunk}of3"
        shares = [
            job.model_copy(update={"chunk": chunk, "chunks": 3, "output": f"{job.output}/{name}"})
            for job in encode_jobs
        ]
        code(shares)
        # The job's manifest is beside the rates, as the plan's rules expect.
        assert (Path(encode_jobs[0].output).parent / name / "decoded.json").is_file()
        folders.append(shares[0].output)
    rows = coded_rows(CodedImages(folders=folders)).set_index("image_id")
    exact = ["bits", "pixels", "roundtrip_ok"]
    assert rows.loc[whole.index, exact].equals(whole[exact])
    job = evaluate_job(tmp_path, scenes, folders)
    evaluate_curve([job])
    assert len(read_records(Path(job.output) / "records.parquet")) == 4
    many = encode_jobs[0].model_copy(update={"chunk": 4, "chunks": 5})
    with pytest.raises(UserError, match="5 chunks of 4 images"):
        encode_curve([many])


def test_every_codec_leaves_the_same_files_and_columns(
    encode_jobs: list[EncodeJob], classical_job: ClassicalJob, scenes: DatasetSpec, tmp_path: Path
) -> None:
    code(encode_jobs)
    code_share(classical_job)
    learned, classical = Path(encode_jobs[0].output), Path(classical_job.output)
    names = {path.name for path in classical.iterdir()}
    between = {"encoded.parquet", "encode.json"}  # for the process that decodes
    shown = {"rate_maps.zip"}  # for the report
    assert {path.name for path in learned.iterdir()} == names | between | shown
    for folder in (learned, classical):
        assert list(coded_rows(CodedImages(folders=[str(folder)]))) == list(COLUMNS)
        job = evaluate_job(tmp_path / folder.name, scenes, [str(folder)])
        evaluate_curve([job])
        assert len(read_records(Path(job.output) / "records.parquet")) == 4


def test_rate_maps_are_of_the_estimated_bits(encode_jobs: list[EncodeJob]) -> None:
    code(encode_jobs)
    folder, first = Path(encode_jobs[0].output), times(encode_jobs)
    data = (folder / "rate_maps.zip").read_bytes()
    archive = Archives(folder / "rate_maps.zip")
    for row in read_rows(folder / "encoded.parquet"):
        stored = latents_from_bytes(archive.read(f"{row['image_id']}.npz"))
        bits = stored["bits"].astype(float)
        assert bits.sum() == pytest.approx(row["bits_estimated"], rel=1e-3)
        assert bits.size * int(stored["stride"]) ** 2 == row["pixels_coded"]
    (folder / "rate_maps.zip").unlink()  # as of an older run: nothing is coded again for it
    code(encode_jobs)
    assert times(encode_jobs) == first
    shutil.rmtree(folder)
    code(encode_jobs)
    assert (folder / "rate_maps.zip").read_bytes() == data


def test_another_latent_than_the_encoders_is_counted(encode_jobs: list[EncodeJob]) -> None:
    encode_curve(encode_jobs[:1])
    folder = Path(encode_jobs[0].output)
    rows = read_rows(folder / "encoded.parquet")
    rows[1]["latent"] = "of another image"
    write_rows(folder / "encoded.parquet", rows)
    decode_curve(encode_jobs[:1])
    assert [row["roundtrip_ok"] for row in read_rows(folder / "decoded.parquet")] == [
        True, False, True, True
    ]  # fmt: skip


def test_perceptual_metrics_are_columns_where_they_are_asked_for(
    encode_jobs: list[EncodeJob],
    scenes: DatasetSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Distance:
        def __init__(self, metrics: tuple[str, ...]) -> None:
            self.metrics = metrics

        def __call__(self, original: np.ndarray, decoded: np.ndarray) -> dict[str, float]:
            return dict.fromkeys(self.metrics, float(np.abs(original - 1.0 * decoded).mean()))

    monkeypatch.setattr("icmbench.networks.perceptual.open_perceptual", Distance)
    code(encode_jobs)
    plain = evaluate_job(tmp_path, scenes, [encode_jobs[0].output])
    evaluate_curve([plain])
    state = Path(plain.output) / "evaluate.json"
    first = read_json(state)["fingerprint"]
    assert not {"lpips", "dists"} & set(read_records(Path(plain.output) / "records.parquet"))
    asked = plain.model_copy(update={"perceptual": ["lpips"]})
    with pytest.raises(UserError, match=r"decoded\.parquet: column 'lpips'"):
        evaluate_curve([asked])
    before = times(encode_jobs)
    code([own.model_copy(update={"quality": [*own.quality, "lpips"]}) for own in encode_jobs])
    for own, now in zip(before, times(encode_jobs), strict=True):  # decoded again, not encoded
        assert own[::2] == now[::2] and own[1::2] != now[1::2]
    evaluate_curve([asked])
    assert read_json(state)["fingerprint"] != first
    records = read_records(Path(plain.output) / "records.parquet")
    assert (records["lpips"] > 0).all() and "dists" not in records
    values = evaluate_folder(Path(plain.output), resamples=2, seed=0).values
    assert values["lpips"] == pytest.approx(records["lpips"].mean())
    original = evaluate_job(tmp_path / "original", scenes, None)
    evaluate_curve([original.model_copy(update={"perceptual": ["lpips"]})])
    assert read_records(Path(original.output) / "records.parquet")["lpips"].isna().all()


def test_points_that_read_features_have_no_image_quality(
    encode_jobs: list[EncodeJob], scenes: DatasetSpec, tmp_path: Path
) -> None:
    code(encode_jobs[:1])
    job = evaluate_job(tmp_path, scenes, [encode_jobs[0].output])
    evaluate_curve([job.model_copy(update={"decoder": encode_jobs[0].codec})])
    records = read_records(Path(job.output) / "records.parquet")
    assert records["psnr"].isna().all() and (records["bits"] > 0).all()


def test_quality_that_was_not_measured_is_an_error(
    classical_job: ClassicalJob, scenes: DatasetSpec, tmp_path: Path
) -> None:
    """As in a folder that an older version left."""
    code_share(classical_job.model_copy(update={"quality": []}))
    with pytest.raises(UserError, match=r"decoded\.parquet: column 'psnr'"):
        evaluate_curve([evaluate_job(tmp_path, scenes, [classical_job.output])])


def test_original_images_take_24_bits_a_pixel(scenes: DatasetSpec, tmp_path: Path) -> None:
    job = evaluate_job(tmp_path, scenes, None)
    evaluate_curve([job])
    records = read_records(Path(job.output) / "records.parquet")
    assert (records["bits"] == 24 * 128 * 128).all()
    assert records["psnr"].isna().all()


def test_finished_points_are_skipped(encode_jobs: list[EncodeJob]) -> None:
    manifests, first = code(encode_jobs), times(encode_jobs)
    assert code(encode_jobs) == manifests
    assert times(encode_jobs) == first
    shutil.rmtree(encode_jobs[0].output)  # to redo a point
    assert code(encode_jobs) == manifests
    again = times(encode_jobs)
    assert again[0] != first[0] and again[1] == first[1]
    (Path(encode_jobs[1].output) / "decode.json").unlink()  # as if killed before the last file
    code(encode_jobs)
    assert times(encode_jobs)[1] != first[1]


def test_other_weights_are_encoded_again(encode_jobs: list[EncodeJob]) -> None:
    manifests, first = code(encode_jobs), times(encode_jobs)
    save_random_weights(encode_jobs[0], seed=7)
    changed = code(encode_jobs)
    again = times(encode_jobs)
    assert again[0] != first[0] and again[1] == first[1]
    assert changed != manifests
    save_random_weights(encode_jobs[0], seed=7)  # written again, unchanged
    assert code(encode_jobs) == changed
    assert times(encode_jobs) == again


def test_evaluation_is_repeated_if_its_images_change(
    encode_jobs: list[EncodeJob], scenes: DatasetSpec, tmp_path: Path
) -> None:
    job = evaluate_job(tmp_path, scenes, [encode_jobs[0].output])
    state = Path(job.output) / "evaluate.json"

    def evaluate() -> float:
        code(encode_jobs)
        evaluate_curve([job])
        return state.stat().st_mtime_ns

    first = evaluate()
    assert evaluate() == first
    save_random_weights(encode_jobs[0], seed=7)
    assert evaluate() != first


def test_what_was_not_coded_yet_is_an_error(encode_jobs: list[EncodeJob]) -> None:
    with pytest.raises(UserError, match=r"encode\.json"):
        decode_curve(encode_jobs)
    encode_curve(encode_jobs)
    with pytest.raises(UserError, match=r"decode\.json"):
        coded_fingerprint(CodedImages(folders=[encode_jobs[0].output]))
    assert coded_fingerprint(None) is None


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def inside(path: Path, member: int = 0) -> int:
    """Return the position of a byte in a member of an archive."""
    with zipfile.ZipFile(path) as archive:
        info = archive.infolist()[member]
        return info.header_offset + 30 + len(info.filename) + info.file_size // 2


def cut(path: Path, position: int) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("bitstreams.zip", flip),
        ("bitstreams.zip", cut),
        ("encoded.parquet", cut),
        ("decoded.zip", flip),
        ("decoded.parquet", cut),
        ("decode.json", cut),
    ],
)
def test_damaged_file_is_named(
    encode_jobs: list[EncodeJob],
    scenes: DatasetSpec,
    tmp_path: Path,
    name: str,
    damage: Callable[[Path, int], None],
) -> None:
    code(encode_jobs[:1])
    folder = Path(encode_jobs[0].output)
    path = folder / name
    damage(path, inside(path) if path.suffix == ".zip" and damage is flip else 0)
    with pytest.raises(UserError, match=path.name.replace(".", r"\.")):
        if name in ("bitstreams.zip", "encoded.parquet"):
            (folder / "decode.json").unlink()
            decode_curve(encode_jobs[:1])
        elif name == "decoded.zip":  # as a task reads it
            Split(scenes, "test", [path]).image(0)
        else:
            evaluate_curve([evaluate_job(tmp_path, scenes, [str(folder)])])
