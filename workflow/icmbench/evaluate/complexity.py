"""How much a codec or a task network computes: multiply-accumulates, counted while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from icmbench.evaluate.coded import coded_state
from icmbench.jobs import CodedImages
from icmbench.summaries import NetworkComplexity, PointComplexity

# The counted steps of a codec, in the order of the data.
CODEC_STEPS = ("encode", "decode", "reconstruct")


def macs_of(run: Callable[[], Any]) -> int:
    """Return the multiply-accumulates of convolutions and matrix products in ``run()``.

    PyTorch counts two operations each. Entropy coding, activations, the softmax of attention and
    Fourier transforms are not counted.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops()) // 2


def count_parameters(network: Any) -> int:
    """Return the parameters of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def complexity_of(
    network: Any, pixels: int, steps: dict[str, Callable[[], Any]]
) -> NetworkComplexity:
    """Return the parameters of a network, and its operations in each step.

    Args:
        network: the network.
        pixels: of the image that the steps run on.
        steps: functions to run and count, by name.
    """
    counted = {name: macs_of(run) / pixels for name, run in steps.items()}
    return NetworkComplexity(
        parameters=count_parameters(network),
        macs_per_pixel=counted,
        weights=getattr(network, "loaded", None),
    )


def point_complexity(coded: CodedImages | None, task: NetworkComplexity | None) -> PointComplexity:
    """Return the complexity of an operating point, for ``evaluate.json``.

    Args:
        coded: the coded images, or None for originals.
        task: :func:`complexity_of` the task network with one step, ``task``, or None.
    """
    none = NetworkComplexity(parameters=None, macs_per_pixel={})
    codec = none if coded is None else coded_state(coded.folders[0])
    task = task or none
    macs = {**codec.macs_per_pixel, **task.macs_per_pixel}
    return PointComplexity(
        parameters={"codec": codec.parameters, "task": task.parameters},
        macs_per_pixel={name: macs.get(name) for name in (*CODEC_STEPS, "task")},
    )
