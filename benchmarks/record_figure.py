"""Draw the README's figure from the curves of record.

    python benchmarks/record_figure.py results/record/photos/curves.csv docs/images/photos.svg

Points and intervals are those of the CSV, in the report's style.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from icmbench.config.load import load_scale, load_study
from icmbench.metrics.catalogue import find_metric
from icmbench.plugins import load_modules
from icmbench.report.drawing import Plot
from icmbench.report.style import COLOURS, SHAPES, Style
from icmbench.utils.files import write_bytes

STUDY, METRIC, SIZE = "photos", "box_map", (640, 360)
WORKFLOW = Path(__file__).parents[1] / "workflow"


def figure(curves: Path) -> bytes:
    """Return the SVG of box mAP over rate, with originals as a line."""
    study = load_study(WORKFLOW / "studies", STUDY, load_scale(WORKFLOW / "scales", "mini"))
    metric, table = find_metric(METRIC), pd.read_csv(curves)
    table = table[(table["study"] == STUDY) & (table["metric"] == METRIC)]
    series, rows = [], []
    names = [name for name in study.variants if name in set(table["variant"])]
    for number, name in enumerate(names):
        variant = study.variants[name]
        style = Style(
            variant.label,
            COLOURS[number % len(COLOURS)],
            SHAPES[number % len(SHAPES)],
            study=STUDY,
            name=name,
            is_curve=variant.ladder is not None,
        )
        series.append(style)
        for point in table[table["variant"] == name].to_dict("records"):
            factor = metric.factor
            rows.append(
                {
                    "label": style.label,
                    "study": STUDY,
                    "rate_index": point["rate_index"],
                    "bpp": point["bpp"] if style.is_curve else None,
                    **{key: point[key] * factor for key in ("value", "low", "high")},
                    "shown": "",
                    "interval": "",
                    "setting": "",
                    "href": "",
                }
            )
    on = [style.label for style in series]
    return Plot("photos", study.title, metric.heading, series, on, rows).svg(SIZE)


if __name__ == "__main__":
    load_modules([])
    write_bytes(sys.argv[2], figure(Path(sys.argv[1])))
