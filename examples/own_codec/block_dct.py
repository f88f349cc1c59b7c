"""A small classical codec: 8 x 8 DCT, uniform quantisation, DEFLATE.

A bitstream contains all that the decoder needs: width, height, the two steps and the compressed
coefficients.
"""

import zlib

import numpy as np
import scipy
from PIL import Image
from scipy.fft import dctn, idctn

from icmbench.codecs.base import Encoded
from icmbench.codecs.bitstream import pack, unpack
from icmbench.codecs.classical.base import Implementation, InProcessCodec
from icmbench.errors import UserError

SIDE = 8
# Coefficients by frequency, as in JPEG's zigzag: runs of zeros suit DEFLATE.
ORDER = np.argsort(np.add.outer(np.arange(SIDE), np.arange(SIDE)), axis=None, kind="stable")


class BlockDct(InProcessCodec):
    """The codec at one quantisation step of luma; pixels are in [0, 255]."""

    title = "block-dct"
    rate_name = "step"
    rate_range = (1, 255)

    @property
    def steps(self):
        """The steps of luma and chroma, two bytes."""
        return bytes([self.rate, min(255, max(1, round(self.rate * self.parameters.chroma)))])

    def describe(self):
        """Return every setting that changes a bit, since the cache is keyed by this."""
        settings = {"steps": list(self.steps), "zlib": zlib.ZLIB_RUNTIME_VERSION}
        return Implementation("block-dct 1, SciPy", scipy.__version__, settings)

    def compress(self, image):
        """Code a uint8 RGB image [H, W, 3] of any size."""
        height, width = image.shape[:2]
        ycbcr = np.asarray(Image.fromarray(image).convert("YCbCr"), np.float64)
        ycbcr = np.pad(ycbcr, [(0, -height % SIDE), (0, -width % SIDE), (0, 0)], mode="edge")
        rows, columns = ycbcr.shape[0] // SIDE, ycbcr.shape[1] // SIDE
        blocks = ycbcr.reshape(rows, SIDE, columns, SIDE, 3).transpose(4, 0, 2, 1, 3) - 128
        levels = np.rint(dctn(blocks, axes=(-2, -1), norm="ortho") / planewise(self.steps))
        # One frequency after the other over all blocks of a plane.
        ordered = levels.reshape(3, rows * columns, -1)[:, :, ORDER].transpose(0, 2, 1)
        payload = zlib.compress(ordered.astype("<i2").tobytes(), 9)
        data = pack(width, height, [self.steps + payload])
        return Encoded(data, None, SIDE * SIDE * rows * columns)

    def decode(self, data):
        """Return the image of a bitstream; this runs in another process."""
        width, height, (body,) = unpack(data, 1)
        rows, columns = -(-height // SIDE), -(-width // SIDE)
        try:
            levels = np.frombuffer(zlib.decompress(body[2:]), "<i2").astype(np.float64)
            ordered = levels.reshape(3, SIDE * SIDE, rows * columns).transpose(0, 2, 1)
        except (zlib.error, ValueError) as error:
            raise UserError(f"block-dct: damaged bitstream ({error})") from error
        blocks = ordered[:, :, np.argsort(ORDER)].reshape(3, rows, columns, SIDE, SIDE)
        planes = idctn(blocks * planewise(body[:2]), axes=(-2, -1), norm="ortho") + 128
        ycbcr = planes.transpose(1, 3, 2, 4, 0).reshape(rows * SIDE, columns * SIDE, 3)
        samples = np.clip(np.rint(ycbcr), 0, 255).astype(np.uint8)[:height, :width]
        return np.asarray(Image.fromarray(samples, "YCbCr").convert("RGB"))


def planewise(steps):
    """Return the steps of Y, Cb and Cr, in the shape for blocks [3, rows, columns, 8, 8]."""
    luma, chroma = steps
    return np.array([luma, chroma, chroma], np.float64).reshape(3, 1, 1, 1, 1)
