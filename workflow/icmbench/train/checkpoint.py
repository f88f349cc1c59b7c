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
from icmbench.files import atomic_path

FORMAT = 1


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
        UserError: where it belongs to other settings, data or code.
    """
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
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


def load_part(module: Any, path: Path | str, part: str, partial: bool = False) -> None:
    """Load the weights of ``part`` (codec or task) from a weights file into ``module``.

    ``partial``: the file is another network's; what agrees in name and shape is taken. A module
    that knows what its layers are called there says so (``name_here``).

    Entropy coding tables change size when a model is updated; they are resized to fit the file's,
    which is what makes published checkpoints fail to load elsewhere.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such weights; run the training they come from first")
    state = torch.load(path, map_location="cpu", weights_only=True)[part]
    if state is None:
        raise UserError(f"{path}: holds no weights of the {part}; it was not trained there")
    if partial:
        own = module.state_dict()
        name_here = getattr(module, "name_here", str)
        state = {name_here(name): value for name, value in state.items()}
        state = {n: v for n, v in state.items() if n in own and own[n].shape == v.shape}
        if not state:
            raise UserError(f"{path}: nothing in it fits this {part}; start it from another")
        module.load_state_dict(state, strict=False)
        return
    load_resized(module, state)


def load_resized(module: Any, state: Mapping[str, Any]) -> None:
    """Load ``state`` into ``module``, resizing buffers, not parameters, to the state's shapes."""
    own = dict(module.named_buffers())
    for name, value in state.items():
        buffer = own.get(name)
        if buffer is not None and buffer.shape != value.shape:
            owner = module.get_submodule(name.rpartition(".")[0])
            setattr(owner, name.rpartition(".")[2], torch.empty_like(value))
    module.load_state_dict(state)
