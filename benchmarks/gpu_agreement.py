"""Agreement of two places: networks' outputs, and bitstreams coded at one, decoded at the other.

The workflow codes on the CPU at both ends (``evaluate/encode.py``), which avoids the differences
counted here. Weights are random, with latents spread as training would spread them, so that enough
symbols can differ. Coding tables are made once, on the CPU, as in the trainer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gpu_common import Place, Table, TimeCap
from torch import Tensor, nn

from icmbench.codecs.base import RgbImage
from icmbench.codecs.learned.base import LearnedFeatureCodec
from icmbench.data.synthetic.scenes import make_scene
from icmbench.networks.convolutions import suit_cpu
from icmbench.networks.padding import stack_padded
from icmbench.registry import CODECS, TASKS, implementation
from icmbench.utils.images import to_tensor

KINDS = (
    "bmshj2018-factorized",
    "bmshj2018-hyperprior",
    "mbt2018",
    "cheng2020-anchor",
    "elic2022",
    "layered",
    "dicm",
)
DETECTORS = ("faster-rcnn", "mask-rcnn")
_SMALL: dict[str, dict[str, Any]] = {
    "elic2022": {"groups": [4, 8, 12]},
    "layered": {
        "widths": [8, 12, 16, 32, 32],
        "residual_blocks": 1,
        "semantic": 4,
        "texture": 6,
        "hyper": 8,
        "discriminator": 4,
    },
    "dicm": {
        "backbone_blocks": [1, 1, 1, 1],
        "backbone_width": 16,
        "backbone_classes": 10,
        "elimination_depths": [1, 1, 1],
        "elimination_widths": [16, 16, 16, 24],
        "widths": [32, 32],
        "hyper_dim": 64,
        "heads": 2,
        "context_depth": 2,
    },
}
_SMALL_DETECTOR = {"backbone": "small", "short_side": 96, "long_side": 128}


@dataclass(frozen=True)
class AgreementSettings:
    """The networks, images and places to compare.

    Attributes:
        a: where bitstreams are encoded.
        b: where they are decoded.
        kinds: codecs.
        detectors: tasks.
        count: images.
        side: of the images, in pixels.
        small: small networks instead of the full-size ones.
    """

    a: Place
    b: Place
    kinds: tuple[str, ...]
    detectors: tuple[str, ...]
    count: int
    side: int
    small: bool

    @property
    def what(self) -> str:
        """The networks' size, in words."""
        return "small networks" if self.small else "full-size networks"


# --- sections -----------------------------------------------------------------------------------


def compare_networks(settings: AgreementSettings, cap: TimeCap) -> Table:
    """Return how far the outputs of codecs and detectors at B are from those at A."""
    table = Table(
        f"Outputs at {settings.b.name} against {settings.a.name}, fp32",
        ["network", "output", "largest difference", "of a largest value", "other"],
    )
    images = [to_tensor(image)[0] for image in _images(settings)]
    for kind in settings.kinds:
        with _steady(table, kind, cap):
            _compare_codec(settings, table, kind, images)
    for name in settings.detectors:
        with _steady(table, name, cap):
            _compare_detector(settings, table, name, images)
    table.notes.append(
        f"{settings.count} images of {settings.side} x {settings.side}, {settings.what} with "
        "random weights, TF32 off unless a place has it on"
    )
    return table


def exchange_bitstreams(settings: AgreementSettings, cap: TimeCap) -> Table:
    """Return how many bitstreams of A decode differently at B, for each codec."""
    table = Table(
        f"Bitstreams encoded at {settings.a.name}, decoded at {settings.b.name}",
        ["codec", "images", "raised", "symbols differ", "decoded differs", "bytes an image"],
    )
    images = _images(settings)
    for kind in settings.kinds:
        with _steady(table, kind, cap):
            _exchange(settings, table, kind, images)
    table.notes.append(
        f"images of {settings.side} x {settings.side}, {settings.what} with random weights; "
        "symbols differ: some element of a latent is off by half an integer or more; decoded "
        "differs: pixels, or latents of a feature codec, are not equal bit for bit to the encoder's"
    )
    return table


