"""Heat-map boxes of a whole split, computed by the network as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightly.utils import dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from icmbench.data.dataset import Split
from icmbench.tasks.contrastive.crops import heat_map_boxes
from icmbench.utils.tensors import to_tensor

_BATCH = 64


class _Squares(Dataset[Tensor]):
    """Every image of a split as a square: boxes are relative, so its shape does not matter."""

    def __init__(self, split: Split, side: int) -> None:
        self.split, self.side = split, side

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Tensor:
        image = to_tensor(self.split.image(index))[0]
        return v2.functional.resize(image, [self.side, self.side], antialias=True)


@torch.no_grad()
def compute_boxes(
    codec: Any,
    split: Split,
    side: int,
    threshold: float,
    eliminate: bool,
    device: torch.device,
    workers: int = 0,
) -> Tensor:
    """Return the boxes [N, 4] of all images, see :func:`heat_map_boxes`.

    Runs in evaluation mode, draws no random number, and leaves the codec's modes as they were.
    Several processes share the images.
    """
    rank, world = dist.rank(), dist.world_size()
    own = range(rank, len(split), world)
    loader = DataLoader(
        _Squares(split, side),
        batch_size=_BATCH,
        sampler=own,
        num_workers=workers,
        generator=torch.Generator(),  # else the loader draws from the global one
    )
    boxes = torch.zeros(len(split), 4, device=device)
    done = 0
    with _evaluation(codec):
        for images in loader:
            features, _ = codec.self_supervised(images.to(device), eliminate)
            places = torch.tensor(own[done : done + len(images)], device=device)
            boxes[places] = heat_map_boxes(features, threshold)
            done += len(images)
    if world > 1:
        torch.distributed.all_reduce(boxes)
    return boxes


@contextmanager
def _evaluation(network: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
