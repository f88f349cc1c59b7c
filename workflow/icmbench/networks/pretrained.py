"""Load published weights safely: no code is executed, and a failure is one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from icmbench.errors import UserError
from icmbench.utils.files import line_of

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
