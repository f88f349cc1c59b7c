"""What every set of faces can tell, whatever its files look like."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
SplitName = Literal["train", "val", "test"]
Identity = int | str  # as in every split; those of faces are integers


class FaceIndex(ABC):
    """Images of a data set by id, with attributes and, where there are any, parsing maps.

    Attributes:
        folder: of the data set.
        attribute_names: names of the A attributes, in the data set's order.
        parsing_names: names of the classes of parsing maps; empty where there are no maps.
    """

    folder: Path
    attribute_names: tuple[str, ...]
    parsing_names: tuple[str, ...] = ()

    @abstractmethod
    def ids(self, split: SplitName, limit: int | None = None) -> list[Identity]:
        """Return the ids of a split, sorted; at most the first ``limit``."""

    @abstractmethod
    def file(self, identity: Identity) -> str:
        """Return the path of an image, relative to what :meth:`images` names."""

    @abstractmethod
    def images(self, split: SplitName) -> Path:
        """Return the folder or zip archive of a split's images."""

    @abstractmethod
    def attributes(self, identity: Identity) -> Array:
        """Return uint8 [A]: 1 where the face has the attribute."""

    def parsing(self, identity: Identity, size: tuple[int, int]) -> Array | None:
        """Return uint8 [height, width] of class indices at ``size`` (height, width).

        Nearest neighbour where the size differs; None where the data set has no maps.
        """
        return None
