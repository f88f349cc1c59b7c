"""Load published weights safely: no code is executed, and a failure is one line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from icmbench.errors import UserError, damaged_file
from icmbench.utils.files import line_of, sha256_file

_DIGEST = re.compile(r"-([0-9a-f]{8,})\.")  # in names of published files: of their SHA-256

# torch.hub and libraries on top of it use the loader that executes pickles; this overrides them.
_ONLY_WEIGHTS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@contextmanager
def published_weights(name: str, otherwise: str = "") -> Iterator[None]:
    """Load published weights inside the block; files in torch's cache need no network.

    Args:
        name: of the codec or task, for the error message.
        otherwise: an alternative for the error message, e.g. ", or set ...".

    Raises:
        UserError: where they cannot be downloaded, are damaged, or contain more than tensors.
    """
    import torch

    before = os.environ.get(_ONLY_WEIGHTS)
    os.environ[_ONLY_WEIGHTS] = "1"
    try:
        yield
    except UserError:
        raise
    # URLError is an OSError, a wrong hash a RuntimeError; damaged files raise nearly anything.
    except Exception as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise UserError(
            f"published weights of {name!r} cannot be loaded ({line_of(error)}); run this job once "
            f"with network access, or put the file into {folder}, replacing a damaged one "
            f"(TORCH_HOME changes this folder){otherwise}"
        ) from error
    finally:
        if before is None:
            os.environ.pop(_ONLY_WEIGHTS, None)
        else:
            os.environ[_ONLY_WEIGHTS] = before


def load_published(url: str) -> dict[str, Any]:
    """Return the state dict at an address of CompressAI's or torchvision's, through torch's cache.

    Raises:
        DamagedFile: where the cache has another file under this name.
    """
    from torch import hub

    check_cached(url)
    state: dict[str, Any] = hub.load_state_dict_from_url(
        url, map_location="cpu", progress=False, check_hash=True, weights_only=True
    )
    return state


def cache_path(url: str) -> Path:
    """Return where torch's cache has the file at an address of published weights."""
    from torch import hub

    return Path(hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def hub_is_used() -> bool:
    """Return whether Hugging Face has a cache on this machine."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).is_dir()


def hub_weights(repository: str) -> Path | None:
    """Return the weights of a repository of Hugging Face's in its cache; None if there are none."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, "model.safetensors")
    return Path(found) if isinstance(found, str) else None


def check_cached(url: str) -> None:
    """Check the file that torch's cache has for an address of published weights, if any.

    Its name has the first digits of its SHA-256. torch checks them only after a download, not of a
    file that it finds in its cache.

    Raises:
        DamagedFile: where it is another file.
    """
    cached = cache_path(url)
    wanted = _DIGEST.search(cached.name)
    if cached.is_file() and wanted is not None:
        found = sha256_file(cached)
        if not found.startswith(wanted[1]):
            raise damaged_file(
                cached,
                f"not the published weights: its sha256 begins with {found[: len(wanted[1])]}, not "
                f"{wanted[1]}",
                "delete it to download it again, or name the file in the study, see "
                "docs/own-weights.md",
            )
