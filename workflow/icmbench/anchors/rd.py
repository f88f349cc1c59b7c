"""What ``python -m icmbench rd`` does: the rate-distortion curve of an anchor over a folder.

For a quick look without a study; its output is CompressAI's JSON. Nothing is kept, and no job of
the workflow runs through here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from icmbench.anchors.base import Anchor
from icmbench.anchors.coding import open_anchor, timed_encode
from icmbench.codecs.base import Picture
from icmbench.data.pictures import list_pictures, read_picture
from icmbench.errors import UserError
from icmbench.metrics.pixels import quality
from icmbench.workers import worker_pool

_KEYS = {"psnr": "psnr-rgb", "psnr_ycbcr": "psnr-ycbcr-611", "ms_ssim": "ms-ssim-rgb"}


def rate_distortion(
    settings: dict[str, Any],
    folder: Path,
    rates: Sequence[float],
    metrics: Sequence[str] = ("psnr",),
    jobs: int = 1,
) -> dict[str, Any]:
    """Code every picture of a folder at every rate; return CompressAI's JSON value.

    Args:
        settings: an anchor's ``codec`` section without its rate, see ``Plan.encodings``.
        folder: pictures directly inside it, by any of the suffixes we read.
        rates: values of the anchor's rate parameter.
        metrics: of psnr, psnr_ycbcr, ms_ssim.
        jobs: processes that share the pictures.

    Raises:
        UserError: naming the pictures that failed; nothing is averaged over the others.
    """
    pictures = list_pictures(folder)
    if not pictures:
        raise UserError(f"{folder}: no pictures in it; give a folder of PNG or JPEG files")
    external = open_anchor({**settings, "rate": rates[0]}).external
    work = [(settings, path, tuple(rates), tuple(metrics)) for path in pictures]
    if external:  # an encoder may take minutes: share out single rates, the slowest first
        work = [(settings, path, (rate,), tuple(metrics)) for rate in rates for path in pictures]
    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    start = time.monotonic()
    for number, (done, failed) in enumerate(_spread(work, jobs), start=1):
        rows += done
        failures += failed
        spent = time.monotonic() - start
        print(
            f"\r{settings['name']}: {number} of {len(work)}, about "
            f"{spent / number * (len(work) - number):.0f} s left ",
            end="" if number < len(work) else "\n",
            file=sys.stderr,
        )
    if failures:
        raise UserError("\n".join(failures))
    return _averaged(settings, rows, rates, metrics)


def _spread(work: list[Any], jobs: int) -> Iterable[tuple[list[dict[str, Any]], list[str]]]:
    if jobs == 1:
        yield from map(_code, work)
        return
    # This process has no other threads, so forking is safe, and spares each worker the imports.
    with worker_pool(jobs, "fork") as pool:
        yield from pool.map(_code, work)


def _code(
    item: tuple[dict[str, Any], Path, tuple[float, ...], tuple[str, ...]],
) -> tuple[list[dict[str, Any]], list[str]]:
    settings, path, rates, metrics = item
    from icmbench.registry import load_modules

    load_modules(settings["modules"])
    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    for rate in rates:
        try:
            picture = _read(path)
            anchor = open_anchor({**settings, "rate": rate})
            rows.append(_row(anchor, picture, rate, metrics))
        except (UserError, OSError) as error:
            failures.append(f"{settings['name']} {rate:g}: {path.name}: {error}")
    return rows, failures


@lru_cache(maxsize=1)
def _read(path: Path) -> Picture:
    return read_picture(path)


def _row(
    anchor: Anchor, picture: Picture, rate: float, metrics: tuple[str, ...]
) -> dict[str, float]:
    encoded, seconds = timed_encode(anchor, picture)
    start = time.perf_counter()
    decoded = anchor.decode(encoded.data)
    end = time.perf_counter()
    height, width = picture.shape[:2]
    return {
        "rate": rate,
        "bpp": 8 * len(encoded.data) / (height * width),
        "encoding_time": seconds,
        "decoding_time": end - start,
        **quality(picture, decoded, metrics),
    }


def _averaged(
    settings: dict[str, Any],
    rows: list[dict[str, Any]],
    rates: Sequence[float],
    metrics: Sequence[str],
) -> dict[str, Any]:
    by_rate = [[row for row in rows if row["rate"] == rate] for rate in rates]
    by_rate.sort(key=lambda own: float(np.mean([row["bpp"] for row in own])))
    names = {"bpp": "bpp", **{name: _KEYS[name] for name in metrics}}
    names |= {name: name for name in ("encoding_time", "decoding_time", "rate")}
    text = open_anchor({**settings, "rate": rates[0]}).describe()
    return {
        "name": settings["name"],
        "description": f"{text.name} {text.version}, means over {len(by_rate[0])} pictures",
        "results": {
            shown: [float(np.mean([row[name] for row in own])) for own in by_rate]
            for name, shown in names.items()
        },
    }
