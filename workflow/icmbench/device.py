"""Device, threads and precision of a job, through Lightning Fabric."""

from __future__ import annotations

import sys
from typing import Any

import torch
from lightning_fabric import Fabric


def make_fabric(runtime: dict[str, Any]) -> Fabric:
    """Return Fabric for a job's runtime settings: threads, gpu, precision.

    A job that asks for a GPU where there is none runs on the CPU and says so.
    """
    torch.set_num_threads(runtime["threads"])
    cuda = runtime["gpu"] > 0 and torch.cuda.is_available()
    if runtime["gpu"] > 0 and not cuda:
        print("icmbench: no GPU here; running on the CPU, which is slow", file=sys.stderr)
    precision = resolve_precision(runtime["precision"], cuda)
    return Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices=1,
        precision="bf16-mixed" if precision == "bf16" else "32-true",
    )


def resolve_precision(wanted: str, cuda: bool) -> str:
    """Return fp32 or bf16; ``auto`` takes bf16 where the hardware computes in it."""
    if wanted != "auto":
        return wanted
    if cuda:
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if native else "fp32"


def device_name(fabric: Fabric) -> str:
    """Return the device as people name it."""
    if fabric.device.type == "cuda":
        return torch.cuda.get_device_name(fabric.device)
    return f"cpu, {torch.get_num_threads()} threads"
