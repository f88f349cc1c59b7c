"""Every kind of file that icmbench reads, and the functions of its verbs that read it."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import damaged_world as world
from damaged_cases import Caught, Counted, Target
from damaged_kinds import BINARY, TEXT, XML, YAML
from damaged_world import ROOT

from icmbench.errors import UserError
from icmbench.utils.files import digest_json, read_json, sha256_bytes, sha256_file

_POINTS = f"{ROOT}/runs/toy/hyperprior/reconstruction/mse"
_ANCHOR = f"{ROOT}/encoded/detection-test/classical/jpeg"
#: Columns that differ from run to run.
_TIMES = ["encode_s", "decode_s", "reconstruct_s"]


def targets(codecs: list[str], anchors: list[str]) -> list[Target]:
    """Return the targets of a world with these learned codecs and anchors."""
    return [
        *_images(),
        *_annotations(),
        *_archives(),
        *(item for name in codecs for item in _learned(name)),
        *(item for name in anchors for item in _anchor(name)),
        *_encoded(),
        *_weights(),
        *_configurations(),
        *_jobs(),
        *_results(),
        *_cache(),
    ]


# --- data sets --------------------------------------------------------------------------------


def read_split(dataset: dict[str, Any]) -> str:
    """Return a digest of everything that a split gives."""
    from icmbench.codecs.base import decoded_digest
    from icmbench.data.dataset import Split, data_digest

    data_digest(dataset)
    split = Split(dataset, "test")
    found: list[Any] = [split.annotations, list(split.classes)]
    for index in range(len(split)):
        found.append([split.ids[index], split.native_size(index), split.size(index)])
        found.append(decoded_digest(split.image(index)))
        if split.annotations is not None:
            boxes, labels = split.target(index, 48, 40)
            found.append([boxes.tolist(), labels.tolist(), split.label(index)])
        if split._index.faces is not None:
            found.append(split.attributes(index).tolist())
            if dataset["source"] == "embedded-faces":
                found.append(sha256_bytes(split.parsing(index).tobytes()))
    return digest_json(found)


def _faces() -> dict[str, Any]:
    return dict(read_json("faces.json"))


def _images() -> list[Target]:
    coco = lambda: read_split(world.coco())  # noqa: E731
    generated = lambda: read_split(world.dataset())  # noqa: E731
    faces = lambda: read_split(_faces())  # noqa: E731
    data = f"{ROOT}/data/detection"
    return [
        *(
            Target(
                "images",
                f"data/coco/val/{number}.{suffix}",
                BINARY,
                coco,
                ("data/voc/VOC2007/JPEGImages/000001.jpg",),
                # One that is there under another format's name.
            )
            for number, suffix in enumerate(("jpg", "png", "webp", "bmp", "ppm", "tif"), start=1)
        ),
        Target("images", f"{data}/test.zip", BINARY, generated, (f"{data}/train.zip",)),
        Target("images", "faces/test.zip", BINARY, faces, ("faces/train.zip",)),
        Target("images", "faces/parsing_test.zip", BINARY, faces, ("faces/parsing_val.zip",)),
    ]


def _annotations() -> list[Target]:
    coco = lambda: read_split(world.coco())  # noqa: E731
    voc = lambda: read_split(world.voc())  # noqa: E731
    celeba = lambda: read_split(world.celeba())  # noqa: E731
    generated = lambda: read_split(world.dataset())  # noqa: E731
    faces = lambda: read_split(_faces())  # noqa: E731
    data = f"{ROOT}/data/detection"
    attributes, partition = "list_attr_celeba.txt", "list_eval_partition.txt"
    return [
        Target(
            "annotations",
            "data/coco/annotations/val.json",
            TEXT,
            coco,
            ("data/coco/annotations/other.json",),
        ),
        Target(
            "annotations",
            f"{data}/instances_test.json",
            TEXT,
            generated,
            (f"{data}/instances_val.json",),
        ),
        Target(
            "annotations",
            "data/voc/VOC2007/Annotations/000001.xml",
            XML,
            voc,
            ("data/voc/VOC2007/Annotations/000002.xml",),
        ),
        Target("annotations", "data/voc/VOC2007/ImageSets/Main/test.txt", TEXT, voc),
        Target("annotations", f"data/celeba/{attributes}", TEXT, celeba),
        Target("annotations", f"data/celeba/{partition}", TEXT, celeba),
        Target("annotations", "faces/attributes_test.json", TEXT, faces),
        Target("manifests", f"{data}/manifest.json", TEXT, generated, ("faces/manifest.json",)),
        Target(
            "manifests",
            "data/coco.manifest.json",
            TEXT,
            coco,
            ("data/voc.manifest.json",),
            # A manifest that is whole but not this set's shows in the list that it does not fit.
            ("coco.manifest.json", "coco.files.sha256"),
        ),
        Target(
            "manifests",
            "data/coco.files.sha256",
            TEXT,
            coco,
            ("data/voc.files.sha256",),
        ),
        # Without the checksums of a fetched set only what is impossible can be told.
        *(
            Target("annotations, unlisted", path, kinds, _unlisted(read), others, named, free=True)
            for path, kinds, read, others, named in (
                ("data/coco/annotations/val.json", TEXT, coco, (), ("val.json", "data/coco/val")),
                ("data/voc/VOC2007/Annotations/000001.xml", XML, voc, (), ("000001.xml",)),
                (f"data/celeba/{attributes}", TEXT, celeba, (), (attributes,)),
                (
                    f"data/celeba/{partition}",
                    TEXT,
                    celeba,
                    (),
                    (partition, "img_align", attributes),
                ),
            )
        ),
        Target("catalogue and pointers", "data/catalogue.yaml", YAML, _catalogue, free=True),
        Target("catalogue and pointers", "data/coco.dvc", YAML, _pointer, free=True),
    ]


def _unlisted(read: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        for path in Path("data").glob("*.files.sha256"):
            path.unlink()
        return read()

    return run


def _catalogue() -> str:
    from icmbench.data.catalogue import list_catalogue

    return list_catalogue(Path("data/catalogue.yaml"))


def _pointer() -> str | None:
    from icmbench.data.pointer import read_md5

    return read_md5(Path("data/coco.dvc"))


def _archives() -> list[Target]:
    found = []
    for name in world.ARCHIVES:
        others = tuple(f"archives/{n}" for n in world.ARCHIVES if n != name and n[-3:] == name[-3:])
        found.append(Target("archives", f"archives/{name}", BINARY, _unpacked(name), others))
    return found


def _unpacked(name: str) -> Callable[[], Any]:
    """Return what unpacks an archive without knowing its checksum, then asks the catalogue's.

    A tar has no checksum of what it holds, so the second is what tells; fetching asks it first.
    """
    entry = world.archive_entry  # read before the archive is damaged
    known: dict[str, Any] = {}

    def run() -> Any:
        from icmbench.data.archives import unpack
        from icmbench.data.catalogue import Archive
        from icmbench.data.manifest import hash_file, mismatch

        path = Path("archives") / name
        archive = Archive.model_validate(known["entry"])
        target = Path("unpacked/deep/below")
        unpack(path, archive, target, lambda member: True)
        outside = [p for p in Path("unpacked").rglob("*") if p.is_file()]
        assert all(p.is_relative_to(target) for p in outside), outside
        found = {p.relative_to(target).as_posix(): sha256_file(p) for p in outside}
        if found == known["tree"]:
            return "the same files"
        if mismatch(hash_file(path), archive) is None:
            return found
        raise Caught("the checksum of the archive tells")

    def prepared() -> Any:
        return run()

    def prepare() -> None:
        known["entry"] = entry(name)
        source = Path("data/coco")
        known["tree"] = {
            p.relative_to(source).as_posix(): sha256_file(p)
            for p in source.rglob("*")
            if p.is_file()
        }

    prepared.prepare = prepare  # type: ignore[attr-defined]
    return prepared


# --- codecs -----------------------------------------------------------------------------------


def _learned(name: str) -> list[Target]:
    folder = f"codecs/{name}/point"
    inner = (f"{folder}/bitstreams.zip",)
    return [
        Target("bitstreams, learned", inner[0], BINARY, lambda: _decode(name)),
        Target(
            "bitstreams, bare",
            f"{folder}/bitstreams.zip",
            _inside_zip(),
            lambda: _decode_unstamped(name),
            named=("bitstreams.zip", f"{name}: image"),
        ),
    ]


def _inside_zip() -> dict[str, Any]:
    """Return kinds that damage a bitstream and pack it again, so that the archive is whole."""

    def wrap(kind: Any) -> Any:
        def damage(rng: Any, data: bytes, others: Any) -> bytes:
            import io

            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                members = {name: archive.read(name) for name in archive.namelist()}
            chosen = rng.choice(sorted(members))
            rest = [value for name, value in members.items() if name != chosen]
            members[chosen] = kind(rng, members[chosen], rest)
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as archive:
                for name, value in members.items():
                    archive.writestr(zipfile.ZipInfo(name), value)
            return packed.getvalue()

        return damage

    return {name: wrap(kind) for name, kind in BINARY.items()}


def _decode(name: str) -> Any:
    """Decode as the verb does, which checks the archive against its stamp."""
    from icmbench.evaluate.curve import decode_curve

    job = world.encode_job(name)
    folder = Path(job["output"])
    (folder / "decoded.stamp.json").unlink()  # or nothing would be done
    decode_curve([job])
    return _decoded(folder)


def _decode_unstamped(name: str) -> Any:
    """Decode without the stamp: the archive's checksum and the encoder's digest are left."""
    from icmbench.evaluate.coding import decode

    job = world.encode_job(name)
    folder = Path(job["output"])
    (folder / "encoded.stamp.json").unlink()
    decode(job)
    found = _decoded(folder)
    if not all(found["roundtrip_ok"]):
        raise Counted("roundtrip_ok is false")
    return found


def _decoded(folder: Path) -> dict[str, Any]:
    import pandas as pd

    table = pd.read_parquet(folder / "decoded.parquet")
    archive = next(folder / n for n in ("decoded.zip", "latents.zip") if (folder / n).is_file())
    with zipfile.ZipFile(archive) as opened:
        images = {name: sha256_bytes(opened.read(name)) for name in opened.namelist()}
    return {"roundtrip_ok": [bool(ok) for ok in table["roundtrip_ok"]], "images": images}


def _anchor(name: str) -> list[Target]:
    first, second = (f"classical/{name}/{index}.bin" for index in range(2))
    expected: dict[str, Any] = {}

    def read() -> Any:
        from icmbench.evaluate.classical import open_anchor

        data = Path(first).read_bytes()
        try:
            image = open_anchor(world.codec_settings(name)).decode(data)
        except UserError as error:  # the verb puts the image before it
            raise UserError(f"{first}: {error}") from None
        found = [image.shape, sha256_bytes(image.tobytes())]
        if expected and found != expected["found"]:
            # Cached and linked bitstreams carry a SHA-256, by which the cache finds them damaged.
            assert sha256_bytes(data) != expected["sha256"]
            raise Caught("the checksum in the cache and in the rows tells")
        return found

    def prepare() -> None:
        expected["sha256"] = sha256_file(first)
        expected["found"] = None
        stored = dict(expected)
        expected.clear()
        stored["found"] = read()
        expected.update(stored)

    read.prepare = prepare  # type: ignore[attr-defined]
    return [Target("bitstreams, anchors", first, BINARY, read, (second,))]


def _records(variant: str) -> Any:
    import pandas as pd

    path = Path(f"{ROOT}/runs/toy/{variant}/rate0-seed0/records.parquet")
    return pd.read_parquet(path).drop(columns=_TIMES).to_json()


def _evaluate(variant: str) -> Callable[[], Any]:
    """Return what evaluates a variant anew, as the verb does."""

    def run() -> Any:
        from icmbench.config.jobs import read_job

        from icmbench.evaluate.curve import evaluate_curve

        jobs = read_job(ROOT / f"plan/evaluate/toy/{variant}.json", "evaluate")["jobs"]
        shutil.rmtree(f"{ROOT}/runs/toy/{variant}/rate0-seed0/../redone", ignore_errors=True)
        for stamp in Path(f"{ROOT}/runs/toy/{variant}").rglob("evaluated.stamp.json"):
            stamp.unlink()
        evaluate_curve(jobs)
        return _records(variant)

    return run


def _encoded() -> list[Target]:
    learned = _evaluate("hyperprior/reconstruction/mse")
    jpeg = _evaluate("jpeg/reconstruction/baseline")
    points = sorted_points("hyperprior")
    first, second = points
    images = f"{_ANCHOR}/quality-10/decoded"
    return [
        *(
            Target(
                "encodings",
                f"{first}/{name}",
                TEXT if name.endswith("json") else BINARY,
                learned,
                (f"{second}/{name}",),
            )
            for name in (
                "encoded.parquet",
                "decoded.parquet",
                "decoded.zip",
                "encoded.stamp.json",
                "decoded.stamp.json",
                "decoded.complexity.json",
            )
        ),
        Target(
            "encodings",
            f"{_ANCHOR}/quality-10/chunk0of1.json",
            TEXT,
            jpeg,
            (f"{_ANCHOR}/quality-40/chunk0of1.json",),
            ("chunk0of1.json", "decoded/3000000.png"),
        ),
        Target(
            "encodings",
            f"{images}/3000000.png",
            BINARY,
            jpeg,
            (f"{images}/3000001.png",),
            ("3000000.png", "3000000"),
        ),
    ]


def sorted_points(codec: str) -> list[str]:
    """Return the folders of a learned codec's encodings, lowest rate first."""
    base = f"{ROOT}/encoded/detection-test/toy/{codec}/reconstruction/mse"
    return [f"{base}/rate{index}-seed0" for index in range(2)]


