"""Data-parallel training: what the ranks of one training run exchange.

Every rank (process) holds the whole network and takes its part of each batch. torchrun or
:mod:`icmbench.train.launch` starts them and sets their environment variables. With one process,
every function here returns its argument or does nothing. Whatever decides how a run continues (loss
terms, the wish to stop) is exchanged in every step, so that all ranks decide the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from icmbench.errors import UserError
from icmbench.train.batches import Batch
from icmbench.train.system import System

# Until rank 0 has the lock of the training run, which another job may hold for days.
_CONNECT_TIMEOUT = timedelta(days=7)
# Of a collective call. Only validation and checkpoints, on rank 0, take long.
_TIMEOUT = timedelta(minutes=60)


def is_launched() -> bool:
    """Return whether torchrun started this process as one rank."""
    return torch.distributed.is_torchelastic_launched()


def rank() -> int:
    """Return this process's rank, from 0."""
    return int(os.environ["RANK"]) if is_launched() else 0


def world_size() -> int:
    """Return the number of processes of the training run."""
    return int(os.environ["WORLD_SIZE"]) if is_launched() else 1


def is_rank_zero() -> bool:
    """Return whether this process writes the files of the run: lock, log, checkpoint, weights."""
    return rank() == 0


def connect(devices: int, cuda: bool) -> None:
    """Wait for the other ranks and join them.

    Args:
        devices: of the schedule.
        cuda: whether each rank computes on a GPU (NCCL) or on the CPU (gloo).

    Raises:
        UserError: if another number of processes was started, or GPUs are missing.
    """
    if world_size() != devices:
        raise UserError(
            f"the schedule's devices are {devices}, but {world_size()} processes train; start it "
            f"with `python -m icmbench train`, or torchrun with {devices} processes in all"
        )
    if devices == 1:
        return
    if cuda:
        local_rank, wanted = (int(os.environ[name]) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
        found = torch.cuda.device_count()
        if found < wanted:
            raise UserError(
                f"the schedule asks for {wanted} GPUs on this host, but {found} are visible; give "
                "the job more GPUs, or change the schedule's devices"
            )
        torch.cuda.set_device(local_rank)
    store, own_rank, size = next(rendezvous("env://", timeout=_CONNECT_TIMEOUT))
    torch.distributed.init_process_group(
        "nccl" if cuda else "gloo", store=store, rank=own_rank, world_size=size, timeout=_TIMEOUT
    )


# --- the parts of a rank --------------------------------------------------------------------------


def places(batch_size: int) -> range:
    """Return the places of this rank's images in a batch."""
    each = batch_size // world_size()
    return range(rank() * each, (rank() + 1) * each)


def step_seed(seed: int, step: int, of_rank: int = 0) -> int:
    """Return what torch's random generator starts a step with.

    32 bits, because torch's CPU generator reads no more. Seeds and ranks are golden-ratio strides
    apart (Weyl sequence), far beyond the length of a training run.
    """
    return (step + 0x9E3779B1 * (seed + 0x10001 * of_rank)) % 2**32


# --- exchange -------------------------------------------------------------------------------------


def broadcast(value: bool) -> bool:
    """Return rank 0's value."""
    values = [value]
    if world_size() > 1:
        torch.distributed.broadcast_object_list(values)
    return values[0]


def any_rank(value: bool, device: torch.device) -> bool:
    """Return whether the value is true on at least one rank."""
    if world_size() == 1:
        return value
    count = torch.tensor(float(value), device=device)
    torch.distributed.all_reduce(count)
    return bool(count > 0)


def all_reduce_mean(terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the means over all ranks of scalars, without gradient.

    A term that is not finite on one rank is not finite in the mean.
    """
    means = {name: term.detach().float().clone() for name, term in terms.items()}
    all_reduce_mean_(means.values())
    return means


@torch.no_grad()
def all_reduce_mean_(tensors: Iterable[Tensor]) -> None:
    """Replace tensors by their means over all ranks, in place."""
    if world_size() == 1:
        return
    tensors = list(tensors)
    if not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    torch.distributed.all_reduce(flat)
    flat /= world_size()
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view(tensor.shape))


def barrier() -> None:
    """Wait until every rank is here and its GPU has finished what all compute together.

    NCCL's calls return before the GPU has finished them. If a process ended then, the others would
    wait for it until the timeout.
    """
    if world_size() > 1:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        torch.distributed.barrier()


def synchronise_batch_norm(network: nn.Module, cuda: bool) -> None:
    """Let batch norm see the batch of all ranks in training, in place.

    Names, parameters and modes of the layers do not change.

    Raises:
        UserError: for several ranks on CPUs, for which torch has none.
    """
    if world_size() == 1:
        return
    if not cuda:
        raise UserError(
            f"batch_norm: trained with {world_size()} devices needs a GPU for each; set the "
            "schedule's devices to 1, or give the job GPUs"
        )
    nn.SyncBatchNorm.convert_sync_batchnorm(network)


# --- the forward pass -----------------------------------------------------------------------------


def data_parallel(
    system: System, separate: Iterable[nn.Parameter]
) -> Callable[[Batch], dict[str, Tensor]]:
    """Return the forward pass of a system whose gradients are averaged over all ranks.

    Args:
        system: codec and task, on their device.
        separate: parameters with a loss and an optimiser of their own. Their gradients are not
            averaged here.
    """
    if world_size() == 1:
        return system
    # Which parameters get a gradient depends on the study. Besides, without find_unused_parameters
    # DDP regroups gradients after the first step, and a resumed run would add in another order.
    ddp = DistributedDataParallel(
        _Outputs(system, separate), forward_sync_buffers=False, find_unused_parameters=True
    )
    return lambda batch: {n: getattr(term, "hidden", term) for n, term in ddp(batch).items()}


class _Outputs(nn.Module):
    """A system with the outputs that DistributedDataParallel may see.

    DDP waits for the gradient of every parameter that any output leads to, and joins all tensors
    that it finds in the outputs into one backward pass. So terms without a weight are detached,
    parameters with a backward pass of their own are ignored, and the term of that pass is hidden.
    """

    def __init__(self, system: System, separate: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self.system = system
        ignored = {id(parameter) for parameter in separate}
        # DDP reads this attribute; its own helper function sets it.
        self._ddp_params_and_buffers_to_ignore = [
            name for name, parameter in self.named_parameters() if id(parameter) in ignored
        ]

    def forward(self, batch: Batch) -> dict[str, Tensor | _Hidden]:
        terms = self.system(batch)
        weighted = {*self.system.weights, *self.system.steering}
        seen = {name: t if name in weighted else t.detach() for name, t in terms.items()}
        hidden = {name: _Hidden(terms[name]) for name in ("discriminator",) if name in terms}
        return {**seen, **hidden}


class _Hidden:
    """A tensor that DDP does not find."""

    def __init__(self, tensor: Tensor) -> None:
        self.hidden = tensor
