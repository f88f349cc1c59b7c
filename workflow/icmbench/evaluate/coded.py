"""The coded images of a split: the same files and tables, whichever codec made them.

A folder holds all images, or a share of them if several jobs divide the work:

    bitstreams.zip     <image id>.bin, whose length is the rate
    decoded.zip        <image id>.png, if tasks read images
    latents.zip        <image id>.npz, if tasks read features
    decoded.parquet    one row per image with ``COLUMNS``, and the quality of images to evaluate
    decode.json        fingerprint of the content, size and operations of the codec

The encoder of a learned codec also leaves ``encoded.parquet`` and ``encode.json``, for the process
that decodes, and, for the report,

    rate_maps.zip      <image id>.npz: ``bits`` that are estimated for each position of the latent,
                       float16 [h, w], and ``stride``, the width of a position in pixels

which has no members where the codec does not state rate maps. Zip members and Parquet pages have
checksums, which their readers verify.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from icmbench.codecs.base import Latents
from icmbench.errors import UserError, damaged_file
from icmbench.jobs import CodedImages
from icmbench.metrics.catalogue import PIXEL_METRICS
from icmbench.metrics.image_quality import quality
from icmbench.summaries import CodingSummary
from icmbench.utils.files import atomic_path, digest_json, reading
from icmbench.utils.images import RgbImage
from icmbench.utils.models import read_model

if TYPE_CHECKING:
    import pandas as pd

BITSTREAMS, DECODED, LATENTS = "bitstreams.zip", "decoded.zip", "latents.zip"
RATE_MAPS = "rate_maps.zip"
ENCODED_ROWS, DECODED_ROWS = "encoded.parquet", "decoded.parquet"
STATE = "decode.json"

#: Columns of decoded.parquet beside those of the job's ``quality``, described in
#: ``records.COLUMNS``.
COLUMNS = (
    "image_id",
    "pixels",
    "pixels_coded",
    "bits",
    "bits_estimated",
    "encode_s",
    "decode_s",
    "reconstruct_s",
    "roundtrip_ok",
    "implementation",
)

_DATE = (2021, 1, 1, 0, 0, 0)  # equal content gives equal archives


class EncodedRow(TypedDict):
    """A row of encoded.parquet; ``latent`` is the digest of the decoded latent, if any."""

    image_id: str
    pixels: int
    pixels_coded: int
    bits: int
    bits_estimated: float
    encode_s: float
    latent: str
    implementation: str


def quality_meter(metrics: Sequence[str]) -> Callable[[RgbImage, RgbImage], dict[str, float]]:
    """Return a function from an original and a decoded image to their metrics by name.

    Raises:
        UserError: if the network of a perceptual metric cannot be had.
    """
    pixels = [name for name in metrics if name in PIXEL_METRICS]
    distances = tuple(name for name in metrics if name not in PIXEL_METRICS)
    if not distances:
        return lambda original, decoded: quality(original, decoded, pixels)
    from icmbench.networks.perceptual import open_perceptual

    perceptual = open_perceptual(distances)
    return lambda original, decoded: {
        **quality(original, decoded, pixels),
        **perceptual(original, decoded),
    }


# --- archives -------------------------------------------------------------------------------------


@contextmanager
def new_archive(path: Path) -> Iterator[Callable[[str, bytes], None]]:
    """Yield a function that adds a member; the archive appears when the block succeeds.

    Members are not compressed: bitstreams, PNG and NPZ files are.
    """
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        yield lambda name, data: archive.writestr(zipfile.ZipInfo(name, _DATE), data)


class Archives:
    """Reads members of one or several zip archives by name.

    Raises:
        FileNotFoundError: if an archive is missing.
        DamagedFile: naming the archive or member that is damaged.
    """

    def __init__(self, *paths: Path) -> None:
        self._places: dict[str, zipfile.ZipFile] = {}
        self._first = paths[0]
        for path in paths:
            with reading(path):
                archive = zipfile.ZipFile(path)
                self._places.update(dict.fromkeys(archive.namelist(), archive))

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def read(self, name: str) -> bytes:
        """Return a member, verified against its checksum."""
        archive = self._places.get(name)
        if archive is None:
            raise damaged_file(self._first, f"has no member {name!r}")
        with reading(f"{archive.filename}: {name}"):
            return archive.read(name)


def latents_to_bytes(latents: Latents) -> bytes:
    """Return latents as the bytes of an ``.npz`` file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **latents)
    return buffer.getvalue()


def latents_from_bytes(data: bytes) -> Latents:
    """Return the latents that :func:`latents_to_bytes` wrote.

    Raises:
        Exception: of any kind if the data are damaged.
    """
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        return dict(stored)


# --- tables ---------------------------------------------------------------------------------------


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as Parquet with page checksums, atomically."""
    import pyarrow as pa  # not pandas, whose import takes a classical codec's job half a second
    import pyarrow.parquet as pq

    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary, write_page_checksum=True)


def read_rows(path: Path) -> Any:
    """Return the rows that :func:`write_rows` wrote, a list of dictionaries.

    Raises:
        FileNotFoundError: if it is not there.
        DamagedFile: if its pages do not match their checksums.
    """
    import pyarrow.parquet as pq

    with reading(path):
        return pq.read_table(path, page_checksum_verification=True).to_pylist()


# --- what an evaluation or a training run reads ---------------------------------------------------


def coded_rows(coded: CodedImages, metrics: Sequence[str] = ()) -> pd.DataFrame:
    """Return a table with one row per image and the columns ``COLUMNS`` and ``metrics``.

    Raises:
        UserError: if a metric was not measured when the images were decoded.
    """
    import pandas as pd

    rows = []
    for folder in coded.folders:
        path = Path(folder) / DECODED_ROWS
        own = read_rows(path)
        missing = [name for name in metrics if own and name not in own[0]]
        if missing:
            raise UserError(
                f"{path}: column {missing[0]!r} is missing, as in results of older versions; run "
                "`python -m icmbench plan`, then the job that decodes these images again"
            )
        rows += own
    return pd.DataFrame(rows, columns=[*COLUMNS, *metrics])


def decoded_archives(coded: CodedImages | None) -> list[Path]:
    """Return the archives that share the decoded images; none for original images."""
    return [] if coded is None else [Path(folder) / DECODED for folder in coded.folders]


def open_archives(folder: Path, name: str) -> Archives | None:
    """Return an encoding's archives ``name``, of a member the newest; None if there are none."""
    paths = sorted(folder.rglob(name), key=lambda path: path.stat().st_mtime)
    return Archives(*paths) if paths else None


def coded_state(folder: Path | str) -> CodingSummary:
    """Return the content of a folder's ``decode.json``.

    Raises:
        UserError: if it is missing or damaged.
    """
    return read_model(Path(folder) / STATE, CodingSummary, "run the job that codes these images")


def coded_fingerprint(coded: CodedImages | None) -> str | None:
    """Return a digest that changes when bitstreams or decoded images do; None for originals.

    Raises:
        UserError: if an image is not coded yet.
    """
    if coded is None:
        return None
    prints = [coded_state(folder).fingerprint for folder in coded.folders]
    return prints[0] if len(prints) == 1 else digest_json(prints)
