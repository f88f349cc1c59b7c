"""A codec that is two commands in config.yaml: any program that codes and decodes files."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from icmbench.codecs.base import Encoded, RgbImage
from icmbench.codecs.bitstream import pack, unpack_image
from icmbench.codecs.classical.base import (
    ClassicalCodec,
    Implementation,
    crop,
    damaged,
    pad,
    stored_png,
)
from icmbench.codecs.classical.colour import from_planes, join_planes, split_planes, to_planes
from icmbench.codecs.classical.command_entry import CommandParameters, fill
from icmbench.codecs.classical.run import (
    CHECK_PROGRAM,
    asked_version,
    last_message,
    read_output,
    run_program,
    workspace,
)
from icmbench.errors import UserError
from icmbench.utils.programs import Program

_CHROMA = {"yuv444": "4:4:4", "yuv420": "4:2:0"}
# Bit depth and colour type of a PNG file are these bytes; the types are grey, RGB and palette.
_PNG_DEPTH, _PNG_COLOUR, _PNG_OPAQUE = 24, 25, (0, 2, 3)
_PPM = re.compile(rb"P[56](?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+(\d+)\s")
_DAMAGED = "if this command works by hand, the bitstream is damaged: code the image again"


class CommandCodec(ClassicalCodec):
    """A codec from the command line at one rate setting; the rate is the size of its file.

    Raw planes have no size of their own. The image's size is then stored before the file, as in
    :mod:`icmbench.codecs.bitstream`. It counts as bits if the decoder's command asks for it: other
    decoders know it from the file, except that one byte counts where 4:2:0 needed padding.

    Args:
        parameters: the codec's settings.
        rate: value of its rate parameter.
        programs: by the keys of its commands in config.yaml, ``command_codecs.<name>.encode`` ...
    """

    external = True
    parameters: CommandParameters

    def __init__(
        self,
        parameters: CommandParameters,
        rate: float | None = None,
        programs: Mapping[str, Program] | None = None,
    ) -> None:
        found = dict(programs or {})
        self.title = next((key.split(".")[1] for key in found), "command")
        self.rate_name = parameters.rate
        by_part = {key.rpartition(".")[2]: program for key, program in found.items()}
        super().__init__(parameters, rate, by_part)
        self._chroma = _CHROMA.get(parameters.format)
        self._asks_size = "{width}" in parameters.decode or "{height}" in parameters.decode
        self._stores_size = self._asks_size or self._chroma is not None

    def check_rate(self, rate: float | None) -> float:
        """Return the rate, a whole number as such."""
        low, high = self.parameters.rate_range or (-math.inf, math.inf)
        if rate is None or not math.isfinite(rate) or not low <= rate <= high:
            raise UserError(
                f"{self.title} {self.rate_name} {rate!r}: must be a number from {low:g} to {high:g}"
            )
        return int(rate) if rate == int(rate) else float(rate)

    def describe(self) -> Implementation:
        """Return the version that the encoder prints, both commands, and their checksums.

        Raises:
            UserError: where the command for the version prints nothing.
        """
        own = self.parameters
        version = "of unstated version"
        if "version" in self.programs:
            version = asked_version(
                self.programs["version"].command, f"command_codecs.{self.title}.version"
            )
        return Implementation(
            self.title,
            version,
            {
                own.rate: self.rate,
                "encode": own.encode,
                "decode": own.decode,
                "format": own.format,
                "bit_depth": own.bit_depth,
                "extension": own.extension,
            },
            {f"{part}r": d for part, d in self.program_digests().items() if part != "version"},
        )

    def encode(self, image: RgbImage) -> Encoded:
        """Code a uint8 RGB image [H, W, 3]; the rate is the size of the file."""
        coded = pad(image, 2) if self._chroma == "4:2:0" else image
        height, width = coded.shape[:2]
        with workspace() as folder:
            source, target = self._image_file(folder, "in"), self._coded_file(folder, "out")
            source.write_bytes(self._written(coded))
            data = self._run("encode", source, target, width, height)
        pixels = height * width
        if not self._stores_size:
            return Encoded(data, None, pixels)
        stored = pack(image.shape[1], image.shape[0], [data])
        if self._asks_size:
            return Encoded(stored, None, pixels)
        counted = 8 * (len(data) + (coded.shape != image.shape))
        return Encoded(stored, None, pixels, bits_counted=counted)

    def decode(self, data: bytes) -> RgbImage:
        """Return the uint8 RGB image [H, W, 3] of a file, cropped to the original size."""
        multiple = 2 if self._chroma == "4:2:0" else 1
        width = height = 0
        if self._stores_size:
            width, height, (data,) = unpack_image(data, 1, multiple)
        rows, columns = (side + -side % multiple for side in (height, width))
        with workspace() as folder:
            source, target = self._coded_file(folder, "in"), self._image_file(folder, "out")
            source.write_bytes(data)
            size = None if self._chroma is None else self._raw_size(rows, columns)
            written = self._run("decode", source, target, columns, rows, size)
        if self._chroma is None:
            return self._read(written)
        depth = self.parameters.bit_depth
        planes = split_planes(written, rows, columns, self._chroma, depth)
        if depth % 8 and max(int(plane.max()) for plane in planes) >> depth:
            raise UserError(
                f"{self.title} decoder: wrote samples of more than {depth} bits; set "
                f"'command_codecs.{self.title}.bit_depth', or change the command"
            )
        return crop(from_planes(planes, depth), rows - height, columns - width)

    def _image_file(self, folder: Path, name: str) -> Path:
        suffix = self.parameters.format if self._chroma is None else "yuv"
        return folder / f"{name}.{suffix}"

    def _coded_file(self, folder: Path, name: str) -> Path:
        return folder / f"{name}.{self.parameters.extension}"

    def _run(
        self,
        part: str,
        source: Path,
        target: Path,
        width: int,
        height: int,
        size: int | None = None,
    ) -> bytes:
        """Run a command in the folder of its files; return the file that it writes."""
        what, advice = f"{self.title} encoder, {self.rate_name} {self.rate:g}", CHECK_PROGRAM
        if part == "decode":
            what, advice = f"{self.title} decoder", _DAMAGED
        values = {
            "input": str(source),
            "output": str(target),
            "rate": str(self.rate),
            "width": str(width),
            "height": str(height),
            "folder": str(source.parent),
        }
        printed = run_program(
            [fill(word, values) for word in self.programs[part].command],
            what=what,
            time_limit_s=self.parameters.time_limit_s,
            cwd=source.parent,
            advice=advice,
            one_core=True,
        )
        message = last_message(printed) or "nothing"
        key = f"check key 'command_codecs.{self.title}.{part}'; the command printed: {message}"
        return read_output(target, what, size, key)

    def _written(self, image: RgbImage) -> bytes:
        if self._chroma is not None:
            return join_planes(to_planes(image, self._chroma, self.parameters.bit_depth))
        if self.parameters.format == "png":
            return stored_png(image)
        height, width = image.shape[:2]
        return b"P6\n%d %d\n255\n" % (width, height) + image.tobytes()

    def _raw_size(self, height: int, width: int) -> int:
        samples = height * width * 3 if self._chroma == "4:4:4" else height * width * 3 // 2
        return samples * (1 if self.parameters.bit_depth <= 8 else 2)

    def _read(self, data: bytes) -> RgbImage:
        """Return the image of a PNG or PPM file of 8-bit grey or RGB."""
        form = self.parameters.format.upper()
        if form == "PNG":
            depth = data[_PNG_DEPTH] if len(data) > _PNG_COLOUR else 8
            plain = depth <= 8 and (len(data) <= _PNG_COLOUR or data[_PNG_COLOUR] in _PNG_OPAQUE)
        else:
            header = _PPM.match(data)
            plain = header is None or int(header[1]) == 255
        if not plain:
            raise UserError(
                f"{self.title} decoder: wrote a {form} file that is not of 8-bit RGB; "
                f"change 'command_codecs.{self.title}.decode'"
            )
        try:
            with Image.open(io.BytesIO(data), formats=[form]) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise damaged(
                f"{self.title} decoder", f"wrote no complete {form} file ({error})"
            ) from None
