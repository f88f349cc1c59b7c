"""Weights files: what a network loads of them, and the error for published ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import safetensors.torch
import torch
from compressai.layers import MaskedConv2d

from icmbench.errors import UserError
from icmbench.jobs import TrainJob
from icmbench.networks.build import build_codec, build_task
from icmbench.networks.weights import load_part, save_compact


def test_load_part_takes_entropy_tables_of_any_size(
    train_job: Callable[..., TrainJob], tmp_path: Path
) -> None:
    job = train_job("hyperprior/reconstruction/mse")
    codec = build_codec(job.codec)
    codec.prepare_coding()  # fills the tables, whose sizes then differ from a fresh network's
    torch.save({"codec": codec.state_dict()}, tmp_path / "w.pt")
    fresh = build_codec(job.codec)
    load_part(fresh, tmp_path / "w.pt", "codec")
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    codec.eval()
    fresh.eval()
    assert fresh.encode(image).data == codec.encode(image).data


def test_published_weights_without_network_are_one_line(
    train_job: Callable[..., TrainJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    task = train_job("hyperprior/faster-rcnn/t-ft").task
    weights = task.weights.model_copy(update={"source": "pretrained"})
    parameters = {**task.parameters, "backbone": "resnet50-fpn", "classes": 91}
    update = {"weights": weights, "parameters": parameters, "starts_pretrained": True}
    with pytest.raises(UserError, match=r"'faster-rcnn'.*no route"):
        build_task(task.model_copy(update=update))


def test_compact_file_of_a_masked_convolution_gives_the_same_weights(tmp_path: Path) -> None:
    network = torch.nn.ModuleDict({"context": MaskedConv2d(2, 3, kernel_size=5, padding=2)})
    image = torch.rand(1, 2, 8, 8)
    wanted = network["context"](image)  # sets what the mask hides to zero
    path = tmp_path / "codec.safetensors"
    save_compact(network, path)
    stored = safetensors.torch.load_file(path)
    assert stored["context.weight"].shape == (3, 2, 12)  # of 25: the rows above, and the left
    other = torch.nn.ModuleDict({"context": MaskedConv2d(2, 3, kernel_size=5, padding=2)})
    load_part(other, path, "codec")
    assert torch.equal(other["context"](image), wanted)
