"""Registries of codecs and tasks: what a study file may name.

An entry says everything that checking a configuration needs (parameters, parts, loss terms) without
importing a network library; ``implementation`` is imported only by the job that runs it. A module
outside this repository registers its own entries the same way: list it under ``modules`` in
config.yaml and it is imported before the configuration is checked.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from icmbench.errors import UserError
from icmbench.utils.imports import left_out
from icmbench.utils.models import Strict

# A third of the time that importing a codec takes.
_LEFT_OUT = (
    # Point clouds, and what CompressAI imports for them alone.
    "compressai.datasets.pointcloud",
    "compressai.transforms.point",
    "torch_geometric",
    "torch_geometric.transforms",
    # SciPy still imports it for whoever asks; see codecs.compact.
    "scipy.stats",
)

DataKind = Literal["images", "features"]


@dataclass(frozen=True)
class CodecEntry:
    """What the configuration may say of one codec.

    Attributes:
        name: the field's name of the codec, e.g. ``bmshj2018-hyperprior``.
        kind: ``learned`` (has weights), ``classical`` (rate set by one number) or
            ``none`` (the original pixels, 24 bits each).
        parameters: typed model of the settings under ``codecs.<name>`` of a scale.
        implementation: ``package.module:Class``, imported when a job runs it.
        parts: names of the parts that a study may train, as ``codec.<part>``.
        starts_from: other codecs whose weights it may start from, as far as names and shapes agree.
        shares_weights_with: codecs that are the same network in another use; they share weights.
        loss_terms: names of the loss terms the codec yields.
        rate_parameter: a classical codec's rate setting, which its ladder must name.
        outputs: what it decodes to: images, features that tasks read without pixels, or both.
        feature_channels: channels of the features, from the parameters.
        defaults: settings that this name stands for, laid over the defaults of ``parameters``.
        programs: external programs it needs, keys of ``programs.KNOWN_PROGRAMS``.
        substitute: the nearest classical codec from packages, for users without the programs.
    """

    name: str
    kind: Literal["learned", "classical", "none"]
    parameters: type[Strict]
    implementation: str
    parts: tuple[str, ...] = ()
    starts_from: tuple[str, ...] = ()
    shares_weights_with: tuple[str, ...] = ()
    loss_terms: tuple[str, ...] = ()
    rate_parameter: str | None = None
    outputs: tuple[DataKind, ...] = ("images",)
    feature_channels: Callable[[Any], int] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    programs: tuple[str, ...] = ()
    substitute: str | None = None


@dataclass(frozen=True)
class TaskEntry:
    """What the configuration may say of one task.

    Attributes:
        name: e.g. ``faster-rcnn``.
        parameters: typed model of the settings under ``tasks.<name>`` of a scale.
        implementation: ``package.module:Class``, imported when a job runs it.
        trainable: whether the task has a network of its own.
        parts: names of the parts that a study may train, as ``task.<part>``.
        starts_from: other tasks whose weights it may start from; parts they lack begin at random.
        starts_from_codec: codecs that hold weights it may start from (``task_from: {of: codec}``).
        reads: images (decoded or original), or a codec's features.
        trains_codec: whether its losses are of the codec's own network, see ``train.system``.
        defaults: settings that this name stands for, laid over the defaults of ``parameters``.
        loss_terms: names of the loss terms the task yields; ``task`` is their sum.
        metrics: the metrics it is judged by, the first one leading.
    """

    name: str
    parameters: type[Strict]
    implementation: str
    trainable: bool
    loss_terms: tuple[str, ...]
    metrics: tuple[str, ...]
    parts: tuple[str, ...] = ()
    starts_from: tuple[str, ...] = ()
    starts_from_codec: tuple[str, ...] = ()
    input_kind: DataKind = "images"
    trains_codec: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)


class Named(Protocol):
    """An entry of a registry."""

    @property
    def name(self) -> str:
        """The name that it is registered under."""


Entry = TypeVar("Entry", bound=Named)


class Registry(Generic[Entry]):
    """A table of entries by name."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._entries: dict[str, Entry] = {}

    def register(self, entry: Entry) -> Entry:
        """Add ``entry``; the same name twice is an error."""
        if entry.name in self._entries and self._entries[entry.name] != entry:
            raise UserError(f"{self.what} {entry.name!r} is registered twice; rename one of them")
        self._entries[entry.name] = entry
        return entry

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[Entry]:
        """Iterate over the entries in the order of registration."""
        return iter(self._entries.values())

    def names(self) -> list[str]:
        """Return the registered names, sorted."""
        return sorted(self._entries)

    def __getitem__(self, name: str) -> Entry:
        try:
            return self._entries[name]
        except KeyError:
            allowed = ", ".join(self.names())
            raise UserError(f"unknown {self.what} {name!r}; allowed: {allowed}") from None


CODECS: Registry[CodecEntry] = Registry("codec")
TASKS: Registry[TaskEntry] = Registry("task")


def implementation(entry: CodecEntry | TaskEntry) -> Any:
    """Import and return the class that ``entry.implementation`` names."""
    module, _, attribute = entry.implementation.partition(":")
    # Not a user's module: it may want what is left out.
    ours = module.startswith("icmbench.")
    with left_out(*_LEFT_OUT) if ours else nullcontext():
        return getattr(importlib.import_module(module), attribute)