def _compare_codec(
    settings: AgreementSettings, table: Table, kind: str, images: list[Tensor]
) -> None:
    codec = make_codec(kind, settings.small)
    batch = stack_padded(images, codec.multiple)
    found = []
    for place in (settings.a, settings.b):
        own = place.put(copy.deepcopy(codec).eval())
        out = place.run(lambda own=own, place=place: own(batch.to(place.device)))
        pixels = out.images if out.images is not None else out.features
        found.append((pixels.float().cpu(), float(out.bits)))
    (x, bits), (y, other) = found
    _add(table, kind, "images" if codec_decodes(kind) else "features", x, y,
         f"bits {100 * (other / bits - 1):+.4f} %")  # fmt: skip


def _compare_detector(
    settings: AgreementSettings, table: Table, name: str, images: list[Tensor]
) -> None:
    detector = make_detector(name, settings.small)
    maps, results = [], []
    for place in (settings.a, settings.b):
        own = place.put(copy.deepcopy(detector))
        given = [image.to(place.device) for image in images]

        def work(own: Any = own, given: list[Tensor] = given) -> Any:
            prepared, _ = own.network.transform(given)
            return own.network.backbone(prepared.tensors), own.predict(given)

        levels, boxes = place.run(work)
        maps.append(torch.cat([level.float().cpu().flatten() for level in levels.values()]))
        results.append([{k: v.cpu() for k, v in one.items()} for one in boxes])
    bf16 = settings.a.run(lambda: _box_type(settings.a, detector, images))
    total = sum(len(one["boxes"]) for one in results[0])
    same = sum(_shared(x, y) for x, y in zip(*results, strict=True))
    text = f"{same} of {total} boxes found again; under bf16 boxes are {bf16}"
    numbers = {"boxes": total, "found_again": same, "boxes_under_bf16": bf16}
    _add(table, name, "feature pyramid", *maps, text, **numbers)


def _box_type(place: Place, detector: Any, images: list[Tensor]) -> str:
    """Return the type of the boxes that a detector gives under autocast, as jobs run it."""
    own = place.put(copy.deepcopy(detector))
    with torch.autocast(place.device.type, dtype=torch.bfloat16):
        (found,) = own.predict([images[0].to(place.device)])
    return str(found["boxes"].dtype).removeprefix("torch.")


def _shared(x: dict[str, Tensor], y: dict[str, Tensor]) -> int:
    """Return how many boxes of one are also in the other: label, score and place."""
    count = 0
    for box, label, score in zip(x["boxes"], x["labels"], x["scores"], strict=True):
        near = (y["boxes"] - box).abs().amax(1) < 0.5 if len(y["boxes"]) else torch.zeros(0) > 0
        count += bool((near & (y["labels"] == label) & ((y["scores"] - score).abs() < 1e-3)).any())
    return count


def _add(
    table: Table, network: str, output: str, x: Tensor, y: Tensor, other: str, **data: Any
) -> None:
    difference, largest = float((x - y).abs().max()), float(x.abs().max())
    table.add(
        [network, output, f"{difference:.3g}", f"{largest:.3g}", other],
        network=network,
        output=output,
        largest_difference=difference,
        largest_value=largest,
        other=other,
        **data,
    )


def _exchange(settings: AgreementSettings, table: Table, kind: str, images: list[RgbImage]) -> None:
    codec = make_codec(kind, settings.small)
    codec.prepare_coding()
    sender, receiver = (p.put(copy.deepcopy(codec)) for p in (settings.a, settings.b))
    raised = symbols = decoded = size = 0
    first_error = ""
    for image in images:
        sent: list[np.ndarray] = []
        with _latents_of(sender, sent):
            encoded = settings.a.run(lambda image=image: sender.encode(image))
        size += len(encoded.data)
        got: list[np.ndarray] = []
        try:
            with _latents_of(receiver, got):
                result = settings.b.run(lambda encoded=encoded: receiver.decode(encoded.data))
        except Exception as error:
            raised += 1
            first_error = first_error or f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        symbols += _symbols_differ(_arrays(encoded.reconstruction, sent), _arrays(result, got))
        decoded += not _equal(encoded.reconstruction, result)
    if first_error:
        table.notes.append(f"{kind}: the first that raised: {first_error}")
    mean = size / len(images)
    table.add(
        [kind, len(images), raised, symbols, decoded, f"{mean:.0f}"],
        codec=kind,
        images=len(images),
        raised=raised,
        symbols_differ=symbols,
        decoded_differs=decoded,
        bytes_a_image=mean,
    )


