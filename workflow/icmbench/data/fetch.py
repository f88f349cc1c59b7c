"""Fetching of a data set: verified, resumable, all or nothing.

Sources in order: what is already there, the DVC remote (if one is configured), the mirror
directory, archives placed by hand or downloaded from their address. A data set is put together in
a temporary folder and renamed when every check has passed, so a run that dies leaves nothing that
a later run would take for a data set. Rules depend on ``<data>/<name>.manifest.json``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock, Timeout

from icmbench.data import pointer
from icmbench.data.catalogue import DOWNLOADS, Archive, DataSet, find
from icmbench.data.checksums import hash_file, mismatch
from icmbench.data.download import DEFAULT_POLICY, Policy, download, note
from icmbench.data.manifest import (
    ArchiveRecord,
    Manifest,
    Source,
    count,
    is_subset,
    layout_problem,
    measure,
    problem_with,
    read_manifest,
    scan,
    write_listing,
    write_manifest,
)
from icmbench.data.mirror import Mirror
from icmbench.data.unpack import unpack
from icmbench.errors import UserError


def fetch(
    name: str,
    *,
    data_dir: Path,
    mirror: Path | None,
    catalogue: Path,
    verify: bool = False,
    policy: Policy = DEFAULT_POLICY,
) -> Path:
    """Make the data set ``name`` present in ``data_dir/name`` and return its manifest's path.

    A data set that is there and fits its manifest is accepted at once; ``verify`` reads all of its
    files. ``policy`` says how often a download is tried. Safe to call from several processes.
    Raises ``UserError`` (one line: name, address or file, what to do), and then leaves no data set.
    """
    entry = find(catalogue, name)
    with _errors_in_one_line(name, data_dir), _lock(data_dir, name):
        return _Fetch(name, entry, data_dir, policy).run(mirror, verify)


def verify(name: str, *, data_dir: Path, catalogue: Path, full: bool = True) -> Manifest:
    """Check a fetched data set against its manifest and return it; ``UserError`` says what differs.

    ``full`` reads every file; otherwise names, number and total size of the files are compared.
    """
    entry = find(catalogue, name)
    with _errors_in_one_line(name, data_dir), _lock(data_dir, name):
        places = _Fetch(name, entry, data_dir, DEFAULT_POLICY)
        manifest = read_manifest(places.manifest)
        if manifest is None:
            raise UserError(f"{name}: {places.manifest} does not exist: fetch the data set first")
        places.accept(manifest, full=full)
        return manifest


@contextmanager
def _errors_in_one_line(name: str, data_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{name}: {error.filename or data_dir}: {error.strerror or error}: check the "
            "permissions and the free space, then fetch again"
        ) from error


@contextmanager
def _lock(data_dir: Path, name: str) -> Iterator[None]:
    state = data_dir / ".icmbench"
    state.mkdir(parents=True, exist_ok=True)
    lock = FileLock(state / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        note(f"{name}: another process is at this data set; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _Fetch:
    """The places of one data set and the steps to fill them; used under the lock."""

    def __init__(self, name: str, entry: DataSet, data_dir: Path, policy: Policy) -> None:
        state = data_dir / ".icmbench"
        self.name, self.entry, self.data_dir, self.policy = name, entry, data_dir, policy
        self.folder = data_dir / name
        self.manifest = data_dir / f"{name}.manifest.json"
        self.listing = data_dir / f"{name}.files.sha256"
        self.pointer = pointer.pointer_path(data_dir, name)
        self.downloads = data_dir / DOWNLOADS / name
        # Snakemake deletes a rule's output before the rule runs: a copy keeps the manifest.
        self.kept = state / f"{name}.manifest.json"
        self.staging = state / f"{name}.staging"
        self.pulling = state / f"{name}.pulling"

    def run(self, mirror: Path | None, verify: bool) -> Path:
        """Try the sources in order."""
        self._clear_leftovers()
        try:
            if not (self._present(verify) or self._from_dvc()):
                source = None if mirror is None else Mirror(mirror)
                if source is None or not self._from_mirror_folder(source):
                    self._from_archives(source)
        finally:
            shutil.rmtree(self.staging, ignore_errors=True)
        return self.manifest

    def _clear_leftovers(self) -> None:
        """Remove what a killed run left: half a folder or ``dvc pull``, an empty pointer."""
        if self.pointer.is_file() and not self.pointer.stat().st_size:
            self.pointer.unlink()
        if self.staging.exists():
            shutil.rmtree(self.staging)
        if self.pulling.exists():
            self._drop_folder()
            self.pulling.unlink()

    def _drop_folder(self) -> None:
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def _present(self, verify: bool) -> bool:
        if not self.folder.is_dir():
            # Whatever happens next, no manifest of data that are gone.
            self.manifest.unlink(missing_ok=True)
            self.kept.unlink(missing_ok=True)
            return False
        manifest = read_manifest(self.manifest) or read_manifest(self.kept)
        if manifest is None:
            self._adopt()
            return True
        if not self.listing.exists():
            listing = measure(self.folder, scan(self.folder, self.entry), self.entry, self.folder)
            if listing.digest == manifest.digest:
                write_listing(self.listing, listing)
        self.accept(manifest, full=verify)
        if not self.manifest.exists():
            write_manifest(self.manifest, manifest)
        self._point(manifest)  # a kill after the manifest leaves none
        return True

    def accept(self, manifest: Manifest, *, full: bool) -> None:
        """Raise ``UserError`` unless the folder fits its manifest and the pointer."""
        problem = problem_with(manifest, self.entry, self.folder, self.listing, full=full)
        if problem:
            raise UserError(
                f"{self.name}: {self.folder} {problem}: delete this folder to fetch it again, or "
                f"delete {self.manifest} and {self.kept} to have it checked as a new one"
            )
        if manifest.subset:
            note(f"{self.name}: a subset ({_sum(manifest.counts)}), good for trials only")
        else:
            pointer.check(self.pointer, manifest.dvc_md5)

    def _adopt(self) -> None:
        """Accept a complete data set that a person put or linked there."""
        note(f"{self.name}: {self.folder} was not made by fetch; checking it")
        sizes = scan(self.folder, self.entry)
        problem = layout_problem(self.entry, count(self.entry, sizes), subset=False)
        if problem:
            raise UserError(
                f"{self.name}: {self.folder} is incomplete and was not made by fetch ({problem}): "
                "complete it, or move it away to have it fetched"
            )
        self._finish(self.folder, sizes, "found", [])

    def _from_dvc(self) -> bool:
        root = pointer.repository(self.data_dir)
        if root is None or not self.pointer.exists() or not pointer.has_remote(root):
            return False
        note(f"{self.name}: pulling from the DVC remote")
        self.pulling.touch()
        error = pointer.pull(root, self.pointer)
        if error is None:
            self._finish(self.folder, scan(self.folder, self.entry), "dvc", [])
        else:
            note(f"{self.name}: not in the DVC remote ({error}); trying the next source")
            self._drop_folder()
        self.pulling.unlink()
        return error is None

    def _from_mirror_folder(self, mirror: Mirror) -> bool:
        """Copy the unpacked data set, or a subset of it, from the mirror."""
        source = mirror.folder(self.name)
        sizes = scan(source, self.entry) if source.is_dir() else {}
        if not sizes:
            return False
        problem = layout_problem(self.entry, count(self.entry, sizes), subset=True)
        if problem:
            raise UserError(
                f"{self.name}: {source} in the mirror cannot be used ({problem}): complete it or "
                "remove it"
            )
        note(f"{self.name}: copying {len(sizes)} files from the mirror")
        mirror.copy(self.name, sizes, self.staging)
        self._finish(self.staging, sizes, "mirror", [], mirror)
        return True

    def _from_archives(self, mirror: Mirror | None) -> None:
        """Take each archive from where it is first found, unpack all, rename."""
        missing = [file for file in self.entry.archives if not self._available(file, mirror)]
        if missing:
            names = ", ".join(file.name for file in missing)
            how = self.entry.account.how or f"see {self.entry.homepage}"
            raise UserError(
                f"{self.name}: cannot be downloaded by itself; missing: {names}; to do: {how}; put "
                f"the files into {self.downloads} (or a mirror directory) and fetch again"
            )
        taken = [self._obtain(file, mirror) for file in self.entry.archives]
        self.staging.mkdir(parents=True, exist_ok=True)
        for archive, (path, _) in zip(self.entry.archives, taken, strict=True):
            note(f"{self.name}: unpacking {archive.name}")
            unpack(path, archive, self.staging, self.entry.wants)
        records = [record for _, record in taken]
        sources = {record.source for record in records}
        source = next(kind for kind in ("address", "placed", "mirror") if kind in sources)
        self._finish(self.staging, scan(self.staging, self.entry), source, records)
        for path, record in taken:
            if record.source == "address":
                path.unlink()

    def _available(self, archive: Archive, mirror: Mirror | None) -> bool:
        in_mirror = mirror is not None and mirror.archive(archive.name) is not None
        placed = (self.downloads / archive.name).is_file()
        return in_mirror or placed or archive.url is not None

    def _obtain(self, archive: Archive, mirror: Mirror | None) -> tuple[Path, ArchiveRecord]:
        """Return a verified archive on disk."""
        placed = self.downloads / archive.name
        from_mirror = mirror.archive(archive.name) if mirror is not None else None
        source: Source = "address" if archive.url else "placed"
        if from_mirror is not None and mirror is not None:
            path, source, hashes = from_mirror, "mirror", hash_file(from_mirror)
            mirror.check(archive.name, hashes)
        elif placed.is_file():
            path, hashes = placed, hash_file(placed)
        else:
            path, hashes = placed, download(self.name, archive, self.downloads, self.policy)
        problem = mismatch(hashes, archive)
        if problem:
            raise UserError(f"{self.name}: {path} {problem}: replace or delete the file")
        record = ArchiveRecord(name=archive.name, source=source, **hashes._asdict())
        return path, record

    def _finish(
        self,
        folder: Path,
        paths: Iterable[str],
        source: Source,
        archives: list[ArchiveRecord],
        mirror: Mirror | None = None,
    ) -> None:
        """Check everything, then give the folder its name and write the manifest, in this order."""
        origin = folder if mirror is None else mirror.folder(self.name)
        listing = measure(folder, paths, self.entry, origin)
        if mirror is not None:
            mirror.check_all(self.name, listing)
        counts = count(self.entry, listing.files)
        subset = source == "mirror" and not archives and is_subset(self.entry, counts)
        problem = layout_problem(self.entry, counts, subset=subset)
        if problem:
            raise UserError(
                f"{self.name}: the source does not hold what the catalogue says ({problem}): "
                "correct the layout in the catalogue or use another source"
            )
        if not subset:
            pointer.check(self.pointer, listing.dvc_md5)
        manifest = Manifest(
            name=self.name,
            version=self.entry.version,
            source=source,
            subset=subset,
            counts=counts,
            files=len(listing.files),
            bytes=listing.bytes,
            digest=listing.digest,
            dvc_md5=listing.dvc_md5,
            archives=archives,
            icmbench=version("icmbench"),
        )
        write_listing(self.listing, listing)
        # Before the rename: after a crash between the two, the folder is still known as a subset.
        write_manifest(self.kept, manifest)
        if folder != self.folder:
            folder.rename(self.folder)
        write_manifest(self.manifest, manifest)
        note(f"{self.name}: {len(listing.files)} files in place, digest {listing.digest}")
        self._point(manifest)

    def _point(self, manifest: Manifest) -> None:
        """Create the DVC pointer of a complete data set that was fetched from its source."""
        root = pointer.repository(self.data_dir)
        if root is None or self.pointer.exists() or manifest.subset or manifest.source == "found":
            return
        error = pointer.add(root, self.folder)
        if error:
            note(f"{self.name}: no DVC pointer was written ({error}); the data set can be used")
            return
        pointer.check(self.pointer, manifest.dvc_md5)
        note(f"{self.name}: wrote {self.pointer}: add it to Git")


def _sum(counts: dict[str, int]) -> str:
    return ", ".join(f"{files} {pattern}" for pattern, files in counts.items())
