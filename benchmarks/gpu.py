"""Measurements on a GPU: speed, memory, full-size steps, agreement with the CPU.

    python benchmarks/gpu.py                                  all sections, a table and gpu.json
    python benchmarks/gpu.py throughput loader --minutes 10   some of them
    python benchmarks/gpu.py --quick --device cpu             tiny, to check that it runs

Sections: throughput (the trainer's step and CompressAI's own loop), loader (that step with the
loader), networks (outputs at B against A), bitstreams (coded at A, decoded at B), full-size (some
training steps of every study). Needs no data and no network. Measurements that fail, or for which
--minutes leave no time, are left out with the reason.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpu_common import Table, TimeCap

REPOSITORY = Path(__file__).parents[1]
SECTIONS = ("throughput", "loader", "networks", "bitstreams", "full-size")
_QUICK_VARIANT = "chamain2021/hyperprior/reconstruction/mse"


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("sections", nargs="*", metavar="SECTION", help="one or more; all by default")
    add("--device", default="auto", help="auto, cuda or cpu; auto: a GPU if there is one")
    add("--a", help="where bitstreams are encoded; default: the device. A place is a device and "
        "how it computes: cuda, cuda+tf32, cpu+first, cpu+threads=2, cpu+noise=1e-6")  # fmt: skip
    add("--b", default="cpu", help="where they are decoded; default: cpu")
    add("--both-ways", action="store_true", help="bitstreams from B to A, too")
    add("--minutes", type=float, default=25.0, help="start nothing after these; default: 25")
    add("--quick", action="store_true", help="small networks, few repetitions: numbers mean little")
    add("--batch", type=int, help="images of a step; default: 16")
    add("--side", type=int, help="of training crops, in pixels; default: 256")
    add("--rounds", type=int, help="alternations; default: 5")
    add("--seconds", type=float, help="of each measurement; default: 3")
    add("--workers", type=int, help="loader processes; default: one a CPU, 12 at most")
    add("--threads", type=int, help="of the CPU; default: one a CPU, 8 at most")
    add("--compile", action="store_true", help="measure compiled transforms, too")
    add("--images", type=Path, help="folder of images to train on; default: drawn ones")
    add("--count", type=int, help="images to code; default: 16")
    add("--kinds", nargs="+", help="codecs to code with; default: one of each kind")
    add("--scale", help="of the full-size steps; default: paper")
    add("--variants", nargs="+", metavar="STUDY/VARIANT", help="of the full-size steps; all")
    add("--steps", type=int, help="of each training; default: 10")
    add("--step-batch", type=int, help="images of a full-size step at most; default: the scale's")
    add("--output", type=Path, default=Path("gpu.json"), help="JSON file; default: gpu.json")
    add("--folder", type=Path, help="for temporary files; default: a temporary one")
    return parser.parse_args(arguments)


def measure(
    options: argparse.Namespace, folder: Path, keep: Callable[[list[Table]], None]
) -> list[Table]:
    """Run the sections in their order and return their tables; ``keep`` gets them after each."""
    from gpu_common import Table, TimeCap, parse_device, parse_place

    from icmbench.errors import UserError
    from icmbench.plugins import load_modules

    for name in options.sections:
        if name not in SECTIONS:
            raise UserError(f"section {name!r} is unknown; allowed: {', '.join(SECTIONS)}")
    load_modules([])
    device = parse_device(options.device)
    if device.type == "cpu":
        print("gpu.py: no GPU is used: do not report these as results of a GPU", file=sys.stderr)
    a, b = parse_place(options.a or device.type), parse_place(options.b)
    cap = TimeCap(options.minutes)
    makers = _sections(options, folder, device, a, b)
    tables = []
    for name in options.sections or SECTIONS:
        for make in makers[name]:
            start = time.monotonic()
            try:
                cap.check()
                table = make(cap)
                _forget(device)
            except Exception as error:  # any failure of a new GPU
                table = Table(name, [])
                table.leave_out("all of it", error)
            table.data.append({"section": name, "seconds": time.monotonic() - start})
            print(table.markdown(), flush=True)
            tables.append(table)
            keep(tables)
    return tables


def _sections(
    options: argparse.Namespace, folder: Path, device: Any, a: Any, b: Any
) -> dict[str, list[Callable[[TimeCap], Table]]]:
    """Return functions that make each section's tables; a missing package fails only its own."""
    quick = options.quick
    cpus = os.cpu_count() or 1
    threads = options.threads or min(8, cpus)
    workers = _given(options.workers, 1 if quick else min(12, cpus))

    def training(measures: str) -> Callable[[TimeCap], Table]:
        def make(cap: TimeCap) -> Table:
            import gpu_training

            settings = gpu_training.TrainingSettings(
                device=device,
                codecs=gpu_training.VERSUS,
                batch=options.batch or (2 if quick else 16),
                side=options.side or (64 if quick else 256),
                sizes={"n": 16, "m": 24} if quick else {"n": 128, "m": 192},
                rounds=options.rounds or (2 if quick else 5),
                seconds=_given(options.seconds, 0.0 if quick else 3.0),
                workers=workers,
                threads=threads,
                compiled=options.compile,
                images=options.images,
                folder=folder,
            )
            return getattr(gpu_training, measures)(settings, cap)  # type: ignore[no-any-return]

        return make

    def agreement(compares: str, here: Any, there: Any) -> Callable[[TimeCap], Table]:
        def make(cap: TimeCap) -> Table:
            import gpu_agreement

            settings = gpu_agreement.AgreementSettings(
                a=here,
                b=there,
                kinds=tuple(options.kinds or gpu_agreement.KINDS),
                detectors=gpu_agreement.DETECTORS,
                count=options.count or (1 if quick else 16),
                side=64 if quick else 256,
                small=quick,
            )
            return getattr(gpu_agreement, compares)(settings, cap)  # type: ignore[no-any-return]

        return make

    def full_size(cap: TimeCap) -> Table:
        import gpu_full_size

        settings = gpu_full_size.FullSizeSettings(
            device=device,
            scale=options.scale or ("smoke" if quick else "paper"),
            variants=tuple(options.variants or ([_QUICK_VARIANT] if quick else [])),
            steps=options.steps or (2 if quick else 10),
            batch=_given(options.step_batch, 2 if quick else None),
            threads=threads,
            workers=workers,
            side=64 if quick else 512,
            folder=folder,
        )
        return gpu_full_size.measure_full_size(settings, cap)

    ways = [(a, b), (b, a)] if options.both_ways else [(a, b)]
    return {
        "throughput": [training("measure_throughput")],
        "loader": [training("measure_loader")],
        "networks": [agreement("compare_networks", a, b)],
        "bitstreams": [agreement("exchange_bitstreams", *way) for way in ways],
        "full-size": [full_size],
    }


