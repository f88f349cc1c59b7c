"""The container of learned codecs' bitstreams."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icmbench.codecs.bitstream import pack, unpack, unpack_image
from icmbench.errors import UserError

side = st.integers(1, 70_000)


@given(side, side, st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_unpack_returns_what_was_packed(width: int, height: int, strings: list[bytes]) -> None:
    assert unpack(pack(width, height, strings), len(strings)) == (width, height, strings)


def test_header_is_small() -> None:
    assert len(pack(128, 128, [b"y" * 100, b"z" * 20])) == 100 + 20 + 3
    assert len(pack(1333, 800, [b"y" * 1000, b"z"])) == 1000 + 1 + 6


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x7f", pack(9, 9, [b"abc", b"d"])[:4]])
def test_unpack_refuses_truncated_data(data: bytes) -> None:
    with pytest.raises(UserError, match="truncated"):
        unpack(data, 2)


def test_unpack_image_refuses_sizes_that_would_fill_the_memory() -> None:
    assert unpack_image(pack(100, 60, [b"y"]), 1, 64) == (100, 60, [b"y"])
    with pytest.raises(UserError, match="100000 x 60000"):
        unpack_image(pack(100_000, 60_000, [b"y"]), 1, 64)
