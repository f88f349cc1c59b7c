"""Every learned codec: its estimate is what it codes, and decoding gives what was meant."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compressai.layers import AttentionBlock
from compressai.zoo.image import model_architectures
from pydantic import ValidationError
from torch import nn

from icmbench.codecs import ElicParameters, LearnedParameters
from icmbench.data.synthetic.scenes import make_scene
from icmbench.errors import UserError
from icmbench.networks.weights import load_part
from icmbench.plugins import load_modules
from icmbench.registry import CODECS, implementation
from icmbench.train.checkpoint import save_weights

load_modules([])
# Feature codecs have tests of their own.
LEARNED = [
    name
    for name in CODECS.names()
    if CODECS[name].kind == "learned" and CODECS[name].outputs == ("images",)
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


@pytest.mark.parametrize("name", LEARNED)
def test_round_trip_at_an_odd_size_and_rate_near_the_estimate(name: str, image: np.ndarray) -> None:
    codec = small(name)
    cropped = image[:101, :70]
    encoded = codec.encode(cropped)
    decoded = codec.decode(encoded.data)
    assert decoded.shape == cropped.shape
    assert np.array_equal(decoded, encoded.reconstruction)
    # Each string ends with up to four bytes of the range coder's state, and has its length.
    overhead = 8 * (6 * codec.strings + 4)
    assert encoded.bits_estimated > 500
    # Far less than 1 % once trained; here neither scales nor densities fit the latents.
    assert abs(encoded.bits - encoded.bits_estimated) < overhead + 0.1 * encoded.bits


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("quantisation", ["noise", "mixed"])
def test_every_part_learns(name: str, quantisation: str) -> None:
    codec = small(name, quantisation=quantisation)
    codec.train()
    images = torch.rand(2, 3, 64, 64)
    out = codec(images)
    (out.bits / out.pixels + (out.images - images).square().mean()).backward()
    held = {id(p) for p in codec.auxiliary_parameters()}
    parts = codec.part_modules()
    assert set(parts) == {"analysis", "synthesis", "entropy"}
    parameters = [p for modules in parts.values() for m in modules for p in m.parameters()]
    assert len({id(p) for p in parameters}) == len(list(codec.parameters()))
    for parameter in parameters:
        if id(parameter) not in held:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all()
    codec.auxiliary_loss().backward()
    assert all(p.grad is not None for p in codec.auxiliary_parameters())


@pytest.mark.parametrize("name", [name for name in LEARNED if name != "elic2022"])
def test_forward_is_compressais_in_evaluation_mode(name: str) -> None:
    codec = small(name)
    images = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        own, theirs = codec(images), codec.network(images)
    bits = -sum(torch.log2(value).sum() for value in theirs["likelihoods"].values())
    assert float(own.bits) == pytest.approx(float(bits), rel=1e-5)
    assert torch.allclose(own.images, theirs["x_hat"].clamp(0, 1), atol=1e-6)


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
            lambda: codec.decompress_latent(strings, 128, 128),
        ):
            start = time.process_time()
            decode()
            times.append(time.process_time() - start)
    assert times[0] > 3 * times[1]


@pytest.mark.parametrize("name", LEARNED)
def test_sizes_of_published_weights(name: str) -> None:
    """The table of sizes is CompressAI's; a network of that size has its parameters' shapes."""
    if name == "elic2022":
        with pytest.raises(UserError, match="no weights"):
            small(name).load_pretrained(0)
        return
    entry = CODECS[name]
    parameters = LearnedParameters(qualities=[1, 6])
    sizes = []
    for rate in (0, 1):
        codec = implementation(entry)(parameters, rate_index=rate, pretrained=True)
        sizes.append(codec.network_sizes)
        assert isinstance(codec.network, model_architectures[name])
    assert sizes[0] != sizes[1]


def test_elic_at_full_size_is_the_published_one() -> None:
    codec = implementation(CODECS["elic2022"])(ElicParameters())
    assert codec.network_sizes == (192, 320)
    assert codec.strings == 11


def test_elic_groups_must_make_the_latent() -> None:
    with pytest.raises(ValidationError, match="groups sum to 24, but m is 25"):
        ElicParameters(n=16, m=25, groups=[8, 16])


def test_estimated_rate_is_said_and_counted(image: np.ndarray) -> None:
    codec = small("mbt2018", rate="estimate")
    encoded = codec.encode(image)
    assert encoded.bits == int(np.ceil(encoded.bits_estimated))
    assert np.array_equal(codec.decode(encoded.data), encoded.reconstruction)
    assert "estimated" in codec.implementation()
    real = small("mbt2018").encode(image)
    assert encoded.bits == pytest.approx(real.bits, rel=0.05)


def test_attention_codec_adopts_every_layer_of_the_one_without(tmp_path: Path) -> None:
    anchor = small("cheng2020-anchor")
    save_weights(tmp_path / "weights.pt", anchor, None, {})
    attention = implementation(CODECS["cheng2020-attn"])(LearnedParameters(n=16))
    load_part(attention, tmp_path / "weights.pt", "codec", partial=True)
    own = attention.state_dict()
    for name, value in anchor.state_dict().items():
        there = attention.rename_weight(name)
        if own[there].shape == value.shape:  # tables are made anew
            assert torch.equal(own[there], value), name
    # With its attention blocks bridged, the transform is the other's.
    blocks = [m for m in attention.network.g_a if not isinstance(m, AttentionBlock)]
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(nn.Sequential(*blocks)(images), anchor.network.g_a(images))


def test_small_initial_latents_can_be_enlarged() -> None:
    images = torch.rand(1, 3, 64, 64)
    spreads = []
    for gain in (1.0, 30.0):
        torch.manual_seed(1)
        parameters = LearnedParameters(n=16, latent_gain=gain)
        codec = implementation(CODECS["cheng2020-anchor"])(parameters)
        spreads.append(codec.network.g_a(images).detach().std().item())
    assert spreads[0] < 0.5 < 3 < spreads[1]
