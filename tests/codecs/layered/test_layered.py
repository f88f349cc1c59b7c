"""The layered codec: two streams, what each decodes to, and the terms it is trained with."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.ndimage import correlate1d
from torch import Tensor
from torchvision.models.vgg import cfgs, make_layers

from icmbench.codecs.base import decoded_digest
from icmbench.codecs.bitstream import unpack
from icmbench.codecs.layered import perceptual
from icmbench.codecs.layered.codec import Layered, LayeredFirst, first_stream
from icmbench.codecs.layered.entries import LayeredParameters
from icmbench.codecs.layered.losses import adversarial_loss, discriminator_loss, ssim_loss
from icmbench.codecs.layered.transforms import Analysis, Synthesis
from icmbench.data.synthetic.scenes import make_scene
from icmbench.errors import UserError
from icmbench.networks.weights import load_part
from icmbench.train.checkpoint import save_weights
from icmbench.utils.images import to_tensor

SMALL: dict[str, Any] = {
    "widths": [8, 12, 16, 32, 32],
    "residual_blocks": 1,
    "semantic": 4,
    "texture": 6,
    "hyper": 8,
    "discriminator": 4,
    "perceptual": "random",
    "latent_gain": 3.0,
}
WARM = {"bpp": 0.05, "mae": 10.0, "ssim": 25.0, "perceptual": 0.3}
ADVERSARIAL = {**WARM, "adversarial": 0.15}


def small(kind: type[Layered] = Layered, **settings: Any) -> Any:
    torch.manual_seed(7)
    codec = kind(LayeredParameters.model_validate({**SMALL, **settings}))
    return codec.to(memory_format=torch.channels_last)


def step(codec: Any, images: Tensor, weights: dict[str, float], seed: int) -> dict[str, Tensor]:
    """Return the terms of a training step, ``loss`` among them."""
    torch.manual_seed(seed)
    codec.train()
    codec.wanted = frozenset(weights)
    out = codec(images)
    terms = {"bpp": out.bits / out.pixels, **out.terms}
    return {**terms, "loss": torch.stack([w * terms[k] for k, w in weights.items()]).sum()}


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return [make_scene(np.random.default_rng(seed), 128).image for seed in range(4)]


@pytest.fixture(scope="module")
def crops(images: list[np.ndarray]) -> Tensor:
    return torch.cat([to_tensor(image) for image in images])[:, :, 32:96, 32:96]


@pytest.fixture(scope="module")
def trained(crops: Tensor) -> tuple[Any, list[float]]:
    """A codec after some steps of the warm phase, ready to code, and its losses."""
    codec = small()
    held = {id(p) for p in codec.auxiliary_parameters()}
    own = [p for p in codec.network.parameters() if id(p) not in held]
    optimiser = torch.optim.Adam(own, 3e-3)
    losses = []
    for number in range(150):
        terms = step(codec, crops, WARM, number)
        optimiser.zero_grad()
        terms["loss"].backward()
        optimiser.step()
        losses.append(terms["loss"].item())
    codec.prepare_coding()
    return codec, losses


@pytest.fixture(scope="module")
def first(trained: tuple[Any, list[float]], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The trained codec's first layer, by way of its weights."""
    path = tmp_path_factory.mktemp("layered") / "weights.pt"
    save_weights(path, trained[0], None, {})
    codec = small(LayeredFirst)
    load_part(codec, path, "codec")
    codec.prepare_coding()
    return codec


def test_warm_phase_lowers_its_loss(trained: tuple[Any, list[float]]) -> None:
    losses = trained[1]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


