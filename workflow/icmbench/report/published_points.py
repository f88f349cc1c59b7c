"""Published points beside a study's curves, where they were measured by the same protocol."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from icmbench.analyse.protocols import Beside
from icmbench.config.published import published_points
from icmbench.metrics.catalogue import find_metric
from icmbench.report.charts import PublishedCurve, rate_plot
from icmbench.report.drawing import Plot
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


def loss_plots(results: Results, study: str, found: Sequence[Beside], styles: Styles) -> list[Plot]:
    """Return a plot of the loss from original images for every metric with other networks' points.

    Args:
        results: the results folder.
        study: name of the study.
        found: what may be drawn beside it.
        styles: of its variants.
    """
    drops = [b for b in found if b.drop]
    metrics = dict.fromkeys(b.curve.metric for b in drops)
    return [
        _loss_plot(results, study, [b for b in drops if b.curve.metric == metric], styles)
        for metric in metrics
    ]


def _loss_plot(results: Results, study: str, own: list[Beside], styles: Styles) -> Plot:
    metric, role, reference = find_metric(own[0].curve.metric), own[0].role, own[0].reference
    assert reference is not None
    own = [b for b in own if b.role == role]
    variants = {
        key: style
        for key, style in styles.items()
        if style.is_curve and results.studies[style.study].variants[style.name].dataset == role
    }
    # Drawn as values, of published points the ones that have the published loss here.
    points = [
        PublishedCurve(
            _style(b, index, network=True), *_columns([(r, reference - x) for r, x in b.losses])
        )
        for index, b in enumerate(own)
    ]
    plot = rate_plot(results, study, metric.name, role, variants, points)
    for row in plot.rows:
        row["value"] = reference * metric.factor - row["value"]
        row["shown"] = f"{row['value']:.{metric.digits}f}"
        if row.get("low") is not None:
            # Of the value; that of the loss would need the reference's resamples.
            row |= {"low": None, "high": None, "interval": "not computed"}
    words = f"Loss of {metric.heading} from original images"
    name, note = f"{plot.name}-loss", f"Other networks: lower is better. {plot.note}".strip()
    return replace(plot, name=name, title=words, axis=words, note=note)


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
