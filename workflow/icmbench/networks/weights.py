"""Read the weights of a training run, without executing anything in the file."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from icmbench.errors import UserError, damaged_file, missing_file
from icmbench.utils.files import atomic_path, read_object, reading, sha256_file

_AGAIN = "delete it to retrain"
_FROM_ZOO = "restore it from the repository, or train it with --config scale=zoo"
# Entropy coding tables, which follow from the parameters.
_TABLES = ("_quantized_cdf", "_offset", "_cdf_length", "scale_table")
_SMALL = 4096  # numbers; the bulk of a network is in larger tensors


def load_tensors(path: Path, advice: str) -> dict[str, Any]:
    """Return the content of a file of ``torch.save``, without executing anything in it.

    PyTorch does not check the checksums inside its files and would load a changed weight, so they
    are checked first.

    Raises:
        DamagedFile: where the file is damaged, or contains more than tensors and plain values.
    """
    with reading(path, advice):
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
        if wrong is not None:
            raise damaged_file(path, f"checksum mismatch of {wrong} inside it", advice)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            reason = "contains more than tensors and plain values, which could run code"
            raise damaged_file(path, reason, advice) from None
        if not isinstance(state, dict):
            raise damaged_file(path, "not a dictionary", advice)
    return state


def check_weights_file(path: Path) -> None:
    """Check the weights of a training run against the checksum in its ``run.json``.

    Raises:
        FileNotFoundError: where there are none.
        DamagedFile: where they differ from those that the training run wrote.
    """
    with reading(path, _AGAIN):
        path.stat()
    record = path.with_name("run.json")
    if record.is_file():
        wanted = read_object(record).get("weights_sha256")
        if wanted is not None and sha256_file(path) != wanted:
            raise damaged_file(path, f"checksum mismatch with {record.name}", _AGAIN)


def load_part(
    module: Any, path: Path | str, part: str, partial: bool = False, sha256: str | None = None
) -> None:
    """Load the weights of ``part`` (codec or task) from a weights file into ``module``.

    With ``partial`` the file belongs to another network, and weights that agree in name and shape
    are loaded. A module translates the names of that network with ``rename_weight``, if it has it.

    Entropy coding tables change their size when a model is updated; they are resized to those of
    the file.

    Raises:
        UserError: where the file is missing, has no such part, or nothing in it fits.
        DamagedFile: where it is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise missing_file(path, "run the training job that writes it first")
    compact = path.suffix == ".safetensors"
    state = _compact(path, sha256) if compact else _trained(path, part)
    if partial:
        own = module.state_dict()
        rename_weight = getattr(module, "rename_weight", str)
        state = {rename_weight(name): value for name, value in state.items()}
        state = {n: v for n, v in state.items() if n in own and own[n].shape == v.shape}
        if not state:
            raise UserError(f"{path}: none of its weights fit this {part}; use other weights")
        module.load_state_dict(state, strict=False)
        return
    if compact:
        tables = {n: v for n, v in module.state_dict().items() if n.endswith(_TABLES)}
        state = {**tables, **state}
    advice = _FROM_ZOO if compact else _AGAIN
    with reading(path, f"its weights do not fit this {part}; {advice}"):
        load_resized(module, state)


def _trained(path: Path, part: str) -> Mapping[str, Any]:
    """Return the weights of a part from what a training run wrote."""
    check_weights_file(path)
    stored = load_tensors(path, _AGAIN)
    if part not in stored or not isinstance(stored[part], Mapping | None):
        raise damaged_file(path, f"not a weights file of this package, {part!r} is missing", _AGAIN)
    state: Mapping[str, Any] | None = stored[part]
    if state is None:
        raise UserError(f"{path}: has no weights of the {part}, which was not trained there")
    return state


def _compact(path: Path, sha256: str | None) -> Mapping[str, Any]:
    """Return the weights that :func:`save_compact` wrote."""
    with reading(path, _FROM_ZOO):
        if sha256 is not None and sha256_file(path) != sha256:
            raise damaged_file(path, "checksum mismatch with the zoo's catalogue", _FROM_ZOO)
        state: dict[str, Any] = safetensors.torch.load(path.read_bytes())
    return state


def save_compact(module: Any, path: Path) -> None:
    """Write a network as safetensors: large tensors as float16, no tables that can be recomputed.

    ``path`` is replaced atomically.
    """
    state = {
        name: value.half() if value.dtype == torch.float32 and value.numel() > _SMALL else value
        for name, value in module.state_dict().items()
        if not name.endswith(_TABLES)
    }
    data = safetensors.torch.save({name: value.contiguous() for name, value in state.items()})
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def load_resized(module: Any, state: Mapping[str, Any]) -> None:
    """Load a state dict into a module; buffers, but not parameters, adopt its shapes."""
    own = dict(module.named_buffers())
    for name, value in state.items():
        buffer = own.get(name)
        if buffer is not None and buffer.shape != value.shape:
            owner = module.get_submodule(name.rpartition(".")[0])
            setattr(owner, name.rpartition(".")[2], torch.empty_like(value))
    module.load_state_dict(state)
