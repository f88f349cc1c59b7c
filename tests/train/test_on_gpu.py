"""What only a GPU can show; every test here skips where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from icmbench.codecs.learned.entries import LearnedParameters
from icmbench.data.dataset import Split
from icmbench.data.synthetic.scenes import make_scene
from icmbench.plugins import load_modules
from icmbench.registry import CODECS, implementation
from icmbench.train import run
from icmbench.train.batches import batches
from icmbench.train.distributed import Team

load_modules([])
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_a_resumed_training_goes_on(train_job: Any, tmp_path: Path) -> None:
    job = train_job("hyperprior/faster-rcnn/j-ft", steps=4)
    job["output"] = str(tmp_path / "run")
    job["runtime"].update(gpu=1, precision="bf16")
    state = run._prepare(job, "f", Team())
    batch = next(batches(state.split, 0, state.schedule, range(1), state.targets))
    own = {"stop": 0.0, "cpu_seconds": 0.0}
    run._step(state, 0, batch.to(state.fabric.device), own)
    run._save(state, 1, run._Clock(state), lambda: None)
    state.log.close()

    resumed = run._prepare(job, "f", Team())
    assert resumed.first_step == 1
    for optimiser in resumed.optimisers.values():
        for parameter, kept in optimiser.state.items():
            held = [v for v in kept.values() if isinstance(v, torch.Tensor)]
            assert held and all(value.device == parameter.device for value in held)
    run._step(resumed, 1, batch.to(resumed.fabric.device), own)
    resumed.log.close()


def test_batches_are_pinned(scenes: dict[str, Any]) -> None:
    schedule = {"batch_size": 2, "crop": None, "flip": True, "crop_area": None}
    split = Split(scenes, "train")
    batch = next(batches(split, 0, schedule, range(1), "boxes", pinned=True))
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
