"""The two files of a training run that hold weights: ``checkpoint.pt`` and ``weights.pt``.

While a run trains, ``checkpoint.pt`` holds everything that it needs to resume, bit for bit. When it
has finished, ``checkpoint.pt`` is a second name (hard link) of ``weights.pt``: Snakemake deletes
``weights.pt``, its output, each time before it starts the job, but does not know of the other file.
So a finished run with unchanged settings is not repeated.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.optim.optimizer import StateDict

from icmbench.errors import DamagedFile, UserError
from icmbench.networks.weights import check_weights_file, load_tensors
from icmbench.utils.files import atomic_path, link, read_object

FORMAT = 1
_REPEAT = "delete it and run the training again"


class Checkpoint(TypedDict):
    """The state of an unfinished training run, see :func:`save_checkpoint`."""

    step: int
    model: dict[str, Tensor]
    optimisers: dict[str, StateDict]
    totals: dict[str, float]


class WeightsMeta(TypedDict, total=False):
    """Which training run made the weights, and the final weights of its steered loss terms."""

    key: str
    fingerprint: str
    steering: dict[str, float]


def save_checkpoint(
    path: Path,
    *,
    fingerprint: str,
    step: int,
    model: Mapping[str, Any],
    optimisers: Mapping[str, torch.optim.Optimizer],
    totals: dict[str, float],
    check_owner: Callable[[], None] = lambda: None,
) -> None:
    """Write a checkpoint atomically.

    Args:
        path: the file.
        fingerprint: of settings, data and code; another one is refused on loading.
        step: steps done.
        model: state of codec and task.
        optimisers: by group.
        totals: seconds, which a resumed run adds to.
        check_owner: raises if another process has taken the run over; called last, so that a
            process that was paused here does not replace the result of the other.

    Random numbers need no state: every step seeds them by (seed, step).
    """
    # Given a path, torch does not report that a disk is full, only that writing failed.
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
        check_owner()


def load_checkpoint(path: Path, fingerprint: str) -> Checkpoint | None:
    """Return a checkpoint, or None if there is none or it is of a finished run.

    Raises:
        UserError: if it is damaged, or belongs to an unfinished run with other settings, data or
            code.
    """
    if not path.exists():
        return None
    state = load_tensors(path, "delete it to train from the start")
    if "meta" in state:  # weights of a finished run, see keep_finished
        return None
    if state.get("format") != FORMAT or state.get("fingerprint") != fingerprint:
        raise UserError(
            f"{path}: this checkpoint belongs to other settings, data or code; "
            "delete it to train from the start, or restore what it was made with"
        )
    return Checkpoint(
        step=state["step"],
        model=state["model"],
        optimisers=state["optimisers"],
        totals=state["totals"],
    )


def save_weights(path: Path, codec: Any | None, task: Any | None, meta: WeightsMeta) -> None:
    """Write the weights of a finished run; parts that were not trained are None.

    Equal weights are equal files: their checksum decides whether runs that start from them are
    repeated.
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


def keep_finished(folder: Path) -> None:
    """Give ``weights.pt`` of a finished run its second name."""
    link(folder / "weights.pt", folder / "checkpoint.pt")


def is_finished(folder: Path, fingerprint: str) -> bool:
    """Return whether a run with this fingerprint has finished and its weights are undamaged."""
    try:
        run = read_object(folder / "run.json")
        check_weights_file(folder / "checkpoint.pt")
    except (FileNotFoundError, DamagedFile):
        return False
    return run.get("status") == "finished" and run.get("fingerprint") == fingerprint


def restore_finished(folder: Path, fingerprint: str) -> bool:
    """Return whether the run is finished; if so, ``weights.pt`` is there again."""
    finished = is_finished(folder, fingerprint)
    if finished:
        link(folder / "checkpoint.pt", folder / "weights.pt")
    return finished


def steered_weights(path: Path | str) -> dict[str, float]:
    """Return the weights of steered loss terms with which the run of a weights file ended."""
    check_weights_file(Path(path))
    meta = load_tensors(Path(path), _REPEAT).get("meta") or {}
    return dict(meta.get("steering", {}))
