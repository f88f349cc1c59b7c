"""A small world of everything that icmbench reads, made once by its own verbs and then damaged.

All paths are relative to the world's folder, so that a copy of it is a world of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from icmbench.cli import main
from icmbench.data.manifest import Listing, Manifest, hash_file
from icmbench.plugins import load_modules
from icmbench.registry import CODECS, implementation

REPOSITORY = Path(__file__).parents[2]
ROOT = Path("results/smoke")

STUDY = """
name: toy
title: Two codecs
reference: {authors: Nobody, venue: nowhere, year: 2026}
summary: A learned codec and an anchor, by image quality.
ladders:
  quality: {parameter: quality, values: [10, 40], origin: ours}
  lambda: {parameter: lambda, values: [0.002, 0.02], origin: ours}
schedules:
  short:
    steps: 2
    batch_size: 2
    crop: 64
    optimisers:
      codec: {name: adam, lr: 1.0e-3}
      auxiliary: {name: adam, lr: 1.0e-2}
    origin: ours
    note: Two steps.
variants:
  jpeg/reconstruction/baseline:
    label: JPEG
    codec: jpeg
    task: reconstruction
    mode: baseline
    dataset: detection
    ladder: quality
  hyperprior/reconstruction/mse:
    label: Hyperprior
    codec: bmshj2018-hyperprior
    task: reconstruction
    mode: mse
    dataset: detection
    ladder: lambda
    codec_from: random
    train: {parts: [codec], loss: {bpp: 1.0, mse: $lambda}, schedule: short, origin: ours}
comparisons:
  - anchor: jpeg/reconstruction/baseline
    variants: [hyperprior/reconstruction/mse]
    metrics: [psnr]
"""

CONFIG = {
    "scale": "smoke",
    "studies": ["toy"],
    "study_folders": ["studies"],
    "anchors": ["jpeg"],
    "analysis": {"resamples": 10},
}
RATES = {"jpeg": 30, "jpeg2000": 20, "webp": 30, "avif-420": 30, "avif-444": 30}
QPS = {"x265-420": 37, "x265-444": 37, "vvenc-ffmpeg-420": 37}


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run(*arguments: str) -> None:
    """Run a verb in this process; it must succeed."""
    assert main(arguments) == 0, arguments


def make_world(folder: Path, codecs: list[str], anchors: list[str]) -> None:
    """Fill a folder.

    Args:
        folder: is made.
        codecs: learned codecs with an encoding each.
        anchors: with a bitstream each.
    """
    folder.mkdir(parents=True)
    with inside(folder):
        _workflow_files()
        _run_workflow()
        _checkpoint()
        for name in codecs:
            _encoding(name)
        for name in anchors:
            _bitstream(name)
        _fetched()
        _archives()


# --- the workflow's own files -----------------------------------------------------------------


def _workflow_files() -> None:
    scales = yaml.safe_load((REPOSITORY / "workflow/scales/smoke.yaml").read_text())
    small = {"source": "embedded-scenes", "size": 64, "train": 4, "val": 1, "test": 2}
    scales["datasets"]["detection"] = small
    del scales["studies"]  # of which there is only a toy here
    Path("workflow/scales").mkdir(parents=True)
    Path("workflow/studies").mkdir()
    Path("workflow/scales/smoke.yaml").write_text(yaml.safe_dump(scales))
    Path("studies").mkdir()
    Path("studies/toy.yaml").write_text(STUDY)
    Path("config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    Path("data").mkdir()
    shutil.copy(REPOSITORY / "data/catalogue.yaml", "data/catalogue.yaml")
    pointer = {"outs": [{"md5": "a" * 32 + ".dir", "path": "coco"}]}
    Path("data/coco.dvc").write_text(yaml.safe_dump(pointer))


def plan() -> Any:
    """Return the plan of the files in the working folder."""
    from icmbench.config.plan import load_plan

    return load_plan("config.yaml", workflow=Path("workflow"))


def _run_workflow() -> None:
    plan().write()
    jobs = ROOT / "plan"
    run("data", str(jobs / "data/detection.json"))
    run("data", str(_faces_job()))
    for path in sorted(jobs.glob("train/**/*.json")):
        run("train", str(path))
    for path in sorted(jobs.glob("code/**/*.json")):
        if "/classical/" in str(path):
            run("code", str(path))
        else:
            run("encode", str(path))
            run("decode", str(path))
    for path in sorted(jobs.glob("evaluate/**/*.json")):
        run("evaluate", str(path))
    run("analyse", str(ROOT))


def _faces_job() -> Path:
    """Write the job of a tiny set of faces, which the toy study does not use."""
    job = {
        "role": "faces",
        "folder": "faces",
        "manifest": "faces/manifest.json",
        "source": "embedded-faces",
        "size": 64,
        "train": 1,
        "val": 1,
        "test": 2,
        "seed": 2022,
        "mirror": None,
    }
    Path("faces.json").write_text(json.dumps(job))
    return Path("faces.json")


# --- trainings --------------------------------------------------------------------------------


def train_job() -> dict[str, Any]:
    """Return the settings of a training of the toy study."""
    path = ROOT / "plan/train/toy/hyperprior/reconstruction/mse/rate0-seed0.json"
    job: dict[str, Any] = json.loads(path.read_text())
    return job


def _checkpoint() -> None:
    """Leave the side-car of a training that was killed after its first step."""
    import torch

    from icmbench.networks.build import build_codec
    from icmbench.train.checkpoint import save_checkpoint

    codec = build_codec(train_job()["codec"])
    optimiser = torch.optim.Adam(codec.parameters())
    for name in ("checkpoint.pt", "other.pt"):
        save_checkpoint(
            Path("training") / name,
            fingerprint=name[:5],
            step=1,
            model=codec.state_dict(),
            optimisers={"codec": optimiser},
            totals={"wall_seconds": 1.0},
        )


# --- codecs -----------------------------------------------------------------------------------


def dataset() -> dict[str, Any]:
    """Return the job section of the toy study's images."""
    section: dict[str, Any] = train_job()["dataset"]
    return section


