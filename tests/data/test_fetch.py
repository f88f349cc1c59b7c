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

import pytest
from toy_source import QUICK, Server, Toy, zip_bytes

from icmbench.data import fetch as fetching
from icmbench.data.fetch import fetch, verify
from icmbench.errors import UserError

ROOT = Path(__file__).parents[2]


def _fails(toy: Toy, *fragments: str, mirror: Path | None = None) -> str:
    """Fetching must fail with one line that holds the fragments, and leave nothing."""
    with pytest.raises(UserError) as caught:
        toy.fetch(mirror)
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message, message
    toy.assert_nothing()
    return message


# --- from the address -----------------------------------------------------------------------------


def test_fetch_from_the_address(toy: Toy) -> None:
    path = toy.fetch()
    assert path == toy.manifest
    toy.assert_whole()
    manifest = json.loads(path.read_text())
    lines = [
        f"{hashlib.sha256((toy.folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in sorted(["list.txt", *(f"img/{image}" for image in toy.images)])
    ]
    assert (toy.data_dir / "toy.files.sha256").read_text() == "".join(lines)
    assert manifest["digest"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert manifest["source"] == "address" and manifest["subset"] is False
    assert manifest["counts"] == {"img/*.png": 4, "list.txt": 1} and manifest["files"] == 5
    assert manifest["bytes"] == sum(map(len, toy.images.values())) + len(toy.list)
    assert manifest["archives"][0]["sha256"] == hashlib.sha256(toy.zip).hexdigest()
    assert str(toy.data_dir) not in path.read_text()
    # The archives are not kept beside their content.
    assert list((toy.data_dir / "downloads" / "toy").iterdir()) == []


def test_a_second_fetch_asks_nobody_and_changes_nothing(toy: Toy) -> None:
    toy.fetch()
    before, asked = toy.manifest.stat().st_mtime_ns, len(toy.server.requests)
    toy.server.status = 500
    toy.fetch()
    toy.fetch(verify=True)
    assert len(toy.server.requests) == asked and toy.manifest.stat().st_mtime_ns == before


def test_nobody_there(toy: Toy) -> None:
    address = "http://127.0.0.1:9"  # the discard port: nothing listens
    toy.entry["archives"][0]["url"] = f"{address}/toy.zip"
    toy.save()
    _fails(toy, "toy: ", f"{address}/toy.zip", "unreachable", "3 tries", "mirror")


def test_not_found_is_not_tried_again(toy: Toy) -> None:
    del toy.server.files["toy.zip"]
    _fails(toy, "toy.zip answered HTTP status 404")
    assert len(toy.server.requests) == 1


def test_server_errors_are_tried_again(toy: Toy) -> None:
    toy.server.status = 503
    _fails(toy, "HTTP status 503", "3 tries")
    assert len(toy.server.requests) == 3


def test_always_truncated_without_ranges(toy: Toy) -> None:
    toy.server.ranges = False
    toy.server.cut = [300_000] * 20
    _fails(toy, "truncated", f"of {len(toy.zip)} bytes", "toy.zip")
    assert len(toy.server.requests) == 3
    assert not (toy.part.parent / "toy.zip").exists()


def test_truncated_and_the_server_does_not_say_how_long(toy: Toy) -> None:
    toy.server.ranges, toy.server.length = False, False
    toy.server.cut = [300_000] * 20
    _fails(toy, f"truncated: 300000 of {len(toy.zip)} bytes", "will be continued")


def test_a_truncated_download_is_continued(toy: Toy) -> None:
    toy.server.cut = [300_000, 300_000, 300_000]
    toy.fetch()
    toy.assert_whole()
    starts = [int(r[6:-1]) for path, r in toy.server.requests if path == "/toy.zip" and r]
    assert len(starts) == 3 and starts == sorted(set(starts)) and starts[0] > 200_000


def test_a_later_run_continues_what_an_earlier_one_kept(toy: Toy) -> None:
    toy.server.cut, toy.server.ranges = [500_000] * 20, False
    _fails(toy, "will be continued")
    kept = toy.part.stat().st_size
    assert kept > 400_000
    toy.server.cut, toy.server.ranges, toy.server.sent = [], True, 0
    toy.fetch()
    toy.assert_whole()
    assert toy.server.sent == len(toy.zip) - kept + len(toy.list)


def test_a_changed_file_is_not_glued_to_the_old_part(toy: Toy) -> None:
    toy.part.parent.mkdir(parents=True)
    toy.part.write_bytes(b"x" * 1000)
    state = {"url": toy.entry["archives"][0]["url"], "validator": '"another"'}
    toy.part.with_name(toy.part.name + ".json").write_text(json.dumps(state))
    toy.fetch()
    toy.assert_whole()
    asked = [wanted for path, wanted in toy.server.requests if path == "/toy.zip"]
    assert asked == ["bytes=1000-"]  # answered with the whole file


def test_a_part_that_proves_wrong_is_downloaded_afresh(toy: Toy) -> None:
    toy.server.etag = False
    toy.part.parent.mkdir(parents=True)
    toy.part.write_bytes(b"x" * 1000)
    state = {"url": toy.entry["archives"][0]["url"], "validator": None}
    toy.part.with_name(toy.part.name + ".json").write_text(json.dumps(state))
    toy.fetch()
    toy.assert_whole()
    asked = [wanted for path, wanted in toy.server.requests if path == "/toy.zip"]
    assert asked == ["bytes=1000-", None]


def test_wrong_bytes(toy: Toy) -> None:
    wrong = bytes([toy.zip[0] ^ 1]) + toy.zip[1:]
    toy.server.files["toy.zip"] = wrong
    found, wanted = hashlib.md5(wrong).hexdigest(), hashlib.md5(toy.zip).hexdigest()
    _fails(toy, "/toy.zip", f"has md5 {found}", f"says {wanted}")
    assert not toy.part.exists() and not (toy.part.parent / "toy.zip").exists()
    toy.server.files["toy.zip"] = toy.zip
    toy.fetch()
    toy.assert_whole()


def test_a_wrong_size_is_noticed_before_the_download(toy: Toy) -> None:
    toy.server.files["toy.zip"] = b"<html>please log in</html>"
    _fails(toy, "offers 26 bytes", f"says {len(toy.zip)}")


def test_an_unknown_checksum_is_recorded_and_said(
    toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    del toy.entry["archives"][0]["md5"]
    toy.save()
    manifest = json.loads(toy.fetch().read_text())
    sha256 = hashlib.sha256(toy.zip).hexdigest()
    assert manifest["archives"][0]["sha256"] == sha256
    assert f"no checksum is known; recorded sha256 {sha256}" in capsys.readouterr().err


def test_no_room_on_the_disk(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(toy.catalogue.parent)._replace(free=10)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    _fails(toy, "are free: make room")


def test_an_archive_that_lacks_a_file(toy: Toy) -> None:
    toy.zip = zip_bytes({f"top/img/{i}.png": toy.images[f"{i}.png"] for i in range(3)})
    toy.server.files["toy.zip"] = toy.zip
    toy.entry["archives"][0] |= {"md5": hashlib.md5(toy.zip).hexdigest(), "bytes": len(toy.zip)}
    toy.save()
    _fails(toy, "3 files img/*.png, expected 4")


def test_an_archive_that_leaves_the_folder(toy: Toy) -> None:
    toy.zip = zip_bytes({"top/img/0.png": b"0", "../../../evil": b"evil"})
    toy.server.files["toy.zip"] = toy.zip
    toy.entry["archives"][0] |= {"md5": hashlib.md5(toy.zip).hexdigest(), "bytes": len(toy.zip)}
    toy.save()
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


def _wait_for(condition: object, process: subprocess.Popen[bytes]) -> None:
    assert callable(condition)
    end = time.monotonic() + 30
    while not condition():
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_killed_download_resumes(toy: Toy) -> None:
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


def test_killed_in_the_middle_of_unpacking(toy: Toy) -> None:
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
    (staging / "img" / "9.png").write_bytes(b"rubbish of the killed run")
    asked = len(toy.server.requests)
    toy.fetch()
    toy.assert_whole()
    assert len(toy.server.requests) == asked  # the verified archives were still there


def test_an_interrupt_leaves_nothing(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fetching, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        toy.fetch()
    toy.assert_nothing()


def test_a_crash_between_rename_and_manifest(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder has its name, the manifest is missing: a subset must not pass for the whole."""
    mirror = tmp_path / "mirror"
    toy.write_unpacked(mirror / "toy", images=2)
    real = fetching.write_manifest

    def crash(path: Path, manifest: fetching.Manifest) -> None:
        if path == toy.manifest:
            raise KeyboardInterrupt
        real(path, manifest)

    monkeypatch.setattr(fetching, "write_manifest", crash)
    with pytest.raises(KeyboardInterrupt):
        toy.fetch(mirror)
    assert toy.folder.exists() and not toy.manifest.exists()
    monkeypatch.undo()
    assert json.loads(toy.fetch().read_text())["subset"] is True


# --- from a mirror --------------------------------------------------------------------------------


def test_an_unpacked_mirror_comes_first(toy: Toy, tmp_path: Path) -> None:
    toy.write_unpacked(tmp_path / "mirror" / "toy")
    (tmp_path / "mirror" / "toy" / "Thumbs.db").write_bytes(b"not part of it")
    manifest = json.loads(toy.fetch(tmp_path / "mirror").read_text())
    assert manifest["source"] == "mirror" and manifest["subset"] is False
    toy.assert_whole()
    assert toy.server.requests == []


def test_mirror_and_address_give_the_same_digest(toy: Toy, tmp_path: Path) -> None:
    toy.write_unpacked(tmp_path / "mirror" / "toy")
    first = json.loads(toy.fetch(tmp_path / "mirror").read_text())
    shutil.rmtree(toy.data_dir)
    second = json.loads(toy.fetch().read_text())
    assert (first["digest"], first["dvc_md5"]) == (second["digest"], second["dvc_md5"])


def test_a_read_only_mirror(toy: Toy, tmp_path: Path) -> None:
    toy.write_unpacked(tmp_path / "mirror" / "toy")
    for path in (tmp_path / "mirror").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    toy.fetch(tmp_path / "mirror")
    toy.assert_whole()
    # The copy can be changed and deleted like any file of the user's.
    assert all(path.stat().st_mode & 0o200 for path in toy.folder.rglob("*"))
    for path in (tmp_path / "mirror").rglob("*"):
        path.chmod(0o755)


def test_a_subset_is_marked(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy.write_unpacked(tmp_path / "mirror" / "toy", images=3)
    manifest = json.loads(toy.fetch(tmp_path / "mirror").read_text())
    assert manifest["subset"] is True and manifest["counts"] == {"img/*.png": 3, "list.txt": 1}
    toy.fetch()
    assert "a subset (3 img/*.png, 1 list.txt)" in capsys.readouterr().err


def test_a_mirror_that_lacks_a_kind_of_file(toy: Toy, tmp_path: Path) -> None:
    toy.write_unpacked(tmp_path / "mirror" / "toy")
    (tmp_path / "mirror" / "toy" / "list.txt").unlink()
    _fails(toy, "0 files list.txt, expected 1", mirror=tmp_path / "mirror")


def test_a_mirror_with_too_many_files(toy: Toy, tmp_path: Path) -> None:
    toy.write_unpacked(tmp_path / "mirror" / "toy")
    (tmp_path / "mirror" / "toy" / "img" / "9.png").write_bytes(b"9")
    _fails(toy, "5 files img/*.png, expected 4", mirror=tmp_path / "mirror")


def test_a_mirror_file_is_checked_against_the_catalogue(toy: Toy, tmp_path: Path) -> None:
    toy.write_unpacked(tmp_path / "mirror" / "toy")
    wrong = tmp_path / "mirror" / "toy" / "list.txt"
    wrong.write_bytes(b"0 1 2 4\n")
    _fails(toy, str(wrong), "has sha256", "the catalogue says", mirror=tmp_path / "mirror")


def _list_mirror(mirror: Path) -> Path:
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  ./{path.relative_to(mirror)}\n"
        for path in sorted(mirror.rglob("*"))
        if path.is_file()
    ]
    (mirror / "MANIFEST.sha256").write_text("".join(lines))
    return mirror / "MANIFEST.sha256"


def test_a_mirror_with_checksums(toy: Toy, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    toy.write_unpacked(mirror / "toy")
    listed = _list_mirror(mirror)
    image = mirror / "toy" / "img" / "2.png"
    image.write_bytes(image.read_bytes()[:-1])
    _fails(toy, str(image), "MANIFEST.sha256 of the mirror says", mirror=mirror)
    image.write_bytes(toy.images["2.png"])
    text = listed.read_text()
    listed.write_text("".join(line for line in text.splitlines(True) if "2.png" not in line))
    _fails(toy, str(image), "not listed in MANIFEST.sha256", mirror=mirror)
    listed.write_text("what is this\n")
    _fails(toy, "MANIFEST.sha256: line 1: 'what is this'", mirror=mirror)
    listed.write_text(text)
    toy.fetch(mirror)
    toy.assert_whole()


def test_archives_in_a_mirror(toy: Toy, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "toy.zip").write_bytes(toy.zip)
    manifest = json.loads(toy.fetch(mirror).read_text())
    toy.assert_whole()
    assert {a["name"]: a["source"] for a in manifest["archives"]} == {
        "toy.zip": "mirror",
        "list.txt": "address",
    }
    assert (mirror / "toy.zip").read_bytes() == toy.zip  # left where it was
    assert {path for path, _ in toy.server.requests} == {"/list.txt"}


def test_a_wrong_archive_in_a_mirror(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "toy.zip").write_bytes(toy.zip[:-1])
    _fails(toy, "toy.zip", f"has {len(toy.zip) - 1} bytes", mirror=tmp_path)


def test_a_mirror_that_does_not_exist(toy: Toy, tmp_path: Path) -> None:
    _fails(toy, "none", "no such mirror directory", mirror=tmp_path / "none")


# --- placed by hand -------------------------------------------------------------------------------


def _by_hand(toy: Toy) -> Path:
    del toy.entry["archives"][0]["url"]
    toy.entry["account"] = {"needed": True, "how": "write to the authors"}
    toy.save()
    return toy.data_dir / "downloads" / "toy"


def test_a_missing_file_is_named_with_its_place(toy: Toy) -> None:
    place = _by_hand(toy)
    _fails(toy, "missing: toy.zip;", "write to the authors", str(place))
    assert toy.server.requests == []


def test_a_placed_file_is_used_and_kept(toy: Toy) -> None:
    place = _by_hand(toy)
    place.mkdir(parents=True)
    (place / "toy.zip").write_bytes(toy.zip)
    manifest = json.loads(toy.fetch().read_text())
    toy.assert_whole()
    assert [a["source"] for a in manifest["archives"]] == ["placed", "address"]
    assert [p.name for p in place.iterdir()] == ["toy.zip"]


def test_a_wrong_placed_file(toy: Toy) -> None:
    place = _by_hand(toy)
    place.mkdir(parents=True)
    (place / "toy.zip").write_bytes(b"y" * len(toy.zip))
    _fails(toy, str(place / "toy.zip"), "has md5", "replace or delete")


# --- what is there already ------------------------------------------------------------------------


def test_snakemake_deletes_the_outputs_and_nothing_is_fetched_again(toy: Toy) -> None:
    text = toy.fetch().read_text()
    asked = len(toy.server.requests)
    toy.manifest.unlink()
    (toy.data_dir / "toy.files.sha256").unlink()
    assert toy.fetch().read_text() == text
    assert (toy.data_dir / "toy.files.sha256").exists()
    assert len(toy.server.requests) == asked


def test_a_linked_complete_folder_is_adopted(toy: Toy, tmp_path: Path) -> None:
    toy.write_unpacked(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "img").rename(tmp_path / "images")
    (tmp_path / "elsewhere" / "img").symlink_to(tmp_path / "images")
    toy.data_dir.mkdir()
    toy.folder.symlink_to(tmp_path / "elsewhere")
    manifest = json.loads(toy.fetch().read_text())
    assert manifest["source"] == "found" and manifest["files"] == 5
    assert toy.server.requests == []


def test_a_whole_set_linked_in_place_of_a_subset(toy: Toy, tmp_path: Path) -> None:
    toy.write_unpacked(tmp_path / "mirror" / "toy", images=2)
    toy.write_unpacked(tmp_path / "elsewhere")
    toy.fetch(tmp_path / "mirror")
    shutil.rmtree(toy.folder)
    toy.folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="2 files too many") as caught:
        toy.fetch()
    # The error names what to delete, and doing so helps.
    kept = toy.data_dir / ".icmbench" / "toy.manifest.json"
    for path in (toy.manifest, kept):
        assert str(path) in str(caught.value)
        path.unlink()
    manifest = json.loads(toy.fetch().read_text())
    assert manifest["source"] == "found" and manifest["subset"] is False


def test_an_incomplete_folder_is_neither_adopted_nor_overwritten(toy: Toy) -> None:
    toy.write_unpacked(toy.folder, images=3)
    with pytest.raises(UserError, match=r"incomplete .*3 files img/\*\.png, expected 4.*move it"):
        toy.fetch()
    assert not toy.manifest.exists() and len(list(toy.folder.rglob("*.png"))) == 3


@pytest.mark.parametrize("full", [False, True])
def test_damage_is_found(toy: Toy, full: bool) -> None:
    toy.fetch()
    image = toy.folder / "img" / "1.png"
    good = image.read_bytes()

    def check() -> None:
        verify("toy", data_dir=toy.data_dir, catalogue=toy.catalogue, full=full)

    check()
    image.unlink()
    with pytest.raises(UserError, match=r"lacks 1 of 5 files, first img/1\.png: delete"):
        check()
    with pytest.raises(UserError, match="lacks 1 of 5"):
        toy.fetch()
    image.write_bytes(good[:-1])
    with pytest.raises(UserError, match=r"has \d+ bytes instead of \d+"):
        check()
    image.write_bytes(good)
    (toy.folder / "img" / "extra.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"1 files too many, first img/extra\.png"):
        check()
    (toy.folder / "img" / "extra.png").unlink()
    image.write_bytes(good[:-1] + b"?")
    if full:  # same names, same sizes: only reading the files tells
        with pytest.raises(UserError, match=r"another img/1\.png: sha256"):
            check()
        with pytest.raises(UserError, match=r"another img/1\.png"):
            toy.fetch(verify=True)
    else:
        check()


def test_an_altered_listing_or_manifest_is_found(toy: Toy) -> None:
    toy.fetch()
    listing = toy.data_dir / "toy.files.sha256"
    listing.write_text(listing.read_text().replace("0.png", "7.png"))
    with pytest.raises(UserError, match="does not fit its manifest"):
        toy.fetch()
    toy.manifest.write_text("{}")
    with pytest.raises(UserError, match=r"toy\.manifest\.json: name: .*delete the file") as caught:
        toy.fetch()
    assert "\n" not in str(caught.value)


def test_a_new_version_in_the_catalogue_is_noticed(toy: Toy) -> None:
    toy.fetch()
    toy.entry["version"] = "2"
    toy.save()
    with pytest.raises(UserError, match="is version '1', the catalogue says '2': delete"):
        toy.fetch()
    toy.entry["version"] = "1"
    toy.entry["archives"][0]["md5"] = "0" * 32
    toy.save()
    with pytest.raises(UserError, match=r"made from another toy\.zip"):
        toy.fetch()


def test_verify_without_a_data_set(toy: Toy) -> None:
    with pytest.raises(UserError, match="fetch the data set first"):
        verify("toy", data_dir=toy.data_dir, catalogue=toy.catalogue)


def test_a_manifest_does_not_outlive_its_data(toy: Toy) -> None:
    toy.fetch()
    shutil.rmtree(toy.folder)
    toy.server.status = 503
    _fails(toy, "503")


def test_system_errors_are_one_line(toy: Toy) -> None:
    toy.data_dir.write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"toy: .*check the permissions"):
        toy.fetch()


def test_two_at_once_download_once(toy: Toy) -> None:
    results: list[Path] = []
    threads = [threading.Thread(target=lambda: results.append(toy.fetch())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [toy.manifest] * 3
    toy.assert_whole()
    assert [path for path, _ in toy.server.requests] == ["/toy.zip", "/list.txt"]


def test_another_process_is_waited_for(toy: Toy) -> None:
    toy.server.hold = 600_000
    process = _start(toy)
    _wait_for(lambda: toy.part.exists() and toy.part.stat().st_size > 500_000, process)
    second = _start(toy)
    time.sleep(1.5)
    assert second.poll() is None
    assert [path for path, _ in toy.server.requests] == ["/toy.zip"]
    process.send_signal(signal.SIGKILL)
    process.wait()
    toy.server.hold = None
    toy.server.released.set()
    assert second.wait(30) == 0, second.communicate()[1]
    toy.assert_whole()


def test_fetching_needs_no_networks_library() -> None:
    code = "import sys, icmbench.data.fetch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- the real data --------------------------------------------------------------------------------


@pytest.mark.mirror
@pytest.mark.parametrize(("name", "subset"), [("kodak", False), ("coco2017", True)])
def test_the_real_mirror(tmp_path: Path, name: str, subset: bool) -> None:
    mirror = os.environ.get("ICMBENCH_MIRROR")
    if not mirror:
        pytest.skip("ICMBENCH_MIRROR does not name a directory with real data")
    # With the committed pointers beside it: Kodak must be the data that DVC points to.
    for pointer in (ROOT / "data").glob("*.dvc"):
        shutil.copy(pointer, tmp_path)
    catalogue = ROOT / "data" / "catalogue.yaml"
    path = fetch(name, data_dir=tmp_path, mirror=Path(mirror), catalogue=catalogue, policy=QUICK)
    manifest = json.loads(path.read_text())
    assert manifest["subset"] is subset
    assert verify(name, data_dir=tmp_path, catalogue=catalogue).digest == manifest["digest"]
    if name == "kodak":
        assert manifest["files"] == 24 and manifest["bytes"] == 15_394_305


def test_the_server_can_misbehave(server: Server) -> None:
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
