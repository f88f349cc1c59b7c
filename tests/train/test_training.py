"""The trainer: what trains, what stays, what a fault says."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from icmbench.data.dataset import Split
from icmbench.errors import UserError
from icmbench.networks.build import build_codec, build_task
from icmbench.networks.weights import load_part
from icmbench.train.batches import Batch, batches, indices_of_step
from icmbench.train.checkpoint import load_checkpoint, save_checkpoint
from icmbench.train.run import train
from icmbench.train.schedule import learning_rate_factor
from icmbench.train.system import System, part_parameters, set_modes
from icmbench.utils.files import read_json

MSE = "hyperprior/reconstruction/mse"
PRETRAINED = "uncoded/faster-rcnn/pretrained"
J_FT = "hyperprior/faster-rcnn/j-ft"
C_FT = "hyperprior/faster-rcnn/c-ft"
T_FT = "hyperprior/faster-rcnn/t-ft"
FIXED = "hyperprior/faster-rcnn/fixed-decoder-1"


def build(job: dict[str, Any]) -> System:
    torch.manual_seed(0)
    trains = any(part.startswith("codec") for part in job["parts"])
    system = System(build_codec(job["codec"]), build_task(job["task"]), trains, job["loss"])
    set_modes(system, job["parts"])
    return system


def one_batch(job: dict[str, Any]) -> Any:
    split = Split(job["dataset"], "train")
    return next(batches(split, 0, job["schedule"], range(1), targets="boxes"))


def test_validation_changes_no_weights(train_job: Any) -> None:
    found = []
    for validation in (None, {"every": 1, "images": 2}):
        job = train_job(PRETRAINED)
        job["schedule"]["validation"] = validation
        task = torch.load(train(job), weights_only=True)["task"]
        (Path(job["output"]) / "run.json").unlink()
        for left in Path(job["output"]).glob("*.pt"):
            left.unlink()
        found.append(task)
    assert any(name.endswith("running_mean") for name in found[0])
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


def test_many_open_files_are_allowed_where_workers_hand_batches_over(train_job: Any) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        job = train_job(PRETRAINED)
        source = batches(
            Split(job["dataset"], "train"), 0, job["schedule"], range(1), "boxes", workers=1
        )
        next(source)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("variant", [J_FT, C_FT, T_FT, FIXED])
def test_only_the_named_parts_move(train_job: Any, variant: str, tmp_path: Path) -> None:
    job = train_job(variant)
    torch.manual_seed(0)
    before = {"codec": build_codec(job["codec"]), "task": build_task(job["task"])}
    for name, module in before.items():
        torch.save({name: module.state_dict()}, tmp_path / f"{name}.pt")
        job[name]["weights"] = str(tmp_path / f"{name}.pt")
    train(job)
    after = torch.load(Path(job["output"]) / "weights.pt", weights_only=True)
    moved = {
        name.split(".")[1] if part == "codec" else "task"
        for part in ("codec", "task")
        for name, value in (after[part] or before[part].state_dict()).items()
        if name in dict(before[part].named_parameters())
        and not torch.equal(value, before[part].state_dict()[name])
    }
    transforms = {"g_a", "h_a", "h_s", "entropy_bottleneck"}
    expected = {
        J_FT: {*transforms, "g_s", "task"},
        C_FT: {*transforms, "g_s"},
        T_FT: {"task"},
        FIXED: transforms,
    }
    assert moved == expected[variant]
    assert (after["codec"] is None) == (variant == T_FT)
    assert (after["task"] is None) == (variant in (C_FT, FIXED))


def test_frozen_detector_keeps_its_batch_statistics_and_still_gives_losses(train_job: Any) -> None:
    job = train_job(C_FT)
    system = build(job)
    norms = [m for m in system.task.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms)
    before = [norm.running_mean.clone() for norm in norms]
    terms = system(one_batch(job))
    assert {"bpp", "mse", "task", "loss_classifier", "loss_box_reg"} <= set(terms)
    terms["task"].backward()
    assert all(torch.equal(a, n.running_mean) for a, n in zip(before, norms, strict=True))
    assert all(p.grad is None for p in system.task.parameters())
    assert any(p.grad is not None for p in system.codec.network.g_a.parameters())


def test_trained_detector_updates_its_batch_statistics(train_job: Any) -> None:
    job = train_job(J_FT)
    system = build(job)
    norm = next(m for m in system.task.modules() if isinstance(m, torch.nn.BatchNorm2d))
    before = norm.running_mean.clone()
    system(one_batch(job))
    assert not torch.equal(before, norm.running_mean)


def test_a_frozen_codec_rounds_and_takes_no_gradient(train_job: Any) -> None:
    job = train_job(T_FT)
    system = build(job)
    batch = one_batch(job)
    first, second = system(batch)["bpp"], system(batch)["bpp"]
    assert first == second and not first.requires_grad  # no noise, no graph
    assert not system.codec.training


def test_quantiles_have_an_optimiser_of_their_own(train_job: Any) -> None:
    job = train_job(J_FT)
    system = build(job)
    groups = part_parameters(system.codec, system.task, job["parts"])
    assert set(groups) == {"codec", "task", "auxiliary"}
    assert [id(p) for p in groups["auxiliary"]] == [
        id(system.codec.network.entropy_bottleneck.quantiles)
    ]
    ids = [id(p) for group in groups.values() for p in group]
    assert len(ids) == len(set(ids)) == len(list(system.parameters()))


def test_mse_term_has_compressais_unit(train_job: Any) -> None:
    job = train_job(C_FT)
    system = build(job)
    batch = one_batch(job)
    torch.manual_seed(4)
    terms = system(batch)
    torch.manual_seed(4)
    stacked = torch.stack(batch.images)
    out = system.codec(stacked.contiguous(memory_format=torch.channels_last))
    expected = 255**2 * torch.nn.functional.mse_loss(out.images, stacked)
    assert terms["mse"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert terms["bpp"].item() == pytest.approx(out.bits.item() / (4 * 128 * 128), rel=1e-5)


def test_unequal_image_sizes_are_padded_and_cropped(train_job: Any) -> None:
    job = train_job(C_FT)
    system = build(job)
    batch = one_batch(job)
    batch.images = [image[:, : 128 - 9 * i, : 100 + i] for i, image in enumerate(batch.images)]
    decoded, terms = system._code(batch.images)
    assert [d.shape for d in decoded] == [i.shape for i in batch.images]
    assert torch.isfinite(terms["mse"]) and terms["bpp"] > 0


def test_bf16_agrees_with_fp32(train_job: Any) -> None:
    job = train_job(J_FT)
    system = build(job)
    batch = one_batch(job)
    results = []
    for enabled in (False, True):
        torch.manual_seed(2)
        system.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            terms = system(batch)
        (terms["bpp"] + 0.01 * terms["mse"] + terms["task"]).backward()
        gradient = torch.cat([p.grad.flatten() for p in system.codec.network.g_s.parameters()])
        results.append(({k: v.item() for k, v in terms.items()}, gradient))
    (exact, exact_gradient), (rough, rough_gradient) = results
    for term in ("bpp", "mse", "task"):
        assert rough[term] == pytest.approx(exact[term], rel=0.03), term
    cosine = torch.nn.functional.cosine_similarity(exact_gradient, rough_gradient, 0)
    assert cosine > 0.98


@pytest.mark.parametrize("variant", [PRETRAINED, J_FT])
def test_trains_in_bf16_on_exact_pixels_and_boxes(
    variant: str, train_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on machines without native bf16: a run elsewhere must not fail at its first step."""
    from icmbench.train import system as module

    job = train_job(variant)
    job["runtime"]["precision"] = "bf16"
    seen: list[torch.dtype] = []
    original = module.System.forward

    def forward(self: Any, batch: Any) -> Any:
        seen.extend([batch.images[0].dtype, batch.targets[0]["boxes"].dtype])
        assert torch.is_autocast_enabled("cpu")
        return original(self, batch)

    monkeypatch.setattr(module.System, "forward", forward)
    train(job)
    assert set(seen) == {torch.float32}


