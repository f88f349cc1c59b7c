"""An anchor's settings for the command line, as a plan would resolve them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from icmbench.config.load import check, load_run
from icmbench.errors import UserError
from icmbench.plain_yaml import parse_yaml
from icmbench.programs import KNOWN_PROGRAMS, find_program
from icmbench.registry import CODECS, load_modules


def anchor_settings(config: Path, name: str, parameters: Sequence[str] = ()) -> dict[str, Any]:
    """Return a job's ``codec`` section, without a rate.

    Args:
        config: config.yaml, for programs and modules.
        name: of the anchor.
        parameters: ``key=value`` over the anchor's defaults, values in YAML.

    Raises:
        UserError: for an unknown anchor or parameter, or a program that is missing.
    """
    run = load_run(config)
    load_modules(run.modules)
    entry = CODECS[name]
    if entry.kind != "anchor":
        raise UserError(f"codec {name!r} is no anchor; `python -m icmbench anchors` lists them")
    given = dict(entry.defaults)
    for text in parameters:
        key, sign, value = text.partition("=")
        if not sign:
            raise UserError(f"--set {text!r}: write key=value")
        try:
            given[key] = parse_yaml(value)
        except yaml.YAMLError:
            raise UserError(f"--set {text!r}: its value is no YAML") from None
    programs = {}
    for program in entry.programs:
        found = find_program(program, run.programs.model_dump())
        if found is None:
            known = KNOWN_PROGRAMS[program]
            raise UserError(
                f"anchor {name!r} needs {known.default}, which is not on PATH; get it from "
                f"{known.home} or name it under 'programs.{program}' in {config}"
            )
        programs[program] = found.to_json()
    return {
        "name": name,
        "parameters": check(entry.parameters, given, f"anchor {name!r}").model_dump(),
        "programs": programs,
        "modules": run.modules,
    }
