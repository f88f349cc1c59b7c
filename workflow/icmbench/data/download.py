"""Download of one file: resumable, retried, verified before it gets its name."""

from __future__ import annotations

import errno
import shutil
import sys
import time
from pathlib import Path
from typing import NamedTuple

import requests

from icmbench.data.catalogue import Archive, human_bytes
from icmbench.data.checksums import Hashes, hash_file, mismatch
from icmbench.errors import UserError
from icmbench.utils.files import read_json, write_json

_CHUNK = 1 << 16  # what a broken connection can lose


class Policy(NamedTuple):
    """How long to insist: ``tries`` in a row without progress; times in seconds."""

    tries: int = 5
    backoff_s: float = 2.0
    timeout_s: float = 30.0
    progress_s: float = 10.0


DEFAULT_POLICY = Policy()


class _Interrupted(Exception):
    """The transfer stopped for a reason that may pass; its message says which."""


def note(message: str) -> None:
    """Tell the user something on stderr."""
    print(message, file=sys.stderr, flush=True)


def download(label: str, archive: Archive, folder: Path, policy: Policy) -> Hashes:
    """Bring ``archive.url`` to ``folder/archive.name`` and return its size and checksums.

    Bytes go to ``<name>.part``, which a later call continues if the server offers the same file
    (HTTP Range with If-Range); the name is given once size and checksum agree with the catalogue.
    Raises ``UserError`` with ``label`` (the data set) and the address: unreachable, truncated,
    another size, another checksum, disk full. A truncated part is kept, a wrong one deleted.
    """
    if archive.url is None:
        raise ValueError(f"{archive.name} has no address")
    part = folder / f"{archive.name}.part"
    folder.mkdir(parents=True, exist_ok=True)
    resumed = part.exists()
    with requests.Session() as session:
        while True:
            _insist(session, label, archive, part, policy)
            hashes = hash_file(part)
            problem = mismatch(hashes, archive)
            if problem is None:
                break
            _forget(part)
            if not resumed:
                raise UserError(
                    f"{label}: {archive.url}: the file {problem}: the source has changed or is "
                    "damaged; try again later, or use a mirror directory"
                )
            # The old part may have been of another file: once more, from its first byte.
            note(f"{label}: {archive.name}: the resumed file {problem}; downloading it afresh")
            resumed = False
    if not archive.verifiable:
        note(f"{label}: {archive.name}: no checksum is known; recorded sha256 {hashes.sha256}")
    part.replace(folder / archive.name)
    _forget(part)
    return hashes


def _insist(
    session: requests.Session, label: str, archive: Archive, part: Path, policy: Policy
) -> None:
    """Transfer until the part is complete; give up after ``tries`` that end at the same byte."""
    furthest, failures = _size(part), 0
    while True:
        try:
            _transfer(session, label, archive, part, policy)
            return
        except (_Interrupted, requests.RequestException) as error:
            reason = str(error) if isinstance(error, _Interrupted) else _plain(error)
        have = _size(part)
        if have > furthest:
            furthest, failures = have, 0
        failures += 1
        if failures >= policy.tries:
            kept = f"; {human_bytes(have)} are kept and will be continued" if have else ""
            raise UserError(
                f"{label}: cannot get {archive.url} ({reason}; {failures} tries){kept}: check the "
                f"network and try again, or put {archive.name} into a mirror directory"
            )
        wait = policy.backoff_s * 2 ** (failures - 1)
        note(f"{label}: {archive.name}: {reason}; next try in {wait:.0f} s")
        time.sleep(wait)