# --- weights ----------------------------------------------------------------------------------


def _state(path: str) -> Callable[[], Any]:
    def run() -> Any:
        from icmbench.networks.build import build_codec

        job = world.train_job()
        settings = {
            **job["codec"],
            "weights": path,
            "weights_of": job["codec"]["name"],
            "weights_part": "codec",
        }
        return _digest(build_codec(settings).state_dict())

    return run


def _digest(state: dict[str, Any]) -> str:
    return digest_json(
        {name: sha256_bytes(value.contiguous().numpy().tobytes()) for name, value in state.items()}
    )


def _checkpoint() -> Any:
    from icmbench.train.checkpoint import load_checkpoint

    state = load_checkpoint(Path("training/checkpoint.pt"), "check")
    assert state is not None
    return [state["step"], _digest(state["model"])]


def _weights() -> list[Target]:
    first, second = (f"{_POINTS}/rate{index}-seed0" for index in range(2))
    return [
        Target(
            "weights",
            f"{first}/weights.pt",
            BINARY,
            _state(f"{first}/weights.pt"),
            (f"{second}/weights.pt",),
        ),
        Target("weights", "codecs/loose.pt", BINARY, _state("codecs/loose.pt")),
        Target(
            "checkpoints", "training/checkpoint.pt", BINARY, _checkpoint, ("training/other.pt",)
        ),
        Target(
            "records of trainings",
            f"{first}/run.json",
            TEXT,
            _state(f"{first}/weights.pt"),
            (f"{second}/run.json",),
            ("run.json", "weights.pt"),
        ),
    ]


