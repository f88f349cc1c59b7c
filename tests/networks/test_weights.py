"""Weights files: what a network loads of them, and the error for published ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch

from icmbench.errors import UserError
from icmbench.jobs import TrainJob
from icmbench.networks.build import build_codec, build_task
from icmbench.networks.weights import load_part


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
