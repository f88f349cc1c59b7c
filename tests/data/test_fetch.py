"""Fetching: from an address, a mirror, by hand; resumed after kills; nothing by halves."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from toy_source import Server, Toy

from icmbench.data.fetch import fetch
from icmbench.errors import UserError

ROOT = Path(__file__).parents[2]


def _fails(toy: Toy, *fragments: str, mirror: Path | None = None) -> None:
    """Fetching must fail with one line that holds the fragments, and leave nothing."""
    with pytest.raises(UserError) as caught:
        toy.fetch(mirror)
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message, message
    toy.assert_nothing()


def _asked(toy: Toy, path: str = "/toy.zip") -> list[str | None]:
    return [wanted for name, wanted in toy.server.requests if name == path]


# --- from the address -----------------------------------------------------------------------------


def test_fetch_writes_data_manifest_and_listing(toy: Toy) -> None:
    path = toy.fetch()
    assert path == toy.manifest
    toy.assert_whole()
    lines = [
        f"{hashlib.sha256((toy.folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in sorted(["list.txt", *(f"img/{image}" for image in toy.images)])
    ]
    assert (toy.data_dir / "toy.files.sha256").read_text() == "".join(lines)
    manifest = json.loads(path.read_text())
    assert manifest["digest"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert manifest["source"] == "archives" and manifest["subset"] is False
    assert manifest["files"] == 5
    assert manifest["bytes"] == sum(map(len, toy.images.values())) + len(toy.list)
    assert manifest["archives"]["toy.zip"] == hashlib.sha256(toy.zip).hexdigest()
    assert str(toy.data_dir) not in path.read_text()
    # Archives are deleted once unpacked.
    assert list((toy.data_dir / "downloads" / "toy").iterdir()) == []


def test_fetch_of_present_data_asks_no_server(toy: Toy) -> None:
    toy.fetch()
    before, asked = toy.manifest.stat().st_mtime_ns, len(toy.server.requests)
    toy.server.status = 500
    toy.fetch()
    toy.fetch(verify=True)
    assert len(toy.server.requests) == asked and toy.manifest.stat().st_mtime_ns == before


def test_fetch_retries_an_unreachable_server(toy: Toy) -> None:
    address = "http://127.0.0.1:9"  # the discard port: nothing listens
    toy.entry["archives"][0]["url"] = f"{address}/toy.zip"
    toy.save()
    _fails(toy, f"{address}/toy.zip", "3 tries", "mirror")


def test_fetch_retries_server_errors_only(toy: Toy) -> None:
    toy.server.status = 503
    _fails(toy, "toy.zip", "503", "3 tries")
    assert len(toy.server.requests) == 3
    toy.server.requests.clear()
    toy.server.status = 404
    _fails(toy, "toy.zip", "404")
    assert len(toy.server.requests) == 1


@pytest.mark.parametrize("length", [True, False])
def test_fetch_finds_truncated_downloads(toy: Toy, length: bool) -> None:
    toy.server.ranges, toy.server.length = False, length
    toy.server.cut = [300_000] * 20
    _fails(toy, "toy.zip", "3 tries")
    assert len(toy.server.requests) == 3
    assert not (toy.part.parent / "toy.zip").exists()


def test_fetch_resumes_a_truncated_download(toy: Toy) -> None:
    toy.server.cut = [300_000, 300_000, 300_000]
    toy.fetch()
    toy.assert_whole()
    starts = [int(r[6:-1]) for r in _asked(toy) if r]
    assert len(starts) == 3 and starts == sorted(set(starts)) and starts[0] > 200_000


def test_fetch_resumes_the_part_of_an_earlier_run(toy: Toy) -> None:
    toy.server.cut, toy.server.ranges = [500_000] * 20, False
    _fails(toy, "kept to resume")
    kept = toy.part.stat().st_size
    assert kept > 400_000
    toy.server.cut, toy.server.ranges, toy.server.sent = [], True, 0
    toy.fetch()
    toy.assert_whole()
    assert toy.server.sent == len(toy.zip) - kept + len(toy.list)


@pytest.mark.parametrize("size", [1000, 10_000_000])
def test_fetch_replaces_the_part_of_another_file(toy: Toy, size: int) -> None:
    toy.part.parent.mkdir(parents=True)
    toy.part.write_bytes(b"x" * size)
    toy.fetch()
    toy.assert_whole()
    assert _asked(toy) == [f"bytes={size}-", None]


def test_fetch_refuses_wrong_bytes(toy: Toy) -> None:
    wrong = bytes([toy.zip[0] ^ 1]) + toy.zip[1:]
    toy.server.files["toy.zip"] = wrong
    found, wanted = hashlib.md5(wrong).hexdigest(), hashlib.md5(toy.zip).hexdigest()
    _fails(toy, "/toy.zip", "checksum mismatch", found, wanted)
    assert not toy.part.exists() and not (toy.part.parent / "toy.zip").exists()
    toy.server.files["toy.zip"] = toy.zip
    toy.fetch()
    toy.assert_whole()


def test_fetch_refuses_a_wrong_size_before_the_download(toy: Toy) -> None:
    toy.server.files["toy.zip"] = b"<html>please log in</html>"
    _fails(toy, "size mismatch", "26 bytes", str(len(toy.zip)))


def test_fetch_needs_room_on_the_disk(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(toy.catalogue.parent)._replace(free=10)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    _fails(toy, "free some space")


def test_fetch_refuses_an_archive_that_lacks_a_file(toy: Toy) -> None:
    toy.change_zip({f"top/img/{i}.png": toy.images[f"{i}.png"] for i in range(3)})
    _fails(toy, "3 files img/*.png, expected 4")


def test_fetch_refuses_an_archive_that_leaves_the_folder(toy: Toy) -> None:
    toy.change_zip({"top/img/0.png": b"0", "../../../evil": b"evil"})
    _fails(toy, "toy.zip", "'../../../evil' refused")
    assert not list(toy.catalogue.parent.rglob("evil"))


# --- killed runs ----------------------------------------------------------------------------------


def _start(toy: Toy, before: str = "") -> subprocess.Popen[bytes]:
    code = (
        f"from pathlib import Path\nfrom icmbench.data import fetch as f\n{before}\n"
        f"f.fetch('toy', data_dir=Path({str(toy.data_dir)!r}), mirror=None, "
        f"catalogue=Path({str(toy.catalogue)!r}))"
    )
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)


def _wait_for(condition: Any, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < end
        time.sleep(0.02)


def test_fetch_resumes_a_killed_download(toy: Toy) -> None:
    toy.server.hold = 600_000
    process = _start(toy)
    _wait_for(lambda: toy.part.exists() and toy.part.stat().st_size > 500_000, process)
    process.kill()
    process.wait()
    toy.assert_nothing()
    kept = toy.part.stat().st_size
    toy.server.released.set()
    toy.server.hold, toy.server.sent = None, 0
    toy.fetch()
    toy.assert_whole()
    assert ("/toy.zip", f"bytes={kept}-") in toy.server.requests
    assert toy.server.sent == len(toy.zip) - kept + len(toy.list)


def test_fetch_drops_what_a_kill_left_of_unpacking(toy: Toy) -> None:
    # The second archive's unpacking hangs, when the first is complete in the temporary folder.
    hang = (
        "import time\nreal = f.unpack\n"
        "def slow(path, archive, *rest):\n"
        "    real(path, archive, *rest)\n"
        "    if archive.unpack == 'zip': time.sleep(60)\n"
        "f.unpack = slow"
    )
    process = _start(toy, hang)
    staging = toy.data_dir / ".icmbench" / "toy.staging"
    _wait_for(lambda: (staging / "img" / "3.png").exists(), process)
    process.kill()
    process.wait()
    assert not toy.folder.exists() and not toy.manifest.exists()
    (staging / "img" / "9.png").write_bytes(b"left by the killed run")
    asked = len(toy.server.requests)
    toy.fetch()
    toy.assert_whole()
    assert len(toy.server.requests) == asked  # the verified archives were still there


def test_fetch_completes_a_run_that_ended_before_the_rename(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subset whose manifest is written, but whose folder has no name yet, is fetched again."""
    mirror = tmp_path / "mirror"
    toy.write_unpacked(mirror / "toy", images=2)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            toy.fetch(mirror)
    assert toy.manifest.exists() and not toy.folder.exists()
    assert json.loads(toy.fetch(mirror).read_text())["subset"] is True


