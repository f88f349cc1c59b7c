"""Networks for face attributes and parsing: sizes, losses, learning, evaluation."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import nn
from torchvision.models import resnet50

from icmbench.codecs.base import Features
from icmbench.codecs.layered.codec import Layered
from icmbench.codecs.layered.entries import LayeredParameters
from icmbench.codecs.learned.base import pad_to_multiple
from icmbench.data.dataset import Split
from icmbench.data.readers.faces import open_faces
from icmbench.data.specs import DatasetSpec, EmbeddedFaces
from icmbench.data.synthetic.face_look import ATTRIBUTES, PARSING
from icmbench.data.synthetic.faces import generate_faces
from icmbench.errors import UserError
from icmbench.networks.weights import load_start
from icmbench.registry import TASKS
from icmbench.tasks.entries import (
    FaceOnFeaturesParameters,
    FaceOnUnquantisedParameters,
    FaceParameters,
)
from icmbench.tasks.faces.analysis import (
    FaceOnFeatures,
    FaceOnImages,
    FaceOnRearranged,
    FaceOnUnquantised,
    analyse_faces,
)
from icmbench.tasks.faces.networks import ImageStem, Trunk, copy_resnet

SMALL = {"backbone": "small", "width": 4, "attributes": 3, "parsing": 5}


def millions(network: nn.Module) -> float:
    return sum(p.numel() for p in network.parameters()) / 1e6


def on_latents(**changes: Any) -> FaceOnFeatures:
    torch.manual_seed(0)
    parameters = {**SMALL, "feature_channels": 6, **changes}
    return FaceOnFeatures(FaceOnFeaturesParameters.model_validate(parameters))


def latents(count: int = 2) -> Features:
    # images of 60 x 50 and 64 x 64, padded to 64 x 64
    return Features(torch.randn(count, 6, 4, 4), [(60, 50), (64, 64)][:count], (64, 64))


def targets() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "attributes": torch.tensor([0.0, 1.0, 1.0]),
            "parsing": torch.randint(5, size, generator=generator),
        }
        for size in ((60, 50), (64, 64))
    ]


def test_face_networks_have_about_the_published_parameters() -> None:
    """26.9 million for one task and 54.8 for two; the layers are ours."""
    with torch.device("meta"):
        single = FaceOnFeatures(FaceOnFeaturesParameters(parsing=0, feature_channels=220))
        both = FaceOnFeatures(FaceOnFeaturesParameters(feature_channels=220))
    assert millions(single) == pytest.approx(26.9, rel=0.03)
    assert millions(both) == pytest.approx(54.8, rel=0.03)


def test_stem_and_trunk_on_images_are_a_resnet50() -> None:
    reference = resnet50(weights=None).eval()
    parameters = FaceParameters(parsing=0)
    stem, trunk = ImageStem(parameters).eval(), Trunk(parameters, (1, 1), 2).eval()
    copy_resnet(reference.state_dict(), stem, [trunk])
    assert millions(stem) + millions(trunk) + 2.049 == pytest.approx(millions(reference), abs=1e-3)
    images = torch.rand(1, 3, 64, 64)
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)
    with torch.no_grad():
        expected = nn.Sequential(*list(reference.children())[:-2])((images - mean) / std)
        assert torch.allclose(trunk(stem(images)), expected, rtol=1e-4, atol=1e-4)


def test_dilated_trunk_keeps_resolution_and_layout() -> None:
    parameters = FaceParameters.model_validate({**SMALL, "width": 8})
    plain, dilated = Trunk(parameters, (1, 1), 2), Trunk(parameters, (2, 4), 1)
    dilated.load_state_dict(plain.state_dict())
    features = torch.randn(1, 64, 16, 16)
    assert plain(features).shape == (1, 256, 4, 4)
    assert dilated(features).shape == (1, 256, 16, 16)


@pytest.mark.parametrize("tasks", [("attributes",), ("parsing",), ("attributes", "parsing")])
def test_face_analysis_without_a_task_has_no_part_or_term_of_it(tasks: tuple[str, ...]) -> None:
    counts = {name: SMALL[name] if name in tasks else 0 for name in ("attributes", "parsing")}
    task = on_latents(**counts)
    assert set(task.part_modules()) == {"stem", *tasks}
    assert task.input_kind == "features" and task.targets == "faces"
    inside = {id(p) for part in task.part_modules().values() for m in part for p in m.parameters()}
    assert inside == {id(p) for p in task.parameters()}
    losses = task.losses(latents(), targets())
    assert set(losses) == set(tasks)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.parameters())
    for result, size in zip(task.predict(latents()), [(60, 50), (64, 64)], strict=True):
        assert set(result) == set(tasks)
        if "parsing" in tasks:
            assert result["parsing"].shape == size and result["parsing"].max() < 5
        if "attributes" in tasks:
            assert ((result["attributes"] > 0) & (result["attributes"] < 1)).all()


def test_rearranged_images_are_read_as_latents_of_their_blocks() -> None:
    torch.manual_seed(0)
    task = FaceOnRearranged(FaceParameters.model_validate(SMALL)).eval()
    on_features = on_latents(feature_channels=768).eval()
    on_features.load_state_dict(task.state_dict())
    image = torch.rand(3, 32, 48)
    # Channel c * 256 + row * 16 + column is one pixel of each block.
    blocks = np.empty((1, 768, 2, 3), np.float32)
    for channel, row, column in np.ndindex(3, 16, 16):
        own = image.numpy()[channel, row::16, column::16]
        blocks[0, channel * 256 + row * 16 + column] = own
    features = Features(torch.from_numpy(blocks), [(32, 48)], (32, 48))
    (found,), (expected,) = task.predict([image]), on_features.predict(features)
    assert torch.equal(found["parsing"], expected["parsing"])
    assert torch.allclose(found["attributes"], expected["attributes"])
    odd = task.predict([image[:, :30, :41]])[0]
    assert odd["parsing"].shape == (30, 41)


def test_unquantised_latents_are_the_codecs_before_rounding() -> None:
    """Under bf16 too, and the codec's analysis is not trained with the task."""
    sizes = {"widths": [4, 4, 8, 8, 8], "semantic": 2, "texture": 4, "linear_start": True}
    codec = Layered(LayeredParameters.model_validate(sizes)).eval()
    codec.initialise(["analysis", "synthesis", "entropy"], [torch.rand(8, 3, 64, 64)], {})
    parameters = FaceOnUnquantisedParameters.model_validate({**SMALL, "layered": sizes})
    task = FaceOnUnquantised(parameters).eval()
    needed = TASKS["face-analysis-on-unquantised"].starts_from_codec["layered"]
    load_start(task, codec.state_dict(), needed, Path(__file__))
    image = torch.rand(3, 60, 50)
    with torch.no_grad():
        latents = codec.analyse(pad_to_multiple(image[None], codec.multiple))
    on_features = on_latents(feature_channels=6).eval()
    own = {n: v for n, v in task.state_dict().items() if not n.startswith("network.")}
    on_features.load_state_dict(own)
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = task.predict([image])
        (expected,) = on_features.predict(Features(latents, [(60, 50)], (64, 64)))
    assert torch.equal(found["parsing"], expected["parsing"])
    assert torch.equal(found["attributes"], expected["attributes"])
    parts = [module for modules in task.part_modules().values() for module in modules]
    trained = {id(p) for module in parts for p in module.parameters()}
    assert trained.isdisjoint(map(id, task.network.parameters()))


