"""The zoo: weights that this project trained at scale ``zoo`` and ships.

``<folder>/catalogue.json`` lists them. An entry is named after the operating point that trained it,
without its seed: ``<study>/<variant>/rate<index>/<codec or task>``. Where a scale has
``pretrained: zoo``, weights ``pretrained`` of a point are the entry of the same name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from icmbench.jobs import Part
from icmbench.utils.models import Strict, read_model

CATALOGUE = "catalogue.json"


class ZooEntry(Strict):
    """One network's weights, and how they were made.

    Attributes:
        file: safetensors file in the zoo's folder; points may share it.
        sha256, size: of the file; size in bytes.
        holds: beginnings of the names of its tensors, where a part of the network was trained; the
            rest of the network begins as without weights. Empty: all.
        network: name of the codec or task.
        parameters: its size, as the scale that trained it states it.
        steps, cpu_seconds, seed: of the last training run.
        commit: of the code that trained it.
        packages: their versions.
        start: the loss at the first steps that are logged; a test trains so far again.
        course: last step and mean loss of each of some stretches of the training.
    """

    file: str
    sha256: str
    size: int
    part: Part
    holds: list[str] = Field([])
    network: str
    parameters: dict[str, Any]
    steps: int
    cpu_seconds: float
    seed: int
    commit: str | None
    packages: dict[str, str]
    start: dict[str, float]
    course: list[list[float]]


class Zoo(Strict):
    """The catalogue of a zoo."""

    entries: dict[str, ZooEntry] = Field({})

    def find(self, study: str, variant: str, rate: int, part: Part) -> ZooEntry | None:
        """Return the entry of a point's codec or task, or None."""
        return self.entries.get(entry_name(study, variant, rate, part))


def entry_name(study: str, variant: str, rate: int, part: Part) -> str:
    """Return the name of an entry."""
    return f"{study}/{variant}/rate{rate}/{part}"


def read_zoo(folder: Path) -> Zoo:
    """Return the catalogue of a folder; empty where there is none.

    Raises:
        UserError: where it is damaged.
    """
    path = folder / CATALOGUE
    return read_model(path, Zoo, "restore it from the repository") if path.is_file() else Zoo()
