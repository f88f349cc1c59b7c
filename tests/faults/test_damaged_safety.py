"""Files that mean harm: weights, archives and studies run no code; no secret is written down."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import socket
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from damaged_world import ROOT, inside, make_world, run
from test_tracking_server import Misbehaving, refuse

from icmbench.cli import main
from icmbench.data.archives import unpack
from icmbench.data.catalogue import Archive
from icmbench.errors import UserError
from icmbench.utils.files import read_json

CANARY = "canary7fe41d0c2b"


class Payload:
    """Unpickled, it leaves a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (str(self.proof),)


@pytest.fixture
def proof(tmp_path: Path) -> Path:
    """The file that shows that code was run."""
    return tmp_path / "proof"


def _as_zip(path: Path, proof: Path) -> None:
    torch.save({"format": 1, "codec": Payload(proof), "fingerprint": "f"}, path)


def _as_pickle(path: Path, proof: Path) -> None:
    old = {"format": 1, "codec": Payload(proof)}
    torch.save(old, path, _use_new_zipfile_serialization=False)


def _as_bare_pickle(path: Path, proof: Path) -> None:
    path.write_bytes(pickle.dumps(Payload(proof)))


HOSTILE = pytest.mark.parametrize("write", [_as_zip, _as_pickle, _as_bare_pickle])


@HOSTILE
def test_the_payload_would_run(tmp_path: Path, proof: Path, write: Any) -> None:
    """Else the tests below would show nothing."""
    write(tmp_path / "w.pt", proof)
    with contextlib.suppress(RuntimeError):  # a bare pickle is no file of torch's, and yet it runs
        torch.load(tmp_path / "w.pt", weights_only=False)
    assert proof.exists()


@HOSTILE
def test_weights_and_checkpoints_run_nothing(tmp_path: Path, proof: Path, write: Any) -> None:
    from icmbench.networks.weights import load_part
    from icmbench.train.checkpoint import load_checkpoint

    path = tmp_path / "weights.pt"
    write(path, proof)
    with pytest.raises(UserError, match=r"weights\.pt"):
        load_part(torch.nn.Linear(1, 1), path, "codec")
    with pytest.raises(UserError, match=r"weights\.pt"):
        load_checkpoint(path, "f")
    assert not proof.exists()


@HOSTILE
def test_downloaded_weights_run_nothing(
    tmp_path: Path, proof: Path, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in torch's cache is taken without a look at its checksum."""
    from torchvision.models import VGG16_Weights

    from icmbench.codecs.layered.perceptual import make_distance
    from icmbench.networks.build import build_codec
    from icmbench.plugins import load_modules
    from icmbench.registry import CODECS

    load_modules([])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)
    name = VGG16_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    write(folder / name, proof)
    with pytest.raises(UserError, match="published weights of 'vgg16' cannot be loaded") as said:
        make_distance("vgg16")
    assert "\n" not in str(said.value)

    from compressai.zoo.image import model_urls

    url = model_urls["bmshj2018-hyperprior"]["mse"][1]
    write(folder / url.rpartition("/")[2], proof)
    entry = CODECS["bmshj2018-hyperprior"]
    settings = {
        "name": entry.name,
        "parameters": {"qualities": [1]},
        "rate_index": 0,
        "pretrained": True,
        "weights": "pretrained",
    }
    with pytest.raises(UserError, match="published weights of 'bmshj2018-hyperprior'"):
        build_codec(settings)
    assert not proof.exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_statistics_and_latents_run_nothing(tmp_path: Path, proof: Path) -> None:
    from icmbench.evaluate.coded import latents_from_bytes
    from icmbench.evaluate.statistics import load_statistics

    hostile = np.array([Payload(proof)], dtype=object)
    np.savez(tmp_path / "statistics-x.npz", kind=hostile, image_ids=hostile)
    with pytest.raises(UserError, match=r"statistics-x\.npz"):
        load_statistics(tmp_path / "statistics-x.npz")
    with pytest.raises(ValueError, match="allow_pickle"):
        latents_from_bytes((tmp_path / "statistics-x.npz").read_bytes())
    assert not proof.exists()


TAGS = (
    '!!python/object/apply:os.mkdir ["PROOF"]',
    '!!python/object/new:os.mkdir ["PROOF"]',
    "!!python/object/apply:subprocess.check_call [[mkdir, PROOF]]",
)


@pytest.mark.parametrize("tag", TAGS)
def test_a_study_runs_nothing(tmp_path: Path, proof: Path, tag: str) -> None:
    from icmbench.config.load import read_yaml
    from icmbench.data.catalogue import load_catalogue
    from icmbench.data.pointer import read_md5

    text = f"name: {tag}\n".replace("PROOF", str(proof))
    path = tmp_path / "study.yaml"
    path.write_text(text)
    for read in (read_yaml, load_catalogue, read_md5):
        with pytest.raises(UserError, match=r"study\.yaml"):
            read(path)
    assert not proof.exists()
    yaml.unsafe_load(text)
    assert proof.exists()  # it would have run