# --- from a mirror --------------------------------------------------------------------------------


def test_fetch_takes_an_unpacked_mirror_first(toy: Toy, tmp_path: Path) -> None:
    toy.write_unpacked(tmp_path / "mirror" / "toy")
    (tmp_path / "mirror" / "toy" / "Thumbs.db").write_bytes(b"not part of it")
    mirrored = json.loads(toy.fetch(tmp_path / "mirror").read_text())
    assert mirrored["source"] == "mirror" and mirrored["subset"] is False
    toy.assert_whole()
    assert toy.server.requests == []
    shutil.rmtree(toy.data_dir)
    downloaded = json.loads(toy.fetch().read_text())
    for key in ("digest", "dvc_md5"):
        assert mirrored[key] == downloaded[key]


def test_fetch_copies_from_a_read_only_mirror(toy: Toy, tmp_path: Path) -> None:
    toy.write_unpacked(tmp_path / "mirror" / "toy")
    for path in (tmp_path / "mirror").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    toy.fetch(tmp_path / "mirror")
    toy.assert_whole()
    # The copy can be changed and deleted like any file of the user's.
    assert all(path.stat().st_mode & 0o200 for path in toy.folder.rglob("*"))
    for path in (tmp_path / "mirror").rglob("*"):
        path.chmod(0o755)