def _plain(error: requests.RequestException) -> str:
    """Return the cause of a network error without the library's wrapping."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "the secure connection failed"
    if isinstance(error, requests.ConnectionError):
        return "unreachable"
    return type(error).__name__


def _transfer(
    session: requests.Session, label: str, archive: Archive, part: Path, policy: Policy
) -> None:
    assert archive.url is not None  # checked by download()
    have = _resumable(part, archive)
    if archive.bytes is not None and have == archive.bytes:
        return
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator := _state(part).get("validator"):
            headers["If-Range"] = validator
    with session.get(archive.url, headers=headers, stream=True, timeout=policy.timeout_s) as answer:
        status = answer.status_code
        if status == 416:
            if answer.headers.get("Content-Range", "") == f"bytes */{have}":
                return
            _forget(part)
            raise _Interrupted("the server does not continue from what is here; starting afresh")
        if status == 429 or status >= 500:
            raise _Interrupted(f"HTTP status {status}")
        if status not in (200, 206):
            raise UserError(
                f"{label}: {archive.url} answered HTTP status {status}: the address may have moved;"
                f" put {archive.name} into a mirror directory or correct the catalogue"
            )
        length = answer.headers.get("Content-Length")
        if status == 206:
            start, total = _content_range(answer.headers.get("Content-Range", ""))
            if start != have:
                _forget(part)
                raise _Interrupted("the server sent another range than asked for")
            note(f"{label}: {archive.name}: continuing after {human_bytes(have)}")
        else:
            have, total = 0, int(length) if length else None
        if None not in (total, archive.bytes) and total != archive.bytes:
            raise UserError(
                f"{label}: {archive.url} offers {total} bytes, the catalogue says {archive.bytes}: "
                f"the source has changed; put {archive.name} into a mirror directory"
            )
        _save_state(part, archive.url, answer)
        expected = archive.bytes if total is None else total
        _check_space(label, part, (expected or 0) - have)
        have = _receive(answer, label, archive, part, have, expected, policy)
    if expected is not None and have < expected:
        raise _Interrupted(f"truncated: {have} of {expected} bytes")


def _receive(
    answer: requests.Response,
    label: str,
    archive: Archive,
    part: Path,
    have: int,
    expected: int | None,
    policy: Policy,
) -> int:
    """Append (or, from byte 0, write) the answer's body; return the size of the part."""
    begin, last, first = time.monotonic(), time.monotonic(), have
    with part.open("ab" if have else "wb") as output:
        try:
            for chunk in answer.iter_content(_CHUNK):
                output.write(chunk)
                have += len(chunk)
                now = time.monotonic()
                if now - last >= policy.progress_s:
                    last = now
                    speed = human_bytes((have - first) / (now - begin))
                    of = f" of {human_bytes(expected)}" if expected else ""
                    note(f"{label}: {archive.name}: {human_bytes(have)}{of}, {speed}/s")
        except requests.RequestException:
            of = str(expected) if expected else "an unknown number of"
            raise _Interrupted(f"truncated: {have} of {of} bytes") from None
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise UserError(
                f"{label}: {part.parent}: no space left: make room and fetch again"
            ) from None
    return have


def _content_range(value: str) -> tuple[int | None, int | None]:
    """Return start and total of ``bytes start-end/total``."""
    unit, _, rest = value.partition(" ")
    span, _, total = rest.partition("/")
    start = span.partition("-")[0]
    if unit != "bytes" or not start.isdigit():
        return None, None
    return int(start), int(total) if total.isdigit() else None


def _check_space(label: str, part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise UserError(
            f"{label}: {part.parent}: {human_bytes(needed)} are still to come, {human_bytes(free)} "
            "are free: make room or choose another data folder"
        )


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _state_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _state(part: Path) -> dict[str, str | None]:
    try:
        state = read_json(_state_path(part))
    except (FileNotFoundError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _save_state(part: Path, url: str, answer: requests.Response) -> None:
    etag = answer.headers.get("ETag", "")
    # If-Range takes no weak ETag.
    validator = answer.headers.get("Last-Modified") if not etag or etag.startswith("W/") else etag
    write_json(_state_path(part), {"url": url, "validator": validator})


def _resumable(part: Path, archive: Archive) -> int:
    """Return how many bytes can be kept: of the same address, and verifiable in some way."""
    state = _state(part)
    if state.get("url") == archive.url and (state.get("validator") or archive.verifiable):
        return _size(part)
    _forget(part)
    return 0


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state_path(part).unlink(missing_ok=True)