@pytest.mark.parametrize("size", [(128, 128), (101, 70)])
def test_first_stream_decodes_alone_to_the_same_layer(
    trained: tuple[Any, list[float]], first: Any, images: list[np.ndarray], size: Any
) -> None:
    codec = trained[0]
    image = images[0][: size[0], : size[1]]
    both, one = codec.encode(image), first.encode(image)
    decoded = codec.decode(both.data)
    assert decoded_digest(decoded) == decoded_digest(both.reconstruction)
    assert decoded["size"].tolist() == list(size)
    assert both.pixels_coded == 128 * 128
    # The first stream is cut out of the other one and decodes alone, to the same values.
    assert first_stream(both.data) == one.data
    assert unpack(both.data, 2)[2][:1] == unpack(one.data, 1)[2]
    alone = first.decode(one.data)
    assert set(alone) == {"semantic", "size"}
    assert np.array_equal(alone["semantic"], decoded["semantic"])
    # Texture costs rate of its own, and is not all zeros.
    strings = unpack(both.data, 2)[2]
    assert both.bits - one.bits == pytest.approx(8 * len(strings[1]), abs=2 * 8)
    assert both.bits > one.bits + 100
    assert np.unique(decoded["texture"].round()).size > 2
    # What tasks read.
    features = codec.features(decoded)
    assert features.shape == (1, 10, 8, 8) and features.dtype == torch.float32
    assert torch.equal(features[:, :4], first.features(alone))


def test_second_layer_improves_the_decoded_image(
    trained: tuple[Any, list[float]], first: Any, images: list[np.ndarray]
) -> None:
    codec = trained[0]
    errors = []
    for image in [images[1][:101, :70], *(each[32:96, 32:96] for each in images)]:
        latents = codec.decode(codec.encode(image).data)
        full = codec.image(latents)
        partial = {name: latents[name] for name in ("semantic", "size")}
        coarse = codec.image(partial)
        assert full.shape == coarse.shape == image.shape and full.dtype == np.uint8
        assert np.array_equal(coarse, first.image(partial))
        assert not np.array_equal(coarse, full)
        errors.append([np.abs(one.astype(float) - image).mean() for one in (full, coarse)])
    # On what it was trained with, texture brings the image nearer to the original.
    with_texture, without = np.mean(errors[1:], 0)
    assert with_texture < without
    # It has learned more than one grey level for all.
    assert with_texture < 0.9 * np.mean([np.abs(p - p.mean((0, 1))).mean() for p in images])


def test_second_layer_needs_its_own_first_layer(
    trained: tuple[Any, list[float]], images: list[np.ndarray]
) -> None:
    codec = trained[0]
    strings = [unpack(codec.encode(image).data, 2)[2] for image in images[:2]]
    texture = codec.network.texture
    contexts = [codec.network.semantic.decompress(s[0], 8, 8) for s in strings]
    own = texture.decompress(strings[0][1], 8, 8, contexts[0])
    other = texture.decompress(strings[0][1], 8, 8, contexts[1])
    assert not torch.equal(own, other)


def test_rate_is_the_estimate(
    trained: tuple[Any, list[float]], first: Any, images: list[np.ndarray]
) -> None:
    for codec, strings in ((trained[0], 2), (first, 1)):
        for image in images:
            encoded = codec.encode(image)
            # Each string ends with eight bytes of the range coder's state, and may have its length.
            assert encoded.bits_estimated > 300
            assert encoded.rate_map.shape == codec.decode(encoded.data)["semantic"].shape[1:]
            assert encoded.rate_map.sum() == pytest.approx(encoded.bits_estimated, rel=1e-5)
            overhead = 8 * (10 * strings + 2)
            assert abs(encoded.bits - encoded.bits_estimated) < overhead + 0.02 * encoded.bits


def test_evaluation_mode_codes(trained: tuple[Any, list[float]], images: list[np.ndarray]) -> None:
    codec = trained[0]
    encoded = codec.encode(images[2])
    with torch.no_grad():
        results = []
        for wanted in (frozenset(), frozenset(ADVERSARIAL)):
            codec.wanted = wanted
            results.append(codec(to_tensor(images[2])))
    for out in results:
        assert out.images is None and out.terms == {}
        assert float(out.bits) == pytest.approx(encoded.bits_estimated, rel=1e-5)
        features = codec.features(codec.decode(encoded.data))
        assert torch.allclose(out.features, features, atol=1e-4)


_OTHER_PROCESS = """
import sys
from pathlib import Path
from icmbench.codecs.base import decoded_digest
from icmbench.codecs.layered.codec import Layered, LayeredFirst
from icmbench.codecs.layered.entries import LayeredParameters
from icmbench.networks.weights import load_part
import torch
torch.set_num_threads(1)
folder = Path(sys.argv[1])
parameters = LayeredParameters.model_validate_json((folder / "parameters.json").read_text())
for kind in (Layered, LayeredFirst):
    codec = kind(parameters).to(memory_format=torch.channels_last)
    load_part(codec, folder / "weights.pt", "codec")
    codec.prepare_coding()
    latents = codec.decode((folder / kind.__name__).read_bytes())
    print(decoded_digest(latents), decoded_digest(codec.image(latents)))
"""


