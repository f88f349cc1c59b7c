"""Which classical codecs a run uses: those chosen, substitutes, and where the programs are."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping

from icmbench.config.run import RunConfig
from icmbench.config.scale import Scale
from icmbench.config.selection import without
from icmbench.config.study import Ladder, Study, Variant
from icmbench.errors import UserError, unknown
from icmbench.registry import CODECS, CodecEntry
from icmbench.utils.programs import KNOWN_PROGRAMS, Program, find_program


def with_found(run: RunConfig, scale: Scale) -> RunConfig:
    """Return the run with the scale's ``classical_where_found`` whose programs are found."""
    settings = run.program_lines()
    found = [
        name
        for name in scale.classical_where_found
        if name in CODECS and all(find_program(own, settings) for own in CODECS[name].programs)
    ]
    codecs = list(dict.fromkeys([*run.classical_codecs, *found]))
    return run.model_copy(update={"classical_codecs": codecs})


def choose_classical(study: Study, run: RunConfig) -> Study:
    """Return the study with the variants on classical codecs of this run, and of their substitutes.

    Raises:
        UserError: where a variant starts from another that the run leaves out.
    """
    variants: dict[str, Variant] = {}
    left: set[str] = set()
    for name, variant in study.variants.items():
        if CODECS[variant.codec].kind != "classical":
            variants[name] = variant
        elif variant.codec in run.classical_codecs:
            variants[name] = _stand_in(variant, run)
        else:
            left.add(name)
    for name, variant in variants.items():
        for source in variant.from_variants():
            if source.variant in left and source.study is None:
                raise UserError(
                    f"{run.where('classical_codecs')} leaves out variant {source.variant!r} of "
                    f"study {study.name!r}, from which {name!r} starts; add its codec to the list"
                )
    if not variants:
        used = ", ".join(sorted({v.codec for v in study.variants.values()}))
        raise UserError(
            f"{run.where('classical_codecs')}: {run.classical_codecs!r} leaves nothing of "
            f"study {study.name!r}; it uses {used}"
        )
    return without(study.model_copy(update={"variants": variants}), left)


def left_out(studies: dict[str, Study], run: RunConfig, scale: Scale) -> list[str]:
    """Return lines for each study that loses curves as the run does not have their codecs.

    Args:
        studies: as in their files, before :func:`choose_classical`.
        run: the top level configuration, after :func:`with_found`.
        scale: which codecs it takes where they are found.
    """
    lines = []
    for study in studies.values():
        codecs = {name: v.codec for name, v in study.variants.items() if v.evaluate}
        classical = {c for c in codecs.values() if CODECS[c].kind == "classical"}
        absent = classical - set(run.classical_codecs)
        missing = absent & set(scale.classical_where_found)
        for own, why in (
            (missing, "whose programs are not found"),
            (absent - missing, "which key 'classical_codecs' does not name"),
        ):
            if not own:
                continue
            lost = [c for c in study.comparisons if codecs.get(c.anchor) in own]
            total = len(study.comparisons)
            more = f"; so are {len(lost)} of its {total} comparisons" if lost else ""
            lines.append(
                f"study {study.name!r}: curves of {', '.join(sorted(own))} are left out, "
                f"{why}{more}; see `python -m icmbench codecs`"
            )
    return lines


def unused(studies: dict[str, Study], run: RunConfig, scale: Scale) -> list[str]:
    """Return a line for the classical codecs that the run names and no variant uses."""
    used = {variant.codec for study in studies.values() for variant in study.variants.values()}
    idle = sorted(set(run.classical_codecs) - used - set(scale.classical_where_found))
    if not idle:
        return []
    return [f"{run.where('classical_codecs')}: no variant of this run uses {', '.join(idle)}"]


def _stand_in(variant: Variant, run: RunConfig) -> Variant:
    codec = run.substitutes.get(variant.codec)
    if codec is None:
        return variant
    words = f"coded by {codec}, in place of {variant.codec}"
    return variant.model_copy(
        update={
            "codec": codec,
            "label": f"{variant.label} [{codec}]",
            "note": f"{variant.note} {words}".strip(),
        }
    )


