"""YOLOX-nano: the output that onnxruntime gives, from each of the files that hold its weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

from icmbench.errors import UserError
from icmbench.networks.yolox import YoloxNano
from icmbench.tasks.yolox import letterbox

SHIPPED = Path("data/photographs/yolox_nano.safetensors")


def load(path: Path) -> YoloxNano:
    network = YoloxNano().eval()
    network.load_published(path)
    return network


@pytest.fixture(scope="module")
def network(repository: Path) -> YoloxNano:
    return load(repository / SHIPPED)


def noise() -> Tensor:
    values = np.random.default_rng(0).uniform(0, 255, (1, 3, 416, 416))
    return torch.from_numpy(values.astype(np.float32))


def test_yolox_gives_the_output_of_onnxruntime(network: YoloxNano, repository: Path) -> None:
    reference = json.loads((repository / "tests/reference/yolox_nano.json").read_text())
    with torch.no_grad():
        output = network(noise())[0].double()
    assert output.shape == (3549, 85)
    for cell, values in reference["cells"].items():
        assert output[int(cell), : len(values)].tolist() == pytest.approx(values, abs=1e-4)
    assert output.mean(0).tolist() == pytest.approx(reference["means"], abs=1e-5)


@pytest.mark.mirror
def test_yolox_from_the_onnx_file_agrees_with_onnxruntime(network: YoloxNano, mirror: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    path = mirror / "networks/yolox_nano.onnx"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    found = load(path)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, found.state_dict()[name]), name
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    photograph = np.array(Image.open(SHIPPED.parent / "coco/000000005001.jpg").convert("RGB"))
    image = letterbox(torch.from_numpy(photograph).permute(2, 0, 1) / 255)[None]
    # Of a photograph, float32 itself is up to 2e-4 from float64, in onnxruntime as here.
    for x, tolerance in ((noise(), 1e-4), (image, 5e-4)):
        with torch.no_grad():
            output = found(x).numpy()
        np.testing.assert_allclose(
            output, session.run(None, {"images": x.numpy()})[0], 0, tolerance
        )


def with_batch_norm(network: YoloxNano) -> dict[str, Tensor]:
    """Return the same network as its authors store it: batch norm after each convolution."""
    state: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        assert module.bias is not None
        if "_preds." in name:
            state |= {f"{name}.weight": module.weight, f"{name}.bias": module.bias}
            continue
        norm = name.removesuffix(".conv") + ".bn"
        ones = torch.ones(module.out_channels, dtype=torch.float64)
        # Scale 2 over a deviation of sqrt(0.999 + 0.001).
        state |= {
            f"{name}.weight": module.weight / 2,
            f"{norm}.weight": 2 * ones,
            f"{norm}.bias": module.bias.double() + 3 * 2 * ones,
            f"{norm}.running_mean": 3 * ones,
            f"{norm}.running_var": 0.999 * ones,
            f"{norm}.num_batches_tracked": torch.tensor(1),
        }
    return {name: value.detach() for name, value in state.items()}


def test_yolox_from_a_pth_file_has_batch_norm_folded_in(network: YoloxNano, tmp_path: Path) -> None:
    state = with_batch_norm(network)
    assert "backbone.backbone.dark3.1.m.2.conv2.dconv.bn.running_var" in state
    assert state["head.cls_convs.1.0.pconv.conv.weight"].shape == (64, 64, 1, 1)
    path = tmp_path / "yolox_nano.pth"
    torch.save({"model": state}, path)
    found = load(path)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, found.state_dict()[name]), name


def test_yolox_refuses_other_weights(network: YoloxNano, tmp_path: Path) -> None:
    state = dict(network.state_dict())
    name = "head.obj_preds.0.bias"
    state[name] = state[name] + 1e-3
    changed, cut, empty = (tmp_path / f"{n}.safetensors" for n in ("changed", "cut", "empty"))
    changed.write_bytes(safetensors.torch.save(state))
    del state[name]
    cut.write_bytes(safetensors.torch.save(state))
    empty.write_bytes(b"")
    for path, text in ((changed, "not the published weights"), (cut, "fit"), (empty, "empty")):
        with pytest.raises(UserError, match=text):
            load(path)
    with pytest.raises(UserError, match=r"absent\.pth"):
        load(tmp_path / "absent.pth")
