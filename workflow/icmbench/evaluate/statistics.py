"""Per-image sufficient statistics, from which the metrics of a task can be resampled.

An evaluated operating point has one ``statistics-<group>.npz`` for each group of metrics. The file
names its ``kind``, a class that computes metrics from any number of copies of each image.
A new kind is a subclass of :class:`Statistics` with the :func:`register` decorator.

Image ids are integers or strings; ``str(id)`` is the ``image_id`` of the records of that point.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from icmbench.errors import UserError, unknown
from icmbench.metrics.average_precision import Matches, average_precision_resampled
from icmbench.metrics.catalogue import AGREEMENT
from icmbench.metrics.segmentation import segmentation_metrics
from icmbench.utils.files import atomic_path, reading

Arrays = dict[str, npt.NDArray[Any]]
Floats = npt.NDArray[np.float64]


class Statistics(ABC):
    """Statistics of I images, which give metrics for any weights of the images."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def image_ids(self) -> npt.NDArray[Any]:
        """Ids of the images, (I,), integers or strings."""

    @abstractmethod
    def metrics_resampled(self, weights: npt.NDArray[np.integer]) -> dict[str, Floats]:
        """Return each metric for R samples of the images, (R,), NaN where undefined.

        Args:
            weights: (R, I) non-negative integers, copies of each of ``image_ids``.
        """

    @abstractmethod
    def to_arrays(self) -> Arrays:
        """Return the content as named arrays, without Python objects."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Arrays) -> Statistics:
        """Rebuild from :meth:`to_arrays`."""

    def metrics(self, weights: npt.NDArray[np.integer] | None = None) -> dict[str, float]:
        """Return each metric for one sample, (I,) copies of each image; None: once each."""
        copies = np.ones(self.image_ids.size, np.int64) if weights is None else weights
        return {name: float(v[0]) for name, v in self.metrics_resampled(copies[None, :]).items()}


KINDS: dict[str, type[Statistics]] = {}

Kind = TypeVar("Kind", bound=type[Statistics])


def register(kind: str) -> Callable[[Kind], Kind]:
    """Class decorator: files of this ``kind`` are read by the decorated class."""

    def add(cls: Kind) -> Kind:
        if kind in KINDS:
            raise ValueError(f"statistics kind {kind!r} is registered twice")
        cls.kind = kind
        KINDS[kind] = cls
        return cls

    return add


def save_statistics(path: Path | str, statistics: Statistics) -> None:
    """Write an ``.npz`` file with the content and the kind, atomically."""
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, kind=np.array(statistics.kind), **statistics.to_arrays())


def load_statistics(path: Path | str) -> Statistics:
    """Read a file written by :func:`save_statistics`.

    Raises:
        UserError: if the file is damaged, or of a kind that is not registered.
    """
    advice = "delete it and evaluate the operating point again"
    with reading(path, advice), np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    kind = str(arrays.pop("kind", ""))
    if kind not in KINDS:
        raise UserError(f"{path}: {unknown('kind of statistics', kind, KINDS)}")
    with reading(path, advice):
        return KINDS[kind].from_arrays(arrays)


@register("mean")
class MeanStatistics(Statistics):
    """Named per-image values; each metric is their mean over images (inf if one is inf)."""

    def __init__(self, image_ids: npt.ArrayLike, values: Mapping[str, npt.ArrayLike]) -> None:
        """Keep ``values``: metric name to (I,) numbers, NaN not allowed."""
        self._image_ids = np.asarray(image_ids)
        self.values = {name: np.asarray(v, dtype=np.float64) for name, v in values.items()}
        for name, per_image in self.values.items():
            if per_image.shape != self._image_ids.shape:
                raise UserError(
                    f"statistics {name!r}: {per_image.size} values for "
                    f"{self._image_ids.size} images; give one for each"
                )
            missing = np.isnan(per_image)
            if missing.any():
                raise UserError(
                    f"statistics {name!r}: NaN for {missing.sum()} of {missing.size} images, first "
                    f"{self._image_ids[missing][0]!s}; a mean needs a value for every image"
                )

    @property
    def image_ids(self) -> npt.NDArray[Any]:
        """Ids of the images, (I,)."""
        return self._image_ids

    def metrics_resampled(self, weights: npt.NDArray[np.integer]) -> dict[str, Floats]:
        """Return the weighted mean of each value, (R,)."""
        # Once for all metrics, in C order: the order of summation decides the last bit, which
        # decides ties between curves.
        copies = weights.astype(np.float64, order="C")
        return {name: weighted_mean(values, copies) for name, values in self.values.items()}

    def to_arrays(self) -> Arrays:
        """Return ids, names (M,) and values (M, I)."""
        names = list(self.values)
        stacked = np.array([self.values[name] for name in names]).reshape(len(names), -1)
        return {"image_ids": self._image_ids, "names": np.array(names, np.str_), "values": stacked}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> MeanStatistics:
        """Rebuild from :meth:`to_arrays`."""
        names = [str(name) for name in arrays["names"]]
        return cls(arrays["image_ids"], dict(zip(names, arrays["values"], strict=True)))


def weighted_mean(values: Floats, weights: npt.NDArray[np.integer] | Floats) -> Floats:
    """Return the mean of ``values`` (I,) under each row of ``weights`` (R, I), shape (R,).

    An infinite value counts only in the rows that give it weight (0 times inf would be NaN).
    """
    finite = np.isfinite(values)
    if finite.all():
        sums = weights @ values
    else:
        sums = np.ascontiguousarray(weights[:, finite]) @ values[finite]
    for i in np.nonzero(~finite)[0]:
        sums[weights[:, i] > 0] += values[i]
    counts = weights.sum(axis=1)
    mean: Floats = np.divide(sums, counts, out=np.full(counts.shape, np.nan), where=counts > 0)
    return mean


@register("average_precision")
class AveragePrecisionStatistics(Statistics):
    """COCO average precision: ``box_map``, ``box_map50``, ``box_map75`` or ``mask_...``, [0, 1]."""

    PREFIX: ClassVar[dict[str, str]] = {"bbox": "box", "segm": "mask"}

    def __init__(self, matches: Matches) -> None:
        """Keep the matches of :func:`icmbench.metrics.average_precision.match_detections`."""
        self.matches = matches

    @property
    def image_ids(self) -> npt.NDArray[Any]:
        """Ids of the images, (I,)."""
        return self.matches.image_ids

    def metrics_resampled(self, weights: npt.NDArray[np.integer]) -> dict[str, Floats]:
        """Return the three average precisions, (R,) each."""
        prefix = self.PREFIX[self.matches.iou_type]
        values = average_precision_resampled(self.matches, weights)
        return {f"{prefix}_{name}": value for name, value in values.items()}

    def to_arrays(self) -> Arrays:
        """Return the arrays of the matches."""
        return self.matches.to_arrays()

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> AveragePrecisionStatistics:
        """Rebuild from :meth:`to_arrays`."""
        return cls(Matches.from_arrays(arrays))


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


@register("agreement")
class AgreementStatistics(Statistics):
    """Other statistics whose truth is the network's own answer on the original image.

    Metrics have ``agreement_`` before their names, since answers that agree may be wrong.
    """

    def __init__(self, own: Statistics) -> None:
        """Keep ``own``, statistics of any other kind."""
        self.own = own

    @property
    def image_ids(self) -> npt.NDArray[Any]:
        """Ids of the images, (I,)."""
        return self.own.image_ids

    def metrics_resampled(self, weights: npt.NDArray[np.integer]) -> dict[str, Floats]:
        """Return each metric of ``own``, (R,)."""
        values = self.own.metrics_resampled(weights)
        return {AGREEMENT + name: value for name, value in values.items()}

    def to_arrays(self) -> Arrays:
        """Return the arrays of ``own`` and its kind."""
        return {**self.own.to_arrays(), "own_kind": np.array(self.own.kind)}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> AgreementStatistics:
        """Rebuild from :meth:`to_arrays`."""
        content = dict(arrays)
        return cls(KINDS[str(content.pop("own_kind"))].from_arrays(content))
