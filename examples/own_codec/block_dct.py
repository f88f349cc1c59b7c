"""A small classical codec: 8 x 8 DCT, uniform quantisation, DEFLATE.

A bitstream holds width, height, the two steps and the compressed coefficients: all that the decoder
needs.
"""

import zlib

import numpy as np
import scipy
from PIL import Image
from scipy.fft import dctn, idctn

from icmbench.codecs.base import Encoded
from icmbench.codecs.bitstream import pack, unpack
from icmbench.codecs.classical.base import Implementation, InProcessCodec, whole_rate
from icmbench.errors import UserError

SIDE = 8
# Coefficients by frequency, as in JPEG's zigzag: zeros stand together, which DEFLATE likes.
ORDER = np.argsort(np.add.outer(np.arange(SIDE), np.arange(SIDE)), axis=None, kind="stable")


class BlockDct(InProcessCodec):
    """The codec at one quantisation step of luma, 1 to 255; pixels lie in [0, 255]."""

    def __init__(self, parameters, rate=None, programs=None):
        super().__init__(parameters, rate, programs)
        luma = whole_rate("block-dct", "step", rate, 1, 255)
        self.steps = bytes([luma, min(255, max(1, round(luma * parameters.chroma)))])

    def describe(self):
        """Name every setting that changes a bit: the cache is keyed by this."""
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
    """Return the steps of Y, Cb and Cr, to go with blocks [3, rows, columns, 8, 8]."""
    luma, chroma = steps
    return np.array([luma, chroma, chroma], np.float64).reshape(3, 1, 1, 1, 1)
