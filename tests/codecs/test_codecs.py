"""Real bitstreams: their rate, their decoding elsewhere, odd sizes."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from icmbench.codecs import LearnedParameters
from icmbench.data.synthetic.scenes import make_scene


@pytest.fixture(scope="module")
def hyperprior():
    import torch

    from icmbench.codecs.learned.hyperprior import Hyperprior

    torch.manual_seed(1)
    codec = Hyperprior(LearnedParameters(n=16, m=24))
    with torch.no_grad():  # an untrained transform codes next to nothing: give it something to code
        last = codec.network.g_a[6]
        last.weight.mul_(8)
    codec.prepare_coding()
    return codec


@pytest.mark.parametrize("shape", [(128, 128), (1, 1), (65, 63), (100, 200)])
def test_hyperprior_round_trip_at_any_size(hyperprior, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    encoded = hyperprior.encode(image)
    decoded = hyperprior.decode(encoded.data)
    assert decoded.shape == image.shape and decoded.dtype == np.uint8
    assert np.array_equal(decoded, encoded.reconstruction)
    assert encoded.pixels_coded == math.prod(math.ceil(side / 64) * 64 for side in shape)


def test_real_rate_is_close_to_the_estimate() -> None:
    import torch

    from icmbench.codecs.learned.hyperprior import Hyperprior
    from icmbench.utils.tensors import to_tensor

    torch.manual_seed(1)
    codec = Hyperprior(LearnedParameters(n=16, m=24))
    image = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    # Scales near 2 and latents to match, as in a trained codec: a latent far outside its density
    # is coded by an escape code, which the estimate knows nothing of.
    codec.network.h_s[4].bias.data.fill_(2.0)
    last = codec.network.g_a[6]
    last.weight.data.mul_(2 / codec.network.g_a(to_tensor(image)).std())
    # The factorised prior's tables reach as far as its quantiles, which training would place.
    codec.network.entropy_bottleneck.quantiles.data[:] = torch.tensor([-80.0, 0.0, 80.0])
    codec.prepare_coding()
    encoded = codec.encode(image)
    assert encoded.bits_estimated > 5000
    assert 8 * len(encoded.data) == pytest.approx(encoded.bits_estimated, rel=0.01, abs=8 * 16)


def test_a_fresh_process_decodes_the_same_image(hyperprior, tmp_path: Path) -> None:
    import torch

    image = make_scene(np.random.default_rng(5), 128).image
    encoded = hyperprior.encode(image)
    torch.save({"codec": hyperprior.state_dict()}, tmp_path / "weights.pt")
    (tmp_path / "image.bin").write_bytes(encoded.data)
    program = """
import sys, numpy as np, torch
from icmbench.codecs import LearnedParameters
from icmbench.codecs.learned.hyperprior import Hyperprior
from icmbench.networks.weights import load_part
codec = Hyperprior(LearnedParameters(n=16, m=24))
load_part(codec, sys.argv[1] + "/weights.pt", "codec")
codec.prepare_coding()
np.save(sys.argv[1] + "/out.npy", codec.decode(open(sys.argv[1] + "/image.bin", "rb").read()))
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    assert np.array_equal(np.load(tmp_path / "out.npy"), encoded.reconstruction)


def test_bounded_output_lets_gradients_back_in() -> None:
    import torch

    from icmbench.codecs.learned.base import Bounded

    x = torch.tensor([-0.5, 0.5, 1.5], requires_grad=True)
    bounded = Bounded()(x)
    assert bounded.tolist() == [0, 0.5, 1]
    bounded.backward(torch.tensor([-1.0, 1.0, 1.0]))  # downhill leads inside on both sides
    assert x.grad is not None and x.grad.tolist() == [-1, 1, 1]
    x.grad = None
    Bounded()(x).backward(torch.tensor([1.0, 1.0, -1.0]))  # and here it leads further out
    assert x.grad.tolist() == [0, 1, 0]


def test_zoo_quality_decides_the_size_of_pretrained_networks() -> None:
    from icmbench.codecs.learned.hyperprior import Hyperprior

    parameters = LearnedParameters(qualities=[1, 6])
    sizes = [Hyperprior(parameters, rate_index=i, pretrained=True).network.M for i in (0, 1)]
    assert sizes == [192, 320]
    count = sum(p.numel() for p in Hyperprior(parameters, 0, True).parameters())
    assert count == pytest.approx(5.08e6, rel=0.01)  # CompressAI's zoo, qualities 1 to 5


def test_mixed_quantisation_decodes_rounded_latents_and_rates_noisy_ones() -> None:
    import torch

    from icmbench.codecs.learned.hyperprior import Hyperprior

    torch.manual_seed(0)
    noise = Hyperprior(LearnedParameters(n=16, m=24)).train()
    mixed = Hyperprior(LearnedParameters(n=16, m=24, quantisation="mixed")).train()
    mixed.load_state_dict(noise.state_dict())
    images = torch.rand(1, 3, 64, 64)
    exact = mixed.eval()(images).images
    mixed.train()
    assert torch.allclose(mixed(images).images, exact, atol=1e-6)  # what use will decode
    assert not torch.allclose(noise(images).images, exact, atol=1e-6)
    assert mixed(images).bits != mixed(images).bits  # noise, anew each time
    mixed(images).images.sum().backward()
    assert all(p.grad is not None for p in mixed.network.g_a.parameters())
