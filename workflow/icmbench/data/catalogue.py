"""The catalogue of data sets: typed models of ``data/catalogue.yaml`` and a readable table."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from icmbench.errors import UserError
from icmbench.utils.files import reading
from icmbench.utils.yaml import parse_yaml

DOWNLOADS = "downloads"
"""Folder inside the data directory for archives: one sub-folder for each data set."""


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or "\\" in path:
        raise ValueError("must be a relative path with '/' that stays inside the data set's folder")
    return path


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Address = Annotated[str, StringConstraints(pattern=r"^https?://\S+$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$")]
SetName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")]
RelativePath = Annotated[str, AfterValidator(_inside)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Account(_Model):
    """Whether an account is needed, and how to get the files."""

    needed: bool
    how: Text | None = Field(default=None, description="what to do, for files without an address")


class Archive(_Model):
    """One file of the source: an archive to unpack, or a file to take as it is."""

    name: FileName
    url: Address | None = Field(default=None, description="null: to be placed by hand")
    md5: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")] | None = None
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    bytes: PositiveInt | None = None
    unpack: Literal["zip", "tar", "none"]
    into: RelativePath = Field(default=".", description="folder inside the data set")
    strip: NonNegativeInt = Field(default=0, description="leading folders of each member to drop")
    nested: bool = Field(default=False, description="a tar of tars: each into a folder of its name")

    @property
    def verifiable(self) -> bool:
        """Whether the catalogue knows a checksum of the file."""
        return bool(self.md5 or self.sha256)


class LayoutItem(_Model):
    """Files that the data set consists of."""

    path: RelativePath = Field(description="path or pattern; '*' does not cross '/'")
    count: PositiveInt | None = Field(default=1, description="files; null: one or more")

    def matches(self, path: str) -> bool:
        """Return whether a relative path (with ``/``) belongs to this item."""
        wanted, given = self.path.split("/"), path.split("/")
        return len(wanted) == len(given) and all(map(fnmatchcase, given, wanted))


class DataSet(_Model):
    """One data set: what it is, where it comes from, what it looks like when it is complete."""

    title: Text
    version: Text
    homepage: Address
    licence: Text
    licence_url: Address
    account: Account
    citation: Text
    archives: Annotated[list[Archive], Field(min_length=1)]
    layout: Annotated[list[LayoutItem], Field(min_length=1)]

    def wants(self, path: str) -> bool:
        """Return whether a relative path (with ``/``) is part of the data set."""
        return any(item.matches(path) for item in self.layout)

    def single_files(self) -> dict[str, Archive]:
        """Return the files that are taken as they are, by their path in the data set's folder."""
        return {
            str(PurePosixPath(archive.into) / archive.name): archive
            for archive in self.archives
            if archive.unpack == "none"
        }

    def to_place(self, name: str) -> list[str]:
        """Return where a person puts the files without an address, relative to the data folder."""
        return [f"{DOWNLOADS}/{name}/{file.name}" for file in self.archives if file.url is None]


_CATALOGUE = TypeAdapter(dict[SetName, DataSet])


def load_catalogue(path: Path) -> dict[str, DataSet]:
    """Return the data sets of a catalogue file by name.

    Raises ``UserError`` naming the file, the key, the bad value and what is allowed.
    """
    try:
        with reading(path, "restore the file"):
            text = path.read_text(encoding="utf-8")
            try:
                content = parse_yaml(text)
            except yaml.YAMLError as error:
                where = " ".join(str(error).split())
                raise UserError(f"{path}: not valid YAML: {where}") from None
    except FileNotFoundError:
        raise UserError(f"{path}: no such catalogue of data sets: give its path") from None
    try:
        return _CATALOGUE.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if part != "[key]") or "(top level)"
        given = repr(first["input"])
        given = given if len(given) <= 80 else given[:77] + "..."
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise UserError(f"{path}: {key}: {first['msg']}, got {given}{more}") from None


def find(path: Path, name: str) -> DataSet:
    """Return one data set of a catalogue file; ``UserError`` names those there are."""
    catalogue = load_catalogue(path)
    if name not in catalogue:
        known = ", ".join(sorted(catalogue))
        raise UserError(f"{name}: no such data set in {path}: choose one of {known}")
    return catalogue[name]


def human_bytes(count: float) -> str:
    """Return a size in decimal units, such as ``19.3 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def list_catalogue(catalogue: Path) -> str:
    """Return a table of the data sets: name, version, size, licence, account, what to place.

    The size is that of the archives; ``>=`` marks one in which a size is not known.
    """
    rows = [
        ("name", "version", "download", "licence", "account", "what to place, in the data folder")
    ]
    for name, entry in load_catalogue(catalogue).items():
        sizes = [archive.bytes for archive in entry.archives]
        known = sum(size for size in sizes if size is not None)
        size = "unknown" if not known else (">= " if None in sizes else "") + human_bytes(known)
        account = "needed" if entry.account.needed else "no"
        place = ", ".join(entry.to_place(name)) or "nothing (fetched)"
        rows.append((name, entry.version, size, entry.licence, account, place))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join(lines) + "\n"