@contextmanager
def _latents_of(codec: Any, found: list[np.ndarray]) -> Iterator[None]:
    """Collect the latents from which an image codec reconstructs; feature codecs return theirs."""
    if isinstance(codec, LearnedFeatureCodec):
        yield
        return
    finish = codec.finish

    def noting(latent: Tensor, *size: int) -> Any:
        found.append(latent.float().cpu().numpy())
        return finish(latent, *size)

    codec.finish = noting
    try:
        yield
    finally:
        del codec.finish


def _arrays(decoded: Any, latents: list[np.ndarray]) -> list[np.ndarray]:
    return [decoded[name] for name in sorted(decoded)] if isinstance(decoded, dict) else latents


def _symbols_differ(x: list[np.ndarray], y: list[np.ndarray]) -> bool:
    return any(
        a.shape != b.shape or bool((np.abs(a.astype(np.float64) - b) >= 0.5).any())
        for a, b in zip(x, y, strict=True)
    )


def _equal(x: Any, y: Any) -> bool:
    if isinstance(x, dict):
        return x.keys() == y.keys() and all(np.array_equal(x[name], y[name]) for name in x)
    return np.array_equal(x, y)


@contextmanager
def _steady(table: Table, what: str, cap: TimeCap) -> Iterator[None]:
    """Continue with the next one after a failure; restore how the process computes."""
    threads = torch.get_num_threads()
    tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        cap.check()
        yield
    except Exception as error:
        table.leave_out(what, error)
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32


# --- networks and images ----------------------------------------------------------------------


def codec_decodes(kind: str) -> bool:
    """Return whether evaluation of a codec yields images, not features."""
    return CODECS[kind].outputs == ("images",)


def make_codec(kind: str, small: bool) -> Any:
    """Return a codec with random weights and spread latents, on the CPU."""
    entry = CODECS[kind]
    sizes: dict[str, Any] = {}
    if small:
        own = {"n": 16, "m": 24} if hasattr(entry.parameters, "model_fields") and (
            "n" in entry.parameters.model_fields) else {}  # fmt: skip
        sizes = {**own, **_SMALL.get(kind, {})}
    if kind == "layered":
        sizes["perceptual"] = "none"
    torch.manual_seed(5)
    codec: Any = implementation(entry)(entry.parameters.model_validate(sizes))
    with torch.no_grad():
        _enliven(codec)
    return suit_cpu(codec)


def _enliven(codec: Any) -> None:
    """Spread the latents over some integers, and fit their models to that."""
    if hasattr(codec, "latent"):  # DICM
        last = [m for m in codec.encoder if isinstance(m, nn.Conv2d)][-1]
        last.weight *= 20
        codec.latent.hyper_encoder.project.weight *= 4
        codec.latent.mixer[-1].weight *= 6
        codec.latent.mixer[-1].bias[: codec.latent.channels] += 1
        return
    network = codec.network
    last = [m for m in network.g_a.modules() if isinstance(m, nn.Conv2d)][-1]
    last.weight *= 40 if hasattr(network, "h_s") or hasattr(network, "latent_codec") else 20
    if last.bias is not None:
        last.bias.uniform_(-3, 3)
    for part in ("entropy_parameters", "h_s"):
        layers = getattr(network, part, None)
        if layers is not None:
            final = [m for m in layers.modules() if getattr(m, "bias", None) is not None][-1]
            half = final.bias.numel() // 2 if part == "entropy_parameters" else None
            final.bias[:half] += 3
            break


def make_detector(name: str, small: bool) -> Any:
    """Return a detector with random weights and confident scores, on the CPU."""
    entry = TASKS[name]
    parameters = entry.parameters.model_validate(_SMALL_DETECTOR if small else {})
    torch.manual_seed(5)
    detector: Any = implementation(entry)(parameters)
    with torch.no_grad():
        detector.network.roi_heads.box_predictor.cls_score.weight *= 30
        # Batch norm as after training: activations neither grow nor vanish.
        layers = [m for m in detector.network.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.momentum = 1.0
        detector.train().network.backbone(torch.randn(2, 3, 128, 128))
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    return suit_cpu(detector).eval()


def _images(settings: AgreementSettings) -> list[RgbImage]:
    rng = np.random.default_rng(3)
    return [make_scene(rng, settings.side).image for _ in range(settings.count)]