def check_choice(run: RunConfig) -> list[str]:
    """Return the faults of the keys ``classical_codecs`` and ``substitutes``, one line each."""
    known = [entry.name for entry in CODECS if entry.kind == "classical"]
    faults = [
        f"{run.where(key)}: {unknown('classical codec', name, known)}"
        for key, names in (
            ("classical_codecs", run.classical_codecs),
            ("substitutes", [*run.substitutes, *run.substitutes.values()]),
        )
        for name in names
        if name not in known
    ]
    for name, other in run.substitutes.items():
        if name not in known or other not in known:
            continue
        where = run.where(f"substitutes.{name}")
        wanted, has = (CODECS[codec].rate_parameter for codec in (name, other))
        lower, theirs = (CODECS[codec].lower_rate for codec in (name, other))
        if wanted != has:
            faults.append(
                f"{where}: {other!r} takes {has!r}, but ladders of {name!r} give {wanted!r}; "
                "choose another substitute"
            )
        elif None not in (lower, theirs) and lower != theirs:
            faults.append(
                f"{where}: lower rates of {name!r} have {lower} {wanted!r}, those of {other!r} "
                f"{theirs}; choose another substitute"
            )
    return faults


def rate_problems(entry: CodecEntry, ladder: Ladder) -> list[str]:
    """Return what a codec with a rate setting does not take of a ladder, in phrases."""
    rate, values = entry.rate_parameter, ladder.values
    if ladder.parameter != rate:
        return [f"varies {ladder.parameter!r}, but {entry.name!r} takes {rate!r}"]
    problems = []
    ordered = sorted(set(values), reverse=entry.lower_rate == "larger")
    if entry.lower_rate is not None and values != ordered:
        problems.append(
            f"has values {values}, but lower rates of {entry.name!r} have {entry.lower_rate} "
            f"{rate!r}, and the lowest rate comes first; give {ordered}"
        )
    low, high = getattr(entry.command, "rate_range", None) or (-math.inf, math.inf)
    outside = [value for value in values if not low <= value <= high]
    if outside:
        problems.append(f"has {rate} {outside[0]:g}, but {entry.name!r} takes {low:g} to {high:g}")
    return problems


def find_programs(run: RunConfig, studies: dict[str, Study]) -> dict[str, Program]:
    """Return the external programs that the studies' classical codecs need, by name.

    Raises:
        UserError: naming every study, classical codec and program that is missing, and the way out.
    """
    settings = run.program_lines()
    found: dict[str, Program] = {}
    faults: list[str] = []
    for study in studies.values():
        for codec in sorted({variant.codec for variant in study.variants.values()}):
            missing = []
            for name in CODECS[codec].programs:
                program = found.get(name) or find_program(name, settings)
                if program is None:
                    missing.append(name)
                else:
                    found[name] = program
            if missing:
                where = f"study {study.name!r} uses classical codec {codec!r}, but "
                faults.append(
                    f"{where}{explain_missing(codec, missing, settings)}, or take {codec!r} out of "
                    "'classical_codecs'"
                )
    if faults:
        raise UserError("\n".join(faults))
    return found


def explain_missing(codec: str, missing: list[str], settings: Mapping[str, str | None]) -> str:
    """Return which programs a classical codec lacks, and what to do.

    Args:
        codec: its name.
        missing: names of programs, at least one.
        settings: command lines, see ``RunConfig.program_lines``.
    """
    if CODECS[codec].command is not None:
        program = shlex.split(settings[missing[0]] or "")[0]
        return f"{program!r} of key {missing[0]!r} is not found; install it or give its path"
    known = KNOWN_PROGRAMS[missing[0]]
    names = ", ".join(KNOWN_PROGRAMS[name].default for name in missing)
    substitute = CODECS[codec].substitute
    way = (
        f", or use the substitute from packages (--config 'substitutes={{{codec}: {substitute}}}')"
        if substitute
        else ""
    )
    return (
        f"{names} is not found; get it from {known.home} and put it on PATH or name it under "
        f"'programs.{missing[0]}'{way}"
    )