# --- configuration ----------------------------------------------------------------------------


def _plan() -> Any:
    plan = world.plan()
    plan.write()
    return read_json(ROOT / "plan.json")


def _configurations() -> list[Target]:
    studies = ("studies/toy.yaml",)
    return [
        Target(
            "configuration",
            "config.yaml",
            YAML,
            _plan,
            studies,
            # Names of other files are told by the key or by what they name.
            ("config.yaml", "config key", "unknown study", "unknown scale", "unknown anchor"),
            free=True,
        ),
        Target(
            "configuration",
            "workflow/scales/smoke.yaml",
            YAML,
            _plan,
            studies,
            free=True,
        ),
        Target(
            "configuration",
            "studies/toy.yaml",
            YAML,
            _plan,
            ("config.yaml",),
            # A study that is another is named by what asks for it.
            ("toy.yaml", "study 'toy'", "studies.toy"),
            free=True,
        ),
        # What a plan is damaged to, is written anew by whatever reads the configuration.
        Target("plan", f"{ROOT}/plan.json", TEXT, _replan, heals=True),
        Target("plan", f"{ROOT}/plan.sha256", TEXT, _replan, heals=True),
    ]


def _replan() -> Any:
    _plan()
    return [sha256_file(ROOT / name) for name in ("plan.json", "plan.sha256")]