def test_face_losses_are_cross_entropies_without_the_padding() -> None:
    task = on_latents().eval()
    inputs, wanted = latents(), targets()
    with torch.no_grad():
        losses = task.losses(inputs, wanted)
        stem = task.stem(inputs.values)
        probabilities = task.attributes(stem).sigmoid()  # type: ignore[misc]
        logs = task.parsing(stem).log_softmax(1)  # type: ignore[misc]
    truth = torch.stack([t["attributes"] for t in wanted])
    expected = -(truth * probabilities.log() + (1 - truth) * (1 - probabilities).log()).mean()
    assert float(losses["attributes"]) == pytest.approx(float(expected), rel=1e-5)
    picked = [
        -logs[i, :, : t["parsing"].shape[0], : t["parsing"].shape[1]]
        .gather(0, t["parsing"][None])
        .flatten()
        for i, t in enumerate(wanted)
    ]
    assert float(losses["parsing"]) == pytest.approx(float(torch.cat(picked).mean()), rel=1e-5)


def test_face_analysis_takes_images_of_any_size() -> None:
    torch.manual_seed(0)
    task = FaceOnImages(FaceParameters.model_validate(SMALL))
    images = [torch.rand(3, 60, 50), torch.rand(3, 64, 64)]
    assert set(task.losses(images, targets())) == {"attributes", "parsing"}
    shapes = [result["parsing"].shape for result in task.predict(images)]
    assert task.input_kind == "images" and shapes == [(60, 50), (64, 64)]


def test_face_parameters_refuse_no_analysis_at_all() -> None:
    with pytest.raises(ValidationError, match="attributes and parsing"):
        FaceParameters(attributes=0, parsing=0)
    with pytest.raises(ValidationError, match="parsing is 1"):
        FaceParameters(parsing=1)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> DatasetSpec:
    folder = tmp_path_factory.mktemp("faces")
    config = EmbeddedFaces(source="embedded-faces", size=64, train=30, val=0, test=14)
    generate_faces(config, folder)
    return DatasetSpec(role="faces", folder=str(folder), manifest="", settings=config)


