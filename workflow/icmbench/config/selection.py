"""Which variants of a study a run has."""

from __future__ import annotations

from icmbench.config.run import RunConfig
from icmbench.config.study import Study, Variant


def choose_leading(studies: dict[str, Study], run: RunConfig) -> dict[str, Study]:
    """Return the studies with their leading variants, where the run wants only these.

    Variants that weights come from are kept, but are not evaluated.
    """
    if run.variants == "all":
        return studies
    curves = {
        (study.name, name)
        for study in studies.values()
        for name in (study.variants if study.leading is None else study.leading)
    }
    kept, todo = set(), set(curves)
    while todo:
        name, variant_name = todo.pop()
        variant = studies[name].variants.get(variant_name) if name in studies else None
        if variant is None or (name, variant_name) in kept:
            continue
        kept.add((name, variant_name))
        todo |= {(source.study or name, source.variant) for source in variant.from_variants()}
    return {study.name: _only(study, kept, curves) for study in studies.values()}


def _only(study: Study, kept: set[tuple[str, str]], curves: set[tuple[str, str]]) -> Study:
    variants: dict[str, Variant] = {}
    for name, variant in study.variants.items():
        if (study.name, name) in kept:
            leads = (study.name, name) in curves
            variants[name] = variant if leads else variant.model_copy(update={"evaluate": False})
    left = {name for name in study.variants if (study.name, name) not in curves}
    return without(study.model_copy(update={"variants": variants}), left)


def choose_available(studies: dict[str, Study], unavailable: list[str]) -> dict[str, Study]:
    """Return the studies without curves ``<study>/<variant>`` that cannot be had.

    A study that has none left is left out.
    """
    chosen = {}
    for study in studies.values():
        left = {name for name in study.variants if f"{study.name}/{name}" in unavailable}
        variants = {name: own for name, own in study.variants.items() if name not in left}
        if variants:
            chosen[study.name] = without(study.model_copy(update={"variants": variants}), left)
    return chosen


def without(study: Study, left: set[str]) -> Study:
    """Return a study without comparisons with the variants ``left``; its claims are kept."""
    comparisons = []
    for comparison in study.comparisons:
        others = [name for name in comparison.variants if name not in left]
        if comparison.anchor not in left and others:
            comparisons.append(comparison.model_copy(update={"variants": others}))
    images = []
    for image in study.visual_comparisons:
        others = [name for name in image.variants if name not in left]
        if len(others) > 1 or others == image.variants:
            images.append(image.model_copy(update={"variants": others}))
    published = [cell for cell in study.published if not {cell.variant, cell.anchor} & left]
    curves = [
        curve if curve.variant not in left else curve.model_copy(update={"variant": None})
        for curve in study.published_curves
    ]
    return study.model_copy(
        update={
            "comparisons": comparisons,
            "visual_comparisons": images,
            "published": published,
            "published_curves": curves,
        }
    )


def left_out(studies: dict[str, Study], run: RunConfig) -> list[str]:
    """Return a line for each study whose run has its leading variants only."""
    lines = []
    for study in studies.values():
        curves = sum(variant.evaluate for variant in study.variants.values())
        if run.variants == "leading" and study.leading is not None:
            lines.append(
                f"study {study.name!r}: {len(study.leading)} leading variants of {curves}; "
                "--config variants=all runs all"
            )
    return lines
