"""Self-supervision: crops, heat maps, momentum network, queue, several processes, resuming."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

from icmbench.networks.backbone import SplitResNet
from icmbench.networks.weights import load_part
from icmbench.tasks.contrastive.moco import Contrastive, QueueLoss
from icmbench.tasks.contrastive.views import CropBoxes, Views, heat_map_boxes, sample_crop
from icmbench.tasks.entries import ContrastiveParameters
from icmbench.train.checkpoint import save_weights

BLOCKS, WIDTH = [1, 1, 1, 1], 4


class ToyCodec(nn.Module):
    """What the task needs of a codec: a backbone, and an elimination that passes gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = SplitResNet(BLOCKS, WIDTH, classes=3)
        self.elimination = nn.Conv2d(4 * WIDTH, 4 * WIDTH, 1)

    def self_supervised(self, images: Tensor, eliminate: bool) -> tuple[Tensor, dict[str, Tensor]]:
        features = self.backbone.head(images)
        terms: dict[str, Tensor] = {}
        if eliminate:
            kept = self.elimination(features)
            terms = {
                "elimination_bpp": kept.square().mean(),
                "elimination_l1": functional.l1_loss(kept, features),
            }
            features = kept
        return self.backbone.tail(features)[-1], terms


class ToySplit:
    """Grey noise with one bright square in each image."""

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 100, (count, 64, 64, 3), np.uint8)
        for index, image in enumerate(self.images):
            image[4 * index : 4 * index + 16, 32:48] = 255

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> Any:
        return self.images[index]

    def batch(self, indices: list[int]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        images = [torch.from_numpy(self.images[i]).permute(2, 0, 1) / 255 for i in indices]
        return images, [{"index": torch.tensor(i)} for i in indices]


def make(**changes: Any) -> tuple[ToyCodec, Contrastive]:
    settings = {
        "backbone_blocks": BLOCKS,
        "backbone_width": WIDTH,
        "crop": 32,
        "dimension": 8,
        "queue": 8,
        "momentum": 0.9,
        "warmup_epochs": 1,
        "refresh_epochs": 2,
        **changes,
    }
    torch.manual_seed(0)
    codec = ToyCodec()
    return codec, Contrastive(ContrastiveParameters.model_validate(settings))


# --- crops --------------------------------------------------------------------------------------


def test_heat_map_boxes_by_hand() -> None:
    features = torch.zeros(3, 2, 4, 5)
    features[0, 0, 1, 2] = 6.0
    features[0, 1, 2, 3] = 4.0
    features[0, :, 0, 0] = 0.29  # 0.58 / 6 is below a tenth of the range
    features[1, 0] = 1.0  # flat
    features[2] = -3.0  # the lowest value is where it starts, not zero
    features[2, 0, 3, 0] = -1.0
    boxes = heat_map_boxes(features, 0.1)
    assert boxes.tolist() == [
        pytest.approx([2 / 5, 1 / 4, 4 / 5, 3 / 4]),
        [0, 0, 1, 1],
        pytest.approx([0, 3 / 4, 1 / 5, 1]),
    ]
    features[0, :, 0, 0] = 0.31
    assert heat_map_boxes(features, 0.1)[0].tolist() == pytest.approx([0, 0, 4 / 5, 3 / 4])


def test_sample_crop_centres_are_beta_distributed_in_the_box() -> None:
    image = torch.zeros(3, 1000, 2000)
    box = [0.45, 0.4, 0.65, 0.6]
    torch.manual_seed(0)
    shares: list[list[float]] = [[], []]
    for _ in range(1500):
        top, left, height, width = sample_crop(image, box, 0.6)
        assert 0 <= top <= 1000 - height and 0 <= left <= 2000 - width
        for axis, (begin, length, total, low, high) in enumerate(
            ((top, height, 1000, 0.4, 0.6), (left, width, 2000, 0.45, 0.65))
        ):
            low, high = low * total, high * total
            centre = begin + length / 2
            assert low - 0.51 <= centre <= high + 0.51 or length > 0.6 * total
            if low >= length / 2 and high <= total - length / 2:  # the crop fits wherever it goes
                shares[axis].append(min(max((centre - low) / (high - low), 1e-4), 1 - 1e-4))
    assert min(map(len, shares)) > 600
    for values in shares:
        assert stats.kstest(values, stats.beta(0.6, 0.6).cdf).pvalue > 0.01
        assert stats.kstest(values, stats.uniform.cdf).pvalue < 1e-3  # the test can tell


def test_sample_crop_in_the_whole_image_is_beta_distributed() -> None:
    image, whole = torch.zeros(3, 1000, 1000), [0.0, 0.0, 1.0, 1.0]
    torch.manual_seed(0)
    drawn = [sample_crop(image, whole, 0.6) for _ in range(500)]
    tops = [top / (1000 - height) for top, _, height, _ in drawn if height < 800]
    kept = [min(max(top, 1e-3), 1 - 1e-3) for top in tops]
    assert len(kept) > 250
    assert stats.kstest(kept, stats.beta(0.6, 0.6).cdf).pvalue > 0.01


def test_sample_crop_stays_inside_with_a_box_in_the_corner() -> None:
    image = torch.zeros(3, 40, 30)
    torch.manual_seed(0)
    for box in ([0.0, 0.0, 0.1, 0.1], [0.9, 0.9, 1.0, 1.0]):
        for _ in range(50):
            top, left, height, width = sample_crop(image, box, 0.6)
            assert top == (0 if box[0] == 0 else 40 - height) or height * width < 0.3 * 1200
            assert 0 <= top <= 40 - height and 0 <= left <= 30 - width


def test_sample_crop_keeps_to_area_and_aspect() -> None:
    image = torch.zeros(3, 300, 300)
    torch.manual_seed(0)
    drawn = [sample_crop(image, None, 0.6) for _ in range(300)]
    areas = np.array([h * w for _, _, h, w in drawn]) / 300**2
    ratios = np.array([w / h for _, _, h, w in drawn])
    assert 0.19 < areas.min() < 0.25 and 0.9 < areas.max() <= 1
    assert ratios.min() > 0.73 and ratios.max() < 1.36


def test_views_come_from_the_box_and_follow_the_seed() -> None:
    image = torch.zeros(3, 200, 200)
    image[:, 80:120, 80:120] = 1
    view = Views(32, 0.6)
    torch.manual_seed(3)
    first = view(image, [0.45, 0.45, 0.55, 0.55])
    torch.manual_seed(3)
    again = view(image, [0.45, 0.45, 0.55, 0.55])
    assert torch.equal(first, again) and first.shape == (3, 32, 32)
    assert first.min() >= 0 and first.max() <= 1
    torch.manual_seed(0)
    inside = [view(image, [0.45, 0.45, 0.55, 0.55]).max() > 0.1 for _ in range(20)]
    assert all(inside)  # every crop is centred on the bright square


def test_crop_boxes_load_in_any_number() -> None:
    full, empty = CropBoxes(), CropBoxes()
    full.boxes = torch.rand(5, 4)
    empty.load_state_dict(full.state_dict())
    assert (
        torch.equal(empty.boxes, full.boxes)
        and empty.of(torch.tensor([3, 0])) == full.boxes[[3, 0]].tolist()
    )
    empty.load_state_dict(CropBoxes().state_dict())
    assert empty.boxes.shape == (0, 4) and empty.of(torch.tensor([3])) == [None]


# --- momentum contrast --------------------------------------------------------------------------


def test_queue_loss_is_infonce_and_keys_join_the_queue_in_turn() -> None:
    torch.manual_seed(0)
    loss = QueueLoss(6, 4, 0.2)
    start = loss.memory_bank.bank.clone()
    queries = torch.randn(3, 4, requires_grad=True)
    keys = torch.randn(3, 4)
    q, k = (functional.normalize(x, dim=1).detach() for x in (queries, keys))
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ start.T], 1) / 0.2
    by_hand = (torch.logsumexp(logits, 1) - logits[:, 0]).mean()
    assert loss(queries, keys).item() == pytest.approx(by_hand.item(), rel=1e-5)
    held = loss.memory_bank.bank
    assert torch.allclose(held[:3], k) and torch.equal(held[3:], start[3:])

    more = torch.randn(3, 4)
    loss(queries, more)
    last = torch.randn(3, 4)
    loss(queries, last)  # the oldest go first
    assert torch.allclose(loss.memory_bank.bank[:3], functional.normalize(last, dim=1))
    assert torch.allclose(loss.memory_bank.bank[3:], functional.normalize(more, dim=1))

    before = loss.memory_bank.bank.clone()
    with torch.no_grad():
        loss(queries, keys)
    assert torch.equal(loss.memory_bank.bank, before)
    copy = QueueLoss(6, 4, 0.2)
    copy.load_state_dict(loss.state_dict())
    assert torch.equal(copy.memory_bank.bank, before)


