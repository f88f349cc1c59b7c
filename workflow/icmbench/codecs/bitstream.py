"""The container of a learned codec's bitstream: as small as it can be and still self-contained.

Layout: width - 1 and height - 1 as variable-length integers, then each string but the last with its
length before it, then the last string. The shapes of the latents follow from the image's size.
"""

from __future__ import annotations

from icmbench.errors import UserError

# A header that claims more is taken for damaged, before anything is allocated for it.
MOST_PIXELS = 1 << 26


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
            raise UserError("bitstream claims an impossible number in its header; it is damaged")


def pack(width: int, height: int, strings: list[bytes]) -> bytes:
    """Return the container of ``strings`` for an image of ``width`` x ``height`` pixels."""
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


def unpack_image(data: bytes, count: int, multiple: int) -> tuple[int, int, list[bytes], int]:
    """Return width, height, the strings of a container, and the padded pixels of its image.

    Args:
        data: the container.
        count: of strings.
        multiple: image sides are padded to this.

    Raises:
        UserError: where the container is truncated, or claims more than ``MOST_PIXELS``.
    """
    width, height, strings = unpack(data, count)
    pixels = (width + -width % multiple) * (height + -height % multiple)
    if pixels > MOST_PIXELS:
        raise UserError(
            f"bitstream claims an image of {width} x {height}; it is damaged, or beyond the "
            f"{MOST_PIXELS} pixels that are decoded"
        )
    return width, height, strings, pixels


def guarded(strings: list[bytes], symbols: int) -> list[bytes]:
    """Return range-coded strings with zeros behind each, for the decoder to run into.

    CompressAI's range decoder does not know where its string ends: of a damaged one it would read
    memory behind it. It takes four bytes a symbol at most, and as many for an escape; zeros end
    escapes. What it returns for a whole string is the same.

    Args:
        strings: as they came out of the container.
        symbols: the most that are decoded of one of them.
    """
    zeros = bytes(8 * symbols + 64)
    return [string + zeros for string in strings]
