"""The side-car checkpoint: everything that a killed training needs to go on, bit for bit.

It lies beside the declared output, undeclared, because Snakemake deletes a failed job's outputs.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from icmbench.errors import DamagedFile, UserError
from icmbench.files import atomic_path, read_object, reading
from icmbench.sums import require

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


def load_tensors(path: Path, advice: str) -> dict[str, Any]:
    """Return what ``torch.save`` wrote, without executing anything that the file may hold.

    PyTorch does not check the checksums inside its files, so a changed weight would be loaded; they
    are checked first.

    Raises:
        DamagedFile: where the file is damaged, or holds more than tensors and plain values.
    """
    with reading(path, advice):
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
        if wrong is not None:
            raise DamagedFile(f"{path}: {wrong} inside it has another checksum; {advice}")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise DamagedFile(
                f"{path}: refused, since it holds more than tensors and plain values, which could "
                f"run code; {advice}"
            ) from None
        if not isinstance(state, dict):
            raise DamagedFile(f"{path}: holds no dictionary; {advice}")
    return state


def check_weights_file(path: Path) -> None:
    """Check the weights that a training left against the checksum in its ``run.json``.

    Raises:
        FileNotFoundError: where there are none.
        DamagedFile: where they are not those that the training wrote.
    """
    with reading(path, _AGAIN):
        path.stat()
    record = path.with_name("run.json")
    if record.is_file():
        require(path, read_object(record).get("weights_sha256"), _AGAIN, record.name)


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
    check_weights_file(path)
    stored = load_tensors(path, _AGAIN)
    if part not in stored or not isinstance(stored[part], Mapping | None):
        raise DamagedFile(f"{path}: holds no {part!r}, so it is no weights file of ours; {_AGAIN}")
    state = stored[part]
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
    with reading(path, f"its weights do not fit this {part}; {_AGAIN}"):
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
