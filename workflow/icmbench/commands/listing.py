"""``python -m icmbench codecs``: which classical codecs can run here, and what is missing."""

from __future__ import annotations

from icmbench.codecs.classical.base import ClassicalCodec
from icmbench.config.classical import explain_missing
from icmbench.config.run import RunConfig
from icmbench.errors import UserError
from icmbench.plugins import load_modules
from icmbench.registry import CODECS, CodecEntry, implementation
from icmbench.utils.programs import KNOWN_PROGRAMS, Program, find_program

# A rate is needed to ask for an implementation's version; every codec without a distance has 30.
_ANY_RATE = {"distance": 1.0}


def list_classical_codecs(run: RunConfig) -> str:
    """Return a listing of every classical codec and program, with version and checksum."""
    load_modules(run.modules, run.command_codecs, run.where)
    settings = run.program_lines()
    command_names = [name for name in settings if name not in KNOWN_PROGRAMS]
    programs: dict[str, Program] = {}
    faults: list[str] = []
    for name in [*KNOWN_PROGRAMS, *command_names]:
        try:
            program = find_program(name, settings)
        except UserError as error:
            faults.append(str(error))
        else:
            if program is not None:
                programs[name] = program
    available, missing = [], []
    for name in CODECS.names():
        entry = CODECS[name]
        if entry.kind != "classical":
            continue
        absent = [program for program in entry.programs if program not in programs]
        if not absent:
            found = {program: programs[program] for program in entry.programs}
            available.append(f"  {name:<17} {_describe(entry, found)}")
        elif entry.command is not None:
            missing.append(f"  {name:<17} {explain_missing(name, absent, settings)}")
        else:
            missing.append(
                f"  {name:<17} needs {', '.join(absent)}; substitute from packages: "
                f"substitutes: {{{name}: {entry.substitute}}}"
            )
    lines = ["Classical codecs that can run here:", *available, "", "Programs:"]
    for name, known in KNOWN_PROGRAMS.items():
        if name in programs:
            digest = programs[name].digest[:12] or "not a file on this machine"
            lines.append(f"  {name:<12} {' '.join(programs[name].command)} ({digest})")
        else:
            lines.append(
                f"  {name:<12} not found: {known.what}; project: {known.home}; put "
                f"{known.default} on PATH or set 'programs.{name}' in config.yaml"
            )
    if missing:
        lines += ["", "Classical codecs with missing programs:", *missing]
    return "\n".join([*lines, *(["", *faults] if faults else [])])


def _describe(entry: CodecEntry, programs: dict[str, Program]) -> str:
    try:
        parameters = entry.command or entry.parameters.model_validate(dict(entry.defaults))
        codec: ClassicalCodec = implementation(entry)(parameters, _any_rate(entry), programs)
        described = codec.describe()
    except (ImportError, UserError) as error:
        return f"cannot run: {error}"
    digests = "".join(f", {digest[:12]}" for _, digest in sorted(described.digests.items()))
    return f"{described.name} {described.version}{digests} (by {entry.rate_parameter})"


def _any_rate(entry: CodecEntry) -> float:
    bounds = getattr(entry.command, "rate_range", None)
    return bounds[0] if bounds else _ANY_RATE.get(str(entry.rate_parameter), 30.0)
