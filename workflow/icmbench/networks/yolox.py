"""YOLOX-nano, the network, and its published weights from any of the files that hold them.

Ge et al., "YOLOX: Exceeding YOLO Series in 2021", arXiv:2107.08430, section 2; sizes as in the
published files. Batch norm is part of the convolutions, as it is in the published ONNX file.

Attributes are named after the keys of the published state dict.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from icmbench.errors import UserError, damaged_file, missing_file
from icmbench.networks.weights import load_tensors
from icmbench.utils.files import reading, sha256_file

CATEGORIES = 80

# The files of release 0.1.1rc0: yolox_nano.pth and yolox_nano.onnx.
_FILES = (
    "cd28f55fbbc1829f99d9ac9b38a16d259a22889739c8728ea877610201feff7b",
    "c789161ed43c8269fcd4e67c67eeeb4e80c622da2eb296a20bc6007bd18a0b7d",
)
# Of the tensors of the ONNX file, as tensors_digest computes it: another file may hold the same.
_TENSORS = "5d0b65b9614d9ac9cde15ae2e9963e7f3ec2a810a8c9096f7538108e6a838575"
_AGAIN = "restore it from the repository, or fetch it again"
_EPSILON = 1e-3  # of batch norm in the published training run


class Convolution(nn.Module):
    """A convolution with batch norm folded in, and SiLU."""

    def __init__(self, inputs: int, outputs: int, side: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, side, stride, (side - 1) // 2, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, outputs, H / stride, W / stride] of [B, inputs, H, W]."""
        return F.silu(self.conv(x))


class Separable(nn.Module):
    """A 3 x 3 convolution of each channel, then a 1 x 1 convolution of all."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.dconv = Convolution(inputs, inputs, 3, stride, groups=inputs)
        self.pconv = Convolution(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, outputs, H / stride, W / stride] of [B, inputs, H, W]."""
        return self.pconv(self.dconv(x))


