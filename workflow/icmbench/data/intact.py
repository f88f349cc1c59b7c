"""Whether the files of a data set are still those that were generated or fetched."""

from __future__ import annotations

from pathlib import Path

from icmbench.errors import DamagedFile
from icmbench.utils.checksums import require
from icmbench.utils.files import digest_json, read_object, reading, sha256_bytes

_FETCH = "fetch the data set again (`python -m icmbench fetch NAME --verify` checks every file)"


def check_generated(folder: Path, split: str) -> None:
    """Check the files of a split of a generated data set against its manifest.

    Raises:
        UserError: naming a file that is not what was generated.
    """
    path = folder / "manifest.json"
    again = f"delete {folder} and run the job `data` again"
    if not path.is_file():
        return
    manifest = read_object(path, "splits", "digest")
    content = {name: value for name, value in manifest.items() if name != "digest"}
    if digest_json(content) != manifest["digest"]:
        raise DamagedFile(f"{path}: does not fit its own key 'digest'; {again}")
    for name, wanted in manifest["splits"].get(split, {}).get("sha256", {}).items():
        try:
            require(folder / name, wanted, again, path.name)
        except FileNotFoundError:
            raise DamagedFile(f"{path}: names {name}, which is not there; {again}") from None


class FetchedFiles:
    """The files of a fetched data set by their checksums, read when they are first asked for.

    Args:
        folder: of the data set; ``<folder>.files.sha256`` lists its files. A folder that nothing
            was fetched into has no list, and is not checked.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._wanted: dict[str, str] | None = None

    def check(self, path: Path) -> None:
        """Check one file.

        Raises:
            UserError: where it is not what was fetched.
        """
        if self._wanted is None:
            self._wanted = self._read()
        try:
            wanted = self._wanted.get(path.relative_to(self.folder).as_posix())
        except ValueError:
            return
        require(path, wanted, _FETCH, made="fetched")

    def _read(self) -> dict[str, str]:
        from icmbench.data.manifest import read_manifest

        listing = self.folder.with_name(f"{self.folder.name}.files.sha256")
        manifest = read_manifest(self.folder.with_name(f"{self.folder.name}.manifest.json"))
        if manifest is None:
            return {}
        try:
            with reading(listing, _FETCH):
                data = listing.read_bytes()
        except FileNotFoundError:
            return {}
        if sha256_bytes(data) != manifest.digest:
            raise DamagedFile(f"{listing}: does not fit the data set's manifest; {_FETCH}")
        lines = (line.split("  ", 1) for line in data.decode().splitlines())
        return {name: digest for digest, name in lines}
