"""LPIPS and DISTS against their formulas, on random networks; published ones where they are."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
import torchvision
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision.models import _api

from icmbench.config import own_weights
from icmbench.config.load import combine
from icmbench.config.run import Layer
from icmbench.errors import UserError
from icmbench.networks import perceptual
from icmbench.networks.perceptual import BACKBONES, Perceptual
from icmbench.networks.pretrained import cache_path

LEARNED = Path(torchmetrics.__file__).parent / "functional" / "image"
MODELS = {"alexnet": torchvision.models.alexnet, "vgg16": torchvision.models.vgg16}


@pytest.fixture(scope="module")
def states() -> dict[str, dict[str, Tensor]]:
    torch.manual_seed(0)
    return {name: make().state_dict() for name, make in MODELS.items()}


@pytest.fixture(scope="module")
def measure(states: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Perceptual]:
    """Both distances, on random networks instead of torchvision's; nothing is downloaded."""

    def load(url: str, **_: Any) -> dict[str, Tensor]:
        state: dict[str, Tensor] = states[url.rpartition("/")[2].partition("-")[0]]
        return state

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch")))
        patch.setattr(_api, "load_state_dict_from_url", load)
        yield Perceptual(["lpips", "dists"])


def image(seed: int, height: int = 48, width: int = 70) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def features(network: Any, x: Tensor, stops: list[int], pool: Any = None) -> Iterator[Tensor]:
    """Yield what the layers before each stop give, with another pooling if there is one."""
    for place, layer in enumerate(network.features[: stops[-1]]):
        pooling = pool is not None and isinstance(layer, torch.nn.MaxPool2d)
        x = pool(x) if pooling else torch.relu(x) if isinstance(layer, torch.nn.ReLU) else layer(x)
        if place + 1 in stops:
            yield x


def batch(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image.astype(np.float64) / 255).permute(2, 0, 1)[None]


def built(name: str, state: dict[str, Tensor]) -> Any:
    network = MODELS[name]()
    network.load_state_dict(state)
    return network.double().eval()


@torch.no_grad()
def lpips(network: Any, first: np.ndarray, second: np.ndarray) -> float:
    """Formula 1 of the paper: weighted squares of differences of unit features, averaged."""
    shift, scale = torch.tensor([[-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]]).double()
    inputs = [
        (2 * batch(own) - 1 - shift[:, None, None]) / scale[:, None, None]
        for own in (first, second)
    ]
    weights = torch.load(LEARNED / "lpips_models" / "alex.pth", "cpu", weights_only=True)
    both = (features(network, own, [2, 5, 8, 10, 12]) for own in inputs)
    total = 0.0
    for layer, pair in enumerate(zip(*both, strict=True)):
        x, y = (own / own.norm(dim=1, keepdim=True).clamp_min(1e-4) for own in pair)
        weight = weights[f"lin{layer}.model.1.weight"].double()
        total += float((weight * (x - y) ** 2).sum(1).mean())
    return total


@torch.no_grad()
def dists(network: Any, first: np.ndarray, second: np.ndarray) -> float:
    """Formulas 5 to 7 of the paper, over the image and five stages of VGG16."""
    window = torch.outer(*[torch.tensor([0.25, 0.5, 0.25]).double()] * 2)

    def pool(x: Tensor) -> Tensor:
        kernel = window.expand(x.shape[1], 1, 3, 3)
        squares = functional.conv2d(x**2, kernel, stride=2, padding=1, groups=x.shape[1])
        return (squares + 1e-12).sqrt()

    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).double()
    sides = []
    for own in map(batch, (first, second)):
        x = (own - mean[:, None, None]) / std[:, None, None]
        sides.append([own, *features(network, x, [4, 9, 16, 23, 30], pool)])
    learned = torch.load(LEARNED / "dists_models" / "weights.pt", "cpu", weights_only=True)
    alpha, beta = learned["alpha"].double().flatten(), learned["beta"].double().flatten()
    similar, place, constant = 0.0, 0, 1e-6
    for x, y in zip(*sides, strict=True):
        x, y = x.flatten(2)[0], y.flatten(2)[0]
        here = slice(place, place + len(x))
        place += len(x)
        mx, my = x.mean(1), y.mean(1)
        texture = (2 * mx * my + constant) / (mx**2 + my**2 + constant)
        covariance = ((x - mx[:, None]) * (y - my[:, None])).mean(1)
        spread = x.var(1, unbiased=False) + y.var(1, unbiased=False)
        structure = (2 * covariance + constant) / (spread + constant)
        similar += float((alpha[here] * texture + beta[here] * structure).sum())
    return 1 - similar / float(alpha.sum() + beta.sum())


