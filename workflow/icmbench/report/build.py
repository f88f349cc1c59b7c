"""The report's entry points; nothing heavy is imported until a report is built."""

from __future__ import annotations

from pathlib import Path

from icmbench.report.outputs import expected_outputs

__all__ = ["build_report", "expected_outputs"]


def build_report(root: Path) -> list[Path]:
    """Write the report of a results folder and return the files written, sorted.

    Writes the pages, ``report/*.html`` with ``index.html`` as entry (each makes no requests),
    ``report/figures/*.{svg,pdf,png}`` and ``report/images/*.png``. Equal inputs give equal
    bytes. What is missing is said on the pages.

    Args:
        root: ``results/<scale>``, which must hold ``plan.json``.

    Raises:
        UserError: if ``plan.json`` is missing or a file is malformed.
    """
    from icmbench.report.assemble import assemble

    return assemble(Path(root))
