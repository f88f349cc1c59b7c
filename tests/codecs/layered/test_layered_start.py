"""The layered codec's linear start, the step for a rate, and what the steering counts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compressai.ans import RansEncoder
from compressai.entropy_models import EntropyBottleneck
from torch import Tensor

from icmbench.codecs.base import decoded_digest
from icmbench.codecs.bitstream import pack, unpack
from icmbench.codecs.layered.codec import Layered, packed_bytes
from icmbench.codecs.layered.entries import LayeredParameters
from icmbench.codecs.layered.prior import range_coded_bytes
from icmbench.config.job_settings import train_job
from icmbench.config.plan import Plan, Point
from icmbench.data.dataset import Split
from icmbench.data.specs import DatasetSpec
from icmbench.data.synthetic.scenes import make_scene
from icmbench.networks.linear_start import principal_components, set_densities
from icmbench.networks.weights import load_part
from icmbench.train.loop import train
from icmbench.utils.images import to_tensor

PARTS = ["analysis", "synthesis", "entropy"]


def make(**changes: Any) -> Layered:
    torch.manual_seed(3)
    settings = {
        "widths": [8, 8, 8, 16, 16],
        "residual_blocks": 1,
        "semantic": 8,
        "texture": 24,
        "hyper": 8,
        "discriminator": 4,
        "perceptual": "random",
        "linear_start": True,
    }
    return Layered(LayeredParameters.model_validate({**settings, **changes}))


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return [make_scene(np.random.default_rng(seed), 128).image for seed in range(12)]


@pytest.fixture(scope="module")
def batches(images: list[np.ndarray]) -> list[Tensor]:
    return [to_tensor(image) for image in images]


def blocks(images: list[np.ndarray]) -> np.ndarray:
    """Return 16 x 16 blocks [N, 3 * 256] in the order of a convolution's weights, in [0, 1]."""
    found = [
        image[row : row + 16, column : column + 16].transpose(2, 0, 1).reshape(-1)
        for image in images
        for row in range(0, 128, 16)
        for column in range(0, 128, 16)
    ]
    return np.array(found) / 255


def psnr(image: np.ndarray, decoded: np.ndarray) -> float:
    return 10 * math.log10(255**2 / np.mean((image.astype(float) - decoded) ** 2))


def test_principal_components_are_those_of_a_singular_value_decomposition(
    images: list[np.ndarray], batches: list[Tensor]
) -> None:
    means, basis, deviations = principal_components(batches, 16, 6)
    samples = blocks(images)
    assert means.numpy() == pytest.approx(samples.reshape(-1, 3, 256).mean((0, 2)), abs=1e-5)
    centred = samples - np.repeat(means.numpy(), 256)
    _, values, rows = np.linalg.svd(centred, full_matrices=False)
    assert deviations.numpy() == pytest.approx(values[:6] / math.sqrt(len(samples)), rel=1e-3)
    assert np.abs(rows[:6] @ basis.numpy().T) == pytest.approx(np.eye(6), abs=1e-2)


def test_untrained_codec_is_a_transform_coder(
    images: list[np.ndarray], batches: list[Tensor]
) -> None:
    """Its images are those of rounded principal components, computed here by NumPy."""
    codec = make()
    codec.initialise(PARTS, batches, {})
    codec.prepare_coding()
    samples = blocks(images)
    means = np.repeat(samples.reshape(-1, 3, 256).mean((0, 2)), 256)
    _, _, rows = np.linalg.svd(samples - means, full_matrices=False)
    step = 60 / 255
    symbols = np.round((samples - means) @ rows[:32].T / step)
    errors = np.clip(symbols @ rows[:32] * step + means, 0, 1) - samples
    expected = -10 * math.log10(np.mean(errors**2))
    decoded = [codec.image(codec.encode(image).reconstruction) for image in images]  # type: ignore[arg-type]
    own = -10 * math.log10(np.mean((np.array(decoded) / 255 - np.array(images) / 255) ** 2))
    assert own == pytest.approx(expected, abs=0.3)
    # Components of the largest variance come first, so the first layer alone is a coarse image.
    alone = codec.encode(images[0]).reconstruction
    assert isinstance(alone, dict)
    coarse = codec.image({name: alone[name] for name in ("semantic", "size")})
    plain = np.full_like(images[0], images[0].mean((0, 1)))
    assert psnr(images[0], plain) < psnr(images[0], coarse) < psnr(images[0], decoded[0])


def test_linear_start_round_trip_and_second_initialisation(
    images: list[np.ndarray], batches: list[Tensor]
) -> None:
    codec = make()
    codec.initialise(["synthesis"], batches, {})
    assert not codec.network.g_a.fitted  # not all of what it sets is trained
    codec.initialise([*PARTS, "discriminator"], batches, {})
    fitted = {name: value.clone() for name, value in codec.state_dict().items()}
    codec.initialise(PARTS, batches[:2], {})
    assert all(torch.equal(value, fitted[name]) for name, value in codec.state_dict().items())
    codec.reach_rate(PARTS, batches, 0.2)
    codec.prepare_coding()
    for image in (images[0], images[1][:101, :70]):
        coded = codec.encode(image)
        assert decoded_digest(codec.decode(coded.data)) == decoded_digest(coded.reconstruction)


