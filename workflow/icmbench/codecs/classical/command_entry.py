"""Settings and registry entry of a classical codec that is two commands in config.yaml."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from icmbench.codecs.classical.entries import ProgramParameters
from icmbench.errors import UserError
from icmbench.registry import CodecEntry, NoParameters
from icmbench.utils.models import Strict

# What a command may contain; the first group of _PLACEHOLDER is a name.
PLACEHOLDERS = ("input", "output", "rate", "width", "height", "folder")
_PLACEHOLDER = re.compile(r"(?<!\$)\{(\w*)\}")
_NAME = re.compile(r"[A-Za-z0-9][\w-]*")


class CommandParameters(ProgramParameters):
    """A classical codec that is two commands, given in config.yaml alone.

    Commands are split into words as a shell does, but no shell runs. In each word {input} and
    {output} become paths of files; {rate} the rate setting; {width} and {height} the size of the
    image that is coded; {folder} an empty folder, in which the command runs.
    """

    encode: str = Field(
        description="Command that codes {input} to {output} at {rate}; the rate is the size of the "
        "file that it writes."
    )
    decode: str = Field(
        description="Command that decodes {input} to {output}. Where it needs {width} and "
        "{height}, they are stored before the bitstream and count as bits."
    )
    version: str | None = Field(
        None,
        description="Command that prints the version of the encoder, for the records; null asks "
        "nobody.",
    )
    rate: str = Field(description="Name of the rate setting, as ladders give it: quality, qp, ...")
    lower_rate: Literal["smaller", "larger"] = Field(
        description="Which values of the rate setting give lower rates: smaller ones (of a "
        "quality) or larger ones (of a QP or distance)."
    )
    rate_range: list[float] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="Smallest and largest value of the rate setting; null allows any number.",
    )
    format: Literal["png", "ppm", "yuv444", "yuv420"] = Field(
        "png",
        description="Format of the images that encode reads and decode writes: PNG or PPM of 8-bit "
        "RGB, or raw planes Y, Cb, Cr one after the other, BT.709 full range.",
    )
    bit_depth: int = Field(
        8,
        ge=8,
        le=16,
        description="Bits of the samples of raw planes; above 8, of two bytes each, the lower one "
        "first.",
    )
    extension: str = Field(
        "bin",
        pattern=r"^\w+$",
        description="Suffix of the coded file, by which some programs choose its format.",
    )

    @field_validator("encode")
    @classmethod
    def _encodes(cls, command: str) -> str:
        return _checked(command, ("input", "output", "rate"), PLACEHOLDERS)

    @field_validator("decode")
    @classmethod
    def _decodes(cls, command: str) -> str:
        # The rate is not known to a decoder.
        return _checked(command, ("input", "output"), [p for p in PLACEHOLDERS if p != "rate"])

    @field_validator("version")
    @classmethod
    def _asks(cls, command: str | None) -> str | None:
        return None if command is None else _checked(command, (), ())

    @field_validator("rate")
    @classmethod
    def _is_name(cls, rate: str) -> str:
        if not _NAME.fullmatch(rate):
            raise ValueError("a name has letters, digits, - and _")
        return rate

    @field_validator("rate_range")
    @classmethod
    def _rises(cls, bounds: list[float] | None) -> list[float] | None:
        if bounds is not None and not bounds[0] < bounds[1]:
            raise ValueError("give the smallest value, then the largest")
        return bounds

    @field_validator("bit_depth")
    @classmethod
    def _fits(cls, bit_depth: int, info: ValidationInfo) -> int:
        if bit_depth != 8 and info.data.get("format") in ("png", "ppm"):
            raise ValueError("PNG and PPM are given 8 bits; remove this key, or choose raw planes")
        return bit_depth


def _checked(command: str, needed: Collection[str], allowed: Collection[str]) -> str:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"cannot be split into words ({error}); check its quotes") from None
    if not words:
        raise ValueError("is empty; give a command")
    names = [name for word in words for name in _PLACEHOLDER.findall(word)]
    for name in names:
        if name not in allowed:
            shown = ", ".join(f"{{{name}}}" for name in allowed) or "none"
            raise ValueError(f"{{{name}}} is not a placeholder of this command; allowed: {shown}")
    for name in needed:
        if name not in names:
            raise ValueError(f"{{{name}}} is missing; the command must contain it")
    return command


def fill(word: str, values: dict[str, str]) -> str:
    """Return a word of a command with the values of its placeholders.

    >>> fill("--size={width}x{height}", {"width": "64", "height": "48"})
    '--size=64x48'
    """
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), word)


def command_lines(name: str, command: Strict) -> dict[str, str]:
    """Return the commands of codec ``name`` by their keys in config.yaml."""
    found = {part: getattr(command, part) for part in ("encode", "decode", "version")}
    return {f"command_codecs.{name}.{part}": line for part, line in found.items() if line}


def command_entry(name: str, command: Strict) -> CodecEntry:
    """Return the registry entry of a codec from the command line.

    Args:
        name: of the codec.
        command: its :class:`CommandParameters`.

    Raises:
        UserError: for a name that cannot be part of a path.
    """
    assert isinstance(command, CommandParameters)
    if not _NAME.fullmatch(name):
        raise UserError(
            f"key 'command_codecs.{name}': a name has letters, digits, - and _; choose another"
        )
    return CodecEntry(
        name=name,
        kind="classical",
        parameters=NoParameters,
        implementation="icmbench.codecs.classical.command:CommandCodec",
        rate_parameter=command.rate,
        lower_rate=command.lower_rate,
        programs=tuple(command_lines(name, command)),
        command=command,
    )
