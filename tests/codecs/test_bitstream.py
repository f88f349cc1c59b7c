from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icmbench.codecs.bitstream import pack, unpack
from icmbench.errors import UserError

side = st.integers(1, 70_000)


@given(side, side, st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_round_trip(width: int, height: int, strings: list[bytes]) -> None:
    assert unpack(pack(width, height, strings), len(strings)) == (width, height, strings)


def test_header_is_small() -> None:
    assert len(pack(128, 128, [b"y" * 100, b"z" * 20])) == 100 + 20 + 3
    assert len(pack(1333, 800, [b"y" * 1000, b"z"])) == 1000 + 1 + 6


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x7f", pack(9, 9, [b"abc", b"d"])[:4]])
def test_truncated_header_is_an_error(data: bytes) -> None:
    with pytest.raises(UserError, match="bitstream ends inside"):
        unpack(data, 2)