@pytest.mark.parametrize("bpp", [0.1, 0.4])
def test_reach_rate_sets_the_rate_of_real_bitstreams(
    images: list[np.ndarray], batches: list[Tensor], bpp: float
) -> None:
    codec = make()
    codec.initialise(PARTS, batches, {})
    codec.reach_rate(PARTS, batches, bpp)
    codec.prepare_coding()
    bits = [codec.encode(image).bits for image in images]
    assert sum(bits) / (len(images) * 128**2) == pytest.approx(bpp, rel=0.06)


def test_another_step_changes_rounding_only(batches: list[Tensor]) -> None:
    codec = make()
    codec.initialise(PARTS, batches, {})
    with torch.no_grad():
        before = codec.network.g_s(codec.network.g_a(batches[0]))
        codec.reach_rate(PARTS, batches, 0.1)
        after = codec.network.g_s(codec.network.g_a(batches[0]))
    assert torch.allclose(before, after, atol=1e-4)
    usual = make(linear_start=False)
    state = {name: value.clone() for name, value in usual.state_dict().items()}
    usual.reach_rate(PARTS, batches, 0.1)
    assert all(torch.equal(value, state[name]) for name, value in usual.state_dict().items())


@pytest.mark.parametrize("count", [10, 30, 200, 1000])
def test_range_coded_bytes_are_those_of_the_range_coder(count: int) -> None:
    """Symbols of a quarter each carry two bits."""
    cdf = [0, 16383, 32767, 49151, 65535, 65536]  # the last is for escapes
    symbols = np.random.default_rng(0).integers(0, 4, count).tolist()
    string = RansEncoder().encode_with_indexes(symbols, [0] * count, [cdf], [6], [0])
    assert float(range_coded_bytes(torch.tensor(2.0 * count))) == pytest.approx(len(string), abs=4)
    # By hand: 40 bits need the state's 8 bytes and 4 more, since 33 bits are free.
    assert range_coded_bytes(torch.tensor([1.0, 40.0])).tolist() == [8, 12]


@pytest.mark.parametrize("lengths", [(5, 9), (127, 300), (128, 1), (20000, 4)])
def test_packed_bytes_are_those_of_the_container(lengths: tuple[int, int]) -> None:
    strings = [bytes(length) for length in lengths]
    found = packed_bytes(300, 100, torch.tensor([lengths, (0, 0)]))
    assert found.tolist() == [len(pack(300, 100, strings)), len(pack(300, 100, [b"", b""]))]


def test_steered_rate_is_that_of_whole_bitstreams(
    images: list[np.ndarray], batches: list[Tensor]
) -> None:
    codec = make()
    codec.initialise(PARTS, batches, {})
    codec.reach_rate(PARTS, batches, 0.1)
    codec.train()
    coded = codec(torch.cat(batches[:4])).coded_bits
    codec.prepare_coding()
    streams = [codec.encode(image) for image in images[:4]]
    bits = sum(stream.bits for stream in streams)
    assert float(coded) == pytest.approx(bits, rel=0.03)
    # Far above the information of the latents: two range coders and a header.
    information = sum(stream.bits_estimated for stream in streams)
    assert 4 * 60 < float(coded) - information < 4 * 160
    assert len(unpack(streams[0].data, 2)[2]) == 2


def test_set_densities_gives_the_standard_deviations() -> None:
    torch.manual_seed(0)
    bottleneck = EntropyBottleneck(3)
    widths = torch.tensor([0.5, 2.0, 30.0])
    set_densities(bottleneck, widths)
    values = torch.arange(-400.0, 401.0).repeat(3, 1)[None]
    with torch.no_grad():
        masses = bottleneck(values, training=False)[1][0].double()
        quantiles = bottleneck.quantiles[:, 0]
    totals = masses.sum(1)
    means = (masses * values[0]).sum(1) / totals
    deviations = ((masses * (values[0] - means[:, None]) ** 2).sum(1) / totals).sqrt()
    # The sum with the uniform distribution of a unit bin has a variance of 1/12 more.
    assert totals.tolist() == pytest.approx([1, 1, 1], abs=1e-3)
    expected = (widths**2 + 1 / 12).sqrt()
    assert deviations.tolist() == pytest.approx(expected.tolist(), rel=0.15)
    assert (quantiles[:, 2] > 8 * widths).all() and (quantiles[:, 0] < -8 * widths).all()


def test_training_run_starts_and_ends_at_its_rate(
    training_plan: Plan, scenes: DatasetSpec, tmp_path: Path
) -> None:
    job = train_job(training_plan, Point("zhang2022", "layered/reconstruction/warm", 0, 0))
    assert job.codec.parameters["linear_start"]
    short = job.schedule.model_copy(update={"steps": 3, "crop": None})
    output = tmp_path / "run"
    train(job.model_copy(update={"schedule": short, "dataset": scenes, "output": str(output)}))
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["values"]["bpp_coded"] == pytest.approx(0.1, rel=0.3)  # of one batch
    codec = Layered(LayeredParameters.model_validate(job.codec.parameters))
    load_part(codec, output / "weights.pt", "codec")
    codec.prepare_coding()
    split = Split(scenes, "train")
    bits = [codec.encode(split.image(index)).bits for index in range(len(split))]
    assert sum(bits) / (len(split) * 128**2) == pytest.approx(0.1, rel=0.05)
    assert codec.network.g_a.fitted
