"""Published points beside a study's curves, where they were measured by the same protocol."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from icmbench.analyse.protocols import Beside
from icmbench.config.published import published_points
from icmbench.metrics.catalogue import find_metric
from icmbench.report.charts import PublishedCurve, RateChart, rate_chart
from icmbench.report.results import Results
from icmbench.report.style import DIAMOND, GREY, PUBLISHED_DASHES, SHAPES, Style, Styles

_SHAPES = (*SHAPES, DIAMOND)


def points_series(found: Iterable[Beside], metric: str, role: str | None) -> list[PublishedCurve]:
    """Return published points of the same network as curves of a plot of ``metric``.

    Args:
        found: what may be drawn beside the study.
        metric: of the plot.
        role: of its data set; None if the plot has all roles.
    """
    own = [b for b in found if not b.drop and b.curve.metric == metric and role in (None, b.role)]
    return [
        PublishedCurve(_style(b, index), *_columns(b.curve.points)) for index, b in enumerate(own)
    ]


def loss_charts(results: Results, found: Sequence[Beside], styles: Styles) -> list[RateChart]:
    """Return a plot of the loss for every metric with points of other networks.

    Args:
        results: the results folder.
        found: what may be drawn beside the study.
        styles: of the study's variants.
    """
    drops = [b for b in found if b.drop]
    metrics = dict.fromkeys(b.curve.metric for b in drops)
    return [
        _loss_chart(results, [b for b in drops if b.curve.metric == m], styles) for m in metrics
    ]


def _loss_chart(results: Results, own: list[Beside], styles: Styles) -> RateChart:
    role, reference = own[0].role, own[0].reference
    own = [b for b in own if b.role == role]
    assert reference is not None
    of = find_metric(own[0].curve.metric)
    loss = replace(of, title=f"Loss of {of.title} from original images", better="lower")
    variants = {
        key: style
        for key, style in styles.items()
        if style.is_curve and results.studies[style.study].variants[style.name].dataset == role
    }
    chart = rate_chart(results, loss, variants)
    for row in [*chart.points, *chart.lines]:
        row["value"] = reference * of.factor - row["value"]
        if "low" in row:
            # Of the value; that of the loss would need the reference's resamples.
            del row["low"], row["high"]
            row["interval"] = "not computed"
        if "shown" in row:
            row["shown"] = f"{row['value']:.{of.digits}f}"
    curves = [
        PublishedCurve(_style(b, index, network=True), *_columns(b.losses))
        for index, b in enumerate(own)
    ]
    added = rate_chart(results, loss, {}, curves)
    return replace(
        chart,
        series=[*chart.series, *added.series],
        points=[*chart.points, *added.points],
        lines=[*chart.lines, *added.lines],
    )


def sources(found: Sequence[Beside]) -> list[str]:
    """Return a sentence on every source, and on what differs where only losses are drawn."""
    points = published_points()
    lines = []
    for b in found:
        source = points.sources[b.curve.source]
        lines.append(f"Published points: {source.paper}; {source.address} ({source.licence})")
        if b.drop:
            network = points.protocols[b.curve.protocol].network
            name = network.name if network else ""
            lines.append(f"Of {name} only the loss of accuracy is drawn, since {b.why}.")
        if b.curve.note:
            lines.append(f"{b.curve.label}: {b.curve.note}")
    return list(dict.fromkeys(lines))


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [rate for rate, _ in points], [value for _, value in points]


def _style(b: Beside, index: int, network: bool = False) -> Style:
    points = published_points()
    words = [str(points.sources[b.curve.source].year)]
    protocol = points.protocols[b.curve.protocol]
    if network and protocol.network is not None:
        words.append(protocol.network.name)
    words += ["est."] if b.curve.rate == "estimate" else []
    dash = PUBLISHED_DASHES[index // len(_SHAPES) % len(PUBLISHED_DASHES)]
    shape = _SHAPES[index % len(_SHAPES)]
    return Style(f"{b.curve.label} ({', '.join(words)})", GREY, shape, dash, hollow=True)
