"""The report of a run: static pages, figures and images. Importing this takes no time."""

from __future__ import annotations

from pathlib import Path

from icmbench.report.outputs import expected_outputs

__all__ = ["build_report", "expected_outputs"]


def build_report(root: Path) -> list[Path]:
    """Write the report of ``results/<scale>`` and return the files written, sorted.

    What is missing is stated on the pages.

    Raises:
        UserError: if ``plan.json`` is missing or a file is damaged.
    """
    from icmbench.report.pages import write_pages

    return write_pages(Path(root))
