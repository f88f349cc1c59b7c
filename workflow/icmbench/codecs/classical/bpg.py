"""BPG (HEVC intra) by Fabrice Bellard's programs bpgenc and bpgdec."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from icmbench.codecs.base import Encoded, RgbImage
from icmbench.codecs.classical.base import (
    ClassicalCodec,
    Implementation,
    add_padding_header,
    block_pixels,
    crop,
    damaged,
    pad,
    split_padding_header,
    stored_png,
)
from icmbench.codecs.classical.entries import BpgParameters
from icmbench.codecs.classical.run import program_version, read_output, run_program, workspace
from icmbench.errors import UserError

# x265 inside bpgenc crashes on narrower images; the second applies to 4:2:0 in more than 8 bits.
_NARROWEST = (25, 57)
# x265's ipratio of 1.4 puts intra images this far below the nominal QP.
_X265_QP_OFFSET = -3
# The decoder reads them only if the coded samples end too early.
_BEYOND_END = b"\xa5" * 16
_DAMAGED = "the bitstream may be damaged: code the image again"


class Bpg(ClassicalCodec):
    """BPG at one quantisation parameter; the rate is the size of the file.

    BPG has neither a checksum nor its own length, so a changed file is noticed only if the syntax
    breaks. A missing end is found by decoding a second time with appended bytes.
    """

    title = "bpg"
    rate_range = (0, 51)
    external = True
    parameters: BpgParameters

    def describe(self) -> Implementation:
        """Return bpgenc's version and every option."""
        chosen = self.parameters
        return Implementation(
            "bpgenc",
            program_version(self.programs["bpgenc"].command),
            {
                "qp": self.rate,
                "chroma": chosen.chroma,
                "encoder": chosen.encoder,
                "colour_space": chosen.colour_space,
                "bit_depth": chosen.bit_depth,
                "level": chosen.level,
            },
            self.program_digests(),
            intra_qp=self.rate + (_X265_QP_OFFSET if chosen.encoder == "x265" else 0),
        )

    def encode(self, image: RgbImage) -> Encoded:
        """Code a uint8 RGB image [H, W, 3]; the rate is the size of the file."""
        chosen, what = self.parameters, f"bpgenc, qp {self.rate}"
        narrowest = _NARROWEST[chosen.chroma == "4:2:0" and chosen.bit_depth > 8]
        coded = pad(image, 1, narrowest) if image.shape[1] < narrowest else image
        with workspace() as folder:
            source, target = folder / "in.png", folder / "out.bpg"
            source.write_bytes(stored_png(coded))
            options = {
                "-o": target,
                "-q": self.rate,
                "-f": chosen.chroma.replace(":", ""),
                "-e": chosen.encoder,
                "-c": chosen.colour_space,
                "-b": chosen.bit_depth,
                "-m": chosen.level,
            }
            words = [str(word) for option in options.items() for word in option]
            run_program(
                [*self.programs["bpgenc"].command, *words, str(source)],
                what=what,
                time_limit_s=chosen.time_limit_s,
                cwd=folder,
                one_core=True,
            )
            data = read_output(target, what)
        return Encoded(
            add_padding_header(data, image.shape, coded.shape), None, block_pixels(coded.shape)
        )

    def decode(self, data: bytes) -> RgbImage:
        """Return the uint8 RGB image [H, W, 3] of a BPG file."""
        stream, bottom, right = split_padding_header(data)
        with workspace() as folder:
            decoded = self._decode(folder, stream)
            if self._decode(folder, stream + _BEYOND_END) != decoded:
                raise damaged("BPG", "its end is missing")
        try:
            with Image.open(io.BytesIO(decoded), formats=["PPM"]) as image:
                return crop(np.asarray(image), bottom, right)
        except (OSError, ValueError) as error:
            raise UserError(f"bpgdec: wrote an incomplete image ({error}); {_DAMAGED}") from None

    def _decode(self, folder: Path, stream: bytes) -> bytes:
        """Return the PPM file of a BPG file; as PNG the same samples take five times as long."""
        source, target = folder / "in.bpg", folder / "out.ppm"
        source.write_bytes(stream)
        target.unlink(missing_ok=True)
        run_program(
            [*self.programs["bpgdec"].command, "-o", str(target), str(source)],
            what="bpgdec",
            time_limit_s=self.parameters.time_limit_s,
            cwd=folder,
            advice=_DAMAGED,
        )
        return read_output(target, "bpgdec")
