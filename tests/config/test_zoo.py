"""A zoo: what scale zoo trained is what another scale calls pretrained."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from icmbench.commands.zoo import make_zoo, trained_names
from icmbench.config.job_settings import codec_spec, task_spec, train_job, write_files
from icmbench.config.plan import Plan, Point, load_plan
from icmbench.config.weights import WeightsOrigin
from icmbench.config.zoo import read_zoo
from icmbench.data.prepare import prepare
from icmbench.errors import UserError
from icmbench.jobs import WeightsSpec
from icmbench.networks.build import build_codec, build_task
from icmbench.networks.weights import save_compact
from icmbench.train.loop import train

STUDY, MSE = "chamain2021", "hyperprior/reconstruction/mse"
BASELINE = "hyperprior/faster-rcnn/baseline"


@pytest.fixture(scope="module")
def workflow(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Studies and two scales: zoo trains, small uses."""
    folder = tmp_path_factory.mktemp("workflow")
    shutil.copytree(repository / "workflow/studies", folder / "studies")
    shutil.copytree(repository / "workflow/scales", folder / "scales")
    smoke = yaml.safe_load((folder / "scales/smoke.yaml").read_text())
    own = smoke["studies"][STUDY]
    trained = {name: own["variants"].pop(name) for name in ("uncoded/faster-rcnn/pretrained", MSE)}
    small = {**smoke, "name": "small", "pretrained": "zoo", "studies": {STUDY: own}}
    zoo = {
        "name": "zoo",
        "extends": "small",
        "description": "",
        "pretrained": "published",
        "studies": {STUDY: {"leading": list(trained), "variants": trained}},
    }
    for scale in (small, zoo):
        (folder / f"scales/{scale['name']}.yaml").write_text(yaml.safe_dump(scale))
    return folder


@pytest.fixture(scope="module")
def plan(workflow: Path, repository: Path) -> Any:
    def plan(scale: str, **settings: Any) -> Plan:
        run = {"studies": [STUDY], "results": str(workflow / "results"), "scale": scale}
        zoo = {"zoo": str(workflow / "zoo"), "classical_codecs": ["x265-444"]}
        return load_plan(repository / "config.yaml", {**run, **zoo, **settings}, workflow)

    return plan


@pytest.fixture(scope="module")
def trained(plan: Any, workflow: Path) -> Plan:
    """Train everything that scale zoo trains, and make a zoo of it."""
    own: Plan = plan("zoo")
    write_files(own)
    prepare(own.dataset("detection"))
    for point in own.trained:
        train(train_job(own, point))
    make_zoo(own, workflow / "zoo")
    return own


def test_shipped_zoo_is_within_its_size_and_is_what_the_catalogue_lists(repository: Path) -> None:
    folder = repository / "workflow/zoo"
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    photographs = {path: size for path, size in sizes.items() if "photos" in path.parts}
    # docs/zoo.md
    assert max(photographs.values()) <= 2 * 2**20
    assert sum(sizes.values()) - sum(photographs.values()) <= 30 * 2**20
    listed = {folder / entry.file: entry.size for entry in read_zoo(folder).entries.values()}
    assert listed == {path: size for path, size in sizes.items() if path.suffix == ".safetensors"}


def test_scale_without_a_zoo_names_the_missing_entry(plan: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="zoo has no codec of this variant at rate index 0"):
        plan("small", zoo=str(tmp_path))


def test_zoo_has_the_leading_variants_alone(trained: Plan) -> None:
    assert {point.variant for point in trained.points} == {"uncoded/faster-rcnn/pretrained", MSE}


def test_pretrained_weights_are_those_that_scale_zoo_trained(trained: Plan, plan: Any) -> None:
    point = Point(STUDY, BASELINE, 1, 0)
    user: Plan = plan("small")
    loaded = build_codec(codec_spec(user, point, user.final_weights(point, "codec")))
    own = Point(STUDY, MSE, 1, 0)
    made = build_codec(codec_spec(trained, own, trained.final_weights(own, "codec")))
    for name, value in made.network.named_parameters():
        # Large tensors are shipped as float16, which has 11 bits.
        torch.testing.assert_close(
            loaded.network.get_parameter(name), value, rtol=2**-11, atol=1e-7
        )
    loaded.prepare_coding()  # makes the tables that the file does not have
    assert user.studies[STUDY].variants[MSE].trains("codec") is False


def test_zoo_shares_bitstreams_of_variants_with_the_same_entry(trained: Plan, plan: Any) -> None:
    user: Plan = plan("small")
    keys = {user.encode_key(Point(STUDY, name, 0, 0), "test") for name in (MSE, BASELINE)}
    assert keys == {f"detection-test/zoo/{STUDY}/{MSE}/rate0"}


