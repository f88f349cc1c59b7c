"""The container of a learned codec's bitstream, as small as a self-contained one can be.

Layout: width - 1 and height - 1 as variable-length integers; each string but the last, preceded by
its length; the last string. The shapes of the latents follow from the image's size.
"""

from __future__ import annotations

from icmbench.errors import UserError

# A larger size in a header is treated as damage, before any memory is allocated for it.
MOST_PIXELS = 1 << 26


def pack(width: int, height: int, strings: list[bytes]) -> bytes:
    """Return the container of ``strings`` for an image of ``width`` x ``height`` pixels.

    >>> pack(128, 128, [b"latent", b"side"]).hex(" ", 1)
    '7f 7f 06 6c 61 74 65 6e 74 73 69 64 65'
    """
    parts = [_put(width - 1), _put(height - 1)]
    for string in strings[:-1]:
        parts += [_put(len(string)), string]
    return b"".join([*parts, strings[-1]])


def unpack(data: bytes, count: int) -> tuple[int, int, list[bytes]]:
    """Return width, height and the ``count`` strings of a container.

    Raises:
        UserError: where the container is truncated.
    """
    width, position = _get(data, 0)
    height, position = _get(data, position)
    strings = []
    for _ in range(count - 1):
        length, position = _get(data, position)
        if position + length > len(data):
            raise UserError("bitstream ends inside a string; it is truncated or not ours")
        strings.append(data[position : position + length])
        position += length
    return width + 1, height + 1, [*strings, data[position:]]


def unpack_image(data: bytes, count: int, multiple: int) -> tuple[int, int, list[bytes]]:
    """Return the same, after checking that the padded image has at most ``MOST_PIXELS`` pixels.

    Args:
        data: the container.
        count: number of strings.
        multiple: image sides are padded to multiples of this.

    Raises:
        UserError: where the container is truncated, or the image is too large.
    """
    width, height, strings = unpack(data, count)
    if (width + -width % multiple) * (height + -height % multiple) > MOST_PIXELS:
        raise UserError(
            f"bitstream of an image of {width} x {height}: it is damaged, or larger than the "
            f"{MOST_PIXELS} pixels that are decoded"
        )
    return width, height, strings


def _put(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _get(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data):
            raise UserError("bitstream ends inside its header; it is truncated or not ours")
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 28:
            raise UserError("bitstream has an impossible number in its header; it is damaged")
