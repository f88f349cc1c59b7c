"""Load everything that registers codecs and tasks: this package's own, and the user's modules."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence

import icmbench.codecs.classical.command_entry
import icmbench.codecs.classical.entries
import icmbench.codecs.dicm.entries
import icmbench.codecs.layered.entries
import icmbench.codecs.learned.entries
import icmbench.codecs.uncoded
import icmbench.tasks.entries
import icmbench.tasks.fixed.entries
from icmbench.errors import UserError
from icmbench.registry import CODECS
from icmbench.utils.models import Strict


def load_modules(
    modules: Sequence[str] = (),
    command_codecs: Mapping[str, Strict] | None = None,
    where: Callable[[str], str] = "key {!r}".format,
) -> None:
    """Register the user's codecs and tasks: import modules, and add codecs of commands.

    The built-in entries are registered when this module is imported.

    Args:
        modules: names of modules, which register codecs and tasks when imported.
        command_codecs: of config.yaml, by name; they replace those of another configuration. None
            leaves them as they are.
        where: returns how errors name a key of the configuration.

    Raises:
        UserError: naming the module that cannot be imported, or the name that is in use.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError(
                f"{where('modules')}: cannot import {module!r} ({error}); "
                "install it or put its folder on PYTHONPATH"
            ) from error
    if command_codecs is None:
        return
    for entry in [entry for entry in CODECS if entry.command is not None]:
        CODECS.remove(entry.name)
    for name, command in command_codecs.items():
        if name in CODECS:
            raise UserError(
                f"{where(f'command_codecs.{name}')}: another codec has this name; choose a new one"
            )
        CODECS.register(icmbench.codecs.classical.command_entry.command_entry(name, command))