def test_another_process_decodes_the_same_layers(
    trained: tuple[Any, list[float]], first: Any, images: list[np.ndarray], tmp_path: Path
) -> None:
    expected = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for codec in (trained[0], first):
        encoded = codec.encode(images[3][:90])
        (tmp_path / type(codec).__name__).write_bytes(encoded.data)
        digests = [encoded.reconstruction, codec.image(encoded.reconstruction)]
        expected.append(" ".join(map(decoded_digest, digests)))
    torch.set_num_threads(threads)
    save_weights(tmp_path / "weights.pt", trained[0], None, {})
    (tmp_path / "parameters.json").write_text(trained[0].settings.model_dump_json())
    command = [sys.executable, "-c", _OTHER_PROCESS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split("\n")[:2] == expected


def test_losses_are_the_published_formulas() -> None:
    """Hand-computed from probabilities: D(x', y') = 1/4 and 1/2, D(x, y') = 4/5."""
    fake = torch.tensor([0.25, 0.5]).logit()
    real = torch.tensor([0.8]).logit()
    assert float(adversarial_loss(fake)) == pytest.approx((math.log(4) + math.log(2)) / 2)
    expected = -(math.log(0.75) + math.log(0.5)) / 2 - math.log(0.8)
    assert float(discriminator_loss(real, fake)) == pytest.approx(expected)
    # Where the probability itself would be 0 in float32.
    assert float(adversarial_loss(torch.tensor([-200.0]))) == pytest.approx(200)
    assert float(discriminator_loss(torch.tensor([-200.0]), torch.tensor([200.0]))) == 400


def test_forward_returns_these_losses(crops: Tensor) -> None:
    codec = small()
    codec.train()
    codec.discriminator.eval()  # so that spectral norms stay as they are
    codec.wanted = frozenset(ADVERSARIAL)
    out = codec(crops)
    latent = out.features
    probability = torch.sigmoid(codec.discriminator(out.images, latent))
    original = torch.sigmoid(codec.discriminator(crops, latent))
    assert torch.allclose(out.terms["adversarial"], -probability.log().mean(), atol=1e-5)
    expected = -(1 - probability).log().mean() - original.log().mean()
    assert torch.allclose(out.terms["discriminator"], expected, atol=1e-5)
    assert torch.allclose(out.terms["mae"], (out.images - crops).abs().mean())
    # The logits depend on the latent.
    other = codec.discriminator(crops, latent + 1)
    assert not torch.allclose(torch.sigmoid(other), original, atol=1e-6)


def test_adversaries_get_separate_gradients(crops: Tensor) -> None:
    codec = small()
    terms = step(codec, crops, ADVERSARIAL, 0)
    terms["adversarial"].backward(retain_graph=True)
    adversary = {id(p) for p in codec.adversary_parameters()}
    own = [p for p in codec.parameters() if id(p) not in adversary]
    assert all(p.grad is None for p in codec.discriminator.parameters())
    assert any(
        p.grad is not None and p.grad.abs().sum() > 0 for p in codec.network.g_s.parameters()
    )
    assert any(
        p.grad is not None and p.grad.abs().sum() > 0 for p in codec.network.g_a.parameters()
    )
    for parameter in own:
        parameter.grad = None
    terms["discriminator"].backward()
    assert all(p.grad is None for p in own)
    for parameter in codec.discriminator.parameters():
        assert parameter.requires_grad and parameter.grad.abs().sum() > 0


@pytest.mark.parametrize("quantisation", ["noise", "mixed"])
def test_every_part_learns(crops: Tensor, quantisation: str) -> None:
    codec = small(quantisation=quantisation)
    terms = step(codec, crops, ADVERSARIAL, 0)
    (terms["loss"] + terms["discriminator"]).backward()
    codec.auxiliary_loss().backward()
    parts = codec.part_modules()
    assert set(parts) == {"analysis", "synthesis", "entropy", "discriminator"}
    parameters = [p for modules in parts.values() for m in modules for p in m.parameters()]
    assert len({id(p) for p in parameters}) == len(list(codec.parameters()))
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in parameters)
    assert len(codec.auxiliary_parameters()) == 2
    # Rounded latents are whole numbers away from their means; noisy ones are not.
    codec.wanted = frozenset()
    with torch.no_grad():
        y = torch.randn(1, 4, 4, 4) * 5
        torch.manual_seed(1)
        noisy = codec.network.semantic(y)[0]
        torch.manual_seed(2)
        again = codec.network.semantic(y)[0]
    assert torch.equal(noisy, again) == (quantisation == "mixed")


