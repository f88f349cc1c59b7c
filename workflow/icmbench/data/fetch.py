"""Fetching of a data set: verified, resumable, all or nothing.

Sources in order: the data folder, DVC (cache or remote), the mirror directory, archives placed by
hand or downloaded from their address; or the repository, for what it holds itself. A data set is
put together in a temporary folder and renamed after every check has passed: a run that is killed
leaves no incomplete data set behind.
"""

from __future__ import annotations

import logging
import shutil
from functools import cached_property
from pathlib import Path

from filelock import FileLock

from icmbench.data import pointer
from icmbench.data.archives import download, unpack
from icmbench.data.catalogue import DOWNLOADS, Archive, Chosen, DataSet, find
from icmbench.data.chosen import check_image, keep_chosen
from icmbench.data.manifest import (
    Hashes,
    Manifest,
    Source,
    check,
    hash_file,
    layout_problem,
    measure,
    mismatch,
    read_checksums,
    read_manifest,
    scan,
)
from icmbench.errors import UserError, damaged_file, missing_file
from icmbench.utils.files import writing
from icmbench.utils.places import shipped_folder

log = logging.getLogger(__name__)


def fetch(
    name: str, *, data_dir: Path, mirror: Path | None, catalogue: Path, verify: bool = False
) -> Path:
    """Make the data set ``name`` present in ``data_dir/name`` and return its manifest's path.

    A data set that is there and fits its manifest is accepted at once. Safe to call from several
    processes.

    Args:
        name: in the catalogue.
        data_dir: folder of all fetched data sets.
        mirror: directory to copy from: data sets unpacked as ``<mirror>/<name>/``, or archives. If
            it has a ``MANIFEST.sha256``, every file taken is checked with it.
        catalogue: path of ``catalogue.yaml``.
        verify: read every file of a data set that is there, not only names and sizes.

    Raises:
        UserError: naming the file or address, and what to do; no data set is left then.
    """
    entry = find(catalogue, name)
    if mirror is not None and not mirror.is_dir():
        raise missing_file(mirror, "correct the path of the mirror directory, or unset it")
    state = data_dir / ".icmbench"
    with writing(data_dir):
        state.mkdir(parents=True, exist_ok=True)
        with FileLock(state / f"{name}.lock"):
            return _Fetch(name, entry, data_dir, mirror).run(verify)


