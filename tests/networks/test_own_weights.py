"""Files of weights as people have them: of CompressAI, torchvision, safetensors."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from compressai.models.vbr import MeanScaleHyperpriorVbr
from compressai.zoo.image import model_architectures
from torch import nn
from torchvision.models import get_model, resnet50
from torchvision.models.detection import fasterrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2

from icmbench.codecs.bitstream import unpack_image
from icmbench.errors import UserError
from icmbench.jobs import CodecSpec, TaskSpec, WeightsSpec
from icmbench.networks import pretrained
from icmbench.networks.build import build_codec, build_task
from icmbench.plugins import load_modules
from icmbench.utils.images import to_tensor

load_modules([])
IMAGE_CODECS = (
    "bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean", "mbt2018", "cheng2020-anchor",
    "cheng2020-attn",
)  # fmt: skip
SIZES = {"cheng2020-anchor": (16,), "cheng2020-attn": (16,)}
IMAGE = np.random.default_rng(0).integers(0, 256, (70, 100, 3), np.uint8)


def codec_spec(name: str, path: Path, **weights: Any) -> CodecSpec:
    """Return a codec whose settings have another size than the files here."""
    spec = WeightsSpec(source=str(path), of=name, part="codec", own=True, **weights)
    parameters = {"n": 24, "m": 40}
    return CodecSpec(
        name=name, kind="learned", parameters=parameters, weights=spec, starts_pretrained=True
    )


def task_spec(name: str, path: Path, parameters: dict[str, Any], **weights: Any) -> TaskSpec:
    spec = WeightsSpec(source=str(path), of=name, part="task", own=True, **weights)
    return TaskSpec(
        name=name,
        network=name,
        parameters=parameters,
        weights=spec,
        starts_pretrained=True,
        metrics=["box_map"],
    )


def compressai_model(name: str) -> Any:
    """Return a network of CompressAI whose latents are not all zero."""
    torch.manual_seed(0)
    model = model_architectures[name](*SIZES.get(name, (16, 24)))
    with torch.no_grad():
        list(model.g_a.parameters())[-2].mul_(20)
    return model


def old_names(model: Any) -> dict[str, Any]:
    """Return the weights under the names that CompressAI's published files have."""
    state = dict(model.state_dict())
    for new, old in (("matrices.", "_matrix"), ("biases.", "_bias"), ("factors.", "_factor")):
        state = {
            key.replace(f"bottleneck.{new}", f"bottleneck.{old}"): value
            for key, value in state.items()
        }
    return state


def save(model: Any, path: Path, form: str) -> None:
    """Save a model as scripts do."""
    if form == "training example":  # and DataParallel, before update()
        state = nn.DataParallel(model).state_dict()
        optimiser = torch.optim.Adam(model.parameters())
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser)
        torch.save(
            {
                "epoch": 3,
                "state_dict": state,
                "loss": torch.tensor(0.5),
                "optimizer": optimiser.state_dict(),
                "aux_optimizer": optimiser.state_dict(),
                "lr_scheduler": scheduler.state_dict(),
                "best": np.float64(0.5),
            },
            path,
        )
        return
    model.update(force=True)
    if form == "old names":
        torch.save(old_names(model), path)
    elif form == "safetensors":
        safetensors.torch.save_file(dict(model.state_dict()), path)
    else:
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=form == "state dict")


