"""DICM's options for short training runs, and the codec that sends elimination's latent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from icmbench.codecs.dicm.codec import Dicm
from icmbench.codecs.dicm.elimination_latent import EliminationLatent
from icmbench.codecs.dicm.entries import DicmParameters
from icmbench.data.synthetic.scenes import make_scene
from icmbench.errors import UserError
from icmbench.networks.linear_start import LEAST_WIDTH

SMALL: dict[str, Any] = {
    "backbone_blocks": [1, 1, 1, 1],
    "backbone_width": 8,
    "backbone_classes": 0,
    "elimination_depths": [1, 1],
    "elimination_widths": [16, 16, 48],
    "widths": [16, 32],
    "hyper_dim": 32,
    "heads": 2,
    "context_depth": 1,
}
STAGE_2 = {"elimination_bpp": 1.0, "elimination_mse": 1e4}
STAGE_4 = {"bpp": 1.0, "feature_mse": 1e5}


def small(kind: type[Dicm] = Dicm, **settings: Any) -> Any:
    torch.manual_seed(5)
    codec = kind(DicmParameters.model_validate({**SMALL, **settings}))
    return codec.eval()


def scenes(count: int = 24) -> list[Tensor]:
    generator = np.random.default_rng(8)
    images = [make_scene(generator, 64).image for _ in range(count)]
    return [torch.from_numpy(i.copy()).permute(2, 0, 1)[None].float() / 255 for i in images]


@pytest.fixture(scope="module")
def fitted() -> Any:
    """A codec whose elimination and compression were both fitted, in the order of the stages."""
    codec = small(linear_start=True)
    codec.initialise({"elimination"}, scenes(), STAGE_2)
    codec.initialise({"compression"}, scenes(), STAGE_4)
    return codec


def blocks_of(features: Tensor) -> np.ndarray:
    """Return the 4 x 4 blocks of [B, C, h, w] as rows, without the mean of each channel."""
    centred = (features - features.mean((0, 2, 3), keepdim=True)).numpy()
    batch, channels, height, width = centred.shape
    cut = centred.reshape(batch, channels, height // 4, 4, width // 4, 4)
    return cut.transpose(0, 2, 4, 1, 3, 5).reshape(-1, channels * 16)


# --- linear start ----------------------------------------------------------------------------


def test_linear_start_equals_the_singular_vectors_of_features(fitted: Any) -> None:
    with torch.no_grad():
        features = torch.cat([fitted.backbone.head(image) for image in scenes()])
    rows = blocks_of(features)
    vectors = np.linalg.svd(rows, full_matrices=False)[2][:48]
    own = fitted.elimination.encoder.linear.weight.detach().numpy().reshape(48, -1)
    # The same space: components of nearly equal variance may be rotated.
    lost, least = (rows - rows @ basis.T @ basis for basis in (own, vectors))
    assert np.square(lost).sum() == pytest.approx(np.square(least).sum(), rel=1e-3)
    assert np.abs(own[:4] @ vectors[:4].T).diagonal() == pytest.approx(1, abs=1e-3)


def test_linear_start_loses_the_other_components_and_the_rounding(fitted: Any) -> None:
    images = torch.cat(scenes())
    with torch.no_grad():
        features = fitted.backbone.head(images)
        left, _ = fitted.elimination(features)
        fresh, _ = small().elimination(features)
    rows = blocks_of(features)
    values = np.linalg.svd(rows, compute_uv=False)
    step = float(fitted.elimination.decoder.gain(torch.ones(1, 48, 1, 1)).detach().mean())
    # What rounding adds to each of 48 components of a block is at most their step ** 2 / 4.
    most = (np.square(values[48:]).sum() / len(rows) + 48 * step**2 / 4) / rows.shape[1]
    error = float((left - features).square().mean())
    assert error < 1.1 * most
    assert error < 0.5 * float((fresh - features).square().mean())


def test_linear_start_codes_features_from_the_first_step(fitted: Any) -> None:
    images = torch.cat(scenes())
    with torch.no_grad():
        out, fresh = fitted(images), small(linear_start=True)(images)
        reference = fitted.elimination(fitted.backbone.head(images))[0]
    centred = reference - reference.mean((0, 2, 3), keepdim=True)
    variance = float(centred.square().mean())
    assert out.terms["feature_mse"] < 0.4 * variance
    assert fresh.terms["feature_mse"] > 0.7 * variance
    assert 0 < out.bits / out.pixels < 8


def test_linear_start_begins_with_the_widths_of_the_latent(fitted: Any) -> None:
    images = torch.cat(scenes())
    with torch.no_grad():
        y = fitted.encoder(fitted.elimination(fitted.backbone.head(images))[0])
        wide = y.std((0, 2, 3)).clamp_min(LEAST_WIDTH)
        bias = fitted.latent.mixer[-1].bias.detach()
    channels = y.shape[1]
    assert bias[:channels].exp().numpy() == pytest.approx(wide.numpy(), rel=0.1)
    assert not bias[channels:].any()
    # Its eight bits hold four standard deviations.
    assert wide.max() <= 33


def test_linear_start_happens_once_and_not_while_the_backbone_trains(fitted: Any) -> None:
    before = {name: value.clone() for name, value in fitted.state_dict().items()}
    fitted.initialise({"elimination"}, scenes(2), {**STAGE_2, "elimination_mse": 1.0})
    fitted.initialise({"compression"}, scenes(2), {**STAGE_4, "bpp": 30.0})
    assert all(torch.equal(value, before[name]) for name, value in fitted.state_dict().items())
    moving = small(linear_start=True)
    moving.initialise({"backbone", "elimination"}, scenes(2), STAGE_2)
    assert not moving.elimination.encoder.fitted
    plain = small()
    plain.initialise({"elimination"}, scenes(2), STAGE_2)
    assert "elimination.encoder.fitted" not in plain.state_dict()


def test_linear_start_takes_larger_steps_for_a_larger_price() -> None:
    steps = []
    for price in (1e-3, 30.0, 1e9):
        codec = small(linear_start=True)
        codec.initialise({"elimination"}, scenes(8), {**STAGE_2, "elimination_bpp": price})
        gain = codec.elimination.decoder.gain(torch.ones(1, 48, 1, 1)).detach()
        steps.append(float(gain.mean()))
    # 32 channels at stride 4 are two numbers a pixel: step ** 2 = 6 / ln 2 * 2 * price / 1e4.
    assert steps[0] < steps[1] < steps[2]
    assert steps[1] == pytest.approx((30 * 12 / 0.6931 / 1e4) ** 0.5, rel=1e-3)


# --- stages and scale ------------------------------------------------------------------------


@pytest.mark.parametrize(("widths", "stride"), [([16, 24], 2), ([16, 16, 24], 4)])
def test_elimination_has_a_stride_of_two_for_each_stage(widths: list[int], stride: int) -> None:
    sizes = {"elimination_depths": [1] * (len(widths) - 1), "elimination_widths": widths}
    elimination = small(**sizes).elimination
    features = torch.rand(1, 32, 16, 24)
    with torch.no_grad():
        left, likelihoods = elimination(features)
    assert left.shape == features.shape
    assert likelihoods.shape == (1, 24, 16 // stride, 24 // stride)


def test_parameters_refuse_widths_of_other_stages() -> None:
    with pytest.raises(ValidationError, match="elimination_widths"):
        DicmParameters.model_validate({**SMALL, "elimination_depths": [1, 1, 1]})


def test_layer_scale_sets_every_branch() -> None:
    for value in (1e-6, 0.5):
        state = small(layer_scale=value).state_dict()
        scales = [v for name, v in state.items() if name.endswith(".gamma")]
        assert len(scales) == 2 * (4 + 6)  # two blocks in each transform of RE, six in compression
        assert all((scale == value).all() for scale in scales)


# --- the latent of elimination, sent -----------------------------------------------------------


@pytest.mark.parametrize("linear", [False, True])
def test_elimination_latent_decodes_the_features_that_dicm_compresses(linear: bool) -> None:
    dicm = small(linear_start=linear, elimination_gain=6.0)
    dicm.initialise({"elimination"}, scenes(), STAGE_2)
    codec = small(EliminationLatent, linear_start=linear)
    codec.load_state_dict(dicm.state_dict())  # one network in two uses
    codec.prepare_coding()
    image = make_scene(np.random.default_rng(3), 128).image[:100, :70]
    encoded = codec.encode(image)
    decoded = codec.decode(encoded.data)
    assert decoded["y"].dtype == np.int16 and decoded["y"].shape == (48, 8, 8)
    assert np.array_equal(decoded["y"], encoded.reconstruction["y"]) and decoded["y"].std() > 0.5
    assert decoded["size"].tolist() == [100, 70]
    # Header of four bytes, the coder's state, tables of 16 bits.
    assert abs(encoded.bits - encoded.bits_estimated) < 96 + 0.02 * encoded.bits
    padded = dicm.padded(image)
    with torch.no_grad():
        reference, likelihoods = dicm.elimination(dicm.backbone.head(padded))
        out = codec(padded)
    assert encoded.bits_estimated == pytest.approx(float(-likelihoods.log2().sum()), rel=1e-4)
    assert encoded.rate_map == pytest.approx(-likelihoods.log2()[0].sum(0).numpy(), rel=1e-3)
    assert float(out.bits) == pytest.approx(encoded.bits_estimated, rel=1e-4)
    assert torch.allclose(codec.features(decoded), reference, atol=1e-4)
    assert torch.allclose(out.features, reference, atol=1e-5)


def test_elimination_latent_codes_integers_beyond_its_tables() -> None:
    codec = small(EliminationLatent)
    codec.prepare_coding()
    y = torch.zeros(1, 48, 4, 4)
    y[0, 3, 1, 2], y[0, 7, 0, 0] = 3000, -900
    strings, latent, _ = codec.compress_latent(y)
    assert np.array_equal(latent["y"], y[0].numpy())
    assert np.array_equal(codec.decompress_latent(strings, 4, 4)["y"], y[0].numpy())


def test_elimination_latent_needs_elimination() -> None:
    with pytest.raises(UserError, match="eliminate"):
        small(EliminationLatent, eliminate=False)