class _Fetch:
    """The places of one data set and the steps to fill them; used under the lock."""

    def __init__(self, name: str, entry: DataSet, data_dir: Path, mirror: Path | None) -> None:
        self.name, self.entry, self.data_dir, self.mirror = name, entry, data_dir, mirror
        self.folder = data_dir / name
        self.manifest = data_dir / f"{name}.manifest.json"
        self.listing = data_dir / f"{name}.files.sha256"
        self.pointer = data_dir / f"{name}.dvc"
        self.downloads = data_dir / DOWNLOADS / name
        self.staging = data_dir / ".icmbench" / f"{name}.staging"

    def run(self, verify: bool) -> Path:
        """Try the sources in order and return the manifest's path."""
        try:
            self._clear()
            if self.folder.is_dir():
                self._accept(verify)
            else:
                self.manifest.unlink(missing_ok=True)  # of data that are gone
                if not self._from_dvc():
                    if self.entry.chosen is not None:
                        self._from_chosen(self.entry.chosen)
                    elif not self._from_mirror():
                        self._from_repository() if self.entry.files else self._from_archives()
        finally:
            self._clear()
        return self.manifest

    def _clear(self) -> None:
        if self.staging.exists():
            shutil.rmtree(self.staging)

    def _accept(self, verify: bool) -> None:
        """Check the data set that is there; adopt one that a person put or linked there."""
        manifest = read_manifest(self.manifest)
        if manifest is None:
            log.info("%s: %s has no manifest; checking it", self.name, self.folder)
            self._finish(self.folder, self.folder, "found", "complete it, or move it away")
            return
        check(manifest, self.entry, self.folder, self.listing, full=verify)
        if manifest.subset:
            log.warning("%s: a subset (%d files), for trials only", self.name, manifest.files)
        else:
            pointer.check(self.pointer, manifest.dvc_md5)
        self._point(manifest)  # a run that was killed after the manifest left none

    def _from_dvc(self) -> bool:
        root = pointer.repository(self.data_dir)
        if root is None or not self.pointer.exists():
            return False
        problem = pointer.download(root, self.folder, self.staging)
        if problem is not None:
            log.info("%s: not available from DVC (%s); trying the next source", self.name, problem)
            self._clear()
            return False
        self._finish(self.staging, self.folder, "dvc", "delete the pointer")
        return True

    def _from_mirror(self) -> bool:
        """Copy the unpacked data set, or a subset of it, from the mirror.

        A link would break when the mirror is unmounted, and an edit here could change the mirror.
        """
        if self.mirror is None or not (paths := scan(self.mirror / self.name, self.entry)):
            return False
        source = self.mirror / self.name
        log.info("%s: copying %d files from %s", self.name, len(paths), source)
        for path in paths:
            target = self.staging / path
            target.parent.mkdir(parents=True, exist_ok=True)
            # Content only: modes of a read-only mirror would make the copy undeletable.
            shutil.copyfile(source / path, target)
        self._finish(self.staging, source, "mirror", "complete or remove it")
        return True

    def _from_repository(self) -> None:
        """Copy a data set that the repository itself holds, for a data folder elsewhere."""
        source = shipped_folder() / "data" / self.name
        if not source.is_dir():
            raise missing_file(self.folder, "restore it from the repository, or link it there")
        shutil.copytree(source, self.staging, copy_function=shutil.copyfile)
        self._finish(self.staging, source, "found", "restore it")

    def _from_archives(self) -> None:
        """Take each archive from where it is first found, then unpack all of them."""
        sha256 = self._unpacked()
        advice = "correct the catalogue's layout"
        self._finish(self.staging, self.folder, "archives", advice, sha256)
        self._clear_downloads()

    def _from_chosen(self, chosen: Chosen) -> None:
        """Take the annotations and each image that they choose from the mirror, or else fetch it.

        What was downloaded stays until the data set is complete, so that a later fetch resumes.
        """
        mirror = (
            None if self.mirror is None else self.mirror / (self.entry.mirrored_as or self.name)
        )
        archives: dict[str, str] = {}
        mirrored = self._copy(mirror, chosen.annotations)
        if not mirrored:
            archives = self._unpacked()
        for name, size in keep_chosen(self.staging / chosen.annotations, chosen.count).items():
            path, origin = f"{chosen.images}/{name}", f"{chosen.url}{name}"
            if not self._copy(mirror, path):
                if not (self.downloads / name).is_file():
                    # No checksum of a single image is published.
                    image = Archive.model_construct(name=name, url=origin, unpack="none")
                    download(image, self.downloads)
                (self.staging / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.downloads / name, self.staging / path)
            try:
                check_image(self.staging / path, size, origin)
            except UserError:
                (self.downloads / name).unlink(missing_ok=True)
                raise
        source: Source = "mirror" if mirrored else "archives"
        self._finish(self.staging, self.folder, source, "correct the catalogue", archives)
        self._clear_downloads()
        for fetched in self.downloads.glob("*"):
            if self.entry.wants(f"{chosen.images}/{fetched.name}"):
                fetched.unlink()

    def _copy(self, mirror: Path | None, path: str) -> bool:
        """Copy one file of the data set from the mirror's folder and check it, if it is there."""
        if mirror is None or not (mirror / path).is_file():
            return False
        target = self.staging / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(mirror / path, target)
        self._check_mirrored(mirror / path, hash_file(target))
        return True

    def _unpacked(self) -> dict[str, str]:
        """Unpack all archives, each from where it is first found; return their SHA-256 by name."""
        archives = self.entry.archives
        if missing := [a.name for a in archives if not a.url and not self._local(a).is_file()]:
            how = self.entry.account.how or f"see {self.entry.homepage}"
            raise UserError(
                f"{self.name}: missing: {', '.join(missing)}; {how}; put the files into "
                f"{self.downloads} or a mirror directory and fetch again"
            )
        sha256 = {archive.name: self._obtain(archive) for archive in archives}
        for archive in archives:
            log.info("%s: unpacking %s", self.name, archive.name)
            unpack(self._local(archive), archive, self.staging, self.entry.wants)
        return sha256

    def _clear_downloads(self) -> None:
        for archive in self.entry.archives:
            if archive.url:
                (self.downloads / archive.name).unlink(missing_ok=True)

    def _local(self, archive: Archive) -> Path:
        """Return where an archive is: in the mirror, else where it is placed or downloaded."""
        mirrored = None if self.mirror is None else self.mirror / archive.name
        return mirrored if mirrored and mirrored.is_file() else self.downloads / archive.name

    def _obtain(self, archive: Archive) -> str:
        """Verify an archive, downloaded if need be, and return its SHA-256."""
        path = self._local(archive)
        if not path.is_file():
            log.info("%s: downloading %s", self.name, archive.url)
            return download(archive, self.downloads).sha256
        hashes = hash_file(path)
        self._check_mirrored(path, hashes)
        if problem := mismatch(hashes, archive):
            raise damaged_file(path, problem, "replace or delete the file")
        return hashes.sha256

    @cached_property
    def _mirrored(self) -> dict[str, str] | None:
        """SHA-256 by path in the mirror, or None if it has no list of them."""
        listed = None if self.mirror is None else self.mirror / "MANIFEST.sha256"
        return read_checksums(listed) if listed and listed.is_file() else None

    def _check_mirrored(self, path: Path, hashes: Hashes) -> None:
        """Check a file of the mirror with the mirror's list, if it has one."""
        if self.mirror is None or not path.is_relative_to(self.mirror) or self._mirrored is None:
            return
        listed = self._mirrored.get(path.relative_to(self.mirror).as_posix())
        if listed != hashes.sha256:
            raise damaged_file(
                path,
                f"checksum mismatch: sha256 {hashes.sha256}, MANIFEST.sha256 has {listed}",
                "replace the file in the mirror, or correct the list",
            )

    def _finish(
        self,
        folder: Path,
        origin: Path,
        source: Source,
        advice: str,
        archives: dict[str, str] | None = None,
    ) -> None:
        """Check everything, write the manifest, then give the folder its name.

        Args:
            folder: holds the data set, under its own or a temporary name.
            origin: the folder to name in errors, which may be the one it was copied from.
            source: for the manifest.
            advice: what to do if the files do not fit the catalogue.
            archives: SHA-256 of the archives that were unpacked.
        """
        paths = scan(folder, self.entry)
        may_be_subset = source == "mirror"
        if problem := layout_problem(self.entry, paths, subset=may_be_subset):
            raise UserError(f"{self.name}: {origin}: {problem}; {advice}")
        subset = layout_problem(self.entry, paths, subset=False) is not None
        listing = measure(folder, paths, self.entry, origin)
        for path, hashes in listing.files.items():
            self._check_mirrored(origin / path, hashes)
        if not subset:
            pointer.check(self.pointer, listing.dvc_md5)
        manifest = Manifest(
            name=self.name,
            version=self.entry.version,
            source=source,
            subset=subset,
            files=len(listing.files),
            bytes=listing.bytes,
            digest=listing.digest,
            dvc_md5=listing.dvc_md5,
            archives=archives or {},
        )
        listing.write(self.listing)
        # Before the rename: a manifest without its folder is dropped by the next fetch, but a
        # folder without its manifest could be a subset.
        manifest.write(self.manifest)
        if folder != self.folder:
            folder.rename(self.folder)
        log.info("%s: %d files in place, digest %s", self.name, manifest.files, manifest.digest)
        self._point(manifest)

    def _point(self, manifest: Manifest) -> None:
        """Write the DVC pointer of a complete data set that was fetched from its source."""
        in_dvc = pointer.repository(self.data_dir) is not None
        if in_dvc and not (self.pointer.exists() or manifest.subset or manifest.source == "found"):
            pointer.write(self.pointer, manifest.dvc_md5, manifest.bytes, manifest.files)
            log.info("%s: wrote %s; add it to Git", self.name, self.pointer)