def test_catalogue_tells_how_an_entry_was_made(trained: Plan, workflow: Path) -> None:
    entry = read_zoo(workflow / "zoo").find(STUDY, MSE, 0, "codec")
    assert entry is not None
    assert (entry.network, entry.seed, entry.steps) == ("bmshj2018-hyperprior", 0, 4)
    assert [row[0] for row in entry.course] == [1, 2, 3, 4]
    assert (workflow / "zoo" / entry.file).stat().st_size == entry.size


def test_network_of_another_size_is_refused(trained: Plan, plan: Any, workflow: Path) -> None:
    path = workflow / "scales/small.yaml"
    text = path.read_text()
    changed = yaml.safe_load(text)
    changed["codecs"]["bmshj2018-hyperprior"]["m"] = 16
    path.write_text(yaml.safe_dump(changed))
    with pytest.raises(UserError, match="trained with m: 8, not 16"):
        plan("small")
    path.write_text(text)


def test_damaged_entry_is_refused(trained: Plan, plan: Any, workflow: Path) -> None:
    point = Point(STUDY, MSE, 0, 0)
    user: Plan = plan("small")
    spec = codec_spec(user, point, user.final_weights(point, "codec"))
    path = Path(str(spec.weights.source))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match="checksum mismatch"):
        build_codec(spec)
    path.write_bytes(content)


def test_entry_of_a_part_leaves_the_rest_as_it_begins(plan: Any, tmp_path: Path) -> None:
    own: Plan = plan("smoke", studies=["tang2025"], variants="all")
    point, path = Point("tang2025", "dicm/contrastive/backbone", 0, 0), tmp_path / "a.safetensors"
    begin = codec_spec(own, point, WeightsOrigin("random", "codec", point))
    made = build_codec(begin)
    holds = trained_names(made, own, point, "codec")
    save_compact(made, path, holds)
    weights = WeightsSpec(source=str(path), of="dicm", part="codec", holds=holds)
    loaded = build_codec(begin.model_copy(update={"weights": weights}))
    assert holds == ["backbone."]
    for name, value in made.backbone.named_parameters():
        torch.testing.assert_close(
            loaded.backbone.get_parameter(name), value, rtol=2**-11, atol=1e-6
        )
    name, value = max(made.encoder.named_parameters(), key=lambda own: own[1].numel())
    assert not torch.equal(loaded.encoder.get_parameter(name), value)  # random again
    wanted = weights.model_copy(update={"holds": ["backbone.", "elimination."]})
    with pytest.raises(UserError, match=r"elimination\."):
        build_codec(begin.model_copy(update={"weights": wanted}))


def test_entry_of_a_part_starts_another_task(plan: Any, tmp_path: Path) -> None:
    own: Plan = plan("smoke", studies=["tang2025"], variants="all")
    path = tmp_path / "a.safetensors"

    def spec(variant: str, weights: WeightsSpec | None = None) -> Any:
        point = Point("tang2025", variant, 0, 0)
        begin = task_spec(own, point, WeightsOrigin("random", "task", point))
        return begin if weights is None else begin.model_copy(update={"weights": weights})

    made = build_task(spec("dicm/contrastive/backbone"))
    save_compact(made, path, ["projection."])
    weights = WeightsSpec(source=str(path), of="contrastive", part="task", holds=["projection."])
    loaded = build_task(spec("dicm/contrastive/joint", weights))
    for name, value in made.projection.named_parameters():
        torch.testing.assert_close(
            loaded.projection.get_parameter(name), value, rtol=2**-11, atol=1e-6
        )
    # A file of the whole network must have the key network, too.
    with pytest.raises(UserError, match=r"'key\.backbone"):
        build_task(spec("dicm/contrastive/joint", weights.model_copy(update={"holds": []})))


def test_leading_variants_keep_what_they_start_from(plan: Any, workflow: Path) -> None:
    path = workflow / "scales/lead.yaml"
    studies = {STUDY: {"leading": ["hyperprior/faster-rcnn/j-ft"]}}
    path.write_text(
        yaml.safe_dump({"name": "lead", "extends": "smoke", "description": "", "studies": studies})
    )
    leading: Plan = plan("lead")
    assert {point.variant for point in leading.evaluated} == {"hyperprior/faster-rcnn/j-ft"}
    assert {point.variant for point in leading.trained} >= {MSE, "uncoded/faster-rcnn/pretrained"}
    assert len(plan("lead", variants="all").evaluated) > len(leading.evaluated)
