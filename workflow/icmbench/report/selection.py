"""Which variants a page shows where there are too many for one page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from icmbench.report.results import Results
from icmbench.report.style import VariantStyle

#: What a page shows at most; of a page across studies, what it shows of one data set.
MAX_VARIANTS = 100
MAX_POINTS = 600


@dataclass(frozen=True)
class Rest:
    """Where the whole of a table or a plot is that a page shows in part.

    Attributes:
        words: how much is shown.
        text: the file's path in the results folder.
        address: of the file, from the page.
    """

    words: str
    text: str
    address: str


@dataclass(frozen=True)
class Selection:
    """The variants of a page.

    Attributes:
        styles: of the variants shown, in the order of the page.
        variants: how many there are.
        points: how many operating points the variants shown have.
        all_points: how many all have.
    """

    styles: dict[str, VariantStyle]
    variants: int
    points: int
    all_points: int

    @property
    def partial(self) -> bool:
        """Whether something is left out."""
        return len(self.styles) < self.variants

    @property
    def notice(self) -> str:
        """What is shown and what is not, in sentences; empty where nothing is left out."""
        if not self.partial:
            return ""
        return (
            f"Only {len(self.styles):,} of {self.variants:,} variants are shown here, with "
            f"{self.points:,} of {self.all_points:,} operating points: all would be too much for "
            f"a page (at most {MAX_VARIANTS:,} variants and {MAX_POINTS:,} operating points). "
            "Variants that claims name come first, then those of images, of published numbers "
            "and of comparisons, then the others in the order of the study file. Beside each "
            "table and plot stands the file that holds all."
        )

    def rest(self, text: str) -> Rest | None:
        """Return where the whole is, ``text`` being a path in the results folder.

        None where nothing is left out.
        """
        if not self.partial:
            return None
        words = f"{len(self.styles):,} of {self.variants:,} variants are shown; all of them:"
        inside = text.removeprefix("report/")
        return Rest(words, text, inside if inside != text else f"../{text}")


def select(results: Results, styles: dict[str, VariantStyle]) -> Selection:
    """Return what a page shows of the variants ``styles``.

    All of them, unless they are more than ``MAX_VARIANTS`` or have more operating points than
    ``MAX_POINTS``. Then, in the order of :func:`_by_importance`, as many as both limits allow, and
    at least one.
    """
    points = {key: len(results.points(s.study, s.name)) for key, s in styles.items()}
    every = sum(points.values())
    if len(styles) <= MAX_VARIANTS and every <= MAX_POINTS:
        return Selection(styles, len(styles), every, every)
    kept: set[str] = set()
    total = 0
    for key in _by_importance(results.plan, styles):
        if kept and (len(kept) == MAX_VARIANTS or total + points[key] > MAX_POINTS):
            break
        kept.add(key)
        total += points[key]
    shown = {key: style for key, style in styles.items() if key in kept}
    return Selection(shown, len(styles), total, every)


def _by_importance(plan: dict[str, Any], styles: dict[str, VariantStyle]) -> list[str]:
    """Return the keys of ``styles``, those first that a reader looks for first.

    What the claims of a study name, its images and published numbers, its comparisons; the rest
    as they stand.
    """
    keys = {(style.study, style.name): key for key, style in styles.items()}
    studies = dict.fromkeys(style.study for style in styles.values())
    named = [
        keys[study, name]
        for part in ("claims", "visual_comparisons", "published", "published_curves", "comparisons")
        for study in studies
        for name in _texts(plan["studies"][study].get(part, []))
        if (study, name) in keys
    ]
    return list(dict.fromkeys([*named, *styles]))


def _texts(content: Any) -> Iterator[str]:
    """Yield every text in a part of a study; names of variants are among them."""
    if isinstance(content, str):
        yield content
        return
    inner: Iterable[Any] = ()
    if isinstance(content, dict):
        inner = content.values()
    elif isinstance(content, list):
        inner = content
    for part in inner:
        yield from _texts(part)
