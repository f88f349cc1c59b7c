"""Fetching of weights that a study names by address: once, verified, resumable."""

from __future__ import annotations

import shutil
from pathlib import Path

from filelock import FileLock

from icmbench.data.archives import download
from icmbench.data.catalogue import Archive
from icmbench.errors import damaged_file
from icmbench.utils.files import atomic_path, sha256_file, writing


def fetch_weights(url: str, sha256: str, output: Path, mirror: Path | None) -> Path:
    """Make the file at ``url`` present as ``output``, and return that.

    A file that is there is checked, not fetched again. Then ``<mirror>/weights/<name>`` is tried.
    Safe to call from several processes.

    Args:
        url: address of the file.
        sha256: its checksum.
        output: where it belongs.
        mirror: folder laid out like the data folder.

    Raises:
        UserError: naming the file or address: unreachable, truncated, another checksum.
    """
    with writing(output.parent):
        output.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(output.with_name(f".{output.name}.lock")):
            mirrored = None if mirror is None else mirror / output.parent.name / output.name
            for path in (output, mirrored):
                if path is None or not path.is_file():
                    continue
                if (found := sha256_file(path)) != sha256:
                    reason = f"sha256 is {found}, not {sha256} as the study states"
                    raise damaged_file(path, reason, "delete the file, or correct the study")
                if path != output:
                    with atomic_path(output) as temporary:
                        shutil.copyfile(path, temporary)
                return output
            archive = Archive(name=output.name, url=url, sha256=sha256, unpack="none")
            download(archive, output.parent)
    return output
