"""The page: templates filled with what the other modules of this package collect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from icmbench.report.charts import Series
from icmbench.report.claims import ClaimPart
from icmbench.report.pictures import Gallery
from icmbench.report.provenance import Environment as RunEnvironment
from icmbench.report.provenance import Totals
from icmbench.report.published import Group
from icmbench.report.published_curves import PublishedPart
from icmbench.report.style import Metric
from icmbench.report.tables import BdTables, Table

ASSETS = Path(__file__).parents[2] / "report"


@dataclass(frozen=True)
class Plot:
    """One plot on the page.

    Attributes:
        name: unique on the page; also the stem of the figure's files.
        metric: of the vertical axis.
        summary: what it shows, for readers who do not see it.
        series: entries of its legend.
        spec: Vega-Lite specification; None where there is nothing to draw.
        svg_uri: the figure as a data URI, shown without JavaScript and in print.
        dashed: whether published curves are among its lines.
        same_codec: labels of variants whose curves must coincide, one text per group.
        table: the numbers.
    """

    name: str
    metric: Metric
    summary: str
    series: list[Series]
    spec: dict[str, Any] | None
    svg_uri: str
    dashed: bool
    same_codec: list[str]
    table: Table


@dataclass(frozen=True)
class StudyPage:
    """Everything the page says about one study."""

    name: str
    study: dict[str, Any]
    claims: ClaimPart | None
    key_figures: Table
    plots: list[Plot]
    more_plots: list[Plot]
    bd: BdTables | None
    published: list[Group]
    published_curves: PublishedPart
    comparable: bool
    galleries: list[Gallery]
    training: list[Table]
    implementations: Table
    cost: Table
    totals: Totals


@dataclass(frozen=True)
class Page:
    """Everything the page says."""

    scale: dict[str, Any]
    studies: list[StudyPage]
    claims: Table | None
    datasets: Table
    implementations: Table
    environments: list[RunEnvironment]
    missing: list[str]
    confidence: str
    date: str | None
    seeds: list[int]
    min_score: float


def render(page: Page, javascript: str) -> str:
    """Return the HTML of a page, with styles and scripts inside.

    Args:
        page: what it says.
        javascript: the charting libraries.
    """
    environment = Environment(
        loader=FileSystemLoader(ASSETS / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("index.html.j2")
    return template.render(
        page=page,
        # Our own files and libraries, which must not be escaped inside their elements.
        css=Markup((ASSETS / "style.css").read_text(encoding="utf-8")),
        charts_js=Markup((ASSETS / "charts.js").read_text(encoding="utf-8")),
        library_js=Markup(javascript.replace("</script", "<\\/script")),
    )
