"""DICM: sizes as published, blocks against plain references, real bitstreams."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compressai.entropy_models import GaussianConditional
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from icmbench.codecs.dicm.codec import Dicm
from icmbench.codecs.dicm.compression import GatedConv, GlobalLocalFilter
from icmbench.codecs.dicm.entries import DicmParameters
from icmbench.codecs.dicm.entroformer import (
    Attention,
    ContextModel,
    RelativePositions,
    checkerboard,
    choose_keep,
)
from icmbench.codecs.dicm.gaussian import IntegerLikelihood, quantise
from icmbench.data.synthetic.scenes import make_scene

SMALL: dict[str, Any] = {
    "backbone_blocks": [1, 1, 1, 1],
    "backbone_width": 16,
    "backbone_classes": 10,
    "elimination_depths": [1, 1, 1],
    "elimination_widths": [16, 16, 16, 24],
    "widths": [32, 32],
    "hyper_dim": 64,
    "heads": 2,
    "context_depth": 2,
}
TERMS = {"bpp", "feature_mse", "layer2_mse", "layer3_mse", "layer4_mse"}


def small(spread: float = 1.0, **settings: Any) -> Dicm:
    """Return a small codec; ``spread`` enlarges its latents, and makes their Gaussians vary."""
    torch.manual_seed(7)
    codec = Dicm(DicmParameters.model_validate({**SMALL, **settings}))
    if spread != 1:
        last = [m for m in codec.encoder if isinstance(m, nn.Conv2d)][-1]
        with torch.no_grad():
            last.weight *= spread
            codec.latent.hyper_encoder.project.weight *= 4
            codec.latent.mixer[-1].weight *= 6
            codec.latent.mixer[-1].bias[: codec.latent.channels] += 1
    return codec


def image(height: int = 128, width: int = 128) -> np.ndarray:
    return make_scene(np.random.default_rng(3), 128).image[:height, :width]


def millions(*modules: nn.Module) -> float:
    return sum(p.numel() for module in modules for p in module.parameters()) / 1e6


# --- sizes -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full() -> Dicm:
    torch.manual_seed(0)
    codec = Dicm(DicmParameters())
    codec.prepare_coding()
    return codec


def test_dicm_has_the_parameters_of_the_released_network(full: Dicm) -> None:
    assert full.elimination is not None and full.latent.context is not None
    published = [
        (full, 72.86, 2),
        (full.elimination.encoder, 1.36, 2),
        (full.elimination.decoder, 2.28, 2),
        (full.elimination.prior, 0.008, 3),
        (full.encoder, 3.49, 2),
        (full.decoder, 3.53, 2),
        (full.latent.hyper_encoder, 8.13, 2),
        (full.latent.hyper_decoder, 16.02, 2),
        (full.latent.context, 10.7, 1),
        (full.latent.mixer, 1.77, 2),
    ]
    for module, count, digits in published:
        assert round(millions(module), digits) == count, type(module).__name__
    assert round(millions(*full.backbone.head_modules()), 3) == 0.225
    tail = [round(millions(module), 2) for module in full.backbone.tail_modules()]
    assert tail == [1.22, 7.1, 14.96]  # 14.964736 M; the source rounds it up
    parts = full.part_modules()
    assert millions(*(m for modules in parts.values() for m in modules)) == millions(full)


def test_dicm_has_the_published_shapes_and_codes_at_the_estimated_rate(full: Dicm) -> None:
    assert full.elimination is not None
    shapes: dict[str, tuple[int, ...]] = {}
    named = {
        "y1": full.elimination.encoder,
        "f2": full.elimination.decoder,
        "y2": full.encoder,
        "z": full.latent.hyper_encoder,
        "side": full.latent.hyper_decoder,
        "context": full.latent.context,
        "f3": full.decoder,
    }
    hooks = [
        module.register_forward_hook(
            lambda _module, _inputs, output, name=name: shapes.update({name: tuple(output.shape)})
        )
        for name, module in named.items()
        if module is not None
    ]
    scene = np.kron(image(), np.ones((2, 2, 1), dtype=np.uint8))
    encoded = full.encode(scene)
    assert encoded.reconstruction is not None and not isinstance(encoded.reconstruction, np.ndarray)
    features = full.features(encoded.reconstruction)
    for hook in hooks:
        hook.remove()
    assert shapes == {
        "y1": (1, 192, 8, 8),
        "f2": (1, 256, 64, 64),
        "y2": (1, 192, 16, 16),
        "z": (1, 192, 4, 4),
        "side": (1, 384, 16, 16),
        "context": (1, 384, 16, 16),
        "f3": (1, 256, 64, 64),
    }
    assert features.shape == (1, 256, 64, 64) and features.dtype == torch.float32
    # Header of four bytes, coder's state of eight.
    assert abs(encoded.bits - encoded.bits_estimated) < 96 + 0.01 * encoded.bits
    assert encoded.pixels_coded == 256 * 256


@pytest.mark.parametrize(
    "settings, key",
    [
        ({"heads": 3}, "hyper_dim"),
        ({"widths": [30, 32]}, "widths"),
        ({"widths": [32, 40]}, "widths"),
        ({"drop_path": [0.0, 0.5, 1.0]}, "drop_path"),
        ({"elimination_block": "convnext"}, "conv2former"),
    ],
)
def test_parameters_refuse_impossible_sizes(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        DicmParameters.model_validate({**SMALL, **settings})


# --- blocks ----------------------------------------------------------------------------------


def test_relative_positions_have_entries_within_a_diamond() -> None:
    indices = RelativePositions(5, 4).indices(6, 6)
    assert indices.unique().numel() == 13 + 1  # |dy| + |dx| <= 2, and all others
    query, key = 2 * 6 + 2, 3 * 6 + 1  # one down, one to the left
    assert indices[query, query] == 12
    assert indices[query, key] == 12 + 5 - 1
    assert indices[query, 4 * 6 + 3] == 0  # |dy| + |dx| = 3


def naive_attention(attention: Attention, x: Tensor, positions: RelativePositions, keep: int):
    """One query at a time, in plain terms."""
    count, channels = x.shape
    size = channels // attention.heads
    query, key, value = (x @ attention.qkv.weight.T).split(channels, 1)
    side = int(count**0.5)
    indices = positions.indices(side, side)
    out = torch.zeros_like(x)
    for head in range(attention.heads):
        own = slice(head * size, (head + 1) * size)
        for i in range(count):
            scores = torch.stack(
                [
                    (query[i, own] @ key[j, own] + query[i, own] @ positions.table[indices[i, j]])
                    / channels**0.5
                    for j in range(count)
                ]
            )
            best = scores.argsort(descending=True)[:keep]
            out[i, own] = scores[best].softmax(0) @ value[best, own]
    return out @ attention.project.weight.T


def test_attention_equals_plain_loops() -> None:
    torch.manual_seed(2)
    attention, positions = Attention(8, 2), RelativePositions(5, 4)
    nn.init.normal_(positions.table)
    x = 3 * torch.randn(2, 16, 8)
    with torch.no_grad():
        for keep in (5, 16):
            out = attention(x, positions.table, positions.indices(4, 4), keep, None)
            for own, tokens in zip(out, x, strict=True):
                expected = naive_attention(attention, tokens, positions, keep)
                assert torch.allclose(own, expected, atol=1e-5)


def test_attention_in_portions_equals_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    attention, positions = Attention(8, 2), RelativePositions(5, 4)
    x, indices = torch.randn(1, 30, 8), positions.indices(5, 6)
    allowed = torch.rand(1, 30, 30) < 0.5
    allowed |= torch.eye(30, dtype=torch.bool)
    whole = attention(x, positions.table, indices, 7, allowed)
    monkeypatch.setattr("icmbench.codecs.dicm.entroformer._QUERIES", 8)
    with torch.no_grad():
        portions = attention(x, positions.table, indices, 7, allowed)
    assert torch.allclose(whole, portions, atol=1e-6)


def test_choose_keep_varies_in_training() -> None:
    draws = {choose_keep(8, True) for _ in range(300)}
    assert draws == set(range(4, 16))
    assert choose_keep(8, False) == 8


def test_gated_conv_is_its_recursion() -> None:
    torch.manual_seed(1)
    layer = GatedConv(8, 3)
    x = torch.randn(1, 8, 5, 6)
    split = layer.split(x)
    assert split.shape[1] == 16  # p: 2, q: 2 + 4 + 8
    mixed = layer.mix(split[:, 2:]) / 3
    state = split[:, :2] * mixed[:, :2]
    state = layer.widen[0](state) * mixed[:, 2:6]
    state = layer.widen[1](state) * mixed[:, 6:]
    assert torch.allclose(layer(x), layer.project(state), atol=1e-6)


def test_global_filter_is_a_circular_convolution() -> None:
    torch.manual_seed(1)
    layer = GlobalLocalFilter(4)
    x = torch.randn(1, 4, 24, 24)
    kernel = torch.zeros(2, 24, 24)
    kernel[:, 0, 1], kernel[:, 3, 0] = 0.5, -2.0
    with torch.no_grad():
        layer.weight.copy_(torch.view_as_real(torch.fft.rfft2(kernel)))
        normed = layer.norm(x)
        local = functional.conv2d(normed[:, :2], layer.local.weight, padding=1, groups=2)
        moved = normed[:, 2:]
        moved = 0.5 * moved.roll(1, -1) - 2 * moved.roll(3, -2)
        mixed = torch.stack([local[:, 0], moved[:, 0], local[:, 1], moved[:, 1]], 1)
        assert torch.allclose(layer(x), layer.norm_after(mixed), atol=1e-5)


@pytest.mark.parametrize("size", [(2, 2), (4, 6), (32, 50)])
def test_global_filter_resizes_a_constant_to_itself(size: tuple[int, int]) -> None:
    layer = GlobalLocalFilter(4)
    x = torch.randn(1, 4, *size)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 0.0]).expand_as(layer.weight))
        layer.local.weight.zero_()
        layer.local.weight[:, :, 1, 1] = 1
        normed = layer.norm(x)
        mixed = normed[:, [0, 2, 1, 3]]
        assert torch.allclose(layer(x), layer.norm_after(mixed), atol=1e-5)


# --- entropy model ---------------------------------------------------------------------------


def test_likelihoods_of_all_integers_sum_to_one() -> None:
    values = torch.arange(-128, 128).float()[:, None].double()
    means = torch.tensor([0.0, 0.3, -127.4, 140.0, 12.5]).double()
    scales = torch.tensor([1.0, 0.05, 3.0, 8.0, 90.0]).double()
    sums = IntegerLikelihood()(values, means, scales).sum(0)
    assert torch.allclose(sums, torch.ones(5).double(), atol=1e-9)


def test_likelihood_is_compressais_inside_the_range() -> None:
    torch.manual_seed(0)
    values = torch.randint(-9, 9, (1, 500)).float()
    means, scales = torch.randn(1, 500) * 4, torch.rand(1, 500) * 3 + 0.2
    theirs = GaussianConditional(None)._likelihood(values, scales, means)
    own = IntegerLikelihood()(values, means, scales)
    assert torch.allclose(own, theirs.clamp_min(1e-12), rtol=1e-3, atol=1e-6)


def test_quantise_rounds_or_adds_noise_within_the_range() -> None:
    values = torch.tensor([-1000.0, -0.6, 0.4, 126.8, 500.0])
    assert quantise(values, False).tolist() == [-128, -1, 0, 127, 127]
    noisy = torch.stack([quantise(torch.full((1000,), 3.2), True)])
    assert 2.7 <= noisy.min() < 2.75 and 3.65 < noisy.max() <= 3.7
    assert quantise(values, True)[0] == -128


def test_context_depends_on_visible_elements_only() -> None:
    torch.manual_seed(3)
    model = ContextModel(4, 16, 2, depth=2).eval()
    y = torch.randn(2, 4, 4, 4)
    visible = torch.rand(2, 1, 4, 4) < 0.5
    features = model(y, visible)
    assert not features.masked_select(visible).any()
    other = torch.where(visible, y, torch.randn_like(y))
    assert torch.equal(model(other, visible), features)
    changed = torch.where(visible, y + 1, y)
    hidden = ~visible.expand_as(features)
    assert (model(changed, visible) != features)[hidden].float().mean() > 0.99
    # Nothing visible at all: a hidden position still has itself to attend to.
    assert torch.isfinite(model(y, torch.zeros_like(visible))).all()


def test_checkerboard_codes_odd_positions_first() -> None:
    board = checkerboard(torch.zeros(1, 1, 2, 3))
    assert board[0, 0].tolist() == [[False, True, False], [True, False, True]]


# --- training --------------------------------------------------------------------------------


def test_forward_computes_wanted_terms_only() -> None:
    codec = small()
    images = torch.rand(2, 3, 64, 128)
    codec.train()
    codec.wanted = frozenset({"elimination_bpp", "elimination_l1", "elimination_mse"})
    out = codec(images)
    assert set(out.terms) == codec.wanted
    assert out.features is None and out.bits == 0 and out.pixels == 2 * 64 * 128
    codec.wanted = frozenset({"bpp"})
    out = codec(images)
    assert "layer2_mse" not in out.terms and out.features.shape == (2, 64, 16, 32)
    codec.wanted = frozenset(TERMS)
    assert set(codec(images).terms) >= TERMS - {"bpp"}


def test_features_are_the_same_without_the_rate() -> None:
    codec = small().eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        whole = codec(images)
        codec.features_only = True
        calls: list[object] = []
        codec.latent.register_forward_hook(lambda *found: calls.append(found))
        features = codec(images).features
    assert torch.equal(features, whole.features)
    assert whole.bits > 0 and not calls


def test_evaluation_mode_does_not_depend_on_wanted_terms() -> None:
    codec = small().eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        first = codec(images)
        codec.wanted = frozenset({"elimination_l1"})
        second = codec(images)
    assert torch.equal(first.features, second.features) and first.bits == second.bits
    assert first.terms == second.terms
    # f2, of which feature_mse is, from the parts.
    with torch.no_grad():
        f1 = codec.backbone.head(images)
        y1 = codec.elimination.encoder(f1).round()
        f2 = codec.elimination.decoder(y1)
    assert first.terms["elimination_l1"] == pytest.approx(float((f1 - f2).abs().mean()), rel=1e-4)
    expected = float((first.features - f2).square().mean())
    assert first.terms["feature_mse"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "settings",
    [{}, {"elimination_block": "convformer"}, {"context": False}, {"eliminate": False}],
    ids=str,
)
def test_every_part_learns(settings: dict[str, Any]) -> None:
    codec = small(drop_path=[0.0, 0.0, 0.0], **settings)
    codec.train()
    terms = {*TERMS, "elimination_bpp", "elimination_l1", "elimination_mse"}
    codec.wanted = frozenset(terms)
    out = codec(torch.rand(1, 3, 128, 128))  # two positions of z or more, to attend to
    (sum(out.terms.values()) + out.bits / out.pixels).backward()
    parts = codec.part_modules()
    assert set(parts) == {"backbone", "elimination", "compression"}
    assert bool(parts["elimination"]) == codec.settings.eliminate
    owned = [p for modules in parts.values() for m in modules for p in m.parameters()]
    assert len({id(p) for p in owned}) == len(owned) == len(list(codec.parameters()))
    without = {id(p) for p in codec.backbone.fc.parameters()}
    for name, parameter in codec.named_parameters():
        if id(parameter) not in without:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.any(), name
    assert codec.auxiliary_parameters() == [] and codec.auxiliary_loss() == 0


def test_self_supervised_returns_the_tail_with_or_without_elimination() -> None:
    codec = small().eval()
    images = torch.rand(2, 3, 96, 64)
    with torch.no_grad():
        plain, none = codec.self_supervised(images, eliminate=False)
        reduced, terms = codec.self_supervised(images, eliminate=True)
        assert torch.equal(plain, codec.backbone.tail(codec.backbone.head(images))[-1])
    assert plain.shape == reduced.shape == (2, 512, 3, 2)
    names = {"elimination_bpp", "elimination_l1", "elimination_mse"}
    assert none == {} and set(terms) == names
    assert not torch.equal(plain, reduced)
    assert terms["elimination_bpp"] > 0


def test_forward_without_elimination_compresses_the_backbones_features() -> None:
    codec = small(eliminate=False).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        out = codec(images)
        f1 = codec.backbone.head(images)
    assert set(out.terms) == {"feature_mse"}
    expected = float((out.features - f1).square().mean())
    assert float(out.terms["feature_mse"]) == pytest.approx(expected, rel=1e-5)


# --- bitstreams ------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"context": False}], ids=str)
def test_dicm_decodes_its_latents_at_the_estimated_rate(settings: dict[str, Any]) -> None:
    codec = small(spread=30, **settings)
    codec.prepare_coding()
    encoded = codec.encode(image(101, 70))
    decoded = codec.decode(encoded.data)
    assert isinstance(encoded.reconstruction, dict)
    assert decoded["size"].tolist() == [101, 70]
    assert decoded["y"].dtype == np.int8 and decoded["y"].shape == (32, 8, 8)
    assert decoded["y"].std() > 1  # many different symbols
    for name, array in encoded.reconstruction.items():
        assert np.array_equal(decoded[name], array) and decoded[name].dtype == array.dtype
    assert abs(encoded.bits - encoded.bits_estimated) < 96 + 0.01 * encoded.bits
    assert encoded.pixels_coded == 128 * 128
    tensor = torch.from_numpy(image(101, 70).copy()).permute(2, 0, 1)[None].float() / 255
    tensor = functional.pad(tensor, (0, 58, 0, 27), mode="replicate")
    with torch.no_grad():
        out = codec(tensor)
    assert float(out.bits) == pytest.approx(encoded.bits_estimated, rel=1e-4)
    assert encoded.rate_map is not None and encoded.rate_map.shape == (8, 8)
    assert encoded.rate_map.sum() == pytest.approx(encoded.bits_estimated, rel=1e-5)
    assert torch.allclose(out.features, codec.features(decoded), rtol=1e-3, atol=1e-4)


DECODE = """
import sys, numpy as np, torch
from pathlib import Path
from icmbench.codecs.dicm.codec import Dicm
from icmbench.codecs.dicm.entries import DicmParameters
folder = Path(sys.argv[1])
torch.set_num_threads(1)
settings = DicmParameters.model_validate_json((folder / "settings.json").read_text())
codec = Dicm(settings)
codec.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
codec.prepare_coding()
latents = codec.decode((folder / "data.bin").read_bytes())
np.savez(folder / "decoded.npz", features=codec.features(latents).numpy(), **latents)
"""


def test_another_process_decodes_the_same_features(tmp_path: Path) -> None:
    codec = small(spread=30)
    codec.prepare_coding()
    encoded = codec.encode(image(128, 100))
    assert isinstance(encoded.reconstruction, dict)
    (tmp_path / "settings.json").write_text(codec.settings.model_dump_json())
    (tmp_path / "data.bin").write_bytes(encoded.data)
    torch.save(codec.state_dict(), tmp_path / "weights.pt")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", DECODE, str(tmp_path)], check=True, env=environment)
    with np.load(tmp_path / "decoded.npz") as decoded:
        for name, array in encoded.reconstruction.items():
            assert np.array_equal(decoded[name], array)
        own = codec.features(encoded.reconstruction).numpy()
        assert np.array_equal(decoded["features"], own)


def test_implementation_names_the_ablations() -> None:
    assert "no " not in small().implementation()
    assert "no context model" in small(context=False).implementation()
    assert "no redundancy elimination" in small(eliminate=False).implementation()
