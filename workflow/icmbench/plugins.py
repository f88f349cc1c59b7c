"""Load everything that registers codecs and tasks: this package's own, and the user's modules."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import icmbench.codecs.classical.entries
import icmbench.codecs.dicm.entries
import icmbench.codecs.layered.entries
import icmbench.codecs.learned.entries
import icmbench.codecs.uncoded
import icmbench.tasks.entries  # noqa: F401
from icmbench.errors import UserError


def load_modules(modules: Sequence[str] = ()) -> None:
    """Import the user's modules, which register codecs and tasks.

    The built-in entries are registered when this module is imported.

    Raises:
        UserError: naming the module that cannot be imported.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError(
                f"config.yaml: key 'modules': cannot import {module!r} ({error}); "
                "install it or put its folder on PYTHONPATH"
            ) from error
