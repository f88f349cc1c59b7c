"""How much a codec or a task network computes: multiply-accumulates, counted while it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from icmbench.evaluate.stamp import check_files
from icmbench.jobs import CodedImages
from icmbench.utils.files import read_object, write_json

# What is counted of a codec, in the order of the data's way.
CODEC_STEPS = ("encode", "decode", "reconstruct")


def macs_of(run: Callable[[], Any]) -> int:
    """Return the multiply-accumulates of convolutions and matrix products in ``run()``.

    PyTorch counts two operations each. Entropy coding, activations and attention's softmax are not
    counted; Fourier transforms are not either.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops()) // 2


def count_parameters(network: Any) -> int:
    """Return the parameters of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def write_codec_complexity(
    folder: Path, what: str, codec: Any, pixels: int, steps: dict[str, Callable[[], Any]]
) -> None:
    """Leave ``<what>.complexity.json``: parameters, and MACs per coded pixel of each step.

    Args:
        folder: of the encoding.
        what: encoded or decoded, as the two processes that code.
        codec: the network.
        pixels: coded pixels of the image that the steps are run on.
        steps: what to run and count, by names of ``CODEC_STEPS``.
    """
    counted = {name: macs_of(run) / pixels for name, run in steps.items()}
    content = {"parameters": count_parameters(codec), "macs_per_pixel": counted}
    write_json(folder / f"{what}.complexity.json", content)


def read_complexity(coded: CodedImages | None, task: dict[str, Any] | None) -> dict[str, Any]:
    """Return the complexity of an operating point, for ``evaluate.json``.

    Args:
        coded: the job's ``coded`` section.
        task: ``parameters`` and ``macs_per_pixel`` of the task network, or None.
    """
    parameters: dict[str, Any] = {"codec": None, "task": task["parameters"] if task else None}
    macs: dict[str, Any] = dict.fromkeys(CODEC_STEPS)
    for what in ("encoded", "decoded"):
        path = None if coded is None else Path(coded.folder) / f"{what}.complexity.json"
        if path is not None and path.exists():
            check_files(path.parent, what, [path.name])
            content = read_object(path, "parameters", "macs_per_pixel")
            parameters["codec"] = content["parameters"]
            macs.update(content["macs_per_pixel"])
    macs["task"] = task["macs_per_pixel"] if task else None
    return {"parameters": parameters, "macs_per_pixel": macs}