@pytest.mark.parametrize("quantisation", ["noise", "mixed"])
def test_training_returns_the_rate_of_bitstreams(crops: Tensor, quantisation: str) -> None:
    codec = small(quantisation=quantisation)
    codec.train()
    out = codec(crops)
    codec.eval()
    with torch.no_grad():
        use = codec(crops)
    # With noise the second layer is modelled given a noisy first one.
    close = 1e-5 if quantisation == "mixed" else 0.1
    assert float(out.coded_bits) == pytest.approx(float(use.coded_bits), rel=close)
    # Four containers with 2 strings each; the end of a string takes 32 to 64 bits.
    overhead = float(use.coded_bits) - float(use.bits)
    assert 4 * (3 * 8 + 2 * 32) <= overhead <= 4 * (4 * 8 + 2 * 64)
    assert float(use.bits) != float(out.bits)
    assert out.bits.requires_grad and not out.coded_bits.requires_grad


def test_forward_computes_wanted_terms_of_images_only(crops: Tensor) -> None:
    codec = small()
    codec.train()
    codec.wanted = frozenset({"bpp", "attributes"})
    out = codec(crops)
    assert out.images is None and out.terms == {} and out.features.shape == (4, 10, 4, 4)
    codec.wanted = frozenset({"mse"})
    out = codec(crops)
    assert out.images.shape == crops.shape and out.terms == {}
    codec.wanted = frozenset({"ssim"})
    assert set(codec(crops).terms) == {"ssim"}
    codec.wanted = frozenset({"adversarial"})
    assert set(codec(crops).terms) == {"adversarial", "discriminator"}


def test_state_dict_holds_all_state_of_training(crops: Tensor) -> None:
    """All state is in the state dict: spectral norms, but neither distance nor its filters."""
    codec, resumed = small(), small(latent_gain=1.0)
    for number in range(2):
        step(codec, crops, ADVERSARIAL, number)["discriminator"].backward()
    assert not [name for name in codec.state_dict() if name.startswith("distance")]
    resumed.load_state_dict(codec.state_dict())
    first, second = (step(each, crops, ADVERSARIAL, 9) for each in (codec, resumed))
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_first_layer_costs_less_and_trains_alone(crops: Tensor) -> None:
    both, one = small(), small(LayeredFirst)
    assert both.state_dict().keys() == one.state_dict().keys()
    first, second = (step(each, crops, WARM, 3) for each in (both, one))
    assert second["bpp"] < first["bpp"]
    second["loss"].backward()
    assert all(p.grad is not None for p in one.network.g_s.parameters())
    # Its texture is predicted: that layer's own analysis takes no part.
    assert all(p.grad is None for p in one.network.texture.h_a.parameters())