class _Bottleneck(nn.Module):
    def __init__(self, width: int, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = Convolution(width, width, 1)
        self.conv2 = Separable(width, width)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return y + x if self.shortcut else y


class _PartialStage(nn.Module):
    """A cross stage partial block: half of the channels pass the bottlenecks."""

    def __init__(self, inputs: int, outputs: int, depth: int, shortcut: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        self.conv1 = Convolution(inputs, half, 1)
        self.conv2 = Convolution(inputs, half, 1)
        self.conv3 = Convolution(outputs, outputs, 1)
        self.m = nn.Sequential(*(_Bottleneck(half, shortcut) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        through, past = self.conv1(x), self.conv2(x)
        return self.conv3(torch.cat([self.m(through), past], 1))


class _PyramidPooling(nn.Module):
    """The input beside its maxima over 5, 9 and 13 pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = Convolution(width, width // 2, 1)
        self.conv2 = Convolution(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        pooled = [F.max_pool2d(x, side, 1, side // 2) for side in (5, 9, 13)]
        return self.conv2(torch.cat([x, *pooled], 1))


class _Stem(nn.Module):
    """Each 2 x 2 block of pixels as channels, column by column, and a convolution."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv = Convolution(12, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        places = [(0, 0), (1, 0), (0, 1), (1, 1)]
        return self.conv(torch.cat([x[..., row::2, column::2] for row, column in places], 1))


class _Darknet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = _Stem(16)
        self.dark2 = nn.Sequential(Separable(16, 32, 2), _PartialStage(32, 32, 1))
        self.dark3 = nn.Sequential(Separable(32, 64, 2), _PartialStage(64, 64, 3))
        self.dark4 = nn.Sequential(Separable(64, 128, 2), _PartialStage(128, 128, 3))
        self.dark5 = nn.Sequential(
            Separable(128, 256, 2),
            _PyramidPooling(256),
            _PartialStage(256, 256, 1, shortcut=False),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fine = self.dark3(self.dark2(self.stem(x)))
        middle = self.dark4(fine)
        return fine, middle, self.dark5(middle)


class _Pyramid(nn.Module):
    """The backbone, a path from coarse to fine, and one back (path aggregation)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = _Darknet()
        self.lateral_conv0 = Convolution(256, 128, 1)
        self.C3_p4 = _PartialStage(256, 128, 1, shortcut=False)
        self.reduce_conv1 = Convolution(128, 64, 1)
        self.C3_p3 = _PartialStage(128, 64, 1, shortcut=False)
        self.bu_conv2 = Separable(64, 64, 2)
        self.C3_n3 = _PartialStage(128, 128, 1, shortcut=False)
        self.bu_conv1 = Separable(128, 128, 2)
        self.C3_n4 = _PartialStage(256, 256, 1, shortcut=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        fine, middle, coarse = self.backbone(x)
        lateral = self.lateral_conv0(coarse)
        reduced = self.reduce_conv1(self.C3_p4(torch.cat([_doubled(lateral), middle], 1)))
        level8 = self.C3_p3(torch.cat([_doubled(reduced), fine], 1))
        level16 = self.C3_n3(torch.cat([self.bu_conv2(level8), reduced], 1))
        level32 = self.C3_n4(torch.cat([self.bu_conv1(level16), lateral], 1))
        return [level8, level16, level32]


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class _Head(nn.Module):
    """Separate branches for classes and boxes, on each level."""

    def __init__(self, levels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.stems = nn.ModuleList(Convolution(level, width, 1) for level in levels)

        def branches() -> nn.ModuleList:
            return nn.ModuleList(
                nn.Sequential(Separable(width, width), Separable(width, width)) for _ in levels
            )

        def predictions(outputs: int) -> nn.ModuleList:
            return nn.ModuleList(nn.Conv2d(width, outputs, 1) for _ in levels)

        self.cls_convs, self.reg_convs = branches(), branches()
        self.cls_preds, self.reg_preds = predictions(CATEGORIES), predictions(4)
        self.obj_preds = predictions(1)

    def forward(self, levels: list[Tensor]) -> Tensor:
        outputs = []
        for level, x in enumerate(levels):
            x = self.stems[level](x)
            classes = self.cls_preds[level](self.cls_convs[level](x))
            boxes = self.reg_convs[level](x)
            output = (
                self.reg_preds[level](boxes),
                self.obj_preds[level](boxes).sigmoid(),
                classes.sigmoid(),
            )
            outputs.append(torch.cat(output, 1).flatten(2))
        return torch.cat(outputs, 2).transpose(1, 2)


class YoloxNano(nn.Module):
    """The network of 0.9 million parameters; COCO box mAP 25.8 on val2017 as published."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = _Pyramid()
        self.head = _Head((64, 128, 256), 64)

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Return the features of [B, 3, H, W] at strides 8, 16 and 32, of 64, 128, 256 channels.

        Args:
            x: BGR in [0, 255]; H and W multiples of 32.
        """
        levels: list[Tensor] = self.backbone(x)
        return levels

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, cells, 85] of BGR images [B, 3, H, W] in [0, 255], as the ONNX file does.

        Cells are those of stride 8, 16 and 32, row by row. Values are the box (centre's offset and
        logarithm of the size, in strides), the probability of an object, those of 80 categories.
        """
        outputs: Tensor = self.head(self.pyramid(x))
        return outputs

    def load_published(self, path: Path) -> None:
        """Load the published weights.

        Args:
            path: ``yolox_nano.pth``, ``yolox_nano.onnx`` or the file of this repository.

        Raises:
            UserError: where it is missing, or its tensors are not the published ones.
        """
        if not path.is_file():
            raise missing_file(path, _AGAIN)
        readers = {".pth": self._from_pth, ".onnx": self._from_onnx}
        with reading(path, f"its tensors do not fit YOLOX-nano; {_AGAIN}"):
            read = readers.get(path.suffix)
            state = safetensors.torch.load(path.read_bytes()) if read is None else read(path)
            self.load_state_dict(state)
        file, tensors = sha256_file(path), tensors_digest(self.state_dict())
        if file not in _FILES and tensors != _TENSORS:
            reason = f"not the published weights: SHA-256 {file}, of its tensors {tensors}"
            raise damaged_file(path, reason, _AGAIN)

    def _from_pth(self, path: Path) -> dict[str, Tensor]:
        published: dict[str, Tensor] = load_tensors(path, _AGAIN)["model"]
        state: dict[str, Tensor] = {}
        for name in _convolutions(self):
            norm = f"{name.removesuffix('.conv')}.bn"
            if f"{norm}.weight" not in published:
                state |= {f"{name}.{part}": published[f"{name}.{part}"] for part in _PARTS}
                continue
            weight, bias, mean, variance = (
                published[f"{norm}.{part}"].double()
                for part in ("weight", "bias", "running_mean", "running_var")
            )
            factor = weight / (variance + _EPSILON).sqrt()
            kernel = published[f"{name}.weight"].double() * factor[:, None, None, None]
            state[f"{name}.weight"] = kernel.float()
            state[f"{name}.bias"] = (bias - mean * factor).float()
        return state

    def _from_onnx(self, path: Path) -> dict[str, Tensor]:
        try:
            import onnx
        except ImportError:
            raise UserError(
                f"{path}: reading it needs package onnx; install it, or use the weights of the "
                "repository"
            ) from None
        try:
            graph = onnx.load(str(path)).graph
        except Exception as error:  # protobuf has kinds of its own
            raise damaged_file(path, "not an ONNX file", _AGAIN) from error
        # The names of tensors are numbers there, but the order is that of the computation.
        tensors = {
            one.name: torch.tensor(onnx.numpy_helper.to_array(one)) for one in graph.initializer
        }
        nodes = [node for node in graph.node if node.op_type == "Conv"]
        return {
            f"{name}.{part}": tensors[tensor]
            for name, node in zip(_in_order(self), nodes, strict=True)
            for part, tensor in zip(_PARTS, node.input[1:], strict=True)
        }


_PARTS = ("weight", "bias")


def _convolutions(network: nn.Module) -> dict[str, nn.Module]:
    return {n: m for n, m in network.named_modules() if isinstance(m, nn.Conv2d)}


def _in_order(network: YoloxNano) -> list[str]:
    """Return the names of all convolutions in the order of their computation."""
    order: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: order.append(name))
        for name, module in _convolutions(network).items()
    ]
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    return order


def tensors_digest(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, shapes and float32 values (little endian), sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().float().contiguous()
        digest.update(f"{name} {list(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().astype("<f4").tobytes())
    return digest.hexdigest()