def _jobs() -> list[Target]:
    from icmbench.config.jobs import read_job

    plan = ROOT / "plan"
    verbs = {
        "data": plan / "data/detection.json",
        "train": plan / "train/toy/hyperprior/reconstruction/mse/rate0-seed0.json",
        "encode": plan / "code/detection-test/toy/hyperprior/reconstruction/mse.json",
        "code": plan / "code/detection-test/classical/jpeg/quality-10.json",
        "evaluate": plan / "evaluate/toy/jpeg/reconstruction/baseline.json",
    }

    def read(verb: str) -> Callable[[], Any]:
        return lambda: read_job(verbs[verb], verb)

    return [
        Target(
            "jobs",
            str(path),
            TEXT,
            read(verb),
            tuple(str(other) for other in verbs.values() if other != path),
        )
        for verb, path in verbs.items()
    ]


# --- results ----------------------------------------------------------------------------------


def _analyse() -> Any:
    from icmbench.analyse.run import analyse_run

    analyse_run(ROOT)
    names = ("curves.csv", "bd.csv", "claims.csv")
    return {name: (ROOT / "tables" / name).read_text() for name in names}


def _report() -> Any:
    from icmbench.report.results import load_results

    found = load_results(ROOT)
    shown = [found.curves, found.bd, found.published, found.evaluations, found.runs, found.missing]
    records = None if found.records is None else repr(sorted(found.records.points.items()))
    return json.dumps([*shown, records], default=str)  # as text, since NaN is not NaN


