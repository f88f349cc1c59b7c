"""``icmbench eval``: what it writes, refuses and prints, and a whole run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from compressai.models import Cheng2020Anchor, ScaleHyperprior
from compressai.utils.eval_model.__main__ import inference, load_checkpoint, read_image
from PIL import Image

from icmbench.cli import main
from icmbench.commands.eval_summary import strings_bpp
from icmbench.config import own_weights
from icmbench.config.job_settings import classical_jobs, evaluate_job
from icmbench.config.plan import load_plan
from icmbench.config.summary import read_summary

JPEG = ("--codec", "jpeg=10,30,50,80")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for name in "abcd":
        coarse = Image.fromarray(rng.integers(0, 256, (8, 12, 3), np.uint8))
        coarse.resize((256, 192), Image.Resampling.BICUBIC).save(folder / f"{name}.png")
    return folder


def evaluate(images: Path, *more: object, no_run: bool = True) -> int:
    output = images.parent / "out"
    arguments = ["eval", "--images", images, "--output", output, "--cores", "1", *more]
    return main([*map(str, arguments), *(["--no-run"] if no_run else [])])


def written(images: Path) -> tuple[dict, dict]:
    out = images.parent / "out"
    files = (out / "config.yaml", out / "studies" / "eval.yaml")
    config, study = (yaml.safe_load(file.read_text()) for file in files)
    return config, study


def checkpoint(path: Path, network: torch.nn.Module) -> Path:
    """Write a file as CompressAI's training example does, with latents that do not all vanish."""
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.startswith("g_a.") and weight.ndim == 4:
                weight *= 1.6
    torch.save({"epoch": 1, "state_dict": network.state_dict()}, path)
    return path


def test_writes_an_ordinary_study_and_configuration(images: Path) -> None:
    torch.manual_seed(0)
    first = checkpoint(images.parent / "a.pth.tar", ScaleHyperprior(16, 24))
    second = checkpoint(images.parent / "b.pth.tar", ScaleHyperprior(24, 32))
    codec = ("--codec", f"bmshj2018-hyperprior={first},{second}")
    assert evaluate(images, *JPEG, *codec, "--codec", "webp=20,80", "--anchor", "webp") == 0
    config, study = written(images)
    assert config["classical_codecs"] == ["jpeg", "webp"]
    assert config["datasets"] == {"images": {"images": str(images)}}
    assert config["tracking"] == {"mlflow": False}
    assert study["ladders"]["jpeg"]["values"] == [10, 30, 50, 80]
    learned = study["variants"]["bmshj2018-hyperprior/reconstruction"]
    assert learned["codec_from"] == [{"file": str(first)}, {"file": str(second)}]
    (comparison,) = study["comparisons"]
    assert comparison["anchor"] == "webp/reconstruction"
    assert comparison["metrics"] == ["psnr", "ms_ssim"]


def test_perceptual_metrics_are_compared(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(images.parent / "torch"))
    monkeypatch.setattr(own_weights, "answers", lambda url: True)
    webp = ("--codec", "webp=20,80", "--perceptual", "lpips,dists")
    assert evaluate(images, *JPEG, *webp) == 0
    config, study = written(images)
    assert config["perceptual"] == ["lpips", "dists"]
    assert study["comparisons"][0]["metrics"] == ["psnr", "ms_ssim", "lpips", "dists"]
    with chdir(images.parent / "out"):
        plan = load_plan("config.yaml")
        assert {tuple(evaluate_job(plan, point).perceptual) for point in plan.points} == {
            ("lpips", "dists")
        }
        for job in classical_jobs(plan).values():
            assert job.quality[-2:] == ["lpips", "dists"]
    assert evaluate(images, *JPEG) == 0
    assert "perceptual" not in written(images)[0]


def test_several_tasks_judge_one_bitstream(images: Path) -> None:
    names = ("resnet18", "vgg11")
    tasks = [word for name in names for word in ("--task", f"torchvision:{name}")]
    assert evaluate(images, *JPEG, "--codec", "webp=20,80", *tasks) == 0
    config, study = written(images)
    assert config["tasks"]["vgg11"] == {
        "network": "torchvision-classifier", "model": "vgg11", "truth": "originals"
    }  # fmt: skip
    metrics = [comparison["metrics"] for comparison in study["comparisons"]]
    assert metrics == [["agreement_top1", "psnr", "ms_ssim"], ["agreement_top1"]]
    with chdir(images.parent / "out"):
        plan = load_plan("config.yaml")
        coded = [plan.encode_key(point, "test") for point in plan.points]
    jpeg = [key for key in coded if key is not None and "jpeg" in key]
    assert len(jpeg) == 8 and len(set(jpeg)) == 4