def encode_job(name: str) -> dict[str, Any]:
    """Return the job that codes the test split with a learned codec of small random weights."""
    load_modules([])
    sizes = yaml.safe_load((REPOSITORY / "workflow/scales/smoke.yaml").read_text())["codecs"]
    entry = CODECS[name]
    parameters = entry.parameters.model_validate({**entry.defaults, **sizes.get(name, {})})
    return {
        "key": name,
        "output": f"codecs/{name}/point",
        "codec": {
            "name": name,
            "kind": "learned",
            "parameters": parameters.model_dump(),
            "rate_index": 0,
            "weights": f"codecs/{name}.pt",
            "weights_of": name,
            "weights_part": "codec",
            "pretrained": False,
        },
        "dataset": dataset(),
        "split": "test",
        "threads": 1,
        "gpu": 0,
        "modules": [],
        "decodes": ["images"] if entry.outputs == ("images",) else ["features"],
    }


def _encoding(name: str) -> None:
    import torch

    from icmbench.evaluate.curve import decode_curve, encode_curve
    from icmbench.networks.build import build_codec
    from icmbench.train.checkpoint import save_weights

    job = encode_job(name)
    torch.manual_seed(7)
    codec = build_codec({**job["codec"], "weights": "random"})
    codec.prepare_coding()
    save_weights(Path(job["codec"]["weights"]), codec, None, {})
    encode_curve([job])
    decode_curve([job])


def codec_settings(name: str) -> dict[str, Any]:
    """Return the codec section of an anchor's job."""
    entry = CODECS[name]
    return {
        "name": name,
        "parameters": entry.parameters.model_validate(entry.defaults).model_dump(),
        "rate": {**RATES, **QPS}[name],
        "programs": {},
    }


def _bitstream(name: str) -> None:
    from icmbench.data.dataset import Split
    from icmbench.evaluate.classical import open_anchor

    anchor = open_anchor(codec_settings(name))
    split = Split(dataset(), "test")
    for index in range(2):
        path = Path(f"classical/{name}/{index}.bin")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(anchor.encode(split.image(index)).data)


# --- data sets as they are fetched ------------------------------------------------------------


def fetched(name: str, **place: Any) -> dict[str, Any]:
    """Return the job section of a data set that was fetched."""
    split = {"images": None, "annotations": None, "layout": None, "sets": None, "limit": None}
    return {
        "role": "detection",
        "folder": f"data/{name}",
        "manifest": f"data/{name}.manifest.json",
        "source": "catalogue",
        "name": name,
        "splits": {"test": {**split, **place}},
        "short_side": None,
        "long_side": None,
        "center_crop": None,
        "rate_pixels": "native",
    }


def coco() -> dict[str, Any]:
    """Return the COCO-like set."""
    return fetched("coco", images="val", annotations="annotations/val.json")


def voc() -> dict[str, Any]:
    """Return the VOC-like set."""
    return fetched("voc", images=".", layout="voc", sets=["VOC2007/test"])


def celeba() -> dict[str, Any]:
    """Return the CelebA-like set."""
    return fetched("celeba", images="img_align_celeba", layout="celeba")