@pytest.mark.parametrize(
    ("name", "form"),
    [
        *((name, "training example") for name in IMAGE_CODECS),
        ("bmshj2018-hyperprior", "state dict"),
        ("bmshj2018-factorized", "old names"),
        ("mbt2018-mean", "file of PyTorch 1.5"),
        ("cheng2020-anchor", "safetensors"),
    ],
)
def test_checkpoints_code_as_compressai_does(name: str, form: str, tmp_path: Path) -> None:
    model, path = compressai_model(name), tmp_path / "checkpoint.pth.tar"
    save(model, path, form)
    codec = build_codec(codec_spec(name, path))
    assert codec.loaded.share == 1
    assert (codec.loaded.missing, codec.loaded.unused) == ([], [])
    codec.prepare_coding()
    encoded = codec.encode(IMAGE)
    model.update(force=True)
    with torch.no_grad():
        coded = model.eval().compress(codec.padded(IMAGE))
        expected = model.decompress(**coded)["x_hat"][..., :70, :100]
    _, _, strings = unpack_image(encoded.data, codec.strings, codec.multiple)
    assert strings == [own[0] for own in coded["strings"]]
    assert len(strings[0]) > 50
    difference = to_tensor(codec.decode(encoded.data)) - expected
    assert difference.abs().max() < 0.51 / 255


@pytest.mark.parametrize("other", ["mbt2018-mean", "bmshj2018-factorized", "cheng2020-anchor"])
def test_another_architecture_is_one_line(other: str, tmp_path: Path) -> None:
    save(compressai_model(other), tmp_path / "other.pth", "state dict")
    with pytest.raises(UserError, match=r"other\.pth.*'bmshj2018-hyperprior'") as caught:
        build_codec(codec_spec("bmshj2018-hyperprior", tmp_path / "other.pth"))
    assert "\n" not in str(caught.value)


def test_damaged_or_changed_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    save(compressai_model("mbt2018-mean"), path, "state dict")
    with pytest.raises(UserError, match=r"w\.pth.*0000"):
        build_codec(codec_spec("mbt2018-mean", path, sha256=64 * "0"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"w\.pth"):
        build_codec(codec_spec("mbt2018-mean", path))
    torch.save([1, 2], path)
    with pytest.raises(UserError, match=r"w\.pth"):
        build_codec(codec_spec("mbt2018-mean", path))


def detector(build: Any, **settings: Any) -> Any:
    torch.manual_seed(2)
    network = build(weights=None, weights_backbone=None, min_size=64, max_size=128, **settings)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


DETECTORS = {
    "faster-rcnn": (fasterrcnn_resnet50_fpn, "resnet50-fpn"),
    "mask-rcnn": (maskrcnn_resnet50_fpn_v2, "resnet50-fpn-v2"),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_of_torchvisions_references_predict_the_same(name: str, tmp_path: Path) -> None:
    build, backbone = DETECTORS[name]
    theirs = detector(build, num_classes=5)
    args = argparse.Namespace(lr=0.02, output_dir="x")
    torch.save({"model": theirs.state_dict(), "epoch": 25, "args": args}, tmp_path / "m.pth")
    settings = {"backbone": backbone, "classes": 5, "short_side": 64, "long_side": 128}
    ours = build_task(task_spec(name, tmp_path / "m.pth", settings))
    assert (ours.loaded.share, ours.loaded.unused) == (1, [])
    images = [torch.rand(3, 64, 96)]
    with torch.no_grad():
        found, expected = (
            ours.eval().network.backbone(images[0][None]),
            theirs.backbone(images[0][None]),
        )
    for level, values in expected.items():
        assert torch.allclose(found[level], values, rtol=1e-4, atol=1e-4), level
    (found,), (expected,) = ours.predict(images), theirs(images)
    assert torch.allclose(found["boxes"], expected["boxes"], atol=1e-2)
    assert torch.allclose(found["scores"], expected["scores"], atol=1e-4)


def test_what_need_not_fit_is_named(tmp_path: Path) -> None:
    theirs = detector(fasterrcnn_resnet50_fpn, num_classes=91)
    torch.save(theirs.state_dict(), tmp_path / "coco.pth")
    settings = {"backbone": "resnet50-fpn", "classes": 5, "short_side": 64, "long_side": 128}
    with pytest.raises(UserError, match=r"coco\.pth.*box_predictor.*\[91.*\[5") as caught:
        build_task(task_spec("faster-rcnn", tmp_path / "coco.pth", settings))
    assert "\n" not in str(caught.value)
    partial = ["roi_heads.box_predictor"]
    ours = build_task(task_spec("faster-rcnn", tmp_path / "coco.pth", settings, partial=partial))
    heads = {n for n in theirs.state_dict() if "box_predictor" in n}
    assert {n.removeprefix("network.") for n in ours.loaded.missing} == heads
    weights = {n: v for n, v in theirs.state_dict().items() if "batches" not in n}
    count = sum(value.numel() for value in weights.values())
    own, there = ((classes + 4 * classes) * 1025 for classes in (5, 91))  # scores and boxes
    assert ours.loaded.share == pytest.approx(1 - own / (count - there + own), rel=1e-6)


def test_classifier_of_torchvision_becomes_a_probe(tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs = resnet50(weights=None).eval()
    torch.save(theirs.state_dict(), tmp_path / "r.pth")
    ours = build_task(task_spec("linear-probe", tmp_path / "r.pth", {"classes": 1000})).eval()
    assert ours.loaded.share == 1
    image = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in
                 ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))  # fmt: skip
    with torch.no_grad():
        assert torch.allclose(ours([image[0]]), theirs((image - mean) / std), atol=1e-4)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_networks_by_name_take_own_weights(library: str, tmp_path: Path) -> None:
    torch.manual_seed(4)
    theirs = get_model("resnet18", weights=None, num_classes=3) if library == "torchvision" else (
        timm.create_model("resnet18", num_classes=3))  # fmt: skip
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "c.pth")
    settings = {"model": "resnet18", "classes": ["a", "b", "c"]}
    spec = task_spec("mine", tmp_path / "c.pth", settings)
    ours = build_task(spec.model_copy(update={"network": f"{library}-classifier"}))
    assert ours.loaded.share == 1
    state = ours.network.state_dict()
    assert all(torch.equal(state[name], value) for name, value in theirs.state_dict().items())
    assert ours.predict([torch.rand(3, 80, 64)]).shape == (1, 3)