def _track() -> Any:
    """Read all that is sent to MLflow, without sending it."""
    from icmbench.config.summary import read_summary
    from icmbench.track.studies import read_studies

    studies = list(read_studies(ROOT, read_summary(ROOT)))
    problems = [problem for study in studies for problem in study.problems]
    if problems:
        raise UserError("\n".join(problems))  # the verb logs them as `not imported: ...`
    times = ("started", "ended", "values")
    runs = [run for study in studies for run in study.runs]
    values = [(value.name, value.value, value.step) for run in runs for value in run.values]
    rest = [{k: v for k, v in vars(run).items() if k not in times} for run in runs]
    return json.dumps([rest, values], default=str)


def _results() -> list[Target]:
    first, second = (f"{_POINTS}/rate{index}-seed0" for index in range(2))
    tables = f"{ROOT}/tables"
    return [
        Target(
            "records",
            f"{first}/records.parquet",
            BINARY,
            _analyse,
            (f"{second}/records.parquet",),
        ),
        Target(
            "records",
            f"{first}/evaluated.stamp.json",
            TEXT,
            _analyse,
            (f"{second}/evaluated.stamp.json",),
            # The stamp of another point says of every file that it is another.
            ("evaluated.stamp.json", "records.parquet", "evaluate.json"),
        ),
        Target("records", f"{first}/evaluate.json", TEXT, _report, (f"{second}/evaluate.json",)),
        Target("records", f"{first}/evaluate.json", TEXT, _track, (f"{second}/evaluate.json",)),
        Target(
            "tables",
            f"{tables}/records.parquet",
            BINARY,
            _report,
            (f"{first}/records.parquet",),
        ),
        Target("tables", f"{tables}/curves.csv", TEXT, _report, (f"{tables}/bd.csv",)),
        Target("tables", f"{tables}/bd.csv", TEXT, _track, (f"{tables}/curves.csv",)),
        Target(
            "tables", f"{tables}/tables.sha256", TEXT, _report, (), ("tables.sha256", "tables/")
        ),
        Target("plan", f"{ROOT}/plan.json", TEXT, _report),
    ]


# --- cache ------------------------------------------------------------------------------------


def _coded() -> Any:
    """Code an anchor's point anew, through the cache."""
    from icmbench.config.jobs import read_job

    from icmbench.evaluate.classical import code_chunk

    job = read_job(ROOT / "plan/code/detection-test/classical/jpeg/quality-10.json", "code")
    rows = read_json(code_chunk(job, 0))["rows"]
    kept = [{k: v for k, v in row.items() if k not in _TIMES} for row in rows]
    files = [sha256_file(p) for p in sorted(Path(_ANCHOR).rglob("*.???"))]
    return [kept, files]


def _shown() -> Any:
    from icmbench.commands.cache import open_cache, prune, show

    cache = open_cache(Path("config.yaml"))
    show(cache)
    return prune(cache, limit_gb=0).split("left;")[-1]


def _cache() -> list[Target]:
    return [
        *(
            Target("cache", f"CACHE/{name}", kinds, _coded, (f"OTHER/{name}",), heals=True)
            for name, kinds in (
                ("bitstream.bin", BINARY),
                ("decoded.png", BINARY),
                ("entry.json", TEXT),
            )
        ),
        Target("cache", "CACHE/entry.json", TEXT, _shown, ("OTHER/entry.json",), heals=True),
    ]


def in_world(found: list[Target]) -> list[Target]:
    """Return the targets with paths that only a made world tells, ready to be read.

    Called once in the undamaged world.
    """
    from dataclasses import replace

    entries = sorted(Path("results/cache").glob("??/*"))
    first = read_json(ROOT / "plan/code/detection-test/classical/jpeg/quality-10.json")
    assert first["codec"]["rate"] == 10
    own = [e for e in entries if "quality 10" in read_json(e / "entry.json")["implementation"]]
    other = [e for e in entries if e not in own]
    shutil.copy(f"{_POINTS}/rate0-seed0/weights.pt", "codecs/loose.pt")
    names = {"CACHE": str(own[0]), "OTHER": str(other[0])}

    def place(path: str) -> str:
        head, _, tail = path.partition("/")
        return f"{names[head]}/{tail}" if head in names else path

    ready = []
    for target in found:
        prepare = getattr(target.read, "prepare", None)
        if prepare is not None:
            prepare()
        ready.append(
            replace(target, path=place(target.path), others=tuple(map(place, target.others)))
        )
    return ready
