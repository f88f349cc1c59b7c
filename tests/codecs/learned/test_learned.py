"""Every learned image codec: its estimate is what it codes, and decoding gives what was coded."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from compressai.layers import AttentionBlock
from compressai.zoo.image import model_architectures
from pydantic import ValidationError
from torch import nn

from icmbench.codecs.learned.base import bits_by_position, guarded
from icmbench.codecs.learned.compressai_codec import Bounded
from icmbench.codecs.learned.entries import (
    ChengParameters,
    ElicParameters,
    LearnedParameters,
)
from icmbench.codecs.learned.hyperprior import Hyperprior
from icmbench.data.synthetic.scenes import make_scene
from icmbench.networks.weights import load_part
from icmbench.plugins import load_modules
from icmbench.registry import CODECS, implementation
from icmbench.train.checkpoint import save_weights
from icmbench.utils.images import to_tensor

load_modules([])
LEARNED = [
    name
    for name in CODECS.names()
    if CODECS[name].kind == "learned" and CODECS[name].outputs == ("images",)
]
# CompressAI has a network for each quality; tests/codecs/learned/test_variable.py has the others.
BY_QUALITY = [
    name
    for name in LEARNED
    if CODECS[name].published_rates and CODECS[name].has_pretrained(CODECS[name].parameters())
]
QUANTISED = [
    (name, way)
    for name in LEARNED
    for way in get_args(CODECS[name].parameters.model_fields["quantisation"].annotation)
]
SEQUENTIAL = ["mbt2018", "cheng2020-anchor", "cheng2020-attn"]


def small(name: str, **settings: Any) -> Any:
    """Return a small codec whose latents are large enough to need many symbols."""
    values: dict[str, Any] = {"n": 16, "m": 24, **settings}
    if name == "elic2022":
        values["groups"] = [4, 8, 12]
    torch.manual_seed(5)
    entry = CODECS[name]
    codec = implementation(entry)(entry.parameters.model_validate(values))
    last = [m for m in codec.network.g_a.modules() if isinstance(m, nn.Conv2d)][-1]
    with torch.no_grad():
        last.weight *= 40
        last.bias.uniform_(-3, 3)
        # Scales that fit such latents, as training would find them.
        for part in ("entropy_parameters", "h_s"):
            layers = getattr(codec.network, part, None)
            if layers is not None:
                final = [m for m in layers.modules() if hasattr(m, "bias")][-1]
                final.bias[: 24 if final.bias.numel() > 24 else None] += 3
                break
    codec.prepare_coding()
    return codec


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return make_scene(np.random.default_rng(3), 128).image


# --- bitstreams -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LEARNED)
def test_codec_decodes_its_reconstruction_at_the_estimated_rate(
    name: str, image: np.ndarray
) -> None:
    codec = small(name)
    cropped = image[:101, :70]
    encoded = codec.encode(cropped)
    decoded = codec.decode(encoded.data)
    assert decoded.shape == cropped.shape and decoded.dtype == np.uint8
    assert np.array_equal(decoded, encoded.reconstruction)
    sides = [math.ceil(side / codec.multiple) * codec.multiple for side in (101, 70)]
    assert encoded.pixels_coded == math.prod(sides)
    stride = codec.latent_stride
    assert encoded.rate_map.shape == (sides[0] // stride, sides[1] // stride)
    assert encoded.rate_map.dtype == np.float32
    assert encoded.rate_map.sum() == pytest.approx(encoded.bits_estimated, rel=1e-5)
    # Each string ends with up to four bytes of the range coder's state, and has its length.
    overhead = 8 * (6 * codec.strings + 4)
    assert encoded.bits_estimated > 500
    # Far less than 1 % once trained; here neither scales nor densities fit the latents.
    assert abs(encoded.bits - encoded.bits_estimated) < overhead + 0.1 * encoded.bits


def test_bits_of_side_information_are_spread_over_what_they_cover() -> None:
    likelihoods = torch.tensor([[0.5, 0.25], [0.25, 0.125]]).reshape(1, 2, 1, 2)
    likelihoods = likelihoods.repeat(1, 1, 4, 4)  # positions of 3 and of 5 bits
    side = torch.tensor([2.0**-16, 2.0**-32]).reshape(1, 1, 1, 2)
    expected = np.tile([3.0, 5.0], (4, 4)) + np.repeat([1.0, 2.0], 4)
    assert bits_by_position(likelihoods, side).numpy() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "m", "place"),
    [
        ("bmshj2018-hyperprior", 128, "chamain2021/hyperprior"),
        ("mbt2018", 64, "zhu2024/mbt2018"),
    ],
)
def test_rate_map_follows_the_content(name: str, m: int, place: str, repository: Path) -> None:
    entry = CODECS[name]
    codec = implementation(entry)(entry.parameters(n=16, m=m, linear_start=True))
    weights = f"workflow/zoo/{place}/reconstruction/mse/rate2-codec.safetensors"
    load_part(codec, repository / weights, "codec")
    codec.prepare_coding()
    half_noise = np.full((128, 256, 3), 128, np.uint8)
    half_noise[:, 128:] = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    rate_map = codec.encode(half_noise).rate_map
    assert rate_map.shape == (8, 16)
    assert rate_map[:, 8:].sum() > 0.9 * rate_map.sum()


@pytest.mark.parametrize("shape", [(1, 1), (65, 63), (100, 200)])
def test_hyperprior_codes_any_size(shape: tuple[int, int]) -> None:
    codec = small("bmshj2018-hyperprior")
    noise = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    encoded = codec.encode(noise)
    assert np.array_equal(codec.decode(encoded.data), encoded.reconstruction)


def test_hyperprior_rate_is_the_estimate_when_scales_fit() -> None:
    torch.manual_seed(1)
    codec = Hyperprior(LearnedParameters(n=16, m=24))
    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    # Scales near 2 and latents to match, as in a trained codec: a latent far outside its density
    # is coded by an escape code, which the estimate does not include.
    codec.network.h_s[4].bias.data.fill_(2.0)
    last = codec.network.g_a[6]
    last.weight.data.mul_(2 / codec.network.g_a(to_tensor(noise)).std())
    # The factorised prior's tables reach as far as its quantiles, which training would place.
    codec.network.entropy_bottleneck.quantiles.data[:] = torch.tensor([-80.0, 0.0, 80.0])
    codec.prepare_coding()
    encoded = codec.encode(noise)
    assert encoded.bits_estimated > 5000
    assert 8 * len(encoded.data) == pytest.approx(encoded.bits_estimated, rel=0.01, abs=8 * 16)


_OTHER_PROCESS = """
import sys, numpy as np
from icmbench.codecs.learned.entries import LearnedParameters
from icmbench.codecs.learned.hyperprior import Hyperprior
from icmbench.networks.weights import load_part
codec = Hyperprior(LearnedParameters(n=16, m=24))
load_part(codec, sys.argv[1] + "/weights.pt", "codec")
codec.prepare_coding()
np.save(sys.argv[1] + "/out.npy", codec.decode(open(sys.argv[1] + "/image.bin", "rb").read()))
"""


def test_another_process_decodes_the_same_image(image: np.ndarray, tmp_path: Path) -> None:
    codec = small("bmshj2018-hyperprior")
    encoded = codec.encode(image)
    torch.save({"codec": codec.state_dict()}, tmp_path / "weights.pt")
    (tmp_path / "image.bin").write_bytes(encoded.data)
    subprocess.run([sys.executable, "-c", _OTHER_PROCESS, str(tmp_path)], check=True)
    assert np.array_equal(np.load(tmp_path / "out.npy"), encoded.reconstruction)


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_sequential_strings_are_compressais(name: str) -> None:
    codec = small(name)
    images = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        theirs = codec.network.compress(images)
        strings, y_hat, _ = codec.compress_latent(codec.network.g_a(images))
        assert strings == [part[0] for part in theirs["strings"]]
        decoded = codec.network.decompress([[s] for s in strings], theirs["shape"])["x_hat"]
        assert torch.allclose(decoded, codec.network.g_s(y_hat).clamp(0, 1), atol=1e-5)


def test_sequential_decoding_is_several_times_faster_than_compressais() -> None:
    codec = small("mbt2018")
    with torch.no_grad():
        theirs = codec.network.compress(torch.rand(1, 3, 128, 128))
        strings = [part[0] for part in theirs["strings"]]
        times = []
        for decode in (
            lambda: codec.network.decompress(theirs["strings"], theirs["shape"]),
            lambda: codec.decompress_latent(strings, 8, 8),
        ):
            start = time.process_time()
            decode()
            times.append(time.process_time() - start)
    assert times[0] > 3 * times[1]


def test_estimated_rate_is_counted_and_reported(image: np.ndarray) -> None:
    codec = small("mbt2018", rate="estimate")
    encoded = codec.encode(image)
    assert encoded.bits == int(np.ceil(encoded.bits_estimated)) and encoded.rate_map is None
    assert np.array_equal(codec.decode(encoded.data), encoded.reconstruction)
    assert "estimated" in codec.implementation()
    real = small("mbt2018").encode(image)
    assert encoded.bits == pytest.approx(real.bits, rel=0.05)


def test_guarded_strings_end_with_zeros_for_every_symbol() -> None:
    assert guarded([b"ab"], 3) == [b"ab" + bytes(8 * 3 + 64)]


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "quantisation"), QUANTISED)
def test_every_part_learns(name: str, quantisation: str) -> None:
    codec = small(name, quantisation=quantisation)
    codec.train()
    images = torch.rand(2, 3, 64, 64)
    out = codec(images)
    (out.bits / out.pixels + (out.images - images).square().mean()).backward()
    held = {id(p) for p in codec.auxiliary_parameters()}
    parts = codec.part_modules()
    assert set(parts) == set(CODECS[name].parts)
    parameters = [p for modules in parts.values() for m in modules for p in m.parameters()]
    assert len({id(p) for p in parameters}) == len(list(codec.parameters()))
    for parameter in parameters:
        if id(parameter) not in held:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all()
    codec.auxiliary_loss().backward()
    assert all(p.grad is not None for p in codec.auxiliary_parameters())


@pytest.mark.parametrize("name", BY_QUALITY)
def test_evaluation_mode_is_compressais_forward(name: str) -> None:
    codec = small(name)
    images = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        own, theirs = codec(images), codec.network(images)
    bits = -sum(torch.log2(value).sum() for value in theirs["likelihoods"].values())
    assert float(own.bits) == pytest.approx(float(bits), rel=1e-5)
    assert torch.allclose(own.images, theirs["x_hat"].clamp(0, 1), atol=1e-6)


def test_mixed_quantisation_decodes_rounded_latents_at_the_rate_of_noisy_ones() -> None:
    torch.manual_seed(0)
    noise = Hyperprior(LearnedParameters(n=16, m=24)).train()
    mixed = Hyperprior(LearnedParameters(n=16, m=24, quantisation="mixed")).train()
    mixed.load_state_dict(noise.state_dict())
    images = torch.rand(1, 3, 64, 64)
    exact = mixed.eval()(images).images
    mixed.train()
    assert torch.allclose(mixed(images).images, exact, atol=1e-6)
    assert not torch.allclose(noise(images).images, exact, atol=1e-6)
    assert mixed(images).bits != mixed(images).bits  # other noise each time
    mixed(images).images.sum().backward()
    assert all(p.grad is not None for p in mixed.network.g_a.parameters())


@pytest.mark.parametrize("name", ["mbt2018", "cheng2020-attn"])
def test_mixed_quantisation_sees_latents_close_to_those_that_are_coded(name: str) -> None:
    codec = small(name, quantisation="mixed")
    y = 2 * torch.randn(1, codec.network_sizes[-1], 8, 8)
    with torch.no_grad():
        coded = codec.compress_latent(y)[1]
        modelled = codec.model_latent(y)[0]
    assert (modelled - coded).abs().mean() < (torch.round(y) - coded).abs().mean() / 3


def test_bounded_lets_gradients_back_into_the_range() -> None:
    x = torch.tensor([-0.5, 0.5, 1.5], requires_grad=True)
    bounded = Bounded()(x)
    assert bounded.tolist() == [0, 0.5, 1]
    bounded.backward(torch.tensor([-1.0, 1.0, 1.0]))  # descent leads into the range on both sides
    assert x.grad is not None and x.grad.tolist() == [-1, 1, 1]
    x.grad = None
    Bounded()(x).backward(torch.tensor([1.0, 1.0, -1.0]))  # and here further out
    assert x.grad.tolist() == [0, 1, 0]


def test_latent_gain_enlarges_initial_latents() -> None:
    images = torch.rand(1, 3, 64, 64)
    spreads = []
    for gain in (1.0, 30.0):
        torch.manual_seed(1)
        parameters = LearnedParameters(n=16, latent_gain=gain)
        codec = implementation(CODECS["cheng2020-anchor"])(parameters)
        spreads.append(codec.network.g_a(images).detach().std().item())
    assert spreads[0] < 0.5 < 3 < spreads[1]


# --- sizes and weights ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", BY_QUALITY)
def test_pretrained_networks_have_the_size_of_their_quality(name: str) -> None:
    parameters = LearnedParameters()
    assert CODECS[name].has_pretrained(parameters)
    kind, sizes = implementation(CODECS[name]), []
    for quality, weight in ((1, 0.0018), (6, 0.0483)):  # the second is CompressAI's lambda of it
        codec = kind(kind.published_parameters(parameters, quality))
        assert kind.published_parameters(parameters, weight) == codec.settings
        sizes.append(codec.network_sizes)
        assert isinstance(codec.network, model_architectures[name])
    assert sizes[0] != sizes[1]
    if name == "bmshj2018-hyperprior":
        count = sum(p.numel() for p in implementation(CODECS[name])(parameters).parameters())
        assert count == pytest.approx(5.08e6, rel=0.01)  # CompressAI's zoo, qualities 1 to 5


def test_elic_at_full_size_is_the_published_one() -> None:
    codec = implementation(CODECS["elic2022"])(ElicParameters())
    assert codec.network_sizes == (192, 320)
    assert codec.strings == 11
    assert not CODECS["elic2022"].has_pretrained(ElicParameters())


def test_elic_refuses_groups_that_do_not_make_the_latent() -> None:
    with pytest.raises(ValidationError, match=r"24.*25"):
        ElicParameters(n=16, m=25, groups=[8, 16])


def test_attention_codec_takes_every_layer_of_the_one_without(tmp_path: Path) -> None:
    anchor = small("cheng2020-anchor")
    save_weights(tmp_path / "weights.pt", anchor, None, {})
    attention = implementation(CODECS["cheng2020-attn"])(ChengParameters(n=16, m=24))
    load_part(
        attention,
        tmp_path / "weights.pt",
        "codec",
        CODECS["cheng2020-attn"].starts_from["cheng2020-anchor"],
    )
    own = attention.state_dict()
    for name, value in anchor.state_dict().items():
        there = attention.rename_weight(name)
        if own[there].shape == value.shape:  # coding tables are rebuilt
            assert torch.equal(own[there], value), name
    # Without its attention blocks, the transform is the other's.
    blocks = [m for m in attention.network.g_a if not isinstance(m, AttentionBlock)]
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(nn.Sequential(*blocks)(images), anchor.network.g_a(images))
