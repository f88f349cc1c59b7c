"""Damaged files give one line that names them; none is read as something else where that shows.

Files from outside (images, annotations, archives, configuration, weights) may be anything. Our own
files may have flipped bits; their containers or the digests next to them reveal it.
"""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from icmbench.config.load import load_run, load_scale, load_study
from icmbench.config.scale import Scale
from icmbench.config.summary import read_summary
from icmbench.data.archives import unpack
from icmbench.data.catalogue import Archive, load_catalogue
from icmbench.data.images import ImageFiles
from icmbench.data.manifest import read_checksums
from icmbench.data.pointer import read_md5
from icmbench.data.readers.coco import read_annotations
from icmbench.data.readers.faces import CelebA
from icmbench.data.readers.voc import coco_annotations
from icmbench.errors import UserError
from icmbench.evaluate.statistics import MeanStatistics, load_statistics, save_statistics
from icmbench.networks.weights import load_part
from icmbench.train.checkpoint import load_checkpoint, save_checkpoint, save_weights

REPOSITORY = Path(__file__).parents[2]
PAYLOAD = "PAYLOAD"  # a file that damaged YAML would create if it ran code
SEED = 20261121
SCALE = Scale(name="tiny", description="", datasets={})


# --- damage ---------------------------------------------------------------------------------------


def _flipped(data: bytes) -> bytes:
    place = np.random.default_rng(SEED).integers(len(data))
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


