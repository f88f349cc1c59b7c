"""The side-car checkpoint: everything that a killed training needs to go on, bit for bit.

It lies beside the declared output, undeclared, because Snakemake deletes a failed job's outputs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from icmbench.errors import UserError
from icmbench.networks.weights import check_weights_file, load_tensors
from icmbench.utils.files import atomic_path

FORMAT = 1
_AGAIN = "delete it and run the training again"


def save_checkpoint(
    path: Path,
    *,
    fingerprint: str,
    step: int,
    model: Mapping[str, Any],
    optimisers: dict[str, torch.optim.Optimizer],
    totals: dict[str, float],
) -> None:
    """Write a checkpoint atomically.

    Args:
        path: where.
        fingerprint: of settings, data and code; another one is refused on loading.
        step: steps done.
        model: state of codec and task.
        optimisers: by group.
        totals: seconds and other sums that go on after a resume.

    Random numbers need no state: every step seeds them by (seed, step).
    """
    # Given a path, torch says of a full disk no more than that writing failed.
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        torch.save(
            {
                "format": FORMAT,
                "fingerprint": fingerprint,
                "step": step,
                "model": dict(model),
                "optimisers": {name: o.state_dict() for name, o in optimisers.items()},
                "totals": totals,
            },
            stream,
        )
        stream.flush()
        os.fsync(stream.fileno())


def load_checkpoint(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """Return a checkpoint, or None where there is none.

    Raises:
        UserError: where it is damaged, or belongs to other settings, data or code.
    """
    if not path.exists():
        return None
    state = load_tensors(path, "delete it to train from the start")
    if state.get("format") != FORMAT or state.get("fingerprint") != fingerprint:
        raise UserError(
            f"{path}: this checkpoint belongs to other settings, data or code; "
            "delete it to train anew, or restore what it was made with"
        )
    return state


def save_weights(path: Path, codec: Any | None, task: Any | None, meta: dict[str, Any]) -> None:
    """Write the weights that a training leaves; parts that were not trained are None.

    Equal weights are equal files: their digest decides whether what starts from them is repeated.
    """
    # Given a path, torch would write its name, here a random one, into the file.
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        torch.save(
            {
                "format": FORMAT,
                "codec": None if codec is None else codec.state_dict(),
                "task": None if task is None else task.state_dict(),
                "meta": meta,
            },
            stream,
        )


def steered_weights(path: Path | str) -> dict[str, float]:
    """Return the weights of steered loss terms with which the training of a weights file ended."""
    check_weights_file(Path(path))
    meta = load_tensors(Path(path), _AGAIN).get("meta") or {}
    return dict(meta.get("steering", {}))