def _given(value: Any, default: Any) -> Any:
    return default if value is None else value


def _forget(device: Any) -> None:
    """Free memory for the processes of the next section."""
    import gc

    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _machine() -> dict[str, Any]:
    import torch

    from icmbench.utils.environment import describe_environment

    found: dict[str, Any] = {**describe_environment(Path()), "cpus": os.cpu_count(), "gpu": None}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found["gpu"] = {
            "name": properties.name,
            "memory_gb": properties.total_memory / 2**30,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


def _describe(machine: dict[str, Any], quick: bool) -> str:
    gpu = machine["gpu"]
    where = "no GPU" if gpu is None else f"{gpu['name']}, CUDA {gpu['cuda']}"
    versions = machine["versions"]
    line = (
        f"{where}; {machine['processor']}, {machine['cpus']} CPUs; Python {machine['python']}, "
        f"torch {versions['torch']}, compressai {versions['compressai']}"
    )
    return line + ("; --quick: these numbers mean little" if quick else "")


def main(arguments: list[str] | None = None) -> int:
    """Read the command line, measure, print, write; return the exit status."""
    options = _parse(arguments)
    # The package need not be installed; child processes find it, too.
    package = str(REPOSITORY / "workflow")
    sys.path[:0] = [package, str(Path(__file__).parent)]
    known = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = package + (os.pathsep + known if known else "")
    try:
        from icmbench.errors import UserError
        from icmbench.utils.files import write_json

        machine = _machine()
    except ImportError as error:
        print(f"gpu.py: error: {error}; install what pyproject.toml lists", file=sys.stderr)
        return 1
    print(_describe(machine, options.quick) + "\n", flush=True)
    used = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()}

    def keep(tables: list[Table]) -> None:
        """Write the sections so far, so that a killed run keeps them."""
        content = [
            {"title": t.title, "rows": t.data[:-1], "notes": t.notes, **t.data[-1]} for t in tables
        ]
        write_json(options.output, {"machine": machine, "options": used, "sections": content})

    try:
        if options.folder is not None:
            measure(options, options.folder, keep)
        else:
            with tempfile.TemporaryDirectory(prefix="icmbench-gpu-") as folder:
                measure(options, Path(folder), keep)
    except UserError as error:
        print(f"gpu.py: error: {error}", file=sys.stderr)
        return 1
    print(f"{options.output}: written", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
