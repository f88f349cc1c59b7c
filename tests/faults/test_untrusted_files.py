"""Files from outside run no code and stay in their folder: weights, archives, configuration."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import re
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from icmbench.data.archives import unpack
from icmbench.data.catalogue import Archive
from icmbench.errors import UserError


class Payload:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (str(self.proof),)


@pytest.fixture
def proof(tmp_path: Path) -> Path:
    """A folder that only code in a file could create."""
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
def test_payload_runs_in_a_careless_reader(tmp_path: Path, proof: Path, write: Any) -> None:
    """Without this, the tests below would prove nothing."""
    write(tmp_path / "w.pt", proof)
    with contextlib.suppress(RuntimeError):  # a bare pickle is not a file of torch, but it runs
        torch.load(tmp_path / "w.pt", weights_only=False)
    assert proof.exists()


@HOSTILE
def test_weights_and_checkpoints_run_no_code(tmp_path: Path, proof: Path, write: Any) -> None:
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
def test_published_weights_run_no_code(
    tmp_path: Path, proof: Path, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that somebody put into torch's cache, with a name that claims no checksum."""
    from torchvision.models import VGG16_Weights

    from icmbench.codecs.layered.perceptual import make_distance
    from icmbench.jobs import CodecSpec, WeightsSpec
    from icmbench.networks import pretrained
    from icmbench.networks.build import build_codec
    from icmbench.plugins import load_modules

    load_modules([])
    monkeypatch.setattr(pretrained, "_DIGEST", re.compile("$^"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)
    name = VGG16_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    write(folder / name, proof)
    with pytest.raises(UserError, match="'vgg16'") as caught:
        make_distance("vgg16")
    assert "\n" not in str(caught.value)

    from compressai.zoo.image import model_urls

    url = model_urls["bmshj2018-hyperprior"]["mse"][1]
    write(folder / url.rpartition("/")[2], proof)
    settings = CodecSpec(
        name="bmshj2018-hyperprior",
        kind="learned",
        parameters={},
        rate=1.0,
        weights=WeightsSpec(source="pretrained", part="codec", rate=1.0),
        starts_pretrained=True,
    )
    with pytest.raises(UserError, match="'bmshj2018-hyperprior'"):
        build_codec(settings)
    assert not proof.exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_statistics_and_latents_run_no_code(tmp_path: Path, proof: Path) -> None:
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
def test_yaml_runs_no_code(tmp_path: Path, proof: Path, tag: str) -> None:
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
    assert proof.exists()  # a careless reader runs it


@pytest.mark.parametrize("kind", [tarfile.BLKTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_unpack_refuses_links_and_devices_in_an_inner_tar(tmp_path: Path, kind: bytes) -> None:
    """tests/data/test_archives.py has the other ways out of a folder."""
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
    with pytest.raises(UserError, match=r"all\.tar: .*'x'"):
        unpack(tmp_path / "all.tar", archive, tmp_path / "out", lambda path: True)
    assert not list(tmp_path.rglob("x"))


def test_unpack_does_not_write_through_a_link(tmp_path: Path) -> None:
    """Of two members with one path, the first is a link to a place outside."""
    with tarfile.open(tmp_path / "a.tar", "w") as bundle:
        link = tarfile.TarInfo("x")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "outside")
        bundle.addfile(link)
        file = tarfile.TarInfo("x")
        file.size = 4
        bundle.addfile(file, io.BytesIO(b"evil"))
    with pytest.raises(UserError, match=r"a\.tar"):
        unpack(tmp_path / "a.tar", Archive(name="a.tar", unpack="tar"), tmp_path / "o", bool)
    assert not (tmp_path / "outside").exists()


def test_unpack_does_not_make_files_executable(tmp_path: Path) -> None:
    mode = stat.S_IFREG | stat.S_ISUID | 0o777
    info = zipfile.ZipInfo("x")
    info.external_attr = mode << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as bundle:
        bundle.writestr(info, b"#!/bin/sh\n")
    unpack(tmp_path / "a.zip", Archive(name="a.zip", unpack="zip"), tmp_path / "o", bool)
    assert not (tmp_path / "o/x").stat().st_mode & (stat.S_ISUID | 0o111)
