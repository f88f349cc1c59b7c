"""``plan.json``: everything that the analysis, the report and MLflow need to know of a run."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from icmbench.config.run import RunConfig
from icmbench.config.scale import Scale
from icmbench.config.study import Study
from icmbench.data.specs import DatasetSpec
from icmbench.jobs import PointSpec
from icmbench.utils.models import Strict, read_model

_AGAIN = "run the workflow again, it writes the plan"


class PointSummary(PointSpec):
    """An operating point of the plan.

    Attributes:
        label: name of its variant in the report.
        codec, task: names of the registry.
        dataset: role of the data set.
        folder: of weights, logs and records; seeds that change nothing share it.
        trained: whether it trains something.
        evaluated: whether it is on a curve.
        encoding: key of the encoding that it reads, or None for original images.
    """

    label: str
    codec: str
    task: str
    dataset: str
    folder: str
    trained: bool
    evaluated: bool
    encoding: str | None

    def inside(self, root: Path) -> Path:
        """Return the folder below ``root``, the ``<results>/<scale>`` that may have moved."""
        return root / "runs" / self.study / self.variant / Path(self.folder).name


class PlanSummary(Strict):
    """A run: its configuration as used, and every operating point.

    Attributes:
        left_out: which curves the run leaves out, in sentences.
        unavailable: curves ``<study>/<variant>`` whose data or weights could not be had.
        studies: without the variants that the run leaves out.
        datasets: by role.
    """

    run: RunConfig
    left_out: list[str]
    unavailable: list[str] = Field([])
    scale: Scale
    studies: dict[str, Study]
    datasets: dict[str, DatasetSpec]
    points: list[PointSummary]


def read_summary(root: Path) -> PlanSummary:
    """Return the content of ``plan.json`` in ``<results>/<scale>``.

    Raises:
        UserError: where it is missing or not what the workflow wrote.
    """
    return read_model(root / "plan.json", PlanSummary, _AGAIN)
