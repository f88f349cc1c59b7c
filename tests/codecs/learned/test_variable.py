"""Codecs of variable rate: CompressAI's forward pass and bitstreams, at any gain."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compressai.models.vbr import MeanScaleHyperpriorVbr, ScaleHyperpriorVbr
from pydantic import ValidationError
from torch import nn

from icmbench.codecs.bitstream import unpack_image
from icmbench.codecs.learned.entries import LearnedParameters, VariableParameters
from icmbench.data.synthetic.scenes import make_scene
from icmbench.jobs import CodecSpec, WeightsSpec
from icmbench.networks.build import build_codec
from icmbench.networks.weights import load_part
from icmbench.plugins import load_modules
from icmbench.registry import CODECS, implementation
from icmbench.train.checkpoint import save_weights
from icmbench.utils.images import to_tensor

load_modules([])
THEIRS = {
    "bmshj2018-hyperprior-vbr": ScaleHyperpriorVbr,
    "mbt2018-mean-vbr": MeanScaleHyperpriorVbr,
}
GAINS = [0.19293, 0.6, 1.0]  # the middle one is none of CompressAI's levels


def pair(name: str, variable_hyper: bool, gain: float) -> tuple[Any, Any]:
    """Return CompressAI's network with latents of some size, and our codec with its weights."""
    torch.manual_seed(0)
    theirs = THEIRS[name](16, 24, vr_entbttlnck=variable_hyper)
    with torch.no_grad():
        theirs.g_a[-1].weight *= 60
        theirs.h_a[-1].weight *= 30
    parameters = VariableParameters(n=16, m=24, variable_hyper=variable_hyper)
    ours = implementation(CODECS[name])(parameters, rate=gain)
    ours.network.load_state_dict(theirs.state_dict())
    theirs.update(force=True, scale=torch.tensor(gain))
    ours.prepare_coding()
    return theirs.eval(), ours


@pytest.fixture(scope="module")
def image() -> Any:
    return np.asarray(make_scene(np.random.default_rng(3), 128).image)


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("variable_hyper", [True, False])
@pytest.mark.parametrize("gain", GAINS)
def test_codec_is_compressais(name: str, variable_hyper: bool, gain: float, image: Any) -> None:
    theirs, ours = pair(name, variable_hyper, gain)
    x, scale = to_tensor(image), torch.tensor(gain)
    with torch.no_grad():
        expected = theirs(x, stage=2, inputscale=scale)
        found = ours(x)
        coded = theirs.compress(x, stage=2, inputscale=scale)
    assert torch.allclose(found.images, expected["x_hat"].clamp(0, 1), atol=1e-3)
    encoded = ours.encode(image)
    _, _, strings = unpack_image(encoded.data, 2, 64)
    assert [strings[0]] == coded["strings"][0]
    assert [strings[1]] == coded["strings"][1]
    # CompressAI's likelihoods of z are those of a step of 1; ours must be what the string takes.
    bits = -torch.log2(expected["likelihoods"]["y"]).sum().item() + 8 * len(strings[1])
    assert encoded.bits_estimated == pytest.approx(bits, rel=0.03)
    assert found.bits.item() == pytest.approx(encoded.bits_estimated, rel=1e-4)
    assert len(strings[0]) > 100
    decoded = ours.decode(encoded.data)
    assert np.array_equal(decoded, encoded.reconstruction)
    with torch.no_grad():
        theirs_decoded = theirs.decompress(**coded, stage=2, inputscale=scale)["x_hat"]
    difference = to_tensor(decoded) - theirs_decoded
    assert difference.abs().max() <= 0.51 / 255


def test_rate_falls_with_the_gain(image: Any) -> None:
    sizes = [len(pair("mbt2018-mean-vbr", True, gain)[1].encode(image).data) for gain in GAINS]
    assert sizes[0] < sizes[1] < sizes[2]


def test_training_draws_gains_and_weighs_the_error_by_their_square() -> None:
    torch.manual_seed(4)
    codec = implementation(CODECS["bmshj2018-hyperprior-vbr"])(VariableParameters(n=16, m=24))
    codec.train()
    images, drawn = torch.rand(1, 3, 64, 64), set()
    for _ in range(40):
        out = codec(images)
        drawn.add(codec.gain)
        error = 255**2 * nn.functional.mse_loss(out.images, images).item()
        assert out.terms["gain_mse"].item() == pytest.approx(codec.gain**2 * error, rel=1e-4)
    assert len(drawn) >= 6
    # Its lambdas in CompressAI are those of its gains by the same law.
    for gain, weight in zip(codec.network.Gain.tolist(), codec.network.lmbda, strict=True):
        assert gain == pytest.approx(math.sqrt(weight / 0.18), rel=2e-3)
    (out.bits / 4096 + 0.01 * out.terms["gain_mse"]).backward()
    for part in codec.part_modules().values():
        for module in part:
            gradients = [p.grad for n, p in module.named_parameters() if "quantiles" not in n]
            assert all(gradient is not None for gradient in gradients)
    assert codec.network.Gain.grad is None
    assert codec.auxiliary_loss() > 0


@pytest.mark.parametrize("name", THEIRS)
def test_training_decodes_rounded_latents(name: str) -> None:
    """Noise makes the rate alone; so no other quantisation can be chosen."""
    codec = pair(name, False, 1.0)[1].train()
    codec.network.Gain[:] = 1.0  # the same in every step
    first, second = (codec(to_tensor(make_scene(np.random.default_rng(3), 64).image)) for _ in "ab")
    assert torch.equal(first.images, second.images)
    assert not torch.equal(first.bits, second.bits)
    with pytest.raises(ValidationError, match="quantisation"):
        VariableParameters.model_validate({"quantisation": "noise"})


@pytest.mark.parametrize("variable_hyper", [True, False])
def test_weights_of_a_codec_of_one_rate_and_files_load_whole(
    variable_hyper: bool, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    name = "mbt2018-mean-vbr"
    parameters = VariableParameters(n=16, m=24, variable_hyper=variable_hyper)
    base = implementation(CODECS["mbt2018-mean"])(LearnedParameters(n=16, m=24))
    save_weights(tmp_path / "weights.pt", base, None, {})
    codec = implementation(CODECS[name])(parameters)
    needed = CODECS[name].starts_from["mbt2018-mean"]
    loaded = load_part(codec, tmp_path / "weights.pt", "codec", needed)
    assert loaded is not None
    new = {"network.Gain", "network.QuantABCD", "network.gayn2zqstep", "network.lower_bound_zqstep"}
    assert {".".join(own.split(".")[:2]) for own in loaded.missing} <= new
    theirs = base.network.entropy_bottleneck.matrices[2]
    bottleneck = codec.network.entropy_bottleneck
    assert torch.equal(bottleneck._matrix2 if variable_hyper else bottleneck.matrices[2], theirs)

    torch.save({"state_dict": pair(name, variable_hyper, 1.0)[0].state_dict()}, tmp_path / "f.pth")
    weights = WeightsSpec(source=str(tmp_path / "f.pth"), of=name, part="codec", own=True)
    spec = CodecSpec(name=name, kind="learned", parameters={}, rate=0.5, weights=weights,
                     starts_pretrained=True)  # fmt: skip
    built = build_codec(spec)
    assert built.loaded.share == 1 and built.gain == 0.5
    assert built.settings.variable_hyper == variable_hyper
