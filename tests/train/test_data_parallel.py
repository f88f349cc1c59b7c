"""One job in several processes: the same training, and one end for all of them."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from icmbench.config.load import check
from icmbench.config.plan import Plan, Point, load_plan
from icmbench.config.study import Schedule
from icmbench.data.dataset import Split
from icmbench.errors import UserError
from icmbench.train import launch
from icmbench.train.batches import batches, indices_of_step
from icmbench.train.distributed import Team, find_team, step_seed
from icmbench.train.run import fingerprint_of
from icmbench.utils.files import digest_json, read_json, sha256_file, write_json

MSE = "hyperprior/reconstruction/mse"
J_FT = "hyperprior/faster-rcnn/j-ft"

# Of every logged value, relative to one process: they add the same numbers in another order.
TOLERANCE = 1e-5


@pytest.fixture
def write_job(tmp_path: Path) -> Any:
    """Return a function that writes a job of so many devices, and gives its file and folder."""

    def write(job: dict[str, Any], name: str, devices: int) -> tuple[Path, Path]:
        job = json.loads(json.dumps(job))
        job["schedule"]["devices"] = devices
        job["output"] = str(tmp_path / name)
        job["runtime"]["precision"] = "fp32"
        path = tmp_path / f"{name}.json"
        write_json(path, job)
        return path, tmp_path / name

    return write


def run_together(*jobs: Path, quiet: bool = False) -> tuple[dict[str, list[int]], str]:
    """Return the exit statuses of all processes by job's name, and what they said."""
    program = str(Path(__file__).with_name("in_two.py"))
    command = [sys.executable, program, *(["--quiet"] if quiet else []), *map(str, jobs)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    codes = json.loads(done.stdout.splitlines()[-1])
    return {Path(job).stem: found for job, found in codes.items()}, done.stderr


def start(job: Path) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-m", "icmbench", "train", str(job)]
    return subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload, no-any-return]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def values_of(folder: Path) -> list[dict[str, float]]:
    """Return what both trainings must agree on; speed is not part of it."""
    return [
        {name: value for name, value in row["values"].items() if name != "images_per_second"}
        for row in rows_of(folder)
    ]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(folder / "weights.pt", weights_only=True)
    parts = [(part, state[part] or {}) for part in ("codec", "task")]
    return {f"{part}.{name}": value for part, held in parts for name, value in held.items()}


def alive(job: Path) -> list[str]:
    """Return the processes that have a file among their arguments."""
    found = []
    for arguments in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(job) in arguments.read_text():
                found.append(arguments.parent.name)
        except OSError:
            continue  # ended meanwhile
    return found


