"""Add the variants of other studies that provide initial weights."""

from __future__ import annotations

from collections.abc import Callable

from icmbench.config.study import Study, Variant


def with_supporting(
    studies: dict[str, Study], load: Callable[[str], Study], known: list[str]
) -> dict[str, Study]:
    """Return the studies and, of those that they start from, the variants that they need.

    Args:
        studies: the studies asked for, by name.
        load: returns another study of that name.
        known: names that can be loaded; others are left for the consistency checks to report.
    """
    needed: dict[str, dict[str, Variant]] = {}
    loaded = dict(studies)
    open_sources = [
        (study.name, source)
        for study in studies.values()
        for variant in study.variants.values()
        for source in variant.from_variants()
    ]
    while open_sources:
        owner, source = open_sources.pop()
        name = source.study or owner
        if name in studies or name not in known:
            continue
        study = loaded.setdefault(name, load(name))
        variant = study.variants.get(source.variant)
        if variant is None or source.variant in needed.setdefault(name, {}):
            continue
        needed[name][source.variant] = variant.model_copy(update={"evaluate": False})
        open_sources += [(name, further) for further in variant.from_variants()]
    for name, variants in needed.items():
        # Without variants of its own, an unknown one is still named by the consistency checks.
        loaded[name] = loaded[name].model_copy(
            update={
                "variants": {n: variants[n] for n in loaded[name].variants if n in variants},
                "leading": None,
                "comparisons": [],
                "claims": {},
                "preconditions": {},
                "visual_comparisons": [],
                "published": [],
                "published_curves": [],
            }
        )
    return loaded
