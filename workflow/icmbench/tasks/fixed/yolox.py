"""Boxes of YOLOX's raw output (Ge et al., arXiv:2107.08430)."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from icmbench.errors import UserError

_STRIDES = (8, 16, 32)


def yolox_boxes(
    grid: Tensor, size: tuple[int, int], min_score: float, nms: float
) -> dict[str, Tensor]:
    """Return the boxes of a raw grid, as YOLOX's own ``postprocess`` takes them.

    Args:
        grid: [cells, 5 + classes]: offset of the centre in cells, logarithm of the size in cells,
            probability of an object, probabilities of the classes; rows of stride 8, 16, 32.
        size: height and width of the network's input.
        min_score: least product of object and class probability.
        nms: IoU of non-maximum suppression by class.

    Returns:
        ``boxes`` [N, 4] (x1, y1, x2, y2 in pixels of the input), ``scores``, ``labels``.

    Raises:
        UserError: for a grid of another input.
    """
    places, strides = [], []
    for stride in _STRIDES:
        rows, columns = torch.meshgrid(
            torch.arange(size[0] // stride), torch.arange(size[1] // stride), indexing="ij"
        )
        places.append(torch.stack([columns, rows], -1).reshape(-1, 2))
        strides.append(torch.full((len(places[-1]), 1), stride))
    place, stride_of = torch.cat(places), torch.cat(strides)
    if len(grid) != len(place):
        raise UserError(
            f"output yolox: a grid of {len(grid)} cells; an input of {size[0]} x {size[1]} has "
            f"{len(place)}; correct 'input' or 'output' of the task"
        )
    centre, sides = (grid[:, :2] + place) * stride_of, grid[:, 2:4].exp() * stride_of
    probability, label = grid[:, 5:].max(1)
    score = grid[:, 4] * probability
    kept = score >= min_score
    boxes = torch.cat([centre - sides / 2, centre + sides / 2], 1)[kept]
    score, label = score[kept], label[kept]
    chosen = batched_nms(boxes, score, label, nms)
    return {"boxes": boxes[chosen], "scores": score[chosen], "labels": label[chosen]}
