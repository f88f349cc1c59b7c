"""The catalogue of data sets: typed models of ``data/catalogue.yaml``, and a table of them."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import yaml
from pydantic import (
    AfterValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from icmbench.errors import UserError, missing_file, unknown
from icmbench.utils.files import line_of, reading
from icmbench.utils.models import Strict, first_fault
from icmbench.utils.places import here_or_shipped
from icmbench.utils.yaml import parse_yaml

CATALOGUE = "catalogue.yaml"
DOWNLOADS = "downloads"
"""Folder inside the data directory for archives: one sub-folder for each data set."""


def _inside(path: str) -> str:
    if path.startswith("/") or ".." in PurePosixPath(path).parts or "\\" in path:
        raise ValueError("must be a relative path with '/' that stays inside the data set's folder")
    return path


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Address = Annotated[str, StringConstraints(pattern=r"^https?://\S+$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
SetName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")]
RelativePath = Annotated[str, AfterValidator(_inside)]


class Account(Strict):
    """Whether an account is needed, and how to get the files."""

    needed: bool
    how: Text | None = Field(default=None, description="what to do, for files without an address")


class Archive(Strict):
    """One file of the source: an archive to unpack, or a file to take as it is."""

    name: FileName
    url: Address | None = Field(default=None, description="null: to be placed by hand")
    md5: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")] | None = None
    sha256: Sha256 | None = None
    bytes: PositiveInt | None = None
    unpack: Literal["zip", "tar", "none"]
    into: RelativePath = Field(default=".", description="folder inside the data set")
    strip: NonNegativeInt = Field(default=0, description="leading folders of each member to drop")
    nested: bool = Field(default=False, description="a tar of tars: each into a folder of its name")

    @model_validator(mode="after")
    def _downloads_are_verified(self) -> Archive:
        if self.url and not (self.md5 or self.sha256):
            raise ValueError("an archive with a url needs an md5 or sha256")
        return self


class Chosen(Strict):
    """Images that a file of labels names, chosen by a rule and fetched one by one.

    The rule: those whose file names have the lowest SHA-256. The set then has the entries of these
    images only. There is no published checksum of a single image: it must decode, with the size
    that the file gives.
    """

    annotations: RelativePath = Field(
        description="file inside the data set: annotations in COCO's format, or the CSV of the "
        "NIPS 2017 set, whose images are PNGs of 299 x 299"
    )
    images: RelativePath = Field(description="folder of the images, inside the data set")
    url: Address = Field(description="what the file name is put behind")
    count: PositiveInt = Field(description="number of images")
    bytes: PositiveInt = Field(description="about how many bytes they have")


class LayoutItem(Strict):
    """Files that the data set consists of."""

    path: RelativePath = Field(description="path or pattern; '*' does not cross '/'")
    count: PositiveInt | None = Field(default=1, description="files; null: one or more")

    def matches(self, path: str) -> bool:
        """Return whether a relative path (with ``/``) belongs to this item."""
        wanted, given = self.path.split("/"), path.split("/")
        return len(wanted) == len(given) and all(map(fnmatchcase, given, wanted))


class DataSet(Strict):
    """One data set: origin, licence, and the files of a complete copy."""

    title: Text
    version: Text
    homepage: Address
    licence: Text
    licence_url: Address
    account: Account
    citation: Text
    archives: list[Archive] = Field([], description="files to fetch")
    chosen: Chosen | None = Field(
        None, description="images to fetch, of those in an annotation file from the archives"
    )
    mirrored_as: SetName | None = Field(
        None, description="the set whose folder in a mirror has these files; null: of its own name"
    )
    files: dict[RelativePath, Sha256] = Field(
        {}, description="SHA-256 of the files of a set that the repository itself holds"
    )
    layout: Annotated[list[LayoutItem], Field(min_length=1)]

    @model_validator(mode="after")
    def _comes_from_somewhere(self) -> DataSet:
        if bool(self.archives) == bool(self.files):
            raise ValueError("a data set has either archives to fetch or files of the repository")
        return self

    def wants(self, path: str) -> bool:
        """Return whether a relative path (with ``/``) is part of the data set."""
        return any(item.matches(path) for item in self.layout)

    def single_files(self) -> dict[str, Archive]:
        """Return the files that are taken as they are, by their path in the data set's folder.

        Without the file that images are chosen from, of which the set has a part.
        """
        chosen = None if self.chosen is None else self.chosen.annotations
        files = {str(PurePosixPath(own.into) / own.name): own for own in self.archives}
        return {p: own for p, own in files.items() if own.unpack == "none" and p != chosen}


_CATALOGUE = TypeAdapter(dict[SetName, DataSet])


def catalogue_path(data_dir: Path) -> Path:
    """Return the catalogue of a data folder, or the shipped one where the folder has none."""
    own = data_dir / CATALOGUE
    return own if own.is_file() else here_or_shipped(f"data/{CATALOGUE}")


def load_catalogue(path: Path) -> dict[str, DataSet]:
    """Return the data sets of a catalogue file by name.

    Raises:
        UserError: naming the file and the key.
    """
    if not path.is_file():
        raise missing_file(path, "give the path of a catalogue of data sets")
    with reading(path, "restore the file"):
        text = path.read_text(encoding="utf-8")
        try:
            return _CATALOGUE.validate_python(parse_yaml(text))
        except yaml.YAMLError as error:
            raise UserError(f"{path}: not valid YAML: {line_of(error)}") from None
        except ValidationError as error:
            raise UserError(f"{path}: {first_fault(error)}") from None


def find(path: Path, name: str) -> DataSet:
    """Return one data set of a catalogue file.

    Raises:
        UserError: naming the known data sets.
    """
    catalogue = load_catalogue(path)
    if name not in catalogue:
        raise UserError(f"{path}: {unknown('data set', name, catalogue)}")
    return catalogue[name]


def human_bytes(count: float) -> str:
    """Return a size in decimal units, such as ``19.3 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def list_catalogue(catalogue: Path) -> str:
    """Return a table of the data sets: name, version, size, licence, account, files to place.

    The size is that of the archives and of images fetched one by one; ``>=`` marks a sum in which
    some sizes are not known.
    """
    rows = [
        ("name", "version", "download", "licence", "account", "what to place, in the data folder")
    ]
    for name, entry in load_catalogue(catalogue).items():
        sizes = [archive.bytes or 0 for archive in entry.archives]
        sizes += [entry.chosen.bytes] if entry.chosen else []
        known = (">= " if 0 in sizes else "") + human_bytes(sum(sizes))
        size = "none" if entry.files else known if any(sizes) else "unknown"
        account = "needed" if entry.account.needed else "no"
        held = "nothing (in the repository)" if entry.files else "nothing (fetched)"
        by_hand = [f"{DOWNLOADS}/{name}/{file.name}" for file in entry.archives if not file.url]
        place = ", ".join(by_hand) or held
        rows.append((name, entry.version, size, entry.licence, account, place))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join(lines) + "\n"
