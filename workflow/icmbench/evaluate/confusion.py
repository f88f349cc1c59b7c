"""Statistics of semantic segmentation: a confusion matrix for each image."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from icmbench.errors import UserError
from icmbench.evaluate.statistics import Arrays, Floats, Statistics, register
from icmbench.metrics.segmentation import segmentation_metrics


@register("confusion")
class ConfusionStatistics(Statistics):
    """Metrics ``miou``, ``fwiou`` and ``pixel_accuracy`` of the summed matrices, in [0, 1].

    See :func:`icmbench.metrics.segmentation.segmentation_metrics`.
    """

    def __init__(self, image_ids: npt.ArrayLike, matrices: npt.ArrayLike) -> None:
        """Keep ``matrices``: (I, K, K) pixel counts, rows true, columns predicted."""
        self._image_ids = np.asarray(image_ids)
        self.matrices = np.asarray(matrices, dtype=np.int32)
        shape = self.matrices.shape
        if len(shape) != 3 or shape[1] != shape[2] or shape[0] != self._image_ids.size:
            raise UserError(
                f"confusion statistics: matrices of shape {shape} for {self._image_ids.size} "
                "images; give one square matrix for each"
            )

    @property
    def image_ids(self) -> npt.NDArray[Any]:
        """Ids of the images, (I,)."""
        return self._image_ids

    def metrics_resampled(self, weights: npt.NDArray[np.integer]) -> dict[str, Floats]:
        """Return the three metrics, (R,) each."""
        count, classes, _ = self.matrices.shape
        # float64 goes through BLAS and is exact: counts stay far below 2^53.
        flat = self.matrices.reshape(count, classes**2).astype(np.float64)
        summed = (weights.astype(np.float64) @ flat).reshape(-1, classes, classes)
        return segmentation_metrics(summed)

    def to_arrays(self) -> Arrays:
        """Return ids and matrices; most cells are zero, which the file's compression removes."""
        return {"image_ids": self._image_ids, "matrices": self.matrices}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> ConfusionStatistics:
        """Rebuild from :meth:`to_arrays`."""
        return cls(arrays["image_ids"], arrays["matrices"])