def test_momentum_network_starts_as_a_copy_and_then_follows() -> None:
    codec, task = make(momentum=0.75)
    task.key.follow(codec.backbone, task.projection, 0.75)
    own = dict(codec.backbone.named_parameters())
    for name, value in task.key.backbone.named_parameters():
        assert torch.equal(value, own[name]) and not value.requires_grad
    before = {name: value.clone() for name, value in task.key.named_parameters()}
    with torch.no_grad():
        for parameter in [*codec.backbone.parameters(), *task.projection.parameters()]:
            parameter += 1.0
    task.key.follow(codec.backbone, task.projection, 0.75)
    for name, value in task.key.named_parameters():
        assert torch.allclose(value, before[name] + 0.25, atol=1e-6), name


@pytest.mark.parametrize("eliminate", [False, True])
def test_contrastive_gradients_reach_trained_parts_only(eliminate: bool) -> None:
    codec, task = make(eliminate=eliminate)
    images, targets = ToySplit(4).batch([0, 1, 2, 3])
    terms = task.with_codec(codec, images, targets)
    names = {"elimination_bpp", "elimination_l1"} if eliminate else set()
    assert set(terms) == {"contrastive", *names}
    terms["contrastive"].backward()
    assert all(p.grad is not None for p in task.projection.parameters())
    for name, parameter in codec.named_parameters():
        assert (parameter.grad is not None) == (
            "fc" not in name and (eliminate or not name.startswith("elimination"))
        ), name
    assert all(p.grad is None for p in task.key.parameters())
    assert task.part_modules() == {"projection": [task.projection]}


