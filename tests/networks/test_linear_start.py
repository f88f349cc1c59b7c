"""The linear start is a transform coder before the first step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from icmbench.data.synthetic.common import noise
from icmbench.errors import UserError
from icmbench.networks.linear_start import (
    LinearAnalysis,
    LinearSynthesis,
    fit,
    principal_components,
)


@pytest.fixture(scope="module")
def images() -> list[Tensor]:
    """Coloured 1/f noise, whose neighbouring pixels are alike."""
    rng = np.random.default_rng(0)
    fields = [np.stack([noise(rng, 64, 1.3) for _ in range(3)]) for _ in range(12)]
    return [torch.from_numpy(0.5 + 0.2 * field)[None] for field in fields]


def blocks_of(images: list[Tensor], side: int) -> np.ndarray:
    """Cut [n, 3 * side^2] blocks with plain loops."""
    rows = [
        image[0, :, i : i + side, j : j + side].reshape(-1).numpy()
        for image in images
        for i in range(0, image.shape[2], side)
        for j in range(0, image.shape[3], side)
    ]
    return np.array(rows, np.float64)


def test_principal_components_are_those_of_a_singular_value_decomposition(
    images: list[Tensor],
) -> None:
    means, basis, deviations = principal_components(images, 4, 10)
    rows = blocks_of(images, 4)
    expected_means = rows.reshape(len(rows), 3, 16).mean((0, 2))
    centred = rows - np.repeat(expected_means, 16)
    _, singular, vectors = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(means, expected_means, atol=1e-5)
    np.testing.assert_allclose(deviations, singular[:10] / np.sqrt(len(rows)), rtol=1e-3)
    alignment = np.abs((basis.numpy() * vectors[:10]).sum(1))
    np.testing.assert_allclose(alignment, 1, atol=1e-2)


def test_fitted_transforms_lose_what_the_left_out_components_hold(images: list[Tensor]) -> None:
    analysis = LinearAnalysis(nn.Conv2d(3, 12, 4, 4), 3, 12, 4)
    synthesis = LinearSynthesis(nn.ConvTranspose2d(12, 3, 4, 4), 3, 12, 4)
    widths = fit(analysis, synthesis, images, step=0.1)
    nn.init.zeros_(analysis.own.weight)  # type: ignore[arg-type]
    nn.init.zeros_(synthesis.own.weight)  # type: ignore[arg-type]
    variances = np.sort(np.linalg.eigvalsh(np.cov(blocks_of(images, 4).T)))[::-1]
    with torch.no_grad():
        latents = [analysis(image) for image in images]
        errors = [(synthesis(y) - x).square().mean() for y, x in zip(latents, images, strict=True)]
    assert float(torch.stack(errors).mean()) == pytest.approx(variances[12:].sum() / 48, rel=0.1)
    # Latents are in units of the step.
    assert torch.cat([y.flatten(2) for y in latents], 2).std(2)[0, 0] == pytest.approx(
        float(widths[0]), rel=0.1
    )
    assert float(widths[0]) == pytest.approx(np.sqrt(variances[0]) / 0.1, rel=0.1)


def test_linear_analysis_refuses_more_channels_than_a_block_has_numbers() -> None:
    with pytest.raises(UserError, match="49 channels"):
        LinearAnalysis(nn.Identity(), 3, 49, 4)
