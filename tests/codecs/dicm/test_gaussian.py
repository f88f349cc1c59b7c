"""The integer coder: nothing is lost, and its strings are as long as they should be."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icmbench.codecs.dicm.gaussian import (
    GaussianTables,
    IntegerReader,
    IntegerWriter,
)
from icmbench.codecs.dicm.latent import _FRACTIONS, _SCALES

TABLES = GaussianTables(_SCALES, _FRACTIONS)


def encode(symbols: np.ndarray, means: np.ndarray, scales: np.ndarray) -> bytes:
    writer = IntegerWriter(TABLES)
    writer.write(symbols, means, scales)
    return writer.finish()


def decode(data: bytes, means: np.ndarray, scales: np.ndarray) -> np.ndarray:
    return IntegerReader(TABLES, data).read(means, scales)


def ideal_bits(symbols: np.ndarray, means: np.ndarray, scales: np.ndarray) -> float:
    """Information of the unit bins in float64."""
    normal = torch.distributions.Normal(torch.from_numpy(means), torch.from_numpy(scales))
    values = torch.from_numpy(symbols)
    masses = normal.cdf(values + 0.5) - normal.cdf(values - 0.5)
    return float(-torch.log2(masses).sum())


number = st.tuples(
    st.integers(-128, 128), st.floats(-200, 200), st.floats(1e-3, 1e3, exclude_min=True)
)


@settings(deadline=None, max_examples=60)
@given(st.lists(number, min_size=1, max_size=40))
def test_coder_keeps_any_integers_however_unlikely(numbers: list[tuple[int, float, float]]) -> None:
    symbols, means, scales = (np.array(column) for column in zip(*numbers, strict=True))
    data = encode(symbols, means, scales)
    assert np.array_equal(decode(data, means, scales), symbols)


def test_coder_keeps_shapes_and_extremes() -> None:
    symbols = np.array([[-128, 128], [127, -128], [0, 0]])
    means = np.array([[127.9, -128.0], [127.0, -127.5], [-0.5, 0.5]], dtype=np.float32)
    scales = np.full_like(means, 0.001)
    decoded = decode(encode(symbols, means, scales), means, scales)
    assert decoded.dtype == np.int32
    assert np.array_equal(decoded, symbols)


@pytest.mark.parametrize("low, high", [(0.05, 0.2), (0.1, 0.5), (0.5, 4.0), (0.05, 30.0)])
@pytest.mark.parametrize("spread", [0.0, 10.0])
def test_strings_are_as_long_as_the_information(low: float, high: float, spread: float) -> None:
    rng = np.random.default_rng(4)
    count = 60_000
    scales = np.exp(rng.uniform(np.log(low), np.log(high), count))
    means = rng.normal(0, 1, count) * spread
    symbols = np.round(rng.normal(means, scales)).astype(np.int64)
    bits = 8 * len(encode(symbols, means, scales))
    # The coder's state at the end is eight bytes.
    assert abs(bits - ideal_bits(symbols, means, scales)) < 64 + 0.01 * bits


def test_coder_spends_a_bit_on_two_equally_likely_values() -> None:
    symbols = np.random.default_rng(1).integers(3, 5, 8000)
    means, scales = np.full(8000, 3.5), np.full(8000, 0.05)
    assert len(encode(symbols, means, scales)) == pytest.approx(1000, abs=9)


def test_coder_spends_on_a_rare_value_what_its_probability_implies() -> None:
    """Ones of probability 0.01 at mean 0: the scale follows from the normal quantile."""
    scale = 0.5 / NormalDist().inv_cdf(0.995)
    count = 50_000
    symbols = (np.random.default_rng(2).random(count) < 0.005).astype(np.int64)
    ones = int(symbols.sum())
    expected = -ones * np.log2(0.005) - (count - ones) * np.log2(0.99)
    bits = 8 * len(encode(symbols, np.zeros(count), np.full(count, scale)))
    # Eight bytes of state; the nearest scale of the table.
    assert abs(bits - expected) < 64 + 0.02 * expected


def test_reader_returns_arrays_in_the_order_written() -> None:
    rng = np.random.default_rng(3)
    parts = [rng.integers(-9, 9, (size, 2)) for size in (3, 50, 7)]
    models = [(rng.normal(0, 5, p.shape), rng.uniform(1, 9, p.shape)) for p in parts]
    writer = IntegerWriter(TABLES)
    for part, model in zip(parts, models, strict=True):
        writer.write(part, *model)
    data = writer.finish()
    reader = IntegerReader(TABLES, data)
    for part, model in zip(parts, models, strict=True):
        assert np.array_equal(reader.read(*model), part)
    alone = sum(len(encode(p, *m)) for p, m in zip(parts, models, strict=True))
    assert len(data) < alone