def wait_until(condition: Any, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def largest_difference(a: list[dict[str, float]], b: list[dict[str, float]]) -> float:
    assert len(a) == len(b)
    differences = []
    for one, other in zip(a, b, strict=True):
        assert one.keys() == other.keys()
        differences += [abs(one[n] - other[n]) / max(abs(one[n]), 1e-6) for n in one]
    return max(differences)


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_batch_of_both(
    train_job: Any, smoke_plan: Plan, scenes: dict[str, Any], write_job: Any
) -> None:
    """Noise and per-process statistics are taken out, see in_two.py; nothing else is.

    The contrastive job runs the key shuffle, the gathering of keys, the momentum network and the
    renewal of boxes in both processes.
    """
    codec = train_job(MSE, steps=8)
    contrast = smoke_plan.train_job(Point("tang2025", "dicm/contrastive/backbone", 0, 0))
    contrast["dataset"] = {**scenes, "role": "classification"}
    contrast["schedule"] |= {"steps": 6, "batch_size": 4}
    jobs = {
        (name, devices): write_job(job, f"{name}{devices}", devices)
        for name, job in (("codec", codec), ("contrast", contrast))
        for devices in (1, 2)
    }
    broken, folder = write_job(codec, "nan", 2)
    codes, said = run_together(*(path for path, _ in jobs.values()), broken, quiet=True)
    # One process's NaN is an error of both, at the same step: none waits for the other.
    assert codes.pop("nan") == [1, 1]
    assert said.count("icmbench: error: chamain2021") == 2
    assert said.count("loss is not finite at step 1: bpp = nan, mse = nan") == 2
    assert read_json(folder / "run.json")["status"] == "failed"
    assert not any(code for found in codes.values() for code in found), said
    for name in ("codec", "contrast"):
        one, two = (jobs[name, devices][1] for devices in (1, 2))
        assert [row["step"] for row in rows_of(one)] == [row["step"] for row in rows_of(two)]
        difference = largest_difference(values_of(one), values_of(two))
        print(f"{name}: largest relative difference {difference:.1e}")
        assert difference < TOLERANCE
        expected, found = weights(one), weights(two)
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            assert torch.allclose(value.float(), found[key].float(), rtol=1e-3, atol=1e-4), key
        assert read_json(two / "run.json")["environment"]["device"].startswith("2 x ")
    losses = [value["loss"] for value in values_of(jobs["contrast", 2][1])]
    assert len(set(losses)) == len(losses)
    # 24 keys went through a queue of 16: their order is that of one process, wrapped around.
    bank, pointer = "task.loss.memory_bank.bank", "task.loss.memory_bank.bank_ptr"
    one, two = (weights(jobs["contrast", devices][1]) for devices in (1, 2))
    assert torch.allclose(one[bank], two[bank], atol=1e-4)
    assert one[pointer].item() == two[pointer].item() == 24 % 16
    assert not torch.allclose(one[bank][:4], one[bank][4:8], atol=1e-2)
    assert len(one["task.crops.boxes"]) == 8


@pytest.mark.slow
def test_terminated_and_resumed_by_two_processes_is_bit_exact(
    train_job: Any, write_job: Any
) -> None:
    job = train_job(J_FT, steps=12)
    undisturbed, reference = write_job(job, "undisturbed", 2)
    disturbed, folder = write_job(job, "disturbed", 2)
    terminated = start(disturbed)
    wait_until(lambda: (folder / "metrics.jsonl").is_file() and len(rows_of(folder)) >= 3)
    terminated.send_signal(signal.SIGTERM)
    _, errors = terminated.communicate(timeout=200)
    assert terminated.returncode == 143, errors
    assert errors.count("SIGTERM at step") == 1 and "checkpoint saved" in errors
    assert not alive(disturbed) and not (folder / "training.lock").exists()
    run = read_json(folder / "run.json")
    assert run["status"] == "interrupted" and 3 <= run["steps_done"] < 12
    assert not (folder / "weights.pt").exists()

    codes, said = run_together(undisturbed, disturbed)
    assert codes == {"undisturbed": [0, 0], "disturbed": [0, 0]}, said
    expected, found = weights(reference), weights(folder)
    assert expected.keys() == found.keys()
    assert not [name for name in expected if not torch.equal(expected[name], found[name])]
    assert values_of(folder) == values_of(reference)
    steps = [row["step"] for row in rows_of(folder) if row["split"] == "train"]
    assert steps == list(range(1, 13))


@pytest.mark.slow
def test_a_failure_in_one_process_ends_all_with_one_line(
    train_job: Any, write_job: Any, tmp_path: Path
) -> None:
    """One image is damaged: only the process whose share it is in finds out."""
    job = train_job(MSE, steps=4)
    path, folder = write_job(job, "damaged", 2)
    content = read_json(path)
    whole = Path(content["dataset"]["folder"])
    split = Split(content["dataset"], "train")
    last = indices_of_step(job["seed"], 0, job["schedule"]["batch_size"], len(split))[-1]
    name = f"{split.ids[last]}.png"
    copy = Path(shutil.copytree(whole, tmp_path / "scenes"))
    with (
        zipfile.ZipFile(whole / "train.zip") as good,
        zipfile.ZipFile(copy / "train.zip", "w") as bad,
    ):
        assert name in good.namelist()
        for member in good.namelist():
            bad.writestr(member, b"no image" if member == name else good.read(member))
    manifest = read_json(copy / "manifest.json")  # or all find out before they begin
    manifest["splits"]["train"]["sha256"]["train.zip"] = sha256_file(copy / "train.zip")
    manifest["digest"] = digest_json({k: v for k, v in manifest.items() if k != "digest"})
    write_json(copy / "manifest.json", manifest)
    content["dataset"] |= {"folder": str(copy), "manifest": str(copy / "manifest.json")}
    write_json(path, content)
    failed = start(path)
    _, errors = failed.communicate(timeout=400)
    assert failed.returncode == 1, errors
    assert "Traceback" not in errors
    assert errors.count("cannot read image") == 1 and name in errors
    assert errors.strip().splitlines()[-1].startswith("icmbench: error: ")
    run = read_json(folder / "run.json")
    assert run["status"] == "failed" and "cannot read image" in run["error"]
    assert not alive(path)


# --- the launcher, with processes that cost nothing -----------------------------------------------

MEMBER = """
import os, signal, sys, time
from pathlib import Path
from icmbench.errors import UserError
from icmbench.train import launch

folder, rank = Path(sys.argv[1]), os.environ["RANK"]
stopped = []

def work():
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    (folder / f"pid{rank}").write_text(str(os.getpid()))
    while not stopped:
        time.sleep(0.02)
        {failure}
    (folder / f"saved{rank}").touch()
    return launch.INTERRUPTED

launch.take_part(work)
"""


def group_of(tmp_path: Path, failure: str = "pass") -> launch._Group:
    program = tmp_path / "member.py"
    program.write_text(MEMBER.replace("{failure}", failure))
    (tmp_path / "faults").mkdir()
    command = [sys.executable, str(program), str(tmp_path)]
    return launch._Group(command, 2, tmp_path / "faults")


def gone(tmp_path: Path) -> bool:
    return not alive(tmp_path / "member.py")


def test_what_failed_first_is_what_is_said(tmp_path: Path) -> None:
    failure = """
        others = (folder / "pid0").exists() and (folder / "pid1").exists()
        if rank == "1" and others: raise UserError("the disk is full")
        if (folder / "faults" / "1.json").exists(): raise RuntimeError("connection closed")
"""
    group = group_of(tmp_path, failure)
    assert group.run() == [1, 1]
    assert group.first_fault("key") == "the disk is full"
    assert gone(tmp_path)


def test_a_killed_process_is_named_and_the_others_end(tmp_path: Path) -> None:
    failure = 'if rank == "1" and (folder / "pid0").exists(): os.kill(os.getpid(), 9)'
    group = group_of(tmp_path, failure)
    assert group.run()[1] == -9
    assert "key: process 1 of 2 was ended by SIGKILL; memory" in group.first_fault("key")
    assert gone(tmp_path)


def test_a_process_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_GRACE_S", 0.3)
    failure = """
        if rank == "0": stopped.clear(); continue
        if (folder / "pid0").exists(): raise ValueError("no good")
"""
    group = group_of(tmp_path, failure)
    assert group.run() == [-9, 1]
    assert group.first_fault("key") == "key: process 1 of 2: ValueError: no good"
    assert gone(tmp_path)


def test_no_process_outlives_a_killed_launcher(tmp_path: Path) -> None:
    group_of(tmp_path)  # writes the program
    program = f"""
import sys
from pathlib import Path
from icmbench.train import launch
folder = Path({str(tmp_path)!r})
launch._Group([sys.executable, str(folder / "member.py"), str(folder)], 2, folder / "faults").run()
"""
    launcher = subprocess.Popen([sys.executable, "-c", program])
    wait_until(lambda: all((tmp_path / f"pid{rank}").exists() for rank in (0, 1)), 30)
    launcher.kill()
    launcher.wait()
    wait_until(lambda: gone(tmp_path), 10)
    assert all((tmp_path / f"saved{rank}").exists() for rank in (0, 1))  # told, not killed


# --- configuration and shares ---------------------------------------------------------------------


def test_a_batch_that_cannot_be_shared_is_one_line() -> None:
    schedule = {
        "steps": 1,
        "batch_size": 6,
        "devices": 4,
        "optimisers": {"codec": {"name": "adam", "lr": 0.1}},
        "origin": "ours",
    }
    with pytest.raises(UserError) as error:
        check(Schedule, schedule, "study.yaml")
    assert str(error.value) == (
        "study.yaml: key 'devices': Value error, batch_size 6 is no multiple of it; change one of "
        "them; found 4"
    )


def test_one_device_leaves_job_and_fingerprint_as_they_were(train_job: Any) -> None:
    job = train_job(MSE)
    assert "devices" not in job["schedule"]
    before = fingerprint_of(job)
    job["schedule"]["devices"] = 1
    assert fingerprint_of(job) == before
    job["schedule"]["devices"] = 2
    assert fingerprint_of(job) != before


def test_a_training_asks_for_what_all_its_devices_need(repository: Path, tmp_path: Path) -> None:
    from types import SimpleNamespace

    from icmbench.workflow import Workflow

    overrides = {"scale": "paper", "studies": ["tang2025"], "results": str(tmp_path)}
    plan = load_plan(repository / "config.yaml", overrides)
    w = Workflow(plan)
    asked = {}
    for variant in ("dicm/contrastive/backbone", "dicm/reconstruction/elimination"):
        wildcards = SimpleNamespace(key=Point("tang2025", variant, 0, 0).key)
        asked[variant] = (
            w.train_gpu["gpu"](wildcards),
            w.train_threads(wildcards),
            w.train_memory(wildcards, 1),
        )
    runtime = plan.scale.runtime
    one = (runtime.gpu, runtime.threads, runtime.memory_mb)
    assert asked["dicm/reconstruction/elimination"] == one
    assert asked["dicm/contrastive/backbone"] == tuple(4 * value for value in one)


def test_another_number_of_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_team(1) == Team()
    with pytest.raises(UserError, match="devices are 2, but 1 processes train"):
        find_team(2)
    for name, value in {
        "TORCHELASTIC_RUN_ID": "x",
        "WORLD_SIZE": "4",
        "RANK": "3",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
    }.items():
        monkeypatch.setenv(name, value)
    assert find_team(4) == Team(rank=3, size=4, local_rank=1, local_size=2)
    with pytest.raises(UserError, match="devices are 1, but 4 processes train"):
        find_team(1)


@pytest.mark.parametrize("area", [None, [0.2, 1.0]])
def test_shares_are_pieces_of_the_whole_batch(scenes: dict[str, Any], area: Any) -> None:
    schedule = {"batch_size": 6, "flip": True, "crop": 48, "crop_area": area}
    whole = next(batches(Split(scenes, "train"), 3, schedule, range(1), "none"))
    pieces = []
    for rank in range(3):
        split = Split(scenes, "train")  # of a process that has read nothing yet
        share = Team(rank, 3).share(6)
        pieces += next(batches(split, 3, schedule, range(1), "none", share=share)).images
    assert all(torch.equal(a, b) for a, b in zip(whole.images, pieces, strict=True))


def test_processes_draw_other_noise_and_the_first_that_of_one_alone() -> None:
    seeds = {Team(rank, 4).step_seed(1, step) for rank in range(4) for step in range(50)}
    assert len(seeds) == 200
    assert len({seed % 2**32 for seed in seeds}) == 200  # a CPU's generator takes these bits only
    assert Team(0, 4).step_seed(1, 7) == Team().step_seed(1, 7)


def test_seeds_draw_other_noise() -> None:
    drawn = []
    for seed in range(8):
        torch.manual_seed(step_seed(seed, 7))
        drawn.append(tuple(torch.rand(4).tolist()))
    assert len(set(drawn)) == 8