def test_keys_pass_the_elimination_under_the_momentum_backbone() -> None:
    codec, task = make(eliminate=True)
    codec.eval()
    views = torch.rand(2, 3, 32, 32)
    task.key.follow(codec.backbone, task.projection, 0.9)
    with torch.no_grad():
        task.key.backbone.conv1.weight.mul_(0.5)
        task.key.take_modes(codec.backbone, task.projection)
        keys = task._keys(codec, views)
        features = codec.elimination(task.key.backbone.head(views))
        by_hand = task.key.projection(task.key.backbone.tail(features)[-1].mean((2, 3)))
    assert torch.equal(keys, by_hand)
    assert codec.backbone is not task.key.backbone and "backbone" in dict(codec.named_children())


def test_momentum_network_uses_batch_statistics_like_the_query() -> None:
    codec, task = make()
    task.key.eval()  # as the trainer leaves parts that are not trained
    images, targets = ToySplit(4).batch([0, 1, 2, 3])
    task.with_codec(codec, images, targets)
    assert task.key.backbone.bn1.num_batches_tracked == 1
    assert codec.backbone.bn1.num_batches_tracked == 1


def test_contrastive_validation_changes_no_state() -> None:
    codec, task = make(eliminate=True)
    images, targets = ToySplit(4).batch([0, 1, 2, 3])
    task.with_codec(codec, images, targets)
    task.crops.boxes = torch.zeros(1, 4)  # of another split: must not be asked for image 3
    before = {n: v.clone() for m in (codec, task) for n, v in m.state_dict().items()}
    with torch.no_grad():
        terms = task.with_codec(codec, images, targets)
    assert torch.isfinite(terms["contrastive"])
    after = {n: v for m in (codec, task) for n, v in m.state_dict().items()}
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert codec.backbone.bn1.track_running_stats


def test_contrastive_terms_are_finite_float32_under_autocast() -> None:
    codec, task = make(eliminate=True)
    images, targets = ToySplit(4).batch([0, 1, 2, 3])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = task.with_codec(codec, images, targets)
    assert terms["contrastive"].dtype == torch.float32
    assert all(torch.isfinite(value) for value in terms.values())


def test_refresh_renews_boxes_at_the_first_step_of_due_epochs() -> None:
    codec, task = make(warmup_epochs=1, refresh_epochs=2)
    codec.backbone.fc.eval()
    modes = [module.training for module in codec.modules()]
    split: Any = ToySplit(4)
    task.crops.boxes = torch.rand(9, 4)
    renewed = []
    for step in range(15):  # three steps make an epoch
        before = task.crops.boxes
        state = torch.get_rng_state()
        task.refresh(codec, split, step, 3, torch.device("cpu"))
        assert torch.equal(torch.get_rng_state(), state)
        if task.crops.boxes is not before:
            renewed.append((step, len(task.crops.boxes)))
    assert renewed == [(0, 0), (3, 4), (9, 4)]  # forgotten first, then in epochs 1 and 3
    assert [module.training for module in codec.modules()] == modes
    codec.eval()
    images, _ = split.batch([2])
    small = functional.interpolate(images[0][None], (32, 32), mode="bilinear", antialias=True)
    with torch.no_grad():
        expected = heat_map_boxes(codec.self_supervised(small, False)[0], 0.1)
    assert torch.allclose(task.crops.boxes[2], expected[0])
    plain = make(semantic_crop=False, warmup_epochs=0)[1]
    plain.refresh(codec, split, 0, 3, torch.device("cpu"))
    assert len(plain.crops.boxes) == 0


