"""External codec programs: names, where to find them, exact versions by checksum."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from icmbench.errors import UserError
from icmbench.utils.files import sha256_file
from icmbench.utils.models import Strict


@dataclass(frozen=True)
class KnownProgram:
    """A program that a user may have installed.

    Attributes:
        name: key under ``programs`` in config.yaml.
        default: its usual file name, looked up on PATH.
        what: a short description.
        home: address of its project.
        is_file: whether it is a file that another program reads, not a command.
    """

    name: str
    default: str
    what: str
    home: str
    is_file: bool = False


_BPG = "https://bellard.org/bpg"
_VTM = "https://vcgit.hhi.fraunhofer.de/jvet/VVCSoftware_VTM"
_HM = "https://vcgit.hhi.fraunhofer.de/jvet/HM"
_VVENC = "https://github.com/fraunhoferhhi/vvenc"
_VVDEC = "https://github.com/fraunhoferhhi/vvdec"

KNOWN_PROGRAMS = {
    program.name: program
    for program in (
        KnownProgram("bpgenc", "bpgenc", "BPG encoder (HEVC intra)", _BPG),
        KnownProgram("bpgdec", "bpgdec", "BPG decoder", _BPG),
        KnownProgram("vtm_encoder", "EncoderAppStatic", "VTM, VVC reference encoder", _VTM),
        KnownProgram("vtm_decoder", "DecoderAppStatic", "VTM, VVC reference decoder", _VTM),
        KnownProgram(
            "vtm_config", "encoder_intra_vtm.cfg", "VTM's intra configuration", _VTM, is_file=True
        ),
        KnownProgram("hm_encoder", "TAppEncoderStatic", "HM, HEVC reference encoder", _HM),
        KnownProgram("hm_decoder", "TAppDecoderStatic", "HM, HEVC reference decoder", _HM),
        KnownProgram(
            "hm_config",
            "encoder_intra_main_rext.cfg",
            "HM's intra configuration, range extensions",
            _HM,
            is_file=True,
        ),
        KnownProgram("vvencapp", "vvencapp", "Fraunhofer VVenC encoder", _VVENC),
        KnownProgram("vvdecapp", "vvdecapp", "Fraunhofer VVdeC decoder", _VVDEC),
    )
}

# Configuration files that no setting names are looked up beside these programs.
_BESIDE = {"vtm_config": "vtm_encoder", "hm_config": "hm_encoder"}


class Program(Strict):
    """A program as jobs run it.

    Attributes:
        name: key of :data:`KNOWN_PROGRAMS`, or of a command in config.yaml.
        command: words before its own arguments: a path, or a wrapper that runs it in a container or
            with a module loaded, e.g. ``apptainer exec vtm.sif EncoderAppStatic``.
        digest: SHA-256 over the files among the words of the command (the program itself, a
            container image) in order; empty if none of them is a file on this machine.
    """

    name: str
    command: tuple[str, ...]
    digest: str = ""


def find_program(name: str, settings: Mapping[str, str | None]) -> Program | None:
    """Return a program, or None if it is neither configured nor on PATH.

    Args:
        name: key of :data:`KNOWN_PROGRAMS`; or another key of ``settings``, a whole command, which
            is None if its first word names nothing that runs here.
        settings: a path or command line by name, see ``RunConfig.program_lines``.

    Raises:
        UserError: where a setting names something that does not exist or cannot run.
    """
    setting = settings.get(name)
    if name not in KNOWN_PROGRAMS:
        command = _resolved(shlex.split(setting or ""))
        return None if command is None else _program(name, command)
    known = KNOWN_PROGRAMS[name]
    if known.is_file:
        path = _find_file(known, setting, settings)
        return None if path is None else _program(name, (str(path),))
    if setting is None:
        found = shutil.which(known.default)
        return None if found is None else _program(name, (found,))
    command = _resolved(shlex.split(setting))
    if command is None:
        raise UserError(
            f"key 'programs.{name}': {setting!r} cannot be run; give a path "
            f"or command line of the {known.what}, or null to look on PATH"
        )
    return _program(name, command)


def _resolved(words: Sequence[str]) -> tuple[str, ...] | None:
    """Return a command with the path of its program, or None if that is not found."""
    found = shutil.which(str(Path(words[0]).expanduser())) if words else None
    if found is None:
        return None
    # Programs run in other folders, where a relative path of a container image is not found.
    return (str(Path(found).absolute()), *(_absolute_file(word) for word in words[1:]))


def _program(name: str, command: tuple[str, ...]) -> Program:
    return Program(name=name, command=command, digest=_digest(command))


def _absolute_file(word: str) -> str:
    path = Path(word).expanduser()
    return str(path.absolute()) if path.is_file() else word


def _find_file(
    known: KnownProgram, setting: str | None, settings: Mapping[str, str | None]
) -> Path | None:
    if setting is not None:
        path = Path(setting).expanduser().absolute()
        if not path.is_file():
            raise UserError(
                f"key 'programs.{known.name}': {setting!r} does not exist; "
                f"give the path of {known.what} ({known.default})"
            )
        return path
    program = find_program(_BESIDE[known.name], settings)
    if program is None:
        return None
    # As in the projects' own trees: bin/ and cfg/ side by side.
    folder = Path(program.command[-1]).resolve().parent
    for parent in (folder, *folder.parents[:3]):
        for candidate in (parent / known.default, parent / "cfg" / known.default):
            if candidate.is_file():
                return candidate
    return None


def _digest(command: tuple[str, ...]) -> str:
    digests = []
    for word in command:
        path = Path(word)
        if path.is_absolute() and path.is_file():
            state = path.stat()
            digests.append(_file_digest(str(path), state.st_size, state.st_mtime_ns))
    return "-".join(digests)


@lru_cache(maxsize=64)
def _file_digest(path: str, size: int, mtime_ns: int) -> str:
    return sha256_file(path)