def test_distances_are_those_of_the_papers(measure: Perceptual, states: Any) -> None:
    alexnet, vgg = (built(name, states[name]) for name in ("alexnet", "vgg16"))
    first = image(0)
    for second in (image(1), np.roll(first, 1, 1)):
        found = measure(first, second)
        assert found["lpips"] == pytest.approx(lpips(alexnet, first, second), rel=2e-3)
        assert found["dists"] == pytest.approx(dists(vgg, first, second), rel=2e-3)
        assert min(found.values()) > 1e-3


def test_equal_images_have_no_distance(measure: Perceptual) -> None:
    found = measure(image(0), image(0))
    assert list(found) == ["lpips", "dists"]
    assert all(0 <= value < 1e-5 for value in found.values())
    # No value depends on those before it.
    apart = measure(image(0), image(1))
    assert measure(image(0), image(1)) == apart


def test_small_images_have_no_lpips(measure: Perceptual) -> None:
    found = measure(image(0, 31, 40), image(1, 31, 40))
    assert all(np.isfinite(list(found.values())))
    found = measure(image(0, 30, 40), image(1, 30, 40))
    assert np.isnan(found["lpips"]) and np.isfinite(found["dists"])


def test_images_of_different_shapes_are_refused(measure: Perceptual) -> None:
    with pytest.raises(UserError, match="48, 71"):
        measure(image(0), image(0, 48, 71))


@pytest.mark.parametrize("name", ["lpips", "dists"])
def test_published_networks_order_jpegs(name: str) -> None:
    path = cache_path(BACKBONES[name])
    if not path.is_file():
        pytest.skip(f"needs the published weights {path.name} in torch's cache")
    measure = Perceptual([name])
    coarse = Image.fromarray(image(0, 12, 16)).resize((256, 192), Image.Resampling.BICUBIC)
    values = []
    for quality in (90, 50, 10):
        buffer = io.BytesIO()
        coarse.save(buffer, "JPEG", quality=quality)
        values.append(measure(np.asarray(coarse), np.asarray(Image.open(buffer)))[name])
    assert 0 < values[0] < values[1] < values[2] < 1


# --- the check of the plan ------------------------------------------------------------------------


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache and no network; return the mirror."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(own_weights, "answers", lambda url: False)
    (tmp_path / "mirror" / "weights").mkdir(parents=True)
    return tmp_path / "mirror"


def check(mirror: Path, *names: str) -> None:
    values = {"perceptual": list(names), "data": {"mirror": str(mirror)}}
    own_weights.check_backbones(combine([Layer("mine.yaml", values)]))


def test_plan_refuses_weights_that_cannot_be_had(offline: Path) -> None:
    check(offline)
    with pytest.raises(UserError) as error:
        check(offline, "lpips")
    line = str(error.value)
    assert "\n" not in line and "mine.yaml: key 'perceptual'" in line
    assert str(cache_path(BACKBONES["lpips"])) in line


def test_plan_takes_weights_from_the_mirror_and_checks_them(
    offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()[:8]
    monkeypatch.setitem(perceptual.BACKBONES, "lpips", f"https://any.org/net-{digest}.pth")
    mirrored = offline / "weights" / f"net-{digest}.pth"
    mirrored.write_bytes(b"others")
    with pytest.raises(UserError, match=digest):
        check(offline, "lpips")
    cached = cache_path(BACKBONES["lpips"])
    cached.unlink(missing_ok=True)
    mirrored.write_bytes(b"weights")
    check(offline, "lpips")
    assert cached.read_bytes() == b"weights"


def test_unknown_perceptual_metric_is_refused() -> None:
    with pytest.raises(UserError, match="'vmaf'"):
        combine([Layer("mine.yaml", {"perceptual": ["vmaf"]})])


def test_nothing_is_imported_where_none_is_asked_for() -> None:
    code = (
        "import sys\n"
        "from icmbench.config.own_weights import check_backbones\n"
        "from icmbench.config.run import RunConfig\n"
        "import icmbench.evaluate.curve, icmbench.analyse.run, icmbench.metrics.catalogue\n"
        "check_backbones(RunConfig())\n"
        "found = {'torch', 'torchvision', 'torchmetrics'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
