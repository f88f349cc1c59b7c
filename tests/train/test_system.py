"""Codec and task as one network: which parameters train, and the units of the loss terms."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from training_jobs import J_FT

from icmbench.data.dataset import Split
from icmbench.jobs import TrainJob
from icmbench.networks.build import build_codec, build_task
from icmbench.train.batches import Batch, batches
from icmbench.train.system import System, part_parameters, set_modes

MakeJob = Callable[..., TrainJob]
C_FT = "hyperprior/faster-rcnn/c-ft"
T_FT = "hyperprior/faster-rcnn/t-ft"


def build(job: TrainJob) -> System:
    torch.manual_seed(0)
    trains = any(part.startswith("codec") for part in job.parts)
    system = System(build_codec(job.codec), build_task(job.task), trains, job.loss)
    set_modes(system, job.parts)
    return system


def one_batch(job: TrainJob) -> Batch:
    split = Split(job.dataset, "train")
    return next(batches(split, 0, job.schedule, range(1), targets="boxes"))


def test_frozen_detector_keeps_its_batch_statistics_and_still_gives_losses(
    train_job: MakeJob,
) -> None:
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


def test_trained_detector_updates_its_batch_statistics(train_job: MakeJob) -> None:
    job = train_job(J_FT)
    system = build(job)
    norm = next(m for m in system.task.modules() if isinstance(m, torch.nn.BatchNorm2d))
    before = norm.running_mean.clone()
    system(one_batch(job))
    assert not torch.equal(before, norm.running_mean)


def test_frozen_codec_rounds_and_has_no_gradient(train_job: MakeJob) -> None:
    job = train_job(T_FT)
    system = build(job)
    batch = one_batch(job)
    first, second = system(batch)["bpp"], system(batch)["bpp"]
    assert first == second and not first.requires_grad  # no noise, no graph
    assert not system.codec.training


def test_quantiles_have_their_own_optimiser(train_job: MakeJob) -> None:
    job = train_job(J_FT)
    system = build(job)
    groups = part_parameters(system.codec, system.task, job.parts)
    assert set(groups) == {"codec", "task", "auxiliary"}
    assert [id(p) for p in groups["auxiliary"]] == [
        id(system.codec.network.entropy_bottleneck.quantiles)
    ]
    ids = [id(p) for group in groups.values() for p in group]
    assert len(ids) == len(set(ids)) == len(list(system.parameters()))


def test_mse_and_bpp_have_compressais_units(train_job: MakeJob) -> None:
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


def test_unequal_image_sizes_reach_the_task_without_padding(train_job: MakeJob) -> None:
    job = train_job(C_FT)
    system = build(job)
    batch = one_batch(job)
    batch.images = [image[:, : 128 - 9 * i, : 100 + i] for i, image in enumerate(batch.images)]
    seen: list[torch.Tensor] = []
    losses = system.task.losses
    system.task.losses = lambda images, targets: seen.extend(images) or losses(images, targets)
    terms = system(batch)
    assert [d.shape for d in seen] == [i.shape for i in batch.images]
    assert torch.isfinite(terms["mse"]) and terms["bpp"] > 0


def test_bf16_agrees_with_fp32(train_job: MakeJob) -> None:
    job = train_job(J_FT)
    system = build(job)
    batch = one_batch(job)
    likelihoods: list[torch.dtype] = []
    system.codec.network.gaussian_conditional.register_forward_hook(
        lambda _, inputs, output: likelihoods.extend([inputs[0].dtype, output[1].dtype])
    )
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
    assert torch.nn.functional.cosine_similarity(exact_gradient, rough_gradient, 0) > 0.98
    assert set(likelihoods) == {torch.float32}  # also under autocast
