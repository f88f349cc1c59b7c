"""Device, threads and precision of a job."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol

import torch

logger = logging.getLogger(__name__)


class Runtime(Protocol):
    """The hardware settings of a job: an evaluation job, or a training run's ``runtime``."""

    @property
    def threads(self) -> int:
        """CPU threads."""

    @property
    def gpu(self) -> int:
        """GPUs; 0 computes on the CPU."""

    @property
    def precision(self) -> str:
        """fp32, bf16 or auto."""


@dataclass(frozen=True)
class Compute:
    """Device and arithmetic of a job."""

    device: torch.device
    precision: str

    def autocast(self) -> torch.autocast:
        """Return the context in which networks run."""
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"
        )

    @property
    def name(self) -> str:
        """Return the device's model name, or the CPU's threads."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"cpu, {torch.get_num_threads()} threads"


def uses_cuda(runtime: Runtime) -> bool:
    """Return whether a job computes on a GPU: it asks for one and one is available."""
    return runtime.gpu > 0 and torch.cuda.is_available()


def choose_compute(runtime: Runtime, warn: bool = True) -> Compute:
    """Return device and precision for a job's hardware settings.

    A job that asks for a GPU runs on the CPU if there is none, with a warning if ``warn``.
    """
    torch.set_num_threads(runtime.threads)
    cuda = uses_cuda(runtime)
    if runtime.gpu > 0 and not cuda and warn:
        logger.warning("no GPU found; running on the CPU, which is slow")
    # What is float32 here is so on purpose (entropy models); factors in TF32 have 10 bits.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return Compute(
        torch.device("cuda" if cuda else "cpu"), resolve_precision(runtime.precision, cuda)
    )


def resolve_precision(wanted: str, cuda: bool) -> str:
    """Return fp32 or bf16; ``auto`` is bf16 on hardware that computes in it."""
    if wanted != "auto":
        return wanted
    if cuda:
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if native else "fp32"
