"""File names and image ids from outside: which are accepted, and what ids become."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath

from icmbench.utils.coco import ImageId

# What separates folders, starts a hidden file, or cannot be part of a name on some file system.
_UNSAFE = re.compile(r'[/\\:*?"<>|%\x00-\x1f\x7f\ud800-\udfff]|^\.')
CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_LONGEST = 200  # bytes of an id: file systems allow 255 for a name, which has more than the id


def safe_id(identity: ImageId) -> ImageId:
    """Return an id that can be part of a file name: unsafe characters of a text are escaped.

    They become ``%`` and two hexadecimal digits for each byte of UTF-8, as in addresses.

    Raises:
        ValueError: for a text that is empty or too long.

    >>> safe_id("cam1/0001"), safe_id("../x"), safe_id(7)
    ('cam1%2F0001', '%2E.%2Fx', 7)
    """
    if isinstance(identity, int):
        return identity
    safe = _UNSAFE.sub(_escaped, identity)
    if not 0 < len(safe.encode()) <= _LONGEST:
        shown = repr(identity[:40])
        raise ValueError(f"id {shown} has {len(safe.encode())} bytes; 1 to {_LONGEST} are allowed")
    return safe


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass"))


def name_problem(name: str) -> str | None:
    """Return why a file name of an annotation file or a list cannot be used, or None.

    >>> name_problem("train/1.jpg") is None
    True
    >>> name_problem("../1.jpg")
    'leaves the folder of the images'
    """
    if not name or CONTROL.search(name):
        return "is empty or has control characters"
    if "\\" in name:
        return "has a backslash; write '/'"
    path = PurePosixPath(name)
    if path.is_absolute() or PureWindowsPath(name).drive:
        return "is absolute; write it relative to the folder of the images"
    if ".." in path.parts:
        return "leaves the folder of the images"
    if any(part.startswith(".") for part in path.parts):
        return "is hidden (a name that begins with '.')"
    return None