def test_fetch_marks_a_subset(toy: Toy, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    toy.write_unpacked(tmp_path / "mirror" / "toy", images=3)
    manifest = json.loads(toy.fetch(tmp_path / "mirror").read_text())
    assert manifest["subset"] is True and manifest["files"] == 4
    toy.fetch()
    assert "subset" in caplog.text


def test_fetch_refuses_a_mirror_of_another_layout(toy: Toy, tmp_path: Path) -> None:
    toy.write_unpacked(tmp_path / "mirror" / "toy")
    extra = tmp_path / "mirror" / "toy" / "img" / "9.png"
    extra.write_bytes(b"9")
    _fails(toy, "mirror/toy", "5 files img/*.png, expected 4", mirror=tmp_path / "mirror")
    extra.unlink()
    (tmp_path / "mirror" / "toy" / "list.txt").unlink()
    _fails(toy, "mirror/toy", "0 files list.txt, expected 1", mirror=tmp_path / "mirror")


def test_fetch_checks_mirrored_files_with_the_catalogue(toy: Toy, tmp_path: Path) -> None:
    toy.write_unpacked(tmp_path / "mirror" / "toy")
    wrong = tmp_path / "mirror" / "toy" / "list.txt"
    wrong.write_bytes(b"0 1 2 4\n")
    _fails(toy, str(wrong), "checksum mismatch", mirror=tmp_path / "mirror")


def test_fetch_checks_mirrored_files_with_the_mirrors_list(toy: Toy, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    toy.write_unpacked(mirror / "toy")
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  ./{path.relative_to(mirror)}\n"
        for path in sorted(mirror.rglob("*.*"))
    ]
    listed = mirror / "MANIFEST.sha256"
    listed.write_text("".join(lines))
    image = mirror / "toy" / "img" / "2.png"
    image.write_bytes(image.read_bytes()[:-1])
    _fails(toy, str(image), "MANIFEST.sha256", mirror=mirror)
    image.write_bytes(toy.images["2.png"])
    listed.write_text("".join(line for line in lines if "2.png" not in line))
    _fails(toy, str(image), "MANIFEST.sha256", mirror=mirror)
    listed.write_text("something else\n")
    _fails(toy, "MANIFEST.sha256: line 1", mirror=mirror)
    listed.write_text("".join(lines))
    toy.fetch(mirror)
    toy.assert_whole()


def test_fetch_takes_archives_from_a_mirror(toy: Toy, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "toy.zip").write_bytes(toy.zip[:-1])
    _fails(toy, str(mirror / "toy.zip"), "size mismatch", mirror=mirror)
    (mirror / "toy.zip").write_bytes(toy.zip)
    toy.fetch(mirror)
    toy.assert_whole()
    assert (mirror / "toy.zip").read_bytes() == toy.zip  # left where it was
    assert {path for path, _ in toy.server.requests} == {"/list.txt"}
    with pytest.raises(UserError, match="nowhere"):
        toy.fetch(tmp_path / "nowhere")


# --- placed by hand -------------------------------------------------------------------------------


def test_fetch_uses_files_placed_by_hand(toy: Toy) -> None:
    del toy.entry["archives"][0]["url"]
    toy.entry["account"] = {"needed": True, "how": "write to the authors"}
    toy.save()
    place = toy.data_dir / "downloads" / "toy"
    _fails(toy, "missing: toy.zip;", "write to the authors", str(place))
    assert toy.server.requests == []
    place.mkdir(parents=True)
    (place / "toy.zip").write_bytes(b"y" * len(toy.zip))
    _fails(toy, str(place / "toy.zip"), "checksum mismatch")
    (place / "toy.zip").write_bytes(toy.zip)
    toy.fetch()
    toy.assert_whole()
    assert [p.name for p in place.iterdir()] == ["toy.zip"]


# --- data that are there already ------------------------------------------------------------------


def test_fetch_adopts_a_complete_folder(toy: Toy, tmp_path: Path) -> None:
    toy.write_unpacked(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "img").rename(tmp_path / "images")
    (tmp_path / "elsewhere" / "img").symlink_to(tmp_path / "images")
    toy.data_dir.mkdir()
    toy.folder.symlink_to(tmp_path / "elsewhere")
    manifest = json.loads(toy.fetch().read_text())
    assert manifest["source"] == "found" and manifest["files"] == 5
    assert toy.server.requests == []


def test_fetch_leaves_an_incomplete_folder_alone(toy: Toy) -> None:
    toy.write_unpacked(toy.folder, images=3)
    with pytest.raises(UserError, match=r"3 files img/\*\.png, expected 4.*move it"):
        toy.fetch()
    assert not toy.manifest.exists() and len(list(toy.folder.rglob("*.png"))) == 3


def test_fetch_accepts_a_whole_set_that_replaces_a_subset(toy: Toy, tmp_path: Path) -> None:
    toy.write_unpacked(tmp_path / "mirror" / "toy", images=2)
    toy.write_unpacked(tmp_path / "elsewhere")
    toy.fetch(tmp_path / "mirror")
    shutil.rmtree(toy.folder)
    toy.folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="2 unexpected files") as caught:
        toy.fetch()
    # The error names the file to delete, and doing so helps.
    assert toy.manifest.name in str(caught.value)
    toy.manifest.unlink()
    manifest = json.loads(toy.fetch().read_text())
    assert manifest["source"] == "found" and manifest["subset"] is False


