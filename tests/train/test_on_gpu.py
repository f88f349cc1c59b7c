"""What only a GPU can show; every test here skips without one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from training_jobs import J_FT, changed

from icmbench.codecs.learned.entries import LearnedParameters
from icmbench.data.dataset import Split
from icmbench.data.specs import DatasetSpec
from icmbench.data.synthetic.scenes import make_scene
from icmbench.jobs import TrainJob
from icmbench.plugins import load_modules
from icmbench.registry import CODECS, implementation
from icmbench.train.batches import batches
from icmbench.train.checkpoint import save_checkpoint
from icmbench.train.setup import prepare
from icmbench.train.step import optimise

load_modules([])
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

MakeJob = Callable[..., TrainJob]


def test_resumed_run_has_its_optimisers_on_the_gpu(train_job: MakeJob, tmp_path: Path) -> None:
    job = changed(train_job(J_FT, steps=4), output=str(tmp_path / "run"), gpu=1, precision="bf16")
    training = prepare(job, "f")
    step, batch = next(training.batches())
    optimise(training, step, batch)
    save_checkpoint(
        training.folder / "checkpoint.pt",
        fingerprint="f",
        step=1,
        model=training.system.state_dict(),
        optimisers=training.optimisers,
        totals=training.clock.totals(),
    )
    training.log.close()

    resumed = prepare(job, "f")
    assert resumed.first_step == 1
    for optimiser in resumed.optimisers.values():
        for parameter, kept in optimiser.state.items():
            held = [v for v in kept.values() if isinstance(v, torch.Tensor)]
            assert held and all(value.device == parameter.device for value in held)
    optimise(resumed, 1, batch)
    resumed.log.close()


def test_batches_are_pinned(train_job: MakeJob, scenes: DatasetSpec) -> None:
    split = Split(scenes, "train")
    batch = next(batches(split, 0, train_job(J_FT).schedule, range(1), "boxes", pinned=True))
    assert all(image.is_pinned() for image in batch.images)
    assert all(v.is_pinned() for target in batch.targets for v in target.values() if v.numel())


@pytest.mark.parametrize("name", ["bmshj2018-hyperprior", "mbt2018", "cheng2020-anchor"])
def test_codecs_code_where_they_are(name: str) -> None:
    torch.manual_seed(5)
    codec = implementation(CODECS[name])(LearnedParameters(n=16, m=24, latent_gain=40))
    codec.prepare_coding()
    codec.to("cuda")
    image = make_scene(np.random.default_rng(3), 64).image
    encoded = codec.encode(image)
    assert np.abs(codec.decode(encoded.data).astype(int) - encoded.reconstruction).max() <= 1
