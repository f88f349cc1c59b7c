"""The part of conda's command line that Snakemake calls, implemented with py-rattler."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path

import yaml
from rattler import Channel, ChannelConfig, VirtualPackage, install, solve
from rattler.platform import Platform

BASE = Path(__file__).resolve().parents[1]
VERSION = "24.7.1"  # the oldest that Snakemake accepts


async def create(file: Path, prefix: Path) -> None:
    """Create the environment that a yaml file describes."""
    spec = yaml.safe_load(file.read_text())
    names = [name for name in spec["channels"] if name != "nodefaults"]
    alias = os.environ["CONDA_CHANNEL_ALIAS"].rstrip("/") + "/"  # a relative name follows a slash
    config = ChannelConfig(channel_alias=alias)
    records = await solve(
        [Channel(name, config) for name in names],
        spec["dependencies"],
        platforms=[str(Platform.current()), "noarch"],
        virtual_packages=VirtualPackage.detect(),
        timestamp_policy="allow-missing",
    )
    await install(records, prefix, cache_dir=BASE / "pkgs", show_progress=False)
    (prefix / "conda-meta" / "history").touch()


def main(arguments: list[str]) -> None:
    """Answer one call."""
    if arguments == ["--version"]:
        print("conda", VERSION)
    elif arguments == ["info", "--json"]:
        print(json.dumps({"conda_prefix": str(BASE), "platform": str(Platform.current())}))
    elif arguments == ["config", "--get", "channel_priority", "--json"]:
        print(json.dumps({"get": {"channel_priority": "strict"}}))
    elif arguments[:2] == ["env", "create"]:
        parser = argparse.ArgumentParser()
        parser.add_argument("--quiet", action="store_true")
        parser.add_argument("--no-default-packages", action="store_true")
        parser.add_argument("--file", type=Path, required=True)
        parser.add_argument("--prefix", type=Path, required=True)
        asked = parser.parse_args(arguments[2:])
        asyncio.run(create(asked.file, asked.prefix))
        # Skip Python's shutdown: rattler's threads may crash in it (5 of 60 calls with 0.28.0).
        os._exit(0)
    elif arguments[:1] != ["clean"]:
        sys.exit(f"the test's conda does not support: {arguments}")


main(sys.argv[1:])
