"""Replace modules of a network built elsewhere by faster or safer ones that compute the same."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def replace_modules(
    network: nn.Module, choose: Callable[[nn.Module], type[nn.Module] | None]
) -> None:
    """Replace modules inside a network by modules of a subclass with the same state.

    A replacement shares parameters, buffers and settings with the original, so names in the state
    dict stay as they are and no random number is drawn.

    Args:
        network: changed in place; the network itself is not replaced.
        choose: returns the subclass for a module, or None to keep the module.
    """
    replaced: dict[nn.Module, nn.Module] = {}  # a module may occur in several places
    for parent in list(network.modules()):
        for name, child in parent._modules.items():
            kind = None if child is None else choose(child)
            if child is not None and kind is not None:
                if child not in replaced:
                    replaced[child] = _copy_as(kind, child)
                setattr(parent, name, replaced[child])


def _copy_as(kind: type[nn.Module], module: nn.Module) -> nn.Module:
    """Return a shallow copy of a module as an instance of a subclass, without its constructor."""
    copy = kind.__new__(kind)
    copy.__dict__.update(module.__dict__)
    return copy
