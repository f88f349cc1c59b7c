"""How the environment is made, named and activated, with a lock of one package."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conda_checkout import Checkout, Client, copy_checkout, requirement

pytestmark = [pytest.mark.conda, pytest.mark.slow]

ONLY_CREATE = ("--use-conda", "--conda-create-envs-only", "--config", "scale=smoke",
               "studies=[chamain2021]")  # fmt: skip
STATE = """
import importlib.util, json, os, sys
import icmbench
print(json.dumps({
    "prefix": sys.prefix,
    "package": icmbench.__file__,
    "leaks": [n for n in ("leak_user_site", "leak_path") if importlib.util.find_spec(n)],
}))
"""


@pytest.fixture(scope="module")
def lock(repository: Path) -> str:
    return (repository / "envs/requirements.lock").read_text()


@pytest.fixture(scope="module")
def checkout(
    repository: Path, lock: str, client: Client, tmp_path_factory: pytest.TempPathFactory
) -> Checkout:
    """A checkout whose environment exists; its lock names one package."""
    copy = copy_checkout(repository, tmp_path_factory.mktemp("checkout"), client)
    copy.write_lock(requirement(lock, "filelock"))
    done = copy.snakemake(*ONLY_CREATE)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Running post-deploy script" in done.stderr
    return copy


def state(
    checkout: Checkout, folder: Path, base_active: bool, **variables: str
) -> dict[str, object]:
    """Activate as Snakemake does, behind the folder of its own interpreter, and ask python."""
    env = checkout.client.environment(base_active) | variables
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    activate = f"source {checkout.client.base}/bin/activate '{checkout.environments[0]}'"
    text = subprocess.check_output(
        ["bash", "-c", f'{activate}; set -euo pipefail; python -c "$STATE"'],
        cwd=folder,
        env={**env, "STATE": STATE},
        text=True,
    )
    return json.loads(text)


def test_it_holds_the_lock_and_this_package(checkout: Checkout, lock: str) -> None:
    (environment,) = checkout.environments
    version = requirement(lock, "filelock").partition("==")[2].split()[0]
    assert checkout.packages(environment) == {
        "filelock": version,
        checkout.folder.as_uri(): "editable",
    }
    program = "import filelock, icmbench, sys; print(sys.prefix, filelock.__file__)"
    text = subprocess.check_output(
        [environment / "bin/python", "-I", "-c", program], cwd="/", text=True
    )
    assert text.count(str(environment)) == 2


@pytest.mark.parametrize("base_active", [True, False])
def test_activated_it_comes_first_and_alone(
    checkout: Checkout, tmp_path: Path, base_active: bool
) -> None:
    (environment,) = checkout.environments
    site = tmp_path / "lib/python3.11/site-packages"
    site.mkdir(parents=True)
    (site / "leak_user_site.py").touch()
    variables = {"PYTHONUSERBASE": str(tmp_path)}
    found = state(checkout, checkout.folder, base_active, **variables)
    assert found["prefix"] == str(environment)
    assert found["package"] == str(checkout.folder / "workflow/icmbench/__init__.py")
    assert found["leaks"] == []
    program = "import leak_user_site"  # without activation it is there: the test can fail
    subprocess.run(
        [environment / "bin/python", "-c", program],
        env={**os.environ, **variables},
        check=True,
    )


def test_a_checkout_that_shares_it_runs_its_own_code(checkout: Checkout, tmp_path: Path) -> None:
    shutil.copytree(checkout.folder / "workflow/icmbench", tmp_path / "workflow/icmbench")
    found = state(checkout, tmp_path, base_active=True)
    assert found["package"] == str(tmp_path / "workflow/icmbench/__init__.py")


def test_what_is_let_in_comes_after_the_checkout(checkout: Checkout, tmp_path: Path) -> None:
    """As with --conda-not-block-search-path-envs, for modules of the user's own."""
    (tmp_path / "leak_path.py").touch()
    (tmp_path / "icmbench").mkdir()
    (tmp_path / "icmbench/__init__.py").touch()
    found = state(checkout, checkout.folder, base_active=True, PYTHONPATH=str(tmp_path))
    assert found["leaks"] == ["leak_path"]
    assert found["package"] == str(checkout.folder / "workflow/icmbench/__init__.py")


def test_a_wrong_hash_is_refused(
    repository: Path, client: Client, lock: str, tmp_path: Path
) -> None:
    copy = copy_checkout(repository, tmp_path, client)
    wrong = re.sub(r"sha256:\w+", f"sha256:{'0' * 64}", requirement(lock, "filelock"))
    copy.write_lock(wrong)
    done = copy.snakemake(*ONLY_CREATE)
    assert done.returncode != 0 and "ash mismatch" in done.stderr, done.stderr[-3000:]
    assert copy.environments == [] and not list(tmp_path.glob(".snakemake/conda/*/"))


def test_a_new_lock_makes_a_new_environment_and_the_old_one_stays(
    checkout: Checkout, lock: str
) -> None:
    """The last test: it changes the checkout."""
    again = checkout.snakemake(*ONLY_CREATE)
    assert again.returncode == 0 and "Creating conda environment" not in again.stderr
    (old,) = checkout.environments
    checkout.write_lock(requirement(lock, "filelock") + requirement(lock, "tomlkit"))
    done = checkout.snakemake(*ONLY_CREATE)
    assert done.returncode == 0, done.stderr[-3000:]
    first, new = checkout.environments
    assert first == old and new != old
    assert checkout.packages(new).keys() - checkout.packages(old).keys() == {"tomlkit"}
