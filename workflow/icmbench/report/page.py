"""The pages: templates filled with what the other modules of this package collect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from icmbench.report.charts import javascript
from icmbench.report.claims import VERDICTS, ClaimPart
from icmbench.report.downloads import Download, csv_uri
from icmbench.report.drawing import map_colour
from icmbench.report.gallery import Gallery
from icmbench.report.plots import Plot
from icmbench.report.provenance import Environment as RunEnvironment
from icmbench.report.provenance import Totals
from icmbench.report.published import Group
from icmbench.report.published_curves import PublishedPart
from icmbench.report.selection import Selection
from icmbench.report.tables import FLAGS, BdTables, Table

ASSETS = Path(__file__).parents[2] / "report"


@dataclass(frozen=True)
class Link:
    """An entry of the navigation: its text and the file it leads to."""

    text: str
    address: str


@dataclass(frozen=True)
class Site:
    """What every page says.

    Attributes:
        scale: name and description.
        navigation: links to all pages, in groups.
        missing: what the report cannot show, in sentences.
        left_out: what the run leaves out by its own configuration, in sentences.
        confidence: coverage of the intervals, e.g. ``95 %``.
        date: when the newest run ended, if one is dated.
        seeds: of the run.
        min_score: detections below it are not drawn.
    """

    scale: dict[str, Any]
    navigation: dict[str, list[Link]]
    missing: list[str]
    left_out: list[str]
    confidence: str
    date: str | None
    seeds: list[int]
    min_score: float


@dataclass(frozen=True)
class StudyPage:
    """Everything the report says about one study."""

    name: str
    study: dict[str, Any]
    selection: Selection
    claims: ClaimPart | None
    key_figures: Table
    plots: list[Plot]
    more_plots: list[Plot]
    curves: list[Download]
    complexity: Table | None
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
class FrontPage:
    """What the entry page says."""

    studies: Table
    claims: Table | None
    verdicts: str
    datasets: Table


@dataclass(frozen=True)
class MethodsPage:
    """What the page of methods says of this run."""

    bd_method: str
    resamples: int
    implementations: Table
    environments: list[RunEnvironment]


class Renderer:
    """Fills the templates of one report.

    Args:
        site: what every page says.
    """

    def __init__(self, site: Site) -> None:
        environment = Environment(
            loader=FileSystemLoader(ASSETS / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {
            "csv_uri": csv_uri,
            "file_name": _file_name,
            "map_colour": lambda index: "#{:02x}{:02x}{:02x}".format(*map_colour(index)),
            "without": lambda label, study: label.removeprefix(f"{study}: "),
        }
        environment.globals |= {
            "site": site,
            "flags": FLAGS,
            "verdicts": VERDICTS,
            # Our own files and libraries, which must not be escaped inside their elements.
            "css": Markup((ASSETS / "style.css").read_text(encoding="utf-8")),
            "charts_js": Markup((ASSETS / "charts.js").read_text(encoding="utf-8")),
            "library_js": Markup(javascript().replace("</script", "<\\/script")),
        }
        self._environment = environment

    def render(self, template: str, address: str, **content: Any) -> str:
        """Return the HTML of a page, with styles and scripts inside.

        Args:
            template: its name without ``.html.j2``.
            address: file name of the page.
            content: what the template needs.
        """
        found = self._environment.get_template(f"{template}.html.j2")
        return found.render(address=address, **content)


def _file_name(words: str) -> str:
    """Return the first words of a caption as a file name."""
    kept = "".join(c.lower() if c.isascii() and c.isalnum() else " " for c in words)
    return "-".join(kept.split()[:8])
