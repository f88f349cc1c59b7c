"""``python -m icmbench rd``: the rate-distortion curve of a classical codec over a folder.

For a quick look without a study; its output is CompressAI's JSON. No bitstream is kept, and the
workflow does not use this verb.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from icmbench.codecs.base import RgbImage
from icmbench.codecs.classical.base import ClassicalCodec, Implementation
from icmbench.data.image_checks import check_images
from icmbench.data.images import list_images, read_image
from icmbench.errors import UserError
from icmbench.evaluate.classical import open_codec, timed_encode
from icmbench.jobs import ClassicalSpec
from icmbench.metrics.catalogue import find_metric
from icmbench.metrics.image_quality import quality
from icmbench.registry import CODECS
from icmbench.utils.files import reading
from icmbench.utils.logs import progress
from icmbench.utils.workers import worker_pool

logger = logging.getLogger(__name__)


class Curve(TypedDict):
    """CompressAI's JSON; ``results`` has a list over rates for each metric."""

    name: str
    description: str
    results: dict[str, list[float]]


def rate_distortion(
    settings: ClassicalSpec,
    folder: Path,
    rates: Sequence[float],
    metrics: Sequence[str] = ("psnr",),
    jobs: int = 1,
) -> Curve:
    """Code every image of a folder at every rate; return CompressAI's JSON value.

    Args:
        settings: a classical codec's ``codec`` section without its rate, see ``Plan.encodings``.
        folder: its images are read, without subfolders.
        rates: values of the classical codec's rate parameter.
        metrics: of psnr, psnr_ycbcr, ms_ssim.
        jobs: processes that share the images.

    Raises:
        UserError: naming the images that failed; there is no mean over the others.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a folder of PNG or JPEG files")
    images = list_images(folder)
    if not images:
        raise UserError(f"{folder}: no images in it; give a folder of PNG or JPEG files")
    for note in check_images(folder, [path.name for path in images]):
        logger.warning("%s: %s", folder, note)
    codecs = [open_codec(settings.model_copy(update={"rate": rate})) for rate in rates]
    work = [(settings, path, tuple(rates), tuple(metrics)) for path in images]
    if codecs[0].external:
        codecs[0].describe()  # a version that cannot be asked is reported before any work
        # An encoder may take minutes: distribute single rates.
        work = [(settings, path, (rate,), tuple(metrics)) for rate in rates for path in images]
    rows: list[dict[str, float]] = []
    failures: list[str] = []
    for done, failed in progress(_spread(work, jobs), settings.name, len(work)):
        rows += done
        failures += failed
    if failures:
        raise UserError("\n".join(failures))
    curve = _averaged(settings.name, codecs[0].describe(), rows, rates, metrics)
    _check_order(settings, curve)
    return curve


def _check_order(settings: ClassicalSpec, curve: Curve) -> None:
    """Warn if the rates of a curve, from low to high, contradict what is known of the codec."""
    lower = CODECS[settings.name].lower_rate if settings.name in CODECS else None
    rates = curve["results"]["rate"]
    ordered = sorted(rates, reverse=lower == "larger")
    if lower is not None and rates != ordered:
        found = ", ".join(f"{rate:g}" for rate in rates)
        logger.warning(
            "%s: from low to high rate the values are %s, but lower rates should have %s ones; "
            "check the codec and its settings",
            settings.name,
            found,
            lower,
        )


def _spread(work: list[Any], jobs: int) -> Iterable[tuple[list[dict[str, float]], list[str]]]:
    if jobs == 1:
        yield from map(_code, work)
        return
    # Workers that fork need no imports. No thread of this process holds a lock that they use.
    with worker_pool(jobs, "fork") as pool:
        yield from pool.map(_code, work)


def _code(
    item: tuple[ClassicalSpec, Path, tuple[float, ...], tuple[str, ...]],
) -> tuple[list[dict[str, float]], list[str]]:
    settings, path, rates, metrics = item
    from icmbench.plugins import load_modules

    load_modules(settings.modules)
    rows: list[dict[str, float]] = []
    failures: list[str] = []
    for rate in rates:
        image = None
        try:
            image = _read(path)
            codec = open_codec(settings.model_copy(update={"rate": rate}))
            rows.append(_row(codec, image, rate, metrics))
        except (UserError, OSError) as error:
            failures.append(f"{settings.name} {rate:g}: {path.name}: {error}")
            if image is None:  # it fails at every rate
                break
    return rows, failures


@lru_cache(maxsize=1)
def _read(path: Path) -> RgbImage:
    with reading(path, "replace it"):
        return read_image(path)


def _row(
    codec: ClassicalCodec, image: RgbImage, rate: float, metrics: tuple[str, ...]
) -> dict[str, float]:
    encoded, seconds = timed_encode(codec, image)
    start = time.perf_counter()
    decoded = codec.decode(encoded.data)
    end = time.perf_counter()
    height, width = image.shape[:2]
    return {
        "rate": rate,
        "bpp": encoded.bits / (height * width),
        "encoding_time": seconds,
        "decoding_time": end - start,
        **quality(image, decoded, metrics),
    }


def _averaged(
    codec: str,
    described: Implementation,
    rows: list[dict[str, float]],
    rates: Sequence[float],
    metrics: Sequence[str],
) -> Curve:
    by_rate = [[row for row in rows if row["rate"] == rate] for rate in rates]
    by_rate.sort(key=lambda own: float(np.mean([row["bpp"] for row in own])))
    names = {"bpp": "bpp", **{name: find_metric(name).json_key for name in metrics}}
    names |= {name: name for name in ("encoding_time", "decoding_time", "rate")}
    return {
        "name": codec,
        "description": f"{described.name} {described.version}, means over {len(by_rate[0])} images",
        "results": {
            shown: [float(np.mean([row[name] for row in own])) for own in by_rate]
            for name, shown in names.items()
        },
    }