# --- published weights ----------------------------------------------------------------------------


def test_published_weights_are_believed_by_their_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)
    torch.save({"a": torch.zeros(2)}, tmp_path / "w")
    digest = pretrained.sha256_file(tmp_path / "w")
    for prefix, name in ((digest[:8], "right"), ("0" * 8, "wrong")):
        (folder / f"{name}-{prefix}.pth").write_bytes((tmp_path / "w").read_bytes())
    found = pretrained.load_published(f"https://example.org/right-{digest[:8]}.pth")
    assert found["a"].tolist() == [0, 0]
    with pytest.raises(UserError, match=r"wrong-00000000\.pth.*00000000"):
        pretrained.load_published("https://example.org/wrong-00000000.pth")


@pytest.mark.parametrize("name", ["bmshj2018-hyperprior", "mbt2018-mean-vbr"])
def test_published_weights_of_compressai_load_under_their_old_names(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    variable = name.endswith("-vbr")
    if variable:
        model = MeanScaleHyperpriorVbr(192, 320, vr_entbttlnck=True)
        state, rate = dict(model.state_dict()), 0.3
        state["QuantOffset"] = torch.zeros(1)  # of CompressAI's file, which it drops
    else:
        model = model_architectures[name](192, 320)  # the size of quality 6
        state, rate = old_names(model), 6.0

    def load(url: str) -> Any:
        asked.append(url)
        return state

    for module in ("compressai_codec", "variable"):
        monkeypatch.setattr(f"icmbench.codecs.learned.{module}.load_published", load)
    spec = codec_spec(name, Path())
    weights = WeightsSpec(source="pretrained", part="codec", rate=rate)
    codec = build_codec(spec.model_copy(update={"weights": weights, "rate": rate}))
    assert codec.network_sizes == (192, 320)
    assert ("vbr" if variable else "hyperprior-6-") in asked[0]
    for key, value in model.state_dict().items():
        if not key.endswith(("_offset", "_quantized_cdf", "_cdf_length", "scale_table")):
            assert torch.equal(codec.network.state_dict()[key], value), key
