"""A classical codec's settings for the command line, as a plan would resolve them."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from icmbench.codecs.classical.entries import CLASSICAL_VERSION
from icmbench.config.classical import explain_missing
from icmbench.config.load import check
from icmbench.config.run import RunConfig
from icmbench.errors import UserError
from icmbench.jobs import ClassicalSpec
from icmbench.plugins import load_modules
from icmbench.registry import CODECS
from icmbench.utils.programs import find_program
from icmbench.utils.yaml import parse_yaml


def codec_settings(run: RunConfig, name: str, parameters: Sequence[str] = ()) -> ClassicalSpec:
    """Return a classical codec as jobs open it, at rate 0 for the caller to replace.

    Args:
        run: the configuration, for programs and modules.
        name: name of the classical codec.
        parameters: ``key=value``, values in YAML, to replace defaults.

    Raises:
        UserError: for an unknown classical codec or parameter, or a program that is missing.
    """
    load_modules(run.modules, run.command_codecs, run.where)
    entry = CODECS[name]
    if entry.kind != "classical":
        raise UserError(f"{name!r} is not a classical codec; see `python -m icmbench codecs`")
    given = dict(entry.defaults)
    for text in parameters:
        key, sign, value = text.partition("=")
        if not sign:
            raise UserError(f"--set {text!r}: expected key=value")
        try:
            given[key] = parse_yaml(value)
        except yaml.YAMLError:
            raise UserError(f"--set {text!r}: the value is not valid YAML") from None
    lines, programs = run.program_lines(), {}
    for program in entry.programs:
        found = find_program(program, lines)
        if found is None:
            why = explain_missing(name, [program], lines)
            raise UserError(f"classical codec {name!r}: {why}")
        programs[program] = found
    checked = check(entry.parameters, given, f"classical codec {name!r}")
    return ClassicalSpec(
        name=name,
        command=entry.command is not None,
        parameters=(entry.command or checked).model_dump(),
        rate=0.0,
        version=CLASSICAL_VERSION,
        programs=programs,
        modules=run.modules,
    )