def test_likelihoods_are_fp32_under_autocast(train_job: Any) -> None:
    system = build(train_job(J_FT))
    seen = []
    system.codec.network.gaussian_conditional.register_forward_hook(
        lambda _, inputs, output: seen.extend([inputs[0].dtype, inputs[1].dtype, output[1].dtype])
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        system.codec(torch.rand(1, 3, 64, 64))
    assert seen == [torch.float32] * 3


def test_nan_stops_with_step_and_term(train_job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from icmbench.train import system as module

    original = module.System.forward
    calls = []

    def broken(self: Any, batch: Any) -> Any:
        terms = original(self, batch)
        calls.append(1)
        if len(calls) == 2:
            terms["mse"] = terms["mse"] * float("nan")
        return terms

    monkeypatch.setattr(module.System, "forward", broken)
    job = train_job(MSE, steps=4)
    with pytest.raises(UserError, match=r"rate0-seed0: loss is not finite at step 1: mse = nan"):
        train(job)
    run = read_json(Path(job["output"]) / "run.json")
    assert run["status"] == "failed" and "mse" in run["error"]
    assert not (Path(job["output"]) / "weights.pt").exists()


def test_run_leaves_what_others_read(train_job: Any) -> None:
    job = train_job(MSE, steps=4)
    folder = train(job).parent
    run = read_json(folder / "run.json")
    assert run["status"] == "finished" and run["steps_done"] == 4
    assert run["weights_sha256"] and run["dataset"]["digest"] and run["cpu_seconds"] > 0
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    trained = [row["step"] for row in rows if row["split"] == "train"]
    assert trained == [1, 2, 3, 4]
    assert [row["step"] for row in rows if row["split"] == "val"] == [2, 4]
    assert {"loss", "bpp", "mse", "lr.codec", "grad_norm.codec"} <= set(rows[0]["values"])
    assert not (folder / "checkpoint.pt").exists() and not (folder / "training.lock").exists()


def test_a_finished_training_is_not_repeated(
    train_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = train_job(MSE)
    weights = train(job)
    content = weights.read_bytes()
    weights.unlink()  # as Snakemake does before it runs a job
    from icmbench.train import run as module

    def never(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(module, "_loop", never)
    assert train(job).read_bytes() == content
    # Again where the output is there: by a job that outlived its Snakemake.
    there = set(weights.parent.iterdir())
    assert train(job).read_bytes() == content
    assert set(weights.parent.iterdir()) == there
    job["schedule"]["steps"] += 1
    with pytest.raises(AssertionError, match="trained again"):
        train(job)


def test_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, fingerprint="a", step=3, model={}, optimisers={}, totals={})
    assert load_checkpoint(path, "a")["step"] == 3  # type: ignore[index]
    assert load_checkpoint(tmp_path / "none.pt", "a") is None
    with pytest.raises(UserError, match=r"checkpoint\.pt: this checkpoint belongs to other"):
        load_checkpoint(path, "b")


def test_weights_load_after_update(train_job: Any, tmp_path: Path) -> None:
    job = train_job(MSE)
    codec = build_codec(job["codec"])
    codec.prepare_coding()  # fills the tables, whose sizes then differ from a fresh network's
    torch.save({"codec": codec.state_dict()}, tmp_path / "w.pt")
    fresh = build_codec(job["codec"])
    load_part(fresh, tmp_path / "w.pt", "codec")
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    codec.eval()
    fresh.eval()
    assert fresh.encode(image).data == codec.encode(image).data


@pytest.mark.parametrize("decay", ["constant", "cosine", "one-cycle"])
def test_learning_rates(decay: str) -> None:
    schedule = {"steps": 100, "warmup": 10, "decay": decay}
    factors = [learning_rate_factor(step, schedule) for step in range(100)]
    assert max(factors) == pytest.approx(1, abs=0.01) and min(factors) > 0
    assert factors[0] < 0.2
    assert factors[99] == (1 if decay == "constant" else pytest.approx(0, abs=0.01))


def test_an_epoch_visits_every_image_once() -> None:
    steps = [indices_of_step(3, step, 4, 12) for step in range(6)]
    for epoch in (steps[:3], steps[3:]):
        assert sorted(i for step in epoch for i in step) == list(range(12))
    assert steps[:3] != steps[3:]
    with pytest.raises(UserError, match="batch_size 13 is larger"):
        indices_of_step(0, 0, 13, 12)


def test_mirrored_boxes_follow_the_image(scenes: dict[str, Any]) -> None:
    schedule = {"batch_size": 8, "flip": True, "crop": None}
    split = Split(scenes, "train")
    plain = {"batch_size": 8, "flip": False, "crop": None}
    a = next(batches(split, 0, schedule, range(1), targets="boxes"))
    b = next(batches(split, 0, plain, range(1), targets="boxes"))
    mirrored = 0
    for x, y, s, t in zip(a.images, b.images, a.targets, b.targets, strict=True):
        if torch.equal(x, y):
            assert torch.equal(s["boxes"], t["boxes"])
            continue
        mirrored += 1
        assert torch.equal(x.flip(-1), y)
        assert torch.equal(128 - s["boxes"][:, [2, 0]], t["boxes"][:, [0, 2]])
    assert 0 < mirrored < 8


def test_loader_workers_give_the_same_batches(scenes: dict[str, Any]) -> None:
    schedule = {"batch_size": 2, "flip": True, "crop": 64}
    split = Split(scenes, "train")
    alone = list(batches(split, 1, schedule, range(3), targets="none"))
    shared = list(batches(split, 1, schedule, range(3), targets="none", workers=2))
    for a, b in zip(alone, shared, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.images, b.images, strict=True))


def test_published_weights_that_cannot_be_had_are_one_line(
    train_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from urllib.error import URLError

    import torchvision

    def unreachable(*_: Any, **__: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", unreachable)
    settings = train_job(T_FT)["task"]
    settings["parameters"].update(backbone="resnet50-fpn", classes=91)
    settings.update(weights="pretrained", pretrained=True)
    with pytest.raises(UserError, match=r"weights of 'faster-rcnn' cannot be loaded .*no route"):
        build_task(settings)


def test_a_batch_knows_how_to_be_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader pins tensors of a class of ours only where the class has the method."""
    from torch.utils.data._utils.pin_memory import pin_memory

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    batch = Batch([torch.zeros(3, 2, 2)], [{"labels": torch.zeros(1)}])
    pinned = pin_memory(batch)
    assert float(pinned.images[0].sum()) == 12 and float(pinned.targets[0]["labels"]) == 1
