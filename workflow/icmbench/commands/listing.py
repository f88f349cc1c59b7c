"""``python -m icmbench codecs``: which classical codecs can run here, and what is missing."""

from __future__ import annotations

from pathlib import Path

from icmbench.codecs.classical.base import ClassicalCodec
from icmbench.config.load import load_run
from icmbench.errors import UserError
from icmbench.plugins import load_modules
from icmbench.registry import CODECS, CodecEntry, implementation
from icmbench.utils.programs import KNOWN_PROGRAMS, Program, find_program

# A rate that every ladder allows, to ask an implementation what it is.
_ANY_RATE = 30.0


def list_classical_codecs(config: Path) -> str:
    """Return a listing of every classical codec, found or missing, with version and hash."""
    run = load_run(config)
    load_modules(run.modules)
    settings = run.programs.model_dump()
    programs: dict[str, Program | None] = {}
    faults: list[str] = []
    for name in KNOWN_PROGRAMS:
        try:
            programs[name] = find_program(name, settings)
        except UserError as error:
            programs[name] = None
            faults.append(str(error))
    entries = [CODECS[name] for name in CODECS.names() if CODECS[name].kind == "classical"]
    lines = ["Classical codecs that can run here:"]
    missing = []
    for entry in entries:
        needed = [programs[name] for name in entry.programs]
        found = [program for program in needed if program is not None]
        if len(found) < len(needed):
            missing.append(entry)
            continue
        lines.append(f"  {entry.name:<17} {_describe(entry, found)}")
    lines += ["", "Programs:"]
    for name, known in KNOWN_PROGRAMS.items():
        program = programs[name]
        if program is not None:
            digest = program.digest[:12] or "no file here to hash"
            lines.append(f"  {name:<12} {' '.join(program.command)} ({digest})")
        else:
            lines.append(
                f"  {name:<12} not found: {known.what}; project: {known.home}; put "
                f"{known.default} on PATH or set 'programs.{name}' in {config}"
            )
    if missing:
        lines += ["", "Classical codecs whose programs are missing:"]
    for entry in missing:
        absent = [name for name in entry.programs if programs[name] is None]
        lines.append(
            f"  {entry.name:<17} needs {', '.join(absent)}; stand-in from packages: "
            f"substitutes: {{{entry.name}: {entry.substitute}}}"
        )
    return "\n".join([*lines, *(["", *faults] if faults else [])])


def _describe(entry: CodecEntry, programs: list[Program]) -> str:
    try:
        codec: ClassicalCodec = implementation(entry)(
            entry.parameters.model_validate(dict(entry.defaults)),
            _ANY_RATE,
            {program.name: program for program in programs},
        )
        described = codec.describe()
    except (ImportError, UserError) as error:
        return f"cannot run: {error}"
    digests = "".join(f", {digest[:12]}" for _, digest in sorted(described.digests.items()))
    return f"{described.name} {described.version}{digests} (by {entry.rate_parameter})"