def test_published_points_are_those_of_a_stated_protocol(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kodak = ("--published", "kodak-rgb")
    assert evaluate(images, *JPEG, *kodak) == 1
    assert "4 of its 24 images" in capsys.readouterr().err
    for number in range(20):
        shutil.copy(images / "a.png", images / f"{number}.png")
    assert evaluate(images, *JPEG, *kodak) == 0
    config, study = written(images)
    assert study["protocol"] == "kodak-rgb"
    assert config["datasets"]["images"]["rate_pixels"] == "native"
    # What a protocol does to images before the codec is done.
    assert evaluate(images, *JPEG, "--published", "in1k-r50v1-crop224") == 1
    assert "24 of its 50000 images" in capsys.readouterr().err
    assert written(images)[0]["datasets"]["images"]["center_crop"] == 224


def test_published_points_need_their_metric(
    images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("icmbench.commands.eval.set_obstacle", lambda *_, **__: None)
    assert evaluate(images, *JPEG, "--published", "in1k-r50v1-crop224") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "top1" in line and "--task" in line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--codec", "jpeg=80,10"], "jpeg=80,10"),
        (["--codec", "x265-444=30,40"], "qp"),
        (["--codec", "jpg=10"], "'jpeg'"),
        (["--codec", "jpeg"], "jpeg=RATE"),
        (["--codec", "jpeg=101"], "101"),
        (["--codec", "bmshj2018-hyperprior=none.pth"], "none.pth"),
        (["--codec", "bmshj2018-hyperprior=pretrained:3,1"], "[1.0, 3.0]"),
        (["--codec", "bmshj2018-hyperprior=pretrained:9"], "9"),
        ([*JPEG, "--anchor", "webp"], "webp"),
        ([*JPEG, "--perceptual", "lpips,vmaf"], "--perceptual"),
        ([*JPEG, "--published", "kodak"], "kodak-rgb"),
        ([*JPEG, "--task", "torchvision:resnet17"], "resnet18"),
        ([*JPEG, "--task", "nothing"], "nothing"),
        ([*JPEG, "--task", "a:B", "--task-output", "map"], "--task-classes"),
        (
            [*JPEG, "--task", "torch.nn:Identity", "--task-output", "map", "--task-classes", "a,b"],
            "predict",
        ),
        ([*JPEG, "--task", "onnx:{file}", "--task-output", "maps"], "'map'"),
        ([*JPEG, "--task", "onnx:{file}", "--task-output", "boxes", "--task-classes", "a"], "open"),
        ([*JPEG, "--annotations", "none.json"], "none.json"),
        ([*JPEG, "--config", "{config}", "--codec", "silent=1,2"], "prints no version"),
    ],
)
def test_refuses_in_one_line_before_anything_is_coded(
    images: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    config, file = images.parent / "config.yaml", images.parent / "net.onnx"
    file.write_bytes(b"nothing")
    commands = {"encode": "cp {input} {output} {rate}", "decode": "cp {input} {output}"}
    silent = {**commands, "version": "true", "rate": "level", "lower_rate": "smaller"}
    config.write_text(yaml.safe_dump({"command_codecs": {"silent": silent}}))
    given = [a.replace("{config}", str(config)).replace("{file}", str(file)) for a in arguments]
    assert evaluate(images, *given) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line


def test_refuses_a_checkpoint_of_another_architecture(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = checkpoint(images.parent / "a.pth.tar", Cheng2020Anchor(8))
    assert evaluate(images, *JPEG, "--codec", f"bmshj2018-hyperprior={file}") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(file) in line and "bmshj2018-hyperprior" in line


def test_refuses_labels_that_the_network_does_not_have(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = images / "pangolin pie"
    folder.mkdir()
    for file in images.glob("*.png"):
        file.rename(folder / file.name)
    assert evaluate(images, "--classes", *JPEG, "--task", "torchvision:resnet18") == 1
    assert "pangolin pie" in capsys.readouterr().err


NETWORK = """
import torch
class Net(torch.nn.Module):
    def predict(self, images):
        return [image.argmax(0).byte() for image in images]
"""


@pytest.mark.slow
def test_runs_from_any_folder_and_equals_eval_model(images: Path) -> None:
    torch.manual_seed(0)
    out, arguments = images.parent / "out", []
    files = {"cheng2020-anchor": checkpoint(images.parent / "b.pth", Cheng2020Anchor(8))}
    (images.parent / "net.py").write_text(NETWORK)
    for name, file in files.items():
        arguments += ["--codec", f"{name}={file.name}"]
    task = ["--task", "net:Net", "--task-output", "map", "--task-classes", "red,green,blue"]
    command = [sys.executable, "-m", "icmbench", "eval", "--images", "images", "--limit", "2",
               "--codec", "jpeg=10,80", *arguments, *task,
               "--output", "out", "--cores", "1"]  # fmt: skip
    done = subprocess.run(command, cwd=images.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        if line.startswith(("page:", "plot:", "tables:", "JSON:")):
            assert Path(line.split()[1].rstrip(",")).exists()
    curves = pd.read_csv(out / "own" / "tables" / "curves.csv")
    values = curves.groupby(["codec", "metric"])["value"].agg(list).to_dict()
    assert values["uncoded", "agreement_miou"] == [1]
    assert values["jpeg", "agreement_miou"] == sorted(values["jpeg", "agreement_miou"])
    points = {point.codec: point for point in read_summary(out / "own").points}
    for name, file in files.items():
        network = load_checkpoint(name, False, str(file))
        theirs = [inference(network, read_image(images / f"{image}.png")) for image in "ab"]
        psnr, bpp = (np.mean([own[key] for own in theirs]) for key in ("psnr-rgb", "bpp"))
        assert strings_bpp(out / "own", points[name]) == pytest.approx(bpp, abs=1e-6)
        assert values[name, "psnr"][0] == pytest.approx(psnr, abs=1e-3)
