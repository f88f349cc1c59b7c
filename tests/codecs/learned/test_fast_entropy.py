"""The fast entropy models compute what CompressAI's do."""

from __future__ import annotations

import pytest
import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.models.google import ScaleHyperprior
from torch import Tensor

from icmbench.codecs.learned.fast_entropy import (
    CompactGaussian,
    SteadyBottleneck,
    use_fast_entropy_models,
)


def computed(model: EntropyBottleneck, x: Tensor, training: bool | None) -> list[Tensor]:
    own = x.clone().requires_grad_()
    torch.manual_seed(1)
    values, likelihoods = model(own, training)
    (values.sum() + likelihoods.log().sum()).backward()
    gradients = [p.grad for p in (own, *model.parameters()) if p.grad is not None]
    return [values, likelihoods, *gradients]


@pytest.mark.parametrize("training", [True, False, None])
def test_bottleneck_equals_compressais(training: bool | None) -> None:
    torch.manual_seed(0)
    theirs, ours = EntropyBottleneck(6), SteadyBottleneck(6)
    ours.load_state_dict(theirs.state_dict())
    x = (3 * torch.randn(2, 6, 5, 4)).to(memory_format=torch.channels_last)
    expected, found = computed(theirs, x, training), computed(ours, x, training)
    assert len(found) == len(expected) > 5
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other) and one.stride() == other.stride()


def test_replaced_models_keep_state_and_strings() -> None:
    torch.manual_seed(0)
    network = ScaleHyperprior(8, 12)
    network.update(force=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = torch.rand(1, 3, 64, 64)
    expected = network.compress(images)
    random = torch.get_rng_state()
    use_fast_entropy_models(network)
    assert torch.equal(torch.get_rng_state(), random)
    assert type(network.entropy_bottleneck) is SteadyBottleneck
    assert type(network.gaussian_conditional) is CompactGaussian
    assert isinstance(network.gaussian_conditional, GaussianConditional)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert network.compress(images)["strings"] == expected["strings"]
