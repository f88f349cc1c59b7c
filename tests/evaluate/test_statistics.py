from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from icmbench.errors import UserError
from icmbench.evaluate.statistics import (
    AgreementStatistics,
    AveragePrecisionStatistics,
    ConfusionStatistics,
    MeanStatistics,
    load_statistics,
    register,
    save_statistics,
)
from icmbench.metrics.average_precision import average_precision, match_detections
from icmbench.metrics.segmentation import confusion_matrix, segmentation_metrics


def test_mean_statistics_weigh_images(tmp_path: Path) -> None:
    path = tmp_path / "statistics-x.npz"
    save_statistics(path, MeanStatistics(["a", "b", "c"], {"psnr": [30, 32, 40], "s": [0, 1, 0]}))
    loaded = load_statistics(path)
    assert loaded.image_ids.tolist() == ["a", "b", "c"]
    assert loaded.metrics() == {"psnr": 34.0, "s": pytest.approx(1 / 3)}
    assert loaded.metrics(np.array([2, 1, 0])) == {
        "psnr": pytest.approx(92 / 3),
        "s": pytest.approx(1 / 3),
    }


def test_mean_statistics_count_an_infinite_value_only_if_drawn() -> None:
    statistics = MeanStatistics([1, 2, 3], {"psnr": [30.0, np.inf, 40.0]})
    weights = np.array([[1, 1, 1], [2, 0, 1], [0, 0, 0]])
    values = statistics.metrics_resampled(weights)["psnr"]
    assert values[0] == np.inf
    assert values[1] == pytest.approx(100 / 3)
    assert np.isnan(values[2])


def test_mean_statistics_do_not_depend_on_memory_order() -> None:
    # A statistics file's order of images selects columns, which leaves them in Fortran order, where
    # BLAS sums in another order; the last bit then decides ties between curves.
    rng = np.random.default_rng(0)
    weights = rng.multinomial(200, np.full(200, 1 / 200), size=300)[:, rng.permutation(200)]
    assert not weights.flags.c_contiguous
    finite = rng.random(200)
    lossless = np.append(finite[:199], np.inf)
    statistics = MeanStatistics(np.arange(200), {"a": finite, "b": lossless})
    sampled = statistics.metrics_resampled(weights)
    assert (sampled["a"] == (weights @ finite) / 200).all()
    sums = weights[:, :199] @ lossless[:199]
    assert (sampled["b"] == np.where(weights[:, 199] > 0, np.inf, sums) / 200).all()


def test_mean_statistics_need_every_value() -> None:
    with pytest.raises(UserError, match="'psnr': NaN for 1 of 2 images, first b"):
        MeanStatistics(["a", "b"], {"psnr": [30.0, np.nan]})
    with pytest.raises(UserError, match="'psnr': 1 values for 2 images"):
        MeanStatistics(["a", "b"], {"psnr": [30.0]})


@pytest.mark.parametrize(("iou_type", "prefix"), [("bbox", "box"), ("segm", "mask")])
def test_average_precision_statistics_round_trip(
    tmp_path: Path, iou_type: str, prefix: str
) -> None:
    square = [10.0, 10.0, 60.0, 10.0, 60.0, 60.0, 10.0, 60.0]
    coco = {
        "images": [{"id": i, "width": 100, "height": 100} for i in (3, 8)],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {
                "id": i,
                "image_id": i,
                "category_id": 1,
                "bbox": [10, 10, 50, 50],
                "segmentation": [square],
                "area": 2500,
                "iscrowd": 0,
            }
            for i in (3, 8)
        ],
    }
    detection = {"category_id": 1, "score": 0.9, "image_id": 3, "bbox": [10, 10, 50, 50]}
    if iou_type == "segm":
        from pycocotools import mask as coder

        pixels = np.zeros((100, 100), np.uint8, order="F")
        pixels[10:60, 10:60] = 1
        detection = {**detection, "segmentation": coder.encode(pixels)}
    matches = match_detections(coco, [detection], iou_type)  # type: ignore[arg-type]
    path = tmp_path / "statistics-box.npz"
    save_statistics(path, AveragePrecisionStatistics(matches))
    loaded = load_statistics(path)
    assert loaded.image_ids.tolist() == [3, 8]
    expected = average_precision(matches)
    assert loaded.metrics() == {f"{prefix}_{k}": expected[k] for k in ("map", "map50", "map75")}
    assert loaded.metrics()[f"{prefix}_map"] == pytest.approx(51 / 101)
    assert loaded.metrics(np.array([2, 0]))[f"{prefix}_map"] == pytest.approx(1.0)


def test_load_statistics_refuses_an_unknown_kind(tmp_path: Path) -> None:
    path = tmp_path / "statistics-x.npz"
    np.savez(path, kind=np.array("confusing"))
    with pytest.raises(UserError, match=r"statistics-x\.npz.*'confusing'.*average_precision"):
        load_statistics(path)
    with pytest.raises(ValueError, match="registered twice"):
        register("mean")(MeanStatistics)


def test_confusion_statistics_resample_as_if_images_were_repeated(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, (6, 20, 24))
    wrong = rng.random(truth.shape) < rng.random((6, 1, 1))
    predicted = np.where(wrong, rng.integers(0, 5, truth.shape), truth)
    matrices = np.stack([confusion_matrix(*pair, 5) for pair in zip(truth, predicted, strict=True)])
    statistics = ConfusionStatistics([f"face{i}" for i in range(6)], matrices)
    weights = rng.integers(0, 3, (4, 6))
    weights[3] = 0
    resampled = statistics.metrics_resampled(weights)
    for sample in range(3):
        chosen = np.repeat(np.arange(6), weights[sample])
        whole = confusion_matrix(truth[chosen], predicted[chosen], 5)
        for name, value in segmentation_metrics(whole).items():
            assert resampled[name][sample] == pytest.approx(value, rel=1e-12)
    assert all(np.isnan(values[3]) for values in resampled.values())
    save_statistics(tmp_path / "s.npz", statistics)
    again = load_statistics(tmp_path / "s.npz")
    assert again.image_ids.tolist() == [f"face{i}" for i in range(6)]
    assert again.metrics() == statistics.metrics()
    with pytest.raises(UserError, match=r"\(3, 4, 4\).*2 images"):
        ConfusionStatistics([1, 2], np.zeros((3, 4, 4)))


def test_agreement_keeps_the_numbers_and_changes_their_names(tmp_path: Path) -> None:
    own = ConfusionStatistics(["a", "b"], [[[3, 1], [0, 4]], [[2, 2], [2, 2]]])
    save_statistics(tmp_path / "statistics-x.npz", AgreementStatistics(own))
    loaded = load_statistics(tmp_path / "statistics-x.npz")
    assert loaded.image_ids.tolist() == ["a", "b"]
    weights = np.array([[1, 1], [2, 0]])
    expected = own.metrics_resampled(weights)
    found = loaded.metrics_resampled(weights)
    assert found.keys() == {f"agreement_{name}" for name in expected}
    for name, values in expected.items():
        assert found[f"agreement_{name}"].tolist() == values.tolist()