def test_nobody_is_told_to_delete_images_of_their_own(toy: Toy) -> None:
    toy.write_unpacked(toy.folder)
    toy.fetch()
    (toy.folder / "img" / "1.png").unlink()
    with pytest.raises(UserError, match=r"img/1\.png") as own:
        toy.fetch()
    shutil.rmtree(toy.folder)
    toy.fetch()
    (toy.folder / "img" / "1.png").unlink()
    with pytest.raises(UserError, match=r"img/1\.png") as fetched:
        toy.fetch()
    assert str(fetched.value).startswith(str(own.value)) and own.value.args != fetched.value.args


def test_fetch_finds_missing_changed_and_extra_files(toy: Toy) -> None:
    toy.fetch()
    image = toy.folder / "img" / "1.png"
    good = image.read_bytes()
    image.unlink()
    with pytest.raises(UserError, match=r"1 of 5 files are missing, first img/1\.png"):
        toy.fetch()
    image.write_bytes(good[:-1])
    with pytest.raises(UserError, match="size mismatch"):
        toy.fetch()
    image.write_bytes(good)
    (toy.folder / "img" / "extra.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"1 unexpected files, first img/extra\.png"):
        toy.fetch()
    (toy.folder / "img" / "extra.png").unlink()
    image.write_bytes(good[:-1] + b"?")
    toy.fetch()  # same names, same sizes: only reading the files shows it
    with pytest.raises(UserError, match=r"checksum mismatch: img/1\.png"):
        toy.fetch(verify=True)


def test_fetch_finds_changed_lists_manifests_and_versions(toy: Toy) -> None:
    toy.fetch()
    toy.entry["version"] = "2"
    toy.save()
    with pytest.raises(UserError, match="version '1', expected '2'"):
        toy.fetch()
    toy.entry["version"] = "1"
    toy.save()
    listing = toy.data_dir / "toy.files.sha256"
    listing.write_text(listing.read_text().replace("0.png", "7.png"))
    with pytest.raises(UserError, match=r"toy\.files\.sha256 does not fit"):
        toy.fetch()
    toy.manifest.write_text("{}")
    with pytest.raises(UserError, match=r"toy\.manifest\.json: ") as caught:
        toy.fetch()
    assert "\n" not in str(caught.value)


def test_fetch_removes_the_manifest_of_data_that_are_gone(toy: Toy) -> None:
    toy.fetch()
    shutil.rmtree(toy.folder)
    toy.server.status = 503
    _fails(toy, "503")


def test_fetches_at_once_download_once(toy: Toy) -> None:
    results: list[Path] = []
    threads = [threading.Thread(target=lambda: results.append(toy.fetch())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [toy.manifest] * 3
    toy.assert_whole()
    assert [path for path, _ in toy.server.requests] == ["/toy.zip", "/list.txt"]


def test_fetch_waits_for_another_process(toy: Toy) -> None:
    toy.server.hold = 600_000
    process = _start(toy)
    _wait_for(lambda: toy.part.exists() and toy.part.stat().st_size > 500_000, process)
    second = _start(toy)
    time.sleep(1.5)
    assert second.poll() is None
    assert len(_asked(toy)) == 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    toy.server.hold = None
    toy.server.released.set()
    assert second.wait(60) == 0, second.communicate()[1]
    toy.assert_whole()


def test_fetch_imports_no_networks() -> None:
    code = "import sys, icmbench.data.fetch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- the real data --------------------------------------------------------------------------------


@pytest.mark.mirror
@pytest.mark.parametrize(("name", "subset"), [("kodak", False), ("coco2017", True)])
def test_fetch_from_the_real_mirror(tmp_path: Path, name: str, subset: bool) -> None:
    mirror = os.environ.get("ICMBENCH_MIRROR")
    if not mirror:
        pytest.skip("ICMBENCH_MIRROR does not name a directory with real data")
    # With the committed pointers beside it: Kodak must be the data that DVC points to.
    for pointer in (ROOT / "data").glob("*.dvc"):
        shutil.copy(pointer, tmp_path)
    catalogue = ROOT / "data" / "catalogue.yaml"
    path = fetch(name, data_dir=tmp_path, mirror=Path(mirror), catalogue=catalogue)
    manifest = json.loads(path.read_text())
    assert manifest["subset"] is subset
    fetch(name, data_dir=tmp_path, mirror=None, catalogue=catalogue, verify=True)
    if name == "kodak":
        assert manifest["files"] == 24 and manifest["bytes"] == 15_394_305


def test_toy_server_misbehaves_as_asked(server: Server) -> None:
    """The tests above mean something only if the server does what they ask."""
    import requests

    server.files["a"] = b"0123456789"
    server.cut = [4]
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(f"{server.address}/a", timeout=5)
    answer = requests.get(f"{server.address}/a", timeout=5, headers={"Range": "bytes=4-"})
    assert (answer.status_code, answer.content) == (206, b"456789")
    server.ranges = False
    answer = requests.get(f"{server.address}/a", timeout=5, headers={"Range": "bytes=4-"})
    assert (answer.status_code, answer.content) == (200, b"0123456789")
