"""The script that measures on a GPU, run on the CPU: every section at tiny size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import gpu  # noqa: E402
import gpu_agreement  # noqa: E402
from gpu_common import PeakMemory, Table, TimeCap, parse_place  # noqa: E402

from icmbench.errors import UserError  # noqa: E402
from icmbench.plugins import load_modules  # noqa: E402

load_modules([])


def run(tmp_path: Path, capsys: Any, *arguments: str) -> tuple[dict[str, Any], str]:
    """Run the script in this process; return what it wrote and what it printed."""
    output = tmp_path / "gpu.json"
    common = ["--quick", "--device", "cpu", "--threads", "1", "--output", str(output)]
    assert gpu.main([*arguments, *common]) == 0
    return json.loads(output.read_text()), capsys.readouterr().out


def test_throughput_and_loader(tmp_path: Path, capsys: Any) -> None:
    found, printed = run(tmp_path, capsys, "throughput", "loader")
    throughput, loader = found["sections"]
    assert not [note for s in (throughput, loader) for note in s["notes"] if "left out" in note]
    assert [row["codec"] for row in loader["rows"]] == ["bmshj2018-hyperprior", "cheng2020-anchor"]
    assert len(throughput["rows"]) == 6  # theirs, ours in fp32, ours in bf16; twice
    for first in (0, 3):
        theirs, ours = throughput["rows"][first], throughput["rows"][first + 1]
        assert theirs["ratios"] == [1.0, 1.0] and theirs["what"].startswith("CompressAI")
        rates = zip(ours["images_per_second"], theirs["images_per_second"], strict=True)
        assert ours["ratios"] == [own / other for own, other in rates]
    for row in loader["rows"]:
        assert min(*row["shares"], *row["loader_alone"]) > 0
    assert printed.count("| bmshj2018-hyperprior |") == 4


def test_full_size_steps_and_what_cannot_be_measured(tmp_path: Path, capsys: Any) -> None:
    found, _ = run(tmp_path, capsys, "full-size")
    (section,) = found["sections"]
    (row,) = section["rows"]
    assert row["steps"] == 2 and row["batch"] == 2 and row["peak_gb"] > 0.1
    assert row["seconds_per_later_step"] > 0
    found, _ = run(tmp_path, capsys, "full-size", "--variants", "chamain2021/none/such/variant")
    assert "left out: all of it: --variants" in found["sections"][0]["notes"][0]
    found, _ = run(tmp_path, capsys, "loader", "networks", "--minutes", "0")
    assert all("--minutes 0 are over" in s["notes"][0] for s in found["sections"])


def settings(a: str, b: str, **changes: Any) -> gpu_agreement.AgreementSettings:
    values: dict[str, Any] = {"kinds": gpu_agreement.KINDS, "detectors": ("faster-rcnn",)}
    values.update(changes)
    return gpu_agreement.AgreementSettings(
        parse_place(a), parse_place(b), count=1, side=64, small=True, **values
    )


def test_equal_places_agree_on_every_codec() -> None:
    same = settings("cpu", "cpu")
    networks = gpu_agreement.compare_networks(same, TimeCap(9))
    assert [row["network"] for row in networks.data] == [*gpu_agreement.KINDS, "faster-rcnn"]
    assert all(row["largest_difference"] == 0 < row["largest_value"] for row in networks.data)
    assert networks.data[-1]["found_again"] == networks.data[-1]["boxes"] > 0
    coded = gpu_agreement.exchange_bitstreams(same, TimeCap(9))
    assert [row["codec"] for row in coded.data] == list(gpu_agreement.KINDS)
    for row in coded.data:
        assert row["raised"] == row["symbols_differ"] == row["decoded_differs"] == 0
        assert row["bytes_a_image"] > 50  # there was something to go wrong


@pytest.mark.parametrize("kind", ["bmshj2018-hyperprior", "cheng2020-anchor", "dicm"])
def test_places_that_disagree_are_counted(kind: str) -> None:
    apart = settings("cpu", "cpu+noise=0.05", kinds=(kind,), detectors=())
    assert gpu_agreement.compare_networks(apart, TimeCap(9)).data[0]["largest_difference"] > 0
    (row,) = gpu_agreement.exchange_bitstreams(apart, TimeCap(9)).data
    assert row["raised"] or row["symbols_differ"]


def test_places() -> None:
    place = parse_place("cpu+first+threads=3+noise=1e-6")
    assert (place.first, place.threads, place.noise, place.tf32) == (True, 3, 1e-6, False)
    weight = place.put(torch.nn.Conv2d(8, 8, 3)).weight
    assert weight.is_contiguous()
    for wrong in ("tpu", "cpu+fast", "cpu+threads=0", "cpu+noise=2"):
        with pytest.raises(UserError, match="allowed"):
            parse_place(wrong)


def test_peak_memory_is_that_of_the_work() -> None:
    memory = PeakMemory(torch.device("cpu"))
    block = np.ones(200_000_000, np.uint8)
    assert 0.15 < memory.gigabytes() < 0.5
    del block


def test_a_table_says_what_was_left_out() -> None:
    table = Table("T", ["a", "b"])
    table.add([1, "x"], number=1)
    table.leave_out("this", RuntimeError("for a reason\nand more"))
    assert table.markdown() == "### T\n\n| a | b |\n|---|---|\n| 1 | x |\n\n- left out: this: " + (
        "for a reason\n"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "networks", "--device", "cuda"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("gpu.py: error: device 'cuda': torch") and "sees no GPU" in line
