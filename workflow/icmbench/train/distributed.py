"""The processes that train one job together. One alone is a team, too, and pays nothing for it.

Every rank holds the whole network and takes its share of each batch. What all must agree on (terms
of the loss, whether to stop, batch norm's averages) is averaged, so that each draws the same
conclusion by itself: none waits for another that has stopped.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from icmbench.errors import UserError
from icmbench.networks.batchnorm import updated_statistics
from icmbench.train.system import System

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from icmbench.train.batches import Batch
    from icmbench.utils.device import Compute

# Until the first rank has the training's lock, which another job may hold for days.
_PATIENCE = timedelta(days=7)
# After that nobody works alone for long: only validation and checkpoints are one rank's.
_TIMEOUT = timedelta(minutes=60)


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """Return what torch's generators start a step with.

    32 bits, because torch's CPU generator reads no more. Seeds and ranks are golden-ratio strides
    apart (Weyl sequence), far beyond the length of a training.
    """
    return (step + 0x9E3779B1 * (seed + 0x10001 * rank)) % 2**32


@dataclass(frozen=True)
class Team:
    """Which of how many processes this one is.

    Attributes:
        rank: from 0.
        size: processes of the job.
        local_rank: rank among those of this host.
        local_size: processes of the job on this host.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes what the job leaves: lock, log, checkpoints, weights."""
        return self.rank == 0

    # --- beginning and end --------------------------------------------------------------------

    def meet(self, cuda: bool) -> None:
        """Wait for the other processes; from here on they can talk."""
        if self.size == 1:
            return
        from torch.distributed.rendezvous import rendezvous

        if cuda:
            there = torch.cuda.device_count()
            if there < self.local_size:
                raise UserError(
                    f"the schedule asks for {self.local_size} GPUs on this host, but {there} can "
                    "be seen; give the job more, or set the schedule's devices"
                )
            torch.cuda.set_device(self.local_rank)
        store, rank, size = next(rendezvous("env://", timeout=_PATIENCE))
        torch.distributed.init_process_group(
            "nccl" if cuda else "gloo", store=store, rank=rank, world_size=size, timeout=_TIMEOUT
        )

    def fabric(self, compute: Compute) -> Fabric:
        """Return Lightning Fabric for this process.

        Mixed precision is ours (:meth:`Compute.autocast`): Fabric's rounds the inputs as well, and
        both the pixels that the distortion is measured against and target boxes must stay float32.
        """
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment
        from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
        from lightning_fabric.strategies.ddp import DDPStrategy

        kind: dict[str, Any] = {"accelerator": compute.device.type, "precision": "32-true"}
        if self.size == 1:
            return Fabric(devices=1, plugins=[LightningEnvironment()], **kind)
        # Which parameters get a gradient depends on the study. Besides, without this DDP regroups
        # gradients after the first step, and a resumed training would add them in another order.
        strategy = DDPStrategy(find_unused_parameters=True, forward_sync_buffers=False)
        fabric = Fabric(
            devices=self.local_size,
            num_nodes=self.size // self.local_size,
            strategy=strategy,
            plugins=[TorchElasticEnvironment()],
            **kind,
        )
        fabric.launch()  # starts nothing: the processes are there
        return fabric

    def shared(self, system: System, apart: Iterable[nn.Parameter]) -> nn.Module:
        """Return what Fabric wraps: the system, or with several processes its shared forward pass.

        Args:
            system: codec and task.
            apart: parameters with a loss and an optimiser of their own.
        """
        return system if self.size == 1 else _Shared(system, apart)

    def terms(self, model: Any, batch: Batch) -> dict[str, Tensor]:
        """Return the loss terms of this process's batch; ``model`` is what Fabric made."""
        return {name: getattr(term, "hidden", term) for name, term in model(batch).items()}

    # --- shares -------------------------------------------------------------------------------

    def share(self, count: int) -> range:
        """Return the places of this process's images in a batch of ``count``."""
        each = count // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def step_seed(self, seed: int, step: int) -> int:
        """Return the seed of this process's noise in a step."""
        return step_seed(seed, step, self.rank)

    # --- agreement ----------------------------------------------------------------------------

    def told(self, value: bool) -> bool:
        """Return what rank 0 says."""
        if self.size == 1:
            return value
        said = [value]
        torch.distributed.broadcast_object_list(said)
        return said[0]

    def average(
        self, terms: Mapping[str, Tensor], numbers: Mapping[str, float]
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Return the means over all processes of scalar tensors and of numbers.

        A term that is not finite in one process is so in every mean.
        """
        own = {name: term.detach() for name, term in terms.items()}
        if self.size == 1:
            return own, dict(numbers)
        device = next(iter(own.values())).device
        both = [*own.values(), *(torch.tensor(n, device=device) for n in numbers.values())]
        means = self._mean([torch.stack([value.float() for value in both])])[0]
        listed = means[len(own) :].tolist()
        return (
            dict(zip(own, means[: len(own)].unbind(), strict=True)),
            dict(zip(numbers, listed, strict=True)),
        )

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients of parameters that the shared forward pass leaves out."""
        if self.size > 1:
            self._average([p.grad for p in parameters if p.grad is not None])

    def average_statistics(self, system: nn.Module) -> None:
        """Average what batch norm remembers, so that all processes hold the same state."""
        if self.size > 1:
            self._average(list(updated_statistics(system)))

    def settle(self) -> None:
        """Wait until all processes are done with what they compute together.

        NCCL's calls return before the GPU has done them: a process that ended now would leave
        the others waiting for it for ever.
        """
        if self.size > 1:
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            torch.distributed.barrier()

    @torch.no_grad()
    def _average(self, tensors: list[Tensor]) -> None:
        for tensor, mean in zip(tensors, self._mean(tensors), strict=True):
            tensor.copy_(mean)

    def _mean(self, tensors: list[Tensor]) -> list[Tensor]:
        if not tensors:
            return []
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(flat)
        flat /= self.size
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def find_team(devices: int) -> Team:
    """Return this process's place among the ``devices`` that a schedule asks for.

    Raises:
        UserError: where another number of processes was started.
    """
    started = 1
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun, or this package's launcher
        started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != devices:
        raise UserError(
            f"the schedule's devices are {devices}, but {started} processes train; start it with "
            f"`python -m icmbench train`, or torchrun with {devices} processes in all"
        )
    if devices == 1:
        return Team()
    place = (int(os.environ[n]) for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    return Team(*place)


class _Shared(nn.Module):
    """A system as DistributedDataParallel takes it.

    DDP waits for the gradient of every parameter that any output leads to. So outputs that nobody
    differentiates are cut off, parameters with a backward pass of their own are left out, and the
    term that makes this pass is hidden: DDP joins all tensors that it sees into one backward pass.
    """

    def __init__(self, system: System, apart: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self.system = system
        left_out = {id(parameter) for parameter in apart}
        # DDP reads this attribute; it is how its own helper function leaves parameters out.
        self._ddp_params_and_buffers_to_ignore = [
            name for name, parameter in self.named_parameters() if id(parameter) in left_out
        ]

    def forward(self, batch: Batch) -> dict[str, Any]:
        wanted = {*self.system.weights, *self.system.steering}
        terms = self.system(batch)
        seen = {name: t if name in wanted else t.detach() for name, t in terms.items()}
        apart = {name: _Hidden(terms[name]) for name in ("discriminator",) if name in terms}
        return {**seen, **apart}


class _Hidden:
    """A tensor that DDP does not find."""

    def __init__(self, tensor: Tensor) -> None:
        self.hidden = tensor
