"""Read the weights that a training left, without executing anything in the file."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from icmbench.errors import DamagedFile, UserError, damaged_file
from icmbench.utils.files import read_object, reading, sha256_file

_AGAIN = "delete it and run the training again"


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
        wanted = read_object(record).get("weights_sha256")
        if wanted is not None and sha256_file(path) != wanted:
            raise damaged_file(path, f"checksum mismatch with {record.name}", _AGAIN)


def load_part(module: Any, path: Path | str, part: str, partial: bool = False) -> None:
    """Load the weights of ``part`` (codec or task) from a weights file into ``module``.

    ``partial``: the file is another network's; what agrees in name and shape is taken. A module
    that knows what its layers are called there says so (``rename_weight``).

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
        rename_weight = getattr(module, "rename_weight", str)
        state = {rename_weight(name): value for name, value in state.items()}
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
