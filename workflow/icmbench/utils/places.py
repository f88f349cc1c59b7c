"""Where the workflow's own files are: in the checkout, or in the package that a wheel installed.

A wheel holds them in ``icmbench/shipped``, laid out as in the checkout (pyproject.toml lists them).
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_SHIPPED = _PACKAGE / "shipped"


def is_installed() -> bool:
    """Return whether this package was installed from a wheel and has no checkout."""
    return _SHIPPED.is_dir()


def shipped_folder() -> Path:
    """Return the folder of the Snakefile, config.yaml, profiles and data."""
    return _SHIPPED if is_installed() else _PACKAGE.parents[1]


def workflow_folder() -> Path:
    """Return the folder that holds rules, studies, scales, schemas, report and zoo."""
    return shipped_folder() / "workflow"


def snakefile() -> Path:
    """Return the path of the Snakefile."""
    return shipped_folder() / "Snakefile"


def here_or_shipped(path: str) -> Path:
    """Return a path of the working directory, or the shipped one where only that exists.

    Args:
        path: as in the checkout, such as ``config.yaml`` or ``workflow/zoo``.
    """
    shipped = shipped_folder() / path
    return shipped if shipped.exists() and not Path(path).exists() else Path(path)
