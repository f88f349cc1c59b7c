"""Read the weights of a training run, without executing anything in the file."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from icmbench.errors import UserError, damaged_file, missing_file
from icmbench.summaries import LoadedWeights
from icmbench.utils.files import atomic_path, read_object, reading, sha256_file

_AGAIN = "delete it to retrain"
_FROM_ZOO = "restore it from the repository, or train it with --config scale=zoo"
# Entropy coding tables, which follow from the parameters.
_TABLES = ("_quantized_cdf", "_offset", "_cdf_length", "scale_table")
# What does not count as weights: these tables, and batch norm's counters, which fit any size.
_NO_WEIGHTS = (*_TABLES, "num_batches_tracked")
_REPLACE = "replace the file"
# Keys that training scripts put a state dict under, and prefixes of all its names.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("_orig_mod.", "module.")
# Classes without behaviour that they save beside it: arguments, and NumPy's numbers.
_PLAIN: list[Any] = [
    argparse.Namespace,
    *((np.float64(0).__reduce__()[0], f"numpy.{n}.multiarray.scalar") for n in ("core", "_core")),
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.bool_)),
]
_SMALL = 1024  # numbers; the bulk of a network is in larger tensors
_MASK = ".mask"  # of a convolution that sees a part of its kernel, the same part in all channels


def load_tensors(path: Path, advice: str, own: bool = False) -> dict[str, Any]:
    """Return the content of a file of ``torch.save``, without executing anything in it.

    PyTorch does not check the checksums inside its files and would load a changed weight, so they
    are checked first. With ``own`` the file is the user's: it may have the form that PyTorch wrote
    before 1.6, and hold the plain arguments and numbers that training scripts save with weights.

    Raises:
        DamagedFile: where the file is damaged, or contains more than tensors and plain values.
    """
    with reading(path, advice):
        if not own or zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                wrong = archive.testzip()
            if wrong is not None:
                raise damaged_file(path, f"checksum mismatch of {wrong} inside it", advice)
        try:
            with torch.serialization.safe_globals(_PLAIN if own else []):
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
    module: Any,
    path: Path | str,
    part: str,
    needed: Sequence[str] | None = None,
    sha256: str | None = None,
) -> LoadedWeights | None:
    """Load the weights of ``part`` (codec or task) from what a training run or the zoo holds.

    Args:
        module: the codec or task.
        path: the weights file.
        part: which of its networks.
        needed: the file belongs to another network; see :func:`load_start`.
        sha256: checksum that the file must have.

    Returns:
        what was loaded, of another network.

    Raises:
        UserError: where the file is missing, has no such part, or does not fit.
        DamagedFile: where it is damaged.
    """
    state = read_part(Path(path), part, sha256)
    if needed is not None:
        return load_start(module, state, needed, Path(path))
    load_same(module, state, Path(path), part)
    return None


def read_part(path: Path, part: str, sha256: str | None = None) -> Mapping[str, Any]:
    """Return the weights of ``part`` in a file of a training run or of the zoo; see above."""
    if not path.is_file():
        raise missing_file(path, "run the training job that writes it first")
    return _compact(path, sha256) if _is_compact(path) else _trained(path, part)


def load_same(module: Any, state: Mapping[str, Any], path: Path, part: str) -> None:
    """Load weights of the same network, all of them.

    Entropy coding tables change their size when a model is updated; they are resized to those of
    the file.
    """
    advice = _AGAIN
    if _is_compact(path):
        tables = {n: v for n, v in module.state_dict().items() if n.endswith(_TABLES)}
        state, advice = {**tables, **state}, _FROM_ZOO
    with reading(path, f"its weights do not fit this {part}; {advice}"):
        load_resized(module, state)


def load_start(
    module: Any, state: Mapping[str, Any], needed: Sequence[str], path: Path
) -> LoadedWeights:
    """Load initial weights from those of another network.

    A module translates the names of that network with ``rename_weight``, if it has it.

    Args:
        module: the codec or task.
        state: weights of the other network.
        needed: beginnings of names in ``module``. What is below them must be in the file, in the
            same shapes; the rest is taken where names and shapes agree.
        path: of the file, for the record and for errors.

    Raises:
        UserError: naming the first tensor that does not fit.
    """
    rename = getattr(module, "rename_weight", str)
    state = {rename(name): value for name, value in state.items()}
    own = _weights_of(module)
    for name, value in own.items():
        if name.startswith(tuple(needed)):
            _check_fit(name, state.get(name), value, path, "start from weights of this size")
    fitting = {n: v for n, v in state.items() if n in own and own[n].shape == v.shape}
    if not any(own[name].is_floating_point() for name in fitting):
        raise UserError(f"{path}: none of its weights fit this network; use other weights")
    module.load_state_dict(fitting, strict=False)
    return _record(own, fitting, state, path)


def _check_fit(name: str, there: Any, here: Any, path: Path, advice: str) -> None:
    if there is None:
        raise UserError(f"{path}: weight {name!r} is missing; {advice}")
    if there.shape != here.shape:
        raise UserError(
            f"{path}: weight {name!r} is {list(there.shape)} in the file, but {list(here.shape)} "
            f"in the network; {advice}"
        )


def _weights_of(module: Any) -> dict[str, Any]:
    """Return what weights of a network are: no coding tables, no counters of batch norm."""
    return {n: v for n, v in module.state_dict().items() if not n.endswith(_NO_WEIGHTS)}


def _record(
    own: Mapping[str, Any], loaded: Mapping[str, Any], state: Mapping[str, Any], path: Path
) -> LoadedWeights:
    """Return the record of what was loaded."""
    missing = [name for name in own if name not in loaded]
    count = sum(value.numel() for value in own.values())
    return LoadedWeights(
        file=str(path),
        sha256=sha256_file(path),
        tensors=len(own) - len(missing),
        share=1 - sum(own[name].numel() for name in missing) / max(1, count),
        missing=missing,
        unused=[name for name in state if name not in loaded and not name.endswith(_NO_WEIGHTS)],
    )


# --- files of the user's --------------------------------------------------------------------------


def read_own(path: Path, part: str, sha256: str | None = None) -> dict[str, Any]:
    """Return the state dict in a file of the user's, without executing anything in it.

    It may be safetensors, or a file of ``torch.save`` that holds a state dict, or one under
    ``state_dict`` (CompressAI's training example), ``model`` (torchvision's references) or
    ``part`` (this package). The prefixes that DataParallel and ``torch.compile`` put before every
    name are removed.

    Raises:
        UserError: where the file is missing, has another checksum, or holds no state dict.
        DamagedFile: where it is damaged, or contains more than tensors and plain values.
    """
    if not path.is_file():
        raise missing_file(path, "correct the path")
    if sha256 is not None and (found := sha256_file(path)) != sha256:
        raise damaged_file(path, f"sha256 is {found}, not {sha256} as the study states", _REPLACE)
    with path.open("rb") as stream:
        start = stream.read(9)
    if start[8:] == b"{":
        with reading(path, _REPLACE):
            state: Any = safetensors.torch.load(path.read_bytes())
    else:
        state = load_tensors(path, _REPLACE, own=True)
    for key in (part, *_WRAPPERS):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        keys = ", ".join(map(str, list(state)[:5]))
        raise UserError(f"{path}: holds no state dict, but {keys or 'nothing'}; {_REPLACE}")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return dict(state)


def load_own(
    module: Any,
    state: Mapping[str, Any],
    path: Path,
    what: str,
    partial: Sequence[str] = (),
    needed: Sequence[str] | None = None,
) -> LoadedWeights:
    """Load what :func:`read_own` returned.

    Names are those of the module, or of the network that it holds as ``network``; a module may
    translate them with ``own_name``.

    Args:
        module: the codec or task.
        state: the file's tensors.
        path: of the file.
        what: the codec or task in words, for errors.
        partial: beginnings of names that may be missing, not known here, or of another shape.
        needed: the file belongs to another network; see :func:`load_start`.

    Returns:
        what was loaded.

    Raises:
        UserError: naming the first tensor that does not fit.
    """
    translate = getattr(module, "own_name", str)
    state = {translate(name): value for name, value in state.items()}
    own = _weights_of(module)
    inner = {f"network.{name}": value for name, value in state.items()}
    if len(inner.keys() & own.keys()) > len(state.keys() & own.keys()):
        state = inner
        # Beside the network, a codec or task may have constants, which no file from outside has.
        learned = dict(module.named_parameters())
        own = {n: v for n, v in own.items() if n.startswith("network.") or n in learned}
    state = {name: v for name, v in state.items() if not name.endswith(_NO_WEIGHTS)}
    if needed is not None:
        return load_start(module, state, needed, path)
    left = tuple(partial) + tuple(f"network.{name}" for name in partial)
    missing = [name for name in own if name not in state and not name.startswith(left)]
    extra = [name for name in state if name not in own and not name.startswith(left)]
    if missing or extra:
        counts = [
            f"{len(names)} tensors {words} (first {names[0].removeprefix('network.')!r})"
            for names, words in ((missing, "are missing"), (extra, "are not known to it"))
            if names
        ]
        raise UserError(
            f"{path}: does not hold the weights of {what}: {' and '.join(counts)}; name another "
            "file, or list what need not fit under partial"
        )
    loaded = {}
    for name, value in state.items():
        if name.startswith(left):
            if name in own and own[name].shape == value.shape:
                loaded[name] = value
            continue
        _check_fit(name, value, own[name], path, f"name weights of {what} in this size, or list it "
                   "under partial")  # fmt: skip
        loaded[name] = value
    module.load_state_dict(loaded, strict=False)
    return _record(own, loaded, state, path)


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


def _is_compact(path: Path) -> bool:
    """Return whether a file is one that :func:`save_compact` wrote."""
    return path.suffix == ".safetensors"


def _compact(path: Path, sha256: str | None) -> Mapping[str, Any]:
    """Return the weights that :func:`save_compact` wrote."""
    with reading(path, _FROM_ZOO):
        if sha256 is not None and sha256_file(path) != sha256:
            raise damaged_file(path, "checksum mismatch with the zoo's catalogue", _FROM_ZOO)
        state: dict[str, Any] = safetensors.torch.load(path.read_bytes())
    for name in [name for name in state if name.endswith(_MASK)]:
        kept, weight = state[name], name.removesuffix(_MASK) + ".weight"
        whole = state[weight].new_zeros(*state[weight].shape[:2], *kept.shape)
        whole[..., kept] = state[weight]
        state |= {weight: whole, name: kept.float().expand_as(whole)}
    return state


def save_compact(module: Any, path: Path, names: Sequence[str] = ()) -> None:
    """Write a network as safetensors: large tensors as float16, no tables that can be recomputed.

    Of a masked convolution the weights that its mask keeps are written, and the mask of one kernel.
    ``path`` is replaced atomically.

    Args:
        module: the network.
        path: of the file.
        names: beginnings of the names of the tensors to write; none given: all.
    """
    state = {
        name: value.half() if value.dtype == torch.float32 and value.numel() > _SMALL else value
        for name, value in module.state_dict().items()
        if not name.endswith(_TABLES) and name.startswith(tuple(names) or "")
    }
    for name in [name for name in state if name.endswith(_MASK)]:
        kept, weight = state[name][0, 0] > 0, name.removesuffix(_MASK) + ".weight"
        state |= {weight: state[weight][..., kept], name: kept}
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
