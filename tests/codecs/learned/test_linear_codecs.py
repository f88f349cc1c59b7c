"""Learned image codecs with a linear start code images before any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from icmbench.data.synthetic.scenes import make_scene
from icmbench.networks.weights import load_part
from icmbench.plugins import load_modules
from icmbench.registry import CODECS, implementation
from icmbench.train.checkpoint import save_weights
from icmbench.utils.images import to_tensor

load_modules([])
LEARNED = [name for name in CODECS.names() if "mse" in CODECS[name].loss_terms
           and CODECS[name].outputs == ("images",)]  # fmt: skip
IMAGES = [make_scene(np.random.default_rng([5, i]), 128).image for i in range(24)]


def with_linear_start(name: str) -> Any:
    torch.manual_seed(0)
    entry = CODECS[name]
    settings: dict[str, Any] = {"n": 8, "m": 24, "linear_start": True}
    if name.startswith("cheng2020"):
        settings["n"] = 24
    if name == "elic2022":
        settings["groups"] = [4, 4, 16]
    return implementation(entry)(entry.parameters.model_validate(settings))


def initialise(codec: Any) -> None:
    batches = [to_tensor(image) for image in IMAGES]
    codec.initialise({"analysis", "synthesis", "entropy"}, batches, {"bpp": 1.0, "mse": 0.005})


@pytest.mark.parametrize("name", LEARNED)
def test_codec_with_linear_start_is_a_transform_coder(name: str) -> None:
    codec = with_linear_start(name)
    initialise(codec)
    codec.prepare_coding()
    errors, bits = [], []
    for image in IMAGES[:4]:
        encoded = codec.encode(image)
        np.testing.assert_array_equal(codec.decode(encoded.data), encoded.reconstruction)
        difference = encoded.reconstruction.astype(float) - image
        errors.append((difference**2).mean() / image.astype(float).var())
        bits.append(8 * len(encoded.data) / image[..., 0].size)
    # 24 of 768 components hold more than four fifths of the variance. Images coded as noise, or
    # Gaussians of the wrong width, would take several bits per pixel. Smaller blocks have four
    # times the components.
    assert np.mean(errors) < 0.2
    assert np.mean(bits) < (0.9 if codec.latent_stride == 8 else 0.6)


def test_entropy_model_begins_anew_behind_the_transforms_of_another_codec(tmp_path: Path) -> None:
    first = with_linear_start("bmshj2018-hyperprior")
    initialise(first)
    save_weights(tmp_path / "weights.pt", first, None, {})
    second = with_linear_start("mbt2018")
    load_part(
        second,
        tmp_path / "weights.pt",
        "codec",
        CODECS["mbt2018"].starts_from["bmshj2018-hyperprior"],
    )
    transform = second.network.g_a.linear.weight.clone()
    initialise(second)
    assert torch.equal(second.network.g_a.linear.weight, transform)
    second.prepare_coding()
    encoded = second.encode(IMAGES[0])
    assert 8 * len(encoded.data) / IMAGES[0][..., 0].size < 0.8


def test_initialise_leaves_trained_weights_alone() -> None:
    codec = with_linear_start("mbt2018-mean")
    initialise(codec)
    before = {name: value.clone() for name, value in codec.state_dict().items()}
    initialise(codec)
    assert all(torch.equal(value, before[name]) for name, value in codec.state_dict().items())
