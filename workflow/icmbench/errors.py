"""The exceptions that users see as a single line, and the wording of common failures."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

REMAKE = "delete it and run the job that makes it again"


class UserError(Exception):
    """An error that the user can fix: a setting, a file, a missing program.

    The message names the key or file, the bad value, what is allowed and what to do.
    The command line prints it without a traceback and exits with status 1.
    """


class DamagedFile(UserError, ValueError):
    """A file whose content is not what was written, or that its reader cannot read."""


class CannotWrite(UserError):
    """No space, no permission or a read-only file system: other files will fail as well."""


def unknown(kind: str, value: object, allowed: Iterable[str]) -> str:
    """Return the message for a name that is not defined.

    >>> unknown("codec", "jpg", ["jpeg", "webp"])
    "unknown codec 'jpg' (did you mean 'jpeg'?); choose from jpeg, webp"
    """
    names = sorted(allowed)
    near = get_close_matches(str(value), names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown {kind} {value!r}{hint}; choose from {', '.join(names)}"


def missing_file(path: Path | str, advice: str) -> UserError:
    """Return the error for a file that is not there; ``advice`` describes how to get it."""
    return UserError(f"{path}: no such file; {advice}")


def not_installed(package: str) -> UserError:
    """Return the error for a package that one of icmbench's extras, named alike, installs."""
    return UserError(f"{package} is not installed; run: pip install {package}")


def damaged_file(path: Path | str, reason: str, advice: str = REMAKE) -> DamagedFile:
    """Return the error for a file that cannot be read or has unexpected content."""
    return DamagedFile(f"{path}: {reason}; {advice}")
