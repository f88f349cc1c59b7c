"""Which classical codecs a run really uses: chosen, replaced by a stand-in, found."""

from __future__ import annotations

from icmbench.config.run import RunConfig
from icmbench.config.study import Study, Variant, Weights
from icmbench.errors import UserError
from icmbench.programs import KNOWN_PROGRAMS, Program, find_program
from icmbench.registry import CODECS


def choose_anchors(study: Study, run: RunConfig) -> Study:
    """Return the study with the variants on anchors of this run, stand-ins in their place.

    Raises:
        UserError: where a variant starts from one that the run leaves out.
    """
    variants: dict[str, Variant] = {}
    left: set[str] = set()
    for name, variant in study.variants.items():
        if CODECS[variant.codec].kind != "anchor":
            variants[name] = variant
        elif variant.codec in run.anchors:
            variants[name] = _stand_in(variant, run)
        else:
            left.add(name)
    for name, variant in variants.items():
        for source in (variant.codec_from, variant.task_from):
            if isinstance(source, Weights) and source.variant in left and source.study is None:
                raise UserError(
                    f"config.yaml: key 'anchors' leaves out variant {source.variant!r} of study "
                    f"{study.name!r}, from which {name!r} starts; add its codec to anchors"
                )
    if not variants:
        raise UserError(
            f"config.yaml: key 'anchors': {run.anchors!r} leaves nothing of study {study.name!r}; "
            f"it uses {', '.join(sorted({v.codec for v in study.variants.values()}))}"
        )
    comparisons = []
    for comparison in study.comparisons:
        others = [name for name in comparison.variants if name not in left]
        if comparison.anchor not in left and others:
            comparisons.append(comparison.model_copy(update={"variants": others}))
    pictures = []
    for picture in study.pictures:
        others = [name for name in picture.variants if name not in left]
        if others:
            pictures.append(picture.model_copy(update={"variants": others}))
    return study.model_copy(
        update={
            "variants": variants,
            "comparisons": comparisons,
            "pictures": pictures,
            "published": [
                cell for cell in study.published if not {cell.variant, cell.anchor} & left
            ],
            "published_curves": [
                curve if curve.variant not in left else curve.model_copy(update={"variant": None})
                for curve in study.published_curves
            ],
        }
    )


def left_out(studies: dict[str, Study], run: RunConfig) -> list[str]:
    """Return a line for each study that loses curves because the run does not name their anchors.

    Args:
        studies: as their files say, before :func:`choose_anchors`.
        run: the top level configuration.
    """
    lines = []
    for study in studies.values():
        codecs = {name: v.codec for name, v in study.variants.items() if v.evaluate}
        absent = sorted(
            {c for c in codecs.values() if CODECS[c].kind == "anchor" and c not in run.anchors}
        )
        if not absent:
            continue
        lost = [c for c in study.comparisons if codecs.get(c.anchor) in absent]
        total = len(study.comparisons)
        without = f"; so are {len(lost)} of its {total} comparisons" if lost else ""
        lines.append(
            f"study {study.name!r}: curves of {', '.join(absent)} are left out, which key "
            f"'anchors' does not name{without}; `python -m icmbench anchors` says what they need"
        )
    return lines


def _stand_in(variant: Variant, run: RunConfig) -> Variant:
    codec = run.stand_ins.get(variant.codec)
    if codec is None:
        return variant
    words = f"coded by {codec}, the chosen stand-in for {variant.codec}"
    return variant.model_copy(
        update={
            "codec": codec,
            "label": f"{variant.label} [{codec}]",
            "note": f"{variant.note} {words}".strip(),
        }
    )


def check_choice(run: RunConfig) -> list[str]:
    """Return the faults of the keys ``anchors`` and ``stand_ins``, one line each."""
    anchors = [name for name in CODECS.names() if CODECS[name].kind == "anchor"]
    allowed = ", ".join(anchors)
    faults = [
        f"config.yaml: key 'anchors': {name!r} is no anchor; allowed: {allowed}"
        for name in run.anchors
        if name not in anchors
    ]
    for name, other in run.stand_ins.items():
        for part in (name, other):
            if part not in anchors:
                faults.append(
                    f"config.yaml: key 'stand_ins': {part!r} is no anchor; allowed: {allowed}"
                )
        if name in anchors and other in anchors:
            wanted, has = (CODECS[part].rate_parameter for part in (name, other))
            if wanted != has:
                faults.append(
                    f"config.yaml: key 'stand_ins.{name}': {other!r} takes {has!r}, but ladders of "
                    f"{name!r} give {wanted!r}; choose another stand-in"
                )
    return faults


def find_programs(run: RunConfig, studies: dict[str, Study]) -> dict[str, Program]:
    """Return the external programs that the studies' anchors need, by name.

    Raises:
        UserError: naming every study, anchor and program that is missing, and the way out.
    """
    settings = run.programs.model_dump()
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
                faults.append(_missing(study.name, codec, missing))
    if faults:
        raise UserError("\n".join(faults))
    return found


def _missing(study: str, codec: str, missing: list[str]) -> str:
    known = KNOWN_PROGRAMS[missing[0]]
    names = ", ".join(KNOWN_PROGRAMS[name].default for name in missing)
    stand_in = CODECS[codec].stand_in
    way = (
        f", or code with the stand-in from packages (--config 'stand_ins={{{codec}: {stand_in}}}')"
        if stand_in
        else ""
    )
    return (
        f"config.yaml: study {study!r} uses anchor {codec!r}, but {names} is not found; get it "
        f"from {known.home} and put it on PATH or name it under 'programs.{missing[0]}'{way}, "
        f"or take {codec!r} out of 'anchors'"
    )