def _fetched() -> None:
    rng = np.random.default_rng(1)

    def image(path: str) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        blocks = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(np.kron(blocks, np.ones((8, 8, 1), np.uint8))).save(path)

    formats = ("jpg", "png", "webp", "bmp", "ppm", "tif")
    names = [f"{number}.{suffix}" for number, suffix in enumerate(formats, start=1)]
    for name in names:
        image(f"data/coco/val/{name}")
    content = {
        "images": [
            {"id": number, "file_name": name, "width": 48, "height": 40}
            for number, name in enumerate(names, start=1)
        ],
        "annotations": [
            {
                "id": number,
                "image_id": number,
                "category_id": 1 + number % 2,
                "bbox": [1.5, 2.0, 20.25, 30.0],
                "area": 607.5,
                "iscrowd": 0,
                "segmentation": [[1.5, 2.0, 21.75, 2.0, 21.75, 32.0, 1.5, 32.0]],
            }
            for number in range(1, 7)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    Path("data/coco/annotations").mkdir()
    for name in ("val", "other"):
        Path(f"data/coco/annotations/{name}.json").write_text(json.dumps(content, indent=1))
        content["annotations"] = content["annotations"][:3]

    voc_root = Path("data/voc/VOC2007")
    for name in ("000001", "000002"):
        image(f"{voc_root}/JPEGImages/{name}.jpg")
        (voc_root / "Annotations").mkdir(exist_ok=True)
        (voc_root / f"Annotations/{name}.xml").write_text(_voc_xml(name))
    (voc_root / "ImageSets/Main").mkdir(parents=True)
    (voc_root / "ImageSets/Main/test.txt").write_text("000001\n000002\n")

    for number in (1, 2, 3):
        image(f"data/celeba/img_align_celeba/{number:06d}.jpg")
    attributes = "3\nBald Smiling Young\n" + "".join(
        f"{n:06d}.jpg -1 1 {1 - 2 * (n % 2)}\n" for n in (1, 2, 3)
    )
    Path("data/celeba/list_attr_celeba.txt").write_text(attributes)
    partition = "000001.jpg 2\n000002.jpg 2\n000003.jpg 0\n"
    Path("data/celeba/list_eval_partition.txt").write_text(partition)
    for name in ("coco", "voc", "celeba"):
        _manifest(Path("data") / name)


def _voc_xml(name: str) -> str:
    return f"""<annotation>
 <filename>{name}.jpg</filename>
 <size><width>48</width><height>40</height><depth>3</depth></size>
 <object>
  <name>dog</name>
  <difficult>0</difficult>
  <bndbox><xmin>3</xmin><ymin>4</ymin><xmax>2{name[-1]}</xmax><ymax>30</ymax></bndbox>
 </object>
</annotation>
"""


def _manifest(folder: Path) -> None:
    """Leave beside a data set what ``fetch`` leaves."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    listing = Listing({path.relative_to(folder).as_posix(): hash_file(path) for path in files})
    listing.write(folder.with_name(f"{folder.name}.files.sha256"))
    manifest = Manifest(
        name=folder.name,
        version="1",
        source="found",
        subset=False,
        files=len(files),
        bytes=listing.bytes,
        digest=listing.digest,
        dvc_md5=listing.dvc_md5,
        archives={},
    )
    manifest.write(folder.with_name(f"{folder.name}.manifest.json"))


# --- archives ---------------------------------------------------------------------------------


def archive_entry(name: str) -> dict[str, Any]:
    """Return the catalogue's entry of an archive, its checksum included."""
    content = Path("archives", name).read_bytes()
    kind = "zip" if name.endswith(".zip") else "tar"
    return {"name": name, "unpack": kind, "sha256": hashlib.sha256(content).hexdigest()}


ARCHIVES = ("plain.zip", "deflated.zip", "plain.tar", "packed.tar.gz", "packed.tar.xz")


def _archives() -> None:
    Path("archives").mkdir()
    source = Path("data/coco")
    files = [path for path in sorted(source.rglob("*")) if path.is_file()]
    for name in ARCHIVES:
        path = Path("archives") / name
        if name.endswith(".zip"):
            kind = zipfile.ZIP_STORED if name == "plain.zip" else zipfile.ZIP_DEFLATED
            with zipfile.ZipFile(path, "w", kind) as bundle:
                for file in files:
                    bundle.write(file, file.relative_to(source))
            continue
        mode = {"plain.tar": "w", "packed.tar.gz": "w:gz", "packed.tar.xz": "w:xz"}[name]
        with tarfile.open(path, mode) as archive:
            for file in files:
                archive.add(file, file.relative_to(source))


def wanted_codecs(all_of_them: bool) -> tuple[list[str], list[str]]:
    """Return the learned codecs and the in-process anchors of a world."""
    load_modules([])
    learned = [n for n in CODECS.names() if CODECS[n].kind == "learned"]
    if not all_of_them:
        return ["mbt2018", "layered", "dicm"], ["jpeg", "webp"]
    for name in (*RATES, *QPS):
        implementation(CODECS[name])  # an anchor that cannot be imported fails here
    return learned, [*RATES, *QPS]