def train_steps(codec: ToyCodec, task: Contrastive, optimiser: Any, steps: range) -> list[float]:
    split: Any = ToySplit(4)
    losses = []
    for step in steps:
        task.refresh(codec, split, step, 2, torch.device("cpu"))
        torch.manual_seed(100 + step)
        images, targets = split.batch([0, 1] if step % 2 else [2, 3])
        loss = sum(task.with_codec(codec, images, targets).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def test_contrastive_resumes_bit_for_bit(tmp_path: Path) -> None:
    def begin() -> tuple[ToyCodec, Contrastive, Any]:
        codec, task = make(eliminate=True)
        parameters = [*codec.parameters(), *task.projection.parameters()]
        return codec, task, torch.optim.SGD(parameters, lr=0.05, momentum=0.9)

    codec, task, optimiser = begin()
    losses = train_steps(codec, task, optimiser, range(7))

    codec_a, task_a, optimiser_a = begin()
    first = train_steps(codec_a, task_a, optimiser_a, range(4))
    assert len(task_a.crops.boxes) == 4  # between two refreshes, the boxes are state
    torch.save([x.state_dict() for x in (codec_a, task_a, optimiser_a)], tmp_path / "state.pt")
    codec_b, task_b, optimiser_b = begin()
    with torch.no_grad():
        for parameter in [*codec_b.parameters(), *task_b.parameters()]:
            parameter.zero_()
    states = torch.load(tmp_path / "state.pt", weights_only=True)
    for module, state in zip((codec_b, task_b, optimiser_b), states, strict=True):
        module.load_state_dict(state)
    assert first + train_steps(codec_b, task_b, optimiser_b, range(4, 7)) == losses
    for one, other in ((codec, codec_b), (task, task_b)):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name


def test_weights_with_boxes_load_into_another_task(tmp_path: Path) -> None:
    _, task = make()
    task.crops.boxes = torch.rand(4, 4)
    save_weights(tmp_path / "weights.pt", None, task, {})
    _, other = make()
    load_part(other, tmp_path / "weights.pt", "task")
    assert torch.equal(other.crops.boxes, task.crops.boxes)


# --- several processes --------------------------------------------------------------------------


def in_one_of_two(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    codec, task = make(eliminate=True)
    codec.eval()  # a shuffled or divided batch changes batch statistics
    queries, keys = (x.chunk(2)[rank] for x in two_views())
    torch.manual_seed(rank)
    loss = task.contrast(codec, queries, keys)["contrastive"]
    split: Any = ToySplit(5)
    task.refresh(codec, split, 2, 2, torch.device("cpu"))
    result = {"loss": loss.detach(), "queue": task.loss.memory_bank.bank, "boxes": task.crops.boxes}
    torch.save(result, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def two_views() -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.rand(4, 3, 32, 32, generator=generator) for _ in range(2)]


def test_two_processes_equal_one_with_the_batch_of_both(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Forked: fresh processes would spend ten seconds each on imports. No thread or device is used.
    torch.multiprocessing.start_processes(
        in_one_of_two, (port, str(tmp_path)), nprocs=2, start_method="fork"
    )
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]

    codec, task = make(eliminate=True)
    codec.eval()
    before = task.loss.memory_bank.bank.clone()
    loss = task.contrast(codec, *two_views())["contrastive"]
    split: Any = ToySplit(5)
    task.refresh(codec, split, 2, 2, torch.device("cpu"))
    queue = task.loss.memory_bank.bank
    assert (queue[:4] != before[:4]).all() and torch.equal(queue[4:], before[4:])
    for rank in ranks:
        assert torch.allclose(rank["queue"], queue, atol=1e-5)
        assert torch.allclose(rank["boxes"], task.crops.boxes)
    mean = torch.stack([rank["loss"] for rank in ranks]).mean()
    assert torch.allclose(mean, loss.detach(), atol=1e-5)
    assert not torch.allclose(ranks[0]["loss"], ranks[1]["loss"])
