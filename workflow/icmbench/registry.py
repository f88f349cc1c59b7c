"""Registries of codecs and tasks: the names that study files may use.

An entry holds what checking a configuration needs (parameters, parts, loss terms). It imports no
network library: ``implementation`` is a string, and only the job that runs the codec or task
imports it. The built-in entries are in the modules that :mod:`icmbench.plugins` imports. A module
of your own registers its entries in the same way: list it under ``modules`` in config.yaml.

    CODECS.register(
        CodecEntry(
            name="my-webp",
            kind="classical",
            parameters=NoParameters,
            implementation="my_webp:MyWebp",
            rate_parameter="quality",
        )
    )
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from icmbench.errors import UserError, unknown
from icmbench.utils.models import Strict

DataKind = Literal["images", "features"]


class NoParameters(Strict):
    """A codec or task without settings."""


@dataclass(frozen=True)
class _Entry:
    """What codecs and tasks have in common.

    Attributes:
        name: as study files write it, e.g. ``bmshj2018-hyperprior``.
        parameters: model of the settings under ``codecs.<name>`` or ``tasks.<name>`` of a scale.
        implementation: ``package.module:Class``, imported when a job runs it.
        parts: names of the parts that a study may train, as ``codec.<part>`` or ``task.<part>``.
        starts_from: other codecs or tasks that may give initial weights. For each, what of them
            must load: beginnings of names here. A tensor below one that is missing or has another
            shape on either side is an error; what is below none is taken where it fits, and the
            rest starts at random.
        loss_terms: names of the loss terms that training reports.
        defaults: settings that this name stands for; they replace the defaults of ``parameters``.
        pretrained: returns whether published weights exist for some parameters; None: for none.
        one_size: whether it is the same network at every scale, with its published weights, which
            it has also where a study names none.
        pretrained_files: returns the files that ``load_pretrained`` reads for some parameters;
            what depends on them is done again when they change.
    """

    name: str
    parameters: type[Strict]
    implementation: str
    parts: tuple[str, ...] = ()
    starts_from: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    loss_terms: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    pretrained: Callable[[Any], bool] | None = None
    one_size: bool = False
    pretrained_files: Callable[[Any], Sequence[str]] | None = None

    def has_pretrained(self, parameters: Strict) -> bool:
        """Return whether published weights exist for these parameters."""
        return self.pretrained is not None and self.pretrained(parameters)


@dataclass(frozen=True, kw_only=True)
class CodecEntry(_Entry):
    """A codec.

    Attributes:
        kind: ``learned`` (has weights), ``classical`` (one number sets the rate) or ``none`` (the
            original pixels, 24 bits each).
        shares_weights_with: codecs that are the same network in another use; they share weights.
        rate_parameter: a classical codec's rate setting, which a study's ladder must name; of a
            learned codec, the setting that one set of weights has many rates by.
        lower_rate: which of its values give lower rates, ``smaller`` or ``larger`` ones; None where
            that is not known.
        published_rates: returns, by name of a ladder's parameter, the values that published weights
            exist for with some parameters; None: the ladder does not select them.
        outputs: what it decodes to: images, features that tasks read without pixels, or both.
        feature_channels: returns the number of feature channels for some parameters.
        programs: external programs it needs, keys of ``utils.programs.KNOWN_PROGRAMS`` or, of a
            codec from the command line, the keys of its commands in config.yaml.
        command: settings of a codec from the command line, in place of ``parameters``.
        substitute: the nearest codec from packages, for users without the programs.
    """

    kind: Literal["learned", "classical", "none"]
    shares_weights_with: tuple[str, ...] = ()
    rate_parameter: str | None = None
    lower_rate: Literal["smaller", "larger"] | None = None
    published_rates: Callable[[Any], Mapping[str, Sequence[float]]] | None = None
    outputs: tuple[DataKind, ...] = ("images",)
    feature_channels: Callable[[Any], int] | None = None
    programs: tuple[str, ...] = ()
    substitute: str | None = None
    command: Strict | None = None


@dataclass(frozen=True, kw_only=True)
class TaskEntry(_Entry):
    """A task; ``task`` in a study's loss is the sum of its loss terms.

    Attributes:
        trainable: whether the task has a network.
        metrics: how it is evaluated; the first metric leads in tables and plots.
        metrics_for: returns the metrics where they depend on the parameters.
        files: parameters that hold paths: jobs depend on these files.
        exact: runs in float32 and one image at a time, as published accuracies are measured.
        starts_from_codec: codecs that may give initial weights (``task_from: {of: codec}``), as
            ``starts_from``.
        input_kind: images (decoded or original), or a codec's features.
        trains_codec: whether its losses are those of the codec's network, see ``train.system``.
    """

    trainable: bool
    metrics: tuple[str, ...]
    metrics_for: Callable[[Any], tuple[str, ...]] | None = None
    files: tuple[str, ...] = ()
    exact: bool = False
    starts_from_codec: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    input_kind: DataKind = "images"
    trains_codec: bool = False


class Named(Protocol):
    """An entry of a registry."""

    @property
    def name(self) -> str:
        """The name that it is registered under."""


Entry = TypeVar("Entry", bound=Named)


class Registry(Generic[Entry]):
    """A table of entries by name.

    Args:
        what: ``codec`` or ``task``, for error messages.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._entries: dict[str, Entry] = {}

    def register(self, entry: Entry) -> Entry:
        """Add an entry.

        Raises:
            UserError: where the name belongs to another entry.
        """
        if self._entries.setdefault(entry.name, entry) != entry:
            raise UserError(f"{self.what} {entry.name!r} is registered twice; rename one of them")
        return entry

    def remove(self, name: str) -> None:
        """Remove an entry; others may have its name then."""
        del self._entries[name]

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
            raise UserError(unknown(self.what, name, self._entries)) from None


CODECS: Registry[CodecEntry] = Registry("codec")
TASKS: Registry[TaskEntry] = Registry("task")


def implementation(entry: CodecEntry | TaskEntry) -> Any:
    """Import and return the class that ``entry.implementation`` names."""
    module, _, attribute = entry.implementation.partition(":")
    return getattr(importlib.import_module(module), attribute)
