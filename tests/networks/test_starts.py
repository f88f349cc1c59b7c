"""Initial weights of other networks: what the registry says must load does, in every study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from icmbench.config.job_settings import codec_spec, task_spec
from icmbench.config.plan import Plan, Point, load_plan
from icmbench.errors import UserError
from icmbench.jobs import PARTS, CodecSpec, Part, TaskSpec
from icmbench.networks.build import build_codec, build_task


def spec_of(plan: Plan, point: Point, part: Part) -> CodecSpec | TaskSpec:
    make = codec_spec if part == "codec" else task_spec
    return make(plan, point, plan.initial_weights(point, part))


def build(spec: CodecSpec | TaskSpec, **weights: Any) -> Any:
    spec = spec.model_copy(update={"weights": spec.weights.model_copy(update=weights)})
    return build_codec(spec) if isinstance(spec, CodecSpec) else build_task(spec)


def starts(plan: Plan) -> dict[tuple[str, str], tuple[Any, Any]]:
    """Return, by names, the pairs of different networks of which one starts from the other."""
    found = {}
    for point in plan.trained:
        for part in PARTS:
            origin = plan.initial_weights(point, part)
            if isinstance(origin.place, Point):
                own, other = spec_of(plan, point, part), spec_of(plan, origin.place, origin.part)
                if own.name != other.name:
                    found.setdefault((own.name, other.name), (own, other))
    return found


def test_every_start_of_the_studies_fits(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ICMBENCH_MIRROR", raising=False)
    plan = load_plan(
        repository / "config.yaml", {"scale": "smoke", "variants": "all", "results": str(tmp_path)}
    )
    pairs = starts(plan)
    assert len(pairs) > 5
    shares = {}
    for (name, other_name), (own, other) in pairs.items():
        source = build(other, source="random", of=None)
        torch.save({own.weights.part: source.state_dict()}, tmp_path / "w.pt")
        network = build(own, source=str(tmp_path / "w.pt"))
        shares[name, other_name] = network.loaded.share if network.loaded else 1.0
    # A reader of unrounded latents has a codec's analysis beside a network of its own.
    alone = {own: share for (own, _), share in shares.items() if own.endswith("-unquantised")}
    assert all(0 < share < 0.25 for share in alone.values())
    # The rest are masks, a context model, a pyramid, heads and classifiers, which begin anew.
    assert min(share for (own, _), share in shares.items() if own not in alone) > 0.25
    assert shares["bmshj2018-factorized", "bmshj2018-hyperprior"] == 1


@pytest.mark.parametrize(
    ("pair", "size", "tensor"),
    [
        (("mbt2018-mean", "bmshj2018-hyperprior"), {"n": 40}, "network.g_a"),
        (("linear-probe", "dicm"), {"backbone_width": 12}, "network.conv1"),
        (("mask-rcnn", "faster-rcnn"), {"classes": 7}, "network.roi_heads.box_predictor"),
    ],
)
def test_weights_of_another_size_are_refused(
    repository: Path, tmp_path: Path, pair: tuple[str, str], size: dict[str, int], tensor: str
) -> None:
    """Counters of batch norm, and layers that do not depend on the size, fit any file."""
    plan = load_plan(
        repository / "config.yaml", {"scale": "smoke", "variants": "all", "results": str(tmp_path)}
    )
    own, other = starts(plan)[pair]
    larger = other.model_copy(update={"parameters": {**other.parameters, **size}})
    source = build(larger, source="random", of=None)
    torch.save({own.weights.part: source.state_dict()}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=rf"w\.pt.*{tensor}.*\[.*\[") as caught:
        build(own, source=str(tmp_path / "w.pt"))
    assert "\n" not in str(caught.value)