def _in_the_middle(text: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[: len(data) // 2] + text + data[len(data) // 2 :]


def _entities(data: bytes) -> bytes:
    grown = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    head = f'<!DOCTYPE x [<!ENTITY a0 "ha">{grown}]>'.encode()
    return head + data.replace(b"dog", b"&a11;")


def _aliases(data: bytes) -> bytes:
    grown = [f"laugh{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12)]
    return data + "\n".join(["\nlaugh0: &l0 [ha, ha, ha]", *grown, ""]).encode()


BINARY = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "random": lambda data: np.random.default_rng(SEED).bytes(len(data)),
    "flipped": _flipped,
}
TEXT = BINARY | {
    "not text": _in_the_middle(b"\xff\xfe\x00"),
    "not a number": lambda data: data.replace(b"1", b"NaN", 1).replace(b"2", b"1e400", 1),
    "another type": lambda data: b'[1, {"a": null}]',
    "deep": _in_the_middle(b"[" * 50_000),
}
XML = TEXT | {"entities": _entities}
YAML = TEXT | {
    "aliases": _aliases,
    "endless": lambda data: data + b"\nendless: &e [*e]\n",
    "code": lambda data: data + f'\nx: !!python/object/apply:os.mkdir ["{PAYLOAD}"]\n'.encode(),
}


# --- files from outside ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of file: how it is made below a folder, how it is read, and how it can be damaged.

    ``verified``: whether a damaged file is found out if it does not cause an error by itself.
    """

    path: str
    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    damages: dict[str, Callable[[bytes], bytes]]
    verified: bool = False


def _image(path: Path) -> None:
    blocks = np.random.default_rng(1).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(np.kron(blocks, np.ones((8, 8, 1), np.uint8))).save(path)


def _read_image(path: Path) -> Any:
    return ImageFiles(path.parent).read(path.name).tolist()


def _coco(path: Path) -> None:
    box = {"bbox": [1.5, 2.0, 20.25, 30.0], "area": 607.5, "iscrowd": 0}
    content = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 48, "height": 40} for n in (1, 2)],
        "annotations": [{"id": n, "image_id": n, "category_id": 1, **box} for n in (1, 2)],
        "categories": [{"id": 1, "name": "cat"}],
    }
    path.write_text(json.dumps(content, indent=1))


def _voc(path: Path) -> None:
    folder = path.parents[1]
    for name in ("JPEGImages", "ImageSets/Main", "Annotations"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    _image(folder / "JPEGImages/000001.jpg")
    (folder / "ImageSets/Main/test.txt").write_text("000001\n")
    (folder / "Annotations/000001.xml").write_text(
        "<annotation><filename>000001.jpg</filename><size><width>48</width><height>40</height>"
        "</size><object><name>dog</name><difficult>0</difficult><bndbox><xmin>3</xmin><ymin>4"
        "</ymin><xmax>21</xmax><ymax>30</ymax></bndbox></object></annotation>"
    )


def _read_voc(path: Path) -> Any:
    return coco_annotations(next(p for p in path.parents if p.name == "voc"), ["VOC2007/test"])


def _celeba(path: Path) -> None:
    lines = "".join(f"{n:06d}.jpg -1 1 {1 - 2 * (n % 2)}\n" for n in (1, 2, 3))
    path.with_name("list_attr_celeba.txt").write_text(f"3\nBald Smiling Young\n{lines}")
    partition = "000001.jpg 2\n000002.jpg 2\n000003.jpg 0\n"
    path.with_name("list_eval_partition.txt").write_text(partition)


def _read_celeba(path: Path) -> Any:
    faces = CelebA(path.parent, "test")
    return faces.ids, [faces.attributes(identity).tolist() for identity in faces.ids]


def _archive(path: Path) -> None:
    _image(path.with_name("a.png"))
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as bundle:
            bundle.write(path.with_name("a.png"), "img/a.png")
    else:
        with tarfile.open(path, "w:gz") as archive:
            archive.add(path.with_name("a.png"), "img/a.png")


def _unpack(path: Path) -> Any:
    out = path.with_name("out")
    archive = Archive(name=path.name, unpack="zip" if path.suffix == ".zip" else "tar")
    unpack(path, archive, out, lambda member: True)
    return {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*.*")}


def _copy(name: str) -> Callable[[Path], None]:
    return lambda path: path.write_bytes((REPOSITORY / name).read_bytes())


def _weights(path: Path) -> None:
    torch.manual_seed(0)
    save_weights(path, torch.nn.Linear(4, 4), None, {})


def _read_weights(path: Path) -> Any:
    module = torch.nn.Linear(4, 4)
    load_part(module, path, "codec")
    return [value.tolist() for value in module.state_dict().values()]


OUTSIDE = {
    "png": Kind("a.png", _image, _read_image, BINARY),
    "jpeg": Kind("a.jpg", _image, _read_image, BINARY),
    "coco": Kind("val.json", _coco, read_annotations, TEXT),
    "voc": Kind("voc/VOC2007/Annotations/000001.xml", _voc, _read_voc, XML),
    "attributes": Kind("list_attr_celeba.txt", _celeba, _read_celeba, TEXT),
    "partition": Kind("list_eval_partition.txt", _celeba, _read_celeba, TEXT),
    "zip": Kind("a.zip", _archive, _unpack, BINARY, verified=True),
    # Only the catalogue's checksum, which fetching verifies first, reveals a flipped bit in a tar.
    "tar": Kind("a.tar.gz", _archive, _unpack, BINARY),
    "sha256 of a mirror": Kind(
        "a.sha256", lambda path: path.write_text(f"{'a' * 64}  img/a.png\n"), read_checksums, TEXT
    ),
    "catalogue": Kind("catalogue.yaml", _copy("data/catalogue.yaml"), load_catalogue, YAML),
    "pointer": Kind("kodak.dvc", _copy("data/kodak.dvc"), read_md5, YAML),
    "config": Kind("config.yaml", _copy("config.yaml"), load_run, YAML),
    "scale": Kind(
        "smoke.yaml",
        _copy("workflow/scales/smoke.yaml"),
        lambda path: load_scale(path.parent, "smoke"),
        YAML,
    ),
    "study": Kind(
        "classical.yaml",
        _copy("workflow/studies/classical.yaml"),
        lambda path: load_study(
            path.parent, "classical", Scale(name="s", description="", datasets={})
        ),
        YAML,
    ),
    "weights": Kind("weights.pt", _weights, _read_weights, BINARY, verified=True),
}


@pytest.mark.parametrize(
    ("kind", "damage"),
    [(kind, damage) for kind, of in OUTSIDE.items() for damage in (*of.damages, "folder")],
)
def test_damaged_file_from_outside_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, damage: str
) -> None:
    monkeypatch.chdir(tmp_path)
    of = OUTSIDE[kind]
    path = tmp_path / of.path
    path.parent.mkdir(parents=True, exist_ok=True)
    of.make(path)
    expected, data = of.read(path), path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        path.write_bytes(of.damages[damage](data))
    for old in tmp_path.glob("out"):
        old.rename(tmp_path / "old")
    try:
        found = of.read(path)
    except UserError as error:
        assert_names(error, path)
    else:
        assert not of.verified or found == expected
    assert not (tmp_path / PAYLOAD).exists()


def assert_names(error: UserError, path: Path) -> None:
    """One short line for each fault, which names the file, or a folder in which it is unusable."""
    for line in str(error).splitlines():
        assert (path.name in line or str(path.parent) in line) and len(line) < 1000, line


# --- our own files --------------------------------------------------------------------------------


def _checkpoint(path: Path) -> None:
    model = torch.nn.Linear(4, 4)
    optimiser = torch.optim.Adam(model.parameters())
    save_checkpoint(path, fingerprint="f", step=3, model=model.state_dict(),
                    optimisers={"codec": optimiser}, totals={})  # fmt: skip


def _read_checkpoint(path: Path) -> Any:
    state = load_checkpoint(path, "f")
    assert state is not None
    return state["step"], [value.tolist() for value in state["model"].values()]


def _statistics(path: Path) -> None:
    save_statistics(path, MeanStatistics(["a", "b", "c"], {"psnr": [30.0, 31.0, 32.5]}))


OWN = {
    "weights": Kind("weights.pt", _weights, _read_weights, BINARY),
    "checkpoint": Kind("checkpoint.pt", _checkpoint, _read_checkpoint, BINARY),
    "statistics": Kind(
        "statistics-x.npz", _statistics, lambda path: load_statistics(path).metrics(), BINARY
    ),
}


@pytest.mark.parametrize("kind", OWN)
def test_flipped_bits_of_own_files_are_found(tmp_path: Path, kind: str) -> None:
    """At 15 places: the file is refused by name, or the bit does not matter."""
    of = OWN[kind]
    path = tmp_path / of.path
    of.make(path)
    whole, expected = path.read_bytes(), of.read(path)
    refused = 0
    for place in range(0, len(whole), max(1, len(whole) // 15)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            assert of.read(path) == expected
        except UserError as error:
            assert_names(error, path)
            refused += 1
    assert refused > 5


@pytest.mark.parametrize("damage", TEXT)
def test_damaged_plan_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(TEXT[damage](b'{"run": {"seeds": [1, 2]}, "points": []}'))
    with pytest.raises(UserError) as caught:
        read_summary(tmp_path)
    assert_names(caught.value, path)
