"""Importing a library without the packages that it imports for something we never use."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec

from icmbench.utils.environment import version


@contextmanager
def left_out(*names: str) -> Iterator[None]:
    """Let empty modules stand in for ``names`` while the body imports a library.

    A stand-in has the package's ``__version__`` and exports nothing. Afterwards it is gone, and
    whoever imports the package then gets the real one. A package already imported stays; for one
    that is not installed nothing stands in.

    Args:
        names: dotted module names, a package before what lies in it.
    """
    placed = []
    for name in names:
        if name in sys.modules:
            continue
        installed = version(name.partition(".")[0])
        if installed is None:
            continue
        module = module_from_spec(ModuleSpec(name, None, is_package=True))
        vars(module).update(__version__=installed, __all__=[])
        parent, _, child = name.rpartition(".")
        if parent in placed:
            setattr(sys.modules[parent], child, module)
        sys.modules[name] = module
        placed.append(name)
    try:
        yield
    finally:
        for name in placed:
            del sys.modules[name]
