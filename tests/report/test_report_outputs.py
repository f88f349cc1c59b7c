"""Which pages and figures a plan has."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from icmbench.config.claims import BdClaim, OrderClaim
from icmbench.config.scale import Scale
from icmbench.config.study import Comparison, Study, Variant
from icmbench.config.summary import PlanSummary
from icmbench.metrics.catalogue import IMAGE_QUALITY, METRICS, Metric
from icmbench.registry import TASKS, TaskEntry
from icmbench.report.charts import rate_plot
from icmbench.report.outputs import (
    expected_outputs,
    families_of,
    family_roles,
    figures,
    leading_comparisons,
    leading_metrics,
    pages,
    study_metrics,
    study_page,
    study_plots,
    task_families,
)
from icmbench.report.results import Results
from icmbench.report.style import joint_styles, variant_styles
from icmbench.report.tables import points_table
from icmbench.utils.models import Strict
from icmbench.utils.places import workflow_folder

CROPS = {"crop224": 224, "crop256": 256}  # of roles


def variant(codec: str, task: str, role: str = "r", **more: Any) -> Variant:
    label = f"{codec}, {task}"
    return Variant(label=label, codec=codec, task=task, dataset=role, mode="m", **more)


def plan_of(**studies: dict[str, Variant]) -> PlanSummary:
    """The part of a plan that names of files depend on; ``_`` is ``-`` in study names."""
    named = {
        name.replace("_", "-"): Study.model_construct(name=name, variants=variants)
        for name, variants in studies.items()
    }
    points = [
        SimpleNamespace(study=study, variant=key, evaluated=True, encoding=None)
        for study, content in named.items()
        for key in content.variants
    ]
    run: Any = SimpleNamespace(studies=list(named), modules=[], perceptual=[])
    scale = Scale.model_construct(name="any", tasks={})
    used = {v.dataset for content in named.values() for v in content.variants.values()}
    datasets = {role: SimpleNamespace(center_crop=CROPS.get(role)) for role in used}
    return PlanSummary.model_construct(
        run=run, scale=scale, studies=named, points=points, datasets=datasets
    )


def about(variant: str, anchor: str) -> BdClaim:
    return BdClaim(
        form="bd",
        variant=variant,
        anchor=anchor,
        metric="psnr",
        sentence="",
        source="",
        expect="above",
    )


def test_study_is_about_the_subject_of_its_claims() -> None:
    order = OrderClaim(form="order", variants=["d", "b"], metric="psnr", sentence="", source="")
    one, other = (
        Comparison(anchor="a", variants=variants, metrics=["psnr"])
        for variants in (["b", "c"], ["d"])
    )
    for comparisons, claims, subject, first in (
        ([one, other], [], "", one),
        ([other], [], "d", other),  # nothing else is compared
        ([one, other], [about("b", "c"), about("c", "a"), about("c", "b")], "c", one),
        ([one, other], [about("d", "a")], "d", other),
        ([one, other], [about("c", "a"), about("c", "b"), order], "d", other),
        ([one], [about("a", "b"), order], "", one),  # of those compared, none
    ):
        named = {str(place): claim for place, claim in enumerate(claims)}
        study = Study.model_construct(name="s", comparisons=comparisons, claims=named)
        found, (leading, *_) = leading_comparisons(study)
        assert (found, leading) == (subject, first)
    assert leading_comparisons(Study.model_construct(name="s")) == ("", [])


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("chamain2021", "hyperprior/faster-rcnn/j-ft"),
        ("tang2025", "dicm/feature-probe/proposed"),
        ("variable-rate", "variable/reconstruction/mse"),
        ("zhang2022", "layered/face-analysis/end-to-end"),
        ("zhu2024", "ours/adapted-mask-rcnn/joint"),
    ],
)
def test_studies_are_about_what_their_papers_propose(name: str, subject: str) -> None:
    path = workflow_folder() / f"studies/{name}.yaml"
    study = Study.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert leading_comparisons(study)[0] == subject


def test_pages_follow_from_the_plan() -> None:
    plan = plan_of(
        classical={"a": variant("jpeg", "reconstruction")},
        methods={"a": variant("jpeg", "resnet-mask-rcnn"), "b": variant("uncoded", "linear-probe")},
        task_of={
            "a": variant("layered", "face-analysis-on-features", "faces"),
            "b": variant("jpeg", "face-parsing-on-images", "faces", evaluate=False),
        },
    )
    # A study whose name another page has gets a prefix.
    tasks = ["detection", "instance-segmentation", "classification"]
    tasks += ["face-attributes", "semantic-segmentation", "image-quality"]
    assert pages(plan) == [
        *("index.html", "classical.html", "study-methods.html", "study-task-of.html"),
        *(f"task-{name}.html" for name in tasks),
        "methods.html",
    ]
    assert study_page("zhu2024") == "zhu2024.html"
    outputs = expected_outputs(plan)
    assert len(outputs) == len(set(outputs))
    parsing = [name for name in figures(plan) if "task-semantic-segmentation" in name]
    metrics = ("miou", "fwiou", "pixel_accuracy")
    assert parsing == [f"task-semantic-segmentation-rate-{metric}-faces" for metric in metrics]
    # Features are not images, so they have no PSNR.
    assert family_roles(plan, IMAGE_QUALITY) == ["r"]
    assert leading_metrics(plan, "task-of") == ["attribute_accuracy", "miou"]
    assert ("psnr", None) not in study_plots(plan, "task-of")
    assert leading_metrics(plan, "methods") == ["box_map", "mask_map", "top1", "psnr"]


def test_image_quality_has_a_plot_for_each_data_set() -> None:
    plan = plan_of(
        s={"a": variant("jpeg", "faster-rcnn", "x"), "b": variant("jpeg", "faster-rcnn", "y")}
    )
    plots = study_plots(plan, "s")
    assert ("psnr", "x") in plots and ("psnr", "y") in plots and ("box_map", None) in plots


def test_crops_of_different_size_have_a_plot_each() -> None:
    plan = plan_of(
        s={
            "a": variant("jpeg", "linear-probe", "crop224"),
            "b": variant("uncoded", "linear-probe", "crop256"),
            "c": variant("jpeg", "faster-rcnn", "x"),
        }
    )
    plots = study_plots(plan, "s")
    assert {role for metric, role in plots if metric == "top1"} == {"crop224", "crop256"}
    assert ("box_map", None) in plots and ("psnr", "crop256") not in plots


def test_metrics_of_a_study(results: Results) -> None:
    every = ["box_map", "psnr", "box_map50", "box_map75", "psnr_ycbcr", "ms_ssim"]
    assert study_metrics(results.plan, "somewhere2021") == every
    assert study_metrics(results.plan, "photographs2020") == ["psnr", "ms_ssim", "psnr_ycbcr"]
    run = results.plan.run.model_copy(update={"perceptual": ["dists"]})
    plan = results.plan.model_copy(update={"run": run})
    assert study_metrics(plan, "photographs2020")[-1] == "dists"
    assert task_families(plan)[IMAGE_QUALITY] == ["psnr", "psnr_ycbcr", "ms_ssim", "dists"]


def test_styles_distinguish_variants_and_studies() -> None:
    one = {"a": variant("jpeg", "faster-rcnn"), "b": variant("uncoded", "faster-rcnn")}
    plan = plan_of(first=one, second=one, many={str(i): one["a"] for i in range(17)})
    alone = variant_styles(plan, "second")["a"]
    styles = joint_styles(plan, [(study, name) for study in ("first", "second") for name in "ab"])
    assert list(styles) == ["first/a", "first/b", "second/a", "second/b"]
    joint = styles["second/a"]
    assert (joint.colour, joint.shape) == (alone.colour, alone.shape)
    assert joint.label != alone.label
    # A single study needs no prefix.
    assert joint_styles(plan, [("second", "a")])["second/a"] == alone
    many = variant_styles(plan, "many").values()
    for look in ("label", "dash", "shape"):
        assert len({(style.colour, getattr(style, look)) for style in many}) == 17


@pytest.fixture
def own() -> Iterator[None]:
    """A user's task with a metric of its own, registered as a user's module does."""
    metrics, tasks = dict(METRICS._entries), dict(TASKS._entries)
    METRICS.register(
        Metric("count_error", "Miscounted", "cars", better="lower", family="cars", fraction=False)
    )
    TASKS.register(
        TaskEntry(
            name="count-cars",
            parameters=Strict,
            implementation="mine:CountCars",
            trainable=False,
            loss_terms=(),
            metrics=("psnr", "count_error", "not_registered"),
        )
    )
    yield
    METRICS._entries, TASKS._entries = metrics, tasks


def test_own_metric_has_page_plot_and_unit(own: None, results: Results) -> None:
    plan = plan_of(s={"a": variant("jpeg", "count-cars")})
    # An unregistered metric is on a page named after its task.
    assert families_of(plan, "count-cars") == {
        "cars": ("count_error",),
        "count-cars": ("not_registered",),
    }
    outputs = expected_outputs(plan)
    assert {"report/task-cars.html", "report/task-count-cars.html"} < set(outputs)
    assert "report/figures/s-rate-count_error.svg" in outputs
    curves = results.curves.replace({"metric": {"box_map": "count_error"}})
    measured = dataclasses.replace(results, curves=curves)
    styles = variant_styles(results.plan, "somewhere2021")
    plot = rate_plot(measured, "somewhere2021", "count_error", None, styles)
    counted = curves[curves["metric"] == "count_error"]
    assert sorted(row["value"] for row in plot.rows) == sorted(counted["value"])
    assert "Lower is better" in plot.note and "Miscounted (cars)" in str(plot.live)
    assert "Miscounted (cars)" in points_table(measured, ["count_error"], styles).columns