def test_ssim_loss_is_the_definition(crops: Tensor) -> None:
    """Against the definition: Gaussian window of 11 and 1.5, K1 0.01, K2 0.03, inner region."""
    torch.manual_seed(0)
    decoded = (crops + 0.1 * torch.randn_like(crops)).clamp(0, 1)
    window = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window /= window.sum()

    def blur(values: np.ndarray) -> np.ndarray:
        for axis in (2, 3):
            values = correlate1d(values, window, axis=axis)
        return values[:, :, 5:-5, 5:-5]

    x, y = crops.numpy().astype(np.float64), decoded.numpy().astype(np.float64)
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    values = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    values *= (2 * covariance + c2) / (var_x + var_y + c2)
    assert float(ssim_loss(crops, decoded)) == pytest.approx(1 - values.mean(), abs=1e-4)
    assert float(ssim_loss(crops, crops)) == pytest.approx(0, abs=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(ssim_loss(crops, decoded)) == pytest.approx(1 - values.mean(), abs=1e-4)


def test_vgg_distance_is_that_of_torchvisions_layers(
    crops: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    features = make_layers(cfgs["D"][:10])  # up to the third pooling
    state = {f"features.{name}": value for name, value in features.state_dict().items()}
    monkeypatch.setattr(perceptual, "_vgg_weights", lambda: state)
    distance = perceptual.make_distance("vgg16")
    decoded = crops.flip(3).requires_grad_()
    value = distance(crops, decoded)
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
    expected = 0.0
    for depth in (9, 16):  # relu2_2, relu3_3
        x, y = (features[:depth]((each - mean) / std) for each in (crops, decoded))
        expected += (x - y).square().mean().item()
    assert value.item() == pytest.approx(expected, rel=1e-4)
    value.backward()
    assert decoded.grad is not None and decoded.grad.abs().sum() > 0
    assert not list(distance.parameters()) and not distance.state_dict()


def test_vgg_distance_reports_missing_weights_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", fail)
    with pytest.raises(UserError, match=r"'vgg16'.*no network.*random"):
        perceptual.make_distance("vgg16")


def test_random_distance_grows_with_blur_and_draws_no_random_numbers(crops: Tensor) -> None:
    before = torch.get_rng_state()
    distance = perceptual.make_distance("random")
    assert torch.equal(before, torch.get_rng_state())
    assert not list(distance.parameters()) and not distance.state_dict()
    assert float(distance(crops, crops)) == 0
    pool = torch.nn.functional.avg_pool2d
    blurred = [pool(crops, size, 1, size // 2) for size in (3, 5, 9)]
    values = [float(distance(crops, each)) for each in blurred]
    assert 0 < values[0] < values[1] < values[2] <= 4
    # Features are compared, not pixels: contrast matters less than structure.
    weaker = 0.5 + 0.8 * (crops - 0.5)
    assert float(distance(crops, weaker)) < values[0]
    # A grey image has no structure at all; its gradient exists.
    grey = torch.full_like(crops, 0.5, requires_grad=True)
    distance(crops, grey).backward()
    assert grey.grad is not None and torch.isfinite(grey.grad).all()


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(UserError, match=r"perceptual.*vgg16, random"):
        perceptual.make_distance("none")
    with pytest.raises(ValidationError, match="widths"):
        LayeredParameters(widths=[8, 8, 8, 8, 1])


def test_transforms_have_hifics_convolutions() -> None:
    """Counted by hand from the layers of the paper's figure: weights and biases of convolutions."""
    widths, latent, blocks = [60, 120, 240, 480, 960], 220, 9

    def count(inputs: int, outputs: int, side: int = 3) -> int:
        return inputs * outputs * side**2 + outputs

    steps = [(60, 120), (120, 240), (240, 480), (480, 960)]
    encoder = count(3, 60, 7) + sum(count(a, b) for a, b in steps) + count(960, 220)
    generator = count(220, 960) + 2 * blocks * count(960, 960)
    generator += sum(count(b, a) for a, b in steps) + count(60, 3, 7)

    def convolutions(module: torch.nn.Module) -> int:
        kinds = (torch.nn.Conv2d, torch.nn.ConvTranspose2d)
        layers = [m for m in module.modules() if isinstance(m, kinds)]
        return sum(p.numel() for layer in layers for p in layer.parameters())

    with torch.device("meta"):
        assert convolutions(Analysis(widths, latent)) == encoder
        assert convolutions(Synthesis(widths, latent, blocks)) == generator


def test_analysis_normalises_channels_at_each_position() -> None:
    analysis = Analysis([4, 4, 4, 4, 4], 2)
    normalised = analysis[1](5 + 3 * torch.randn(2, 4, 6, 6))
    assert torch.allclose(normalised.mean(1), torch.zeros(2, 6, 6), atol=1e-5)
    assert torch.allclose(normalised.var(1, unbiased=False), torch.ones(2, 6, 6), atol=0.05)
