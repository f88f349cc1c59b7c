"""Our entropy models compute what CompressAI's do."""

from __future__ import annotations

import pytest
import torch
from compressai.entropy_models import EntropyBottleneck
from torch import Tensor

from icmbench.codecs.learned.fast_entropy import SteadyBottleneck


def computed(model: EntropyBottleneck, x: Tensor, training: bool | None) -> list[Tensor]:
    own = x.clone().requires_grad_()
    torch.manual_seed(1)
    values, likelihoods = model(own, training)
    (values.sum() + likelihoods.log().sum()).backward()
    gradients = [p.grad for p in (own, *model.parameters()) if p.grad is not None]
    return [values, likelihoods, *gradients]


@pytest.mark.parametrize("training", [True, False, None])
def test_our_bottleneck_is_compressais(training: bool | None) -> None:
    torch.manual_seed(0)
    theirs, ours = EntropyBottleneck(6), SteadyBottleneck(6)
    ours.load_state_dict(theirs.state_dict())
    x = (3 * torch.randn(2, 6, 5, 4)).to(memory_format=torch.channels_last)
    expected, found = computed(theirs, x, training), computed(ours, x, training)
    assert len(found) == len(expected) > 5
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other) and one.stride() == other.stride()