@pytest.mark.parametrize("kind", [tarfile.BLKTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_a_link_or_device_in_an_inner_tar_is_refused(tmp_path: Path, kind: bytes) -> None:
    """``tests/data/test_archives.py`` has the other ways out of a folder."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as bundle:
        info = tarfile.TarInfo("x")
        info.type, info.linkname = kind, "../../outside"
        bundle.addfile(info)
    with tarfile.open(tmp_path / "all.tar", "w") as bundle:
        info = tarfile.TarInfo("n01.tar")
        info.size = len(inner.getvalue())
        bundle.addfile(info, io.BytesIO(inner.getvalue()))
    archive = Archive(name="all.tar", unpack="tar", nested=True)
    with pytest.raises(UserError, match=r"all\.tar: member 'x' refused"):
        unpack(tmp_path / "all.tar", archive, tmp_path / "out", lambda path: True)
    assert not list(tmp_path.rglob("x"))


def test_a_link_that_is_there_already_is_not_written_through(tmp_path: Path) -> None:
    """Two members of one path, the first a link, would write outside in a careless unpacker."""
    with tarfile.open(tmp_path / "a.tar", "w") as bundle:
        link = tarfile.TarInfo("x")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "outside")
        bundle.addfile(link)
        file = tarfile.TarInfo("x")
        file.size = 4
        bundle.addfile(file, io.BytesIO(b"evil"))
    with pytest.raises(UserError, match="refused"):
        unpack(tmp_path / "a.tar", Archive(name="a.tar", unpack="tar"), tmp_path / "o", bool)
    assert not (tmp_path / "outside").exists()


def test_no_program_is_unpacked(tmp_path: Path) -> None:
    """Neither the right to execute nor the owner's identity comes out of an archive."""
    mode = stat.S_IFREG | stat.S_ISUID | 0o777
    info = zipfile.ZipInfo("x")
    info.external_attr = mode << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as bundle:
        bundle.writestr(info, b"#!/bin/sh\n")
    unpack(tmp_path / "a.zip", Archive(name="a.zip", unpack="zip"), tmp_path / "o", bool)
    assert not (tmp_path / "o/x").stat().st_mode & (stat.S_ISUID | 0o111)


# --- secrets ----------------------------------------------------------------------------------

SECRETS = (
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "DATABRICKS_TOKEN",
    "HF_TOKEN",
    "GITHUB_TOKEN",
)


def _files_with(folder: Path, text: str) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 50
    return [str(path) for path in files if text.encode() in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_secret_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every verb runs with canaries in the environment; then everything is searched for them."""
    for name in SECRETS:
        monkeypatch.setenv(name, f"{CANARY}-{name}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        dead = f"http://someone:{CANARY}@127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dead)
    folder = tmp_path / "world"
    make_world(folder, [], [])  # plan, data, train, code, encode, decode, evaluate, analyse
    with inside(folder):
        run("report", str(ROOT))
        run("track", str(ROOT))  # nothing listens
        assert read_json(ROOT / "tracking.json")["status"] == "failed"
        assert "***" in read_json(ROOT / "tracking.json")["reason"]
        asked: list[str] = []
        with Misbehaving(refuse(500)) as server:
            refusing = server.behave

            def note(request: Any) -> None:
                length = int(request.headers.get("Content-Length") or 0)
                asked.append(f"{request.path} {request.rfile.read(length)!r}")
                refusing(request)

            server.behave = note
            address = server.address.replace("://", f"://someone:{CANARY}@")
            run("track", str(ROOT), "--uri", f"{address}/api?token={CANARY}")
        assert asked
        assert CANARY not in "".join(request for request in asked if "?token=" not in request)
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        run("track", str(ROOT), "--strict")  # into SQLite: all that MLflow is told
        assert (Path("results") / "mlflow.db").stat().st_size > 100_000
    told = "".join(capfd.readouterr())
    assert len(told) > 500
    assert CANARY not in told
    assert _files_with(tmp_path, CANARY) == []


def test_credentials_in_the_configuration_are_refused_and_not_repeated(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"tracking: {{uri: 'http://someone:{CANARY}@host:5000'}}\n")
    with inside(tmp_path):
        assert main(["plan", "--config", str(config)]) == 1
    told = "".join(capfd.readouterr())
    assert "tracking.uri" in told and "MLFLOW_TRACKING_PASSWORD" in told
    assert CANARY not in told