def analyse(faces: DatasetSpec, task: Any) -> Any:
    predictor: Any = SimpleNamespace(
        network=task,
        inputs=lambda indices: [torch.full((3, 64, 64), float(index)) for index in indices],
        predict=task.predict,
        compute=SimpleNamespace(name="cpu"),
    )
    job: Any = SimpleNamespace(key="test", dataset=faces)
    return analyse_faces(job, Split(faces, "test"), predictor)


class Oracle:
    """Returns the truth, with some errors in the first two images."""

    classes = len(PARSING)

    def __init__(self, faces: DatasetSpec, attributes: int = len(ATTRIBUTES)) -> None:
        self.faces, self.attributes = open_faces(faces, "test"), attributes

    def predict(self, inputs: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        index = int(inputs[0].max())
        identity = self.faces.ids[index]
        known = torch.from_numpy(self.faces.attributes(identity).astype(np.float32))
        if index == 0:
            known[:4] = 1 - known[:4]
        parsing = self.faces.parsing(identity, (64, 64))
        assert parsing is not None
        found = torch.from_numpy(parsing.copy())
        if index == 1:
            found[:8] = PARSING.index("cloth")
        return [{"attributes": 0.1 + 0.8 * known[: self.attributes], "parsing": found}]


def test_analyse_faces_counts_errors(faces: DatasetSpec) -> None:
    outcome = analyse(faces, Oracle(faces))
    assert set(outcome.statistics) == {"attributes", "parsing"}
    right = 1 - 4 / len(ATTRIBUTES) / 14
    assert outcome.metrics["attribute_accuracy"] == pytest.approx(right)
    assert outcome.metrics["pixel_accuracy"] == pytest.approx(1 - 8 * 64 / (14 * 64 * 64))
    assert 0.9 < outcome.metrics["miou"] < 1 and 0.9 < outcome.metrics["fwiou"] < 1
    train = open_faces(faces, "train").attribute_table()
    test = open_faces(faces, "test").attribute_table()
    expected = np.mean([(test[:, a] == (train[:, a].mean() > 0.5)).mean() for a in range(20)])
    assert outcome.metrics["majority_accuracy"] == pytest.approx(expected)
    shown = [row for row in outcome.predictions if "parsing" in row]
    assert len(outcome.predictions) == 14 and len(shown) == 12
    with Image.open(io.BytesIO(base64.b64decode(shown[0]["parsing"]))) as image:
        found = np.asarray(image)
    first = open_faces(faces, "test")
    assert np.array_equal(found, first.parsing(first.ids[0], (64, 64)))
    assert len(shown[0]["attributes"]) == len(ATTRIBUTES)


def test_analyse_faces_refuses_a_network_for_other_data(faces: DatasetSpec) -> None:
    with pytest.raises(UserError, match=r"'attributes' is 7.* 20"):
        analyse(faces, Oracle(faces, attributes=7))


def test_small_network_learns_to_parse(faces: DatasetSpec) -> None:
    """Far better than the most frequent class after a few steps, and better than at first."""
    import zipfile

    from icmbench.data.images import read_image
    from icmbench.utils.images import to_tensor

    torch.manual_seed(0)
    own = open_faces(faces, "train")
    with zipfile.ZipFile(own.images) as archive:
        images = [to_tensor(read_image(archive.open(own.file(i))))[0] for i in own.ids]
    wanted = [
        {
            "attributes": torch.from_numpy(own.attributes(i).astype(np.float32)),
            "parsing": torch.from_numpy(own.parsing(i, (64, 64)).astype(np.int64)),  # type: ignore[union-attr]
        }
        for i in own.ids
    ]
    task = FaceOnImages(
        FaceParameters(backbone="small", width=8, attributes=20, parsing=len(PARSING))
    )
    optimiser = torch.optim.Adam(task.parameters(), 3e-3)
    task.train()
    for step in range(40):
        chosen = [(10 * step + k) % 30 for k in range(10)]
        losses = task.losses([images[k] for k in chosen], [wanted[k] for k in chosen])
        if step == 0:
            first = {name: float(loss.detach()) for name, loss in losses.items()}
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
    assert float(losses["attributes"].detach()) < 0.8 * first["attributes"]
    results = task.predict(images)
    truth = torch.stack([t["parsing"] for t in wanted])
    found = torch.stack([r["parsing"] for r in results])
    most = float((truth == truth.flatten().mode().values).float().mean())
    assert float((found == truth).float().mean()) > most + 0.2
