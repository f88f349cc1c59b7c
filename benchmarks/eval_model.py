"""CPU time of an image here and in CompressAI's ``eval_model``, with the same checkpoint.

Both code and decode each image and measure PSNR and MS-SSIM, on one thread, in alternation. Printed
are medians over the repeats, their ratio, and the largest differences of rate (strings alone) and
PSNR. Without a checkpoint it is one with random weights.

    python benchmarks/eval_model.py IMAGES bmshj2018-hyperprior [CHECKPOINT] [--limit 4]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compressai.utils.eval_model.__main__ import inference, load_checkpoint, read_image
from compressai.zoo import image_models
from PIL import Image

from icmbench.codecs.bitstream import unpack
from icmbench.jobs import CodecSpec, WeightsSpec
from icmbench.metrics.image_quality import quality
from icmbench.networks.build import build_codec
from icmbench.plugins import load_modules

Measured = tuple[float, float]  # bpp of the strings, PSNR in dB


def _random_checkpoint(codec: str, quality: int, path: Path) -> None:
    torch.manual_seed(0)
    network = image_models[codec](quality=quality, pretrained=False)
    with torch.no_grad():  # latents that do not all round to zero
        for name, weight in network.named_parameters():
            if name.startswith("g_a.") and weight.ndim == 4:
                weight *= 1.5
    torch.save({"state_dict": network.state_dict()}, path)


def _ours(codec: str, checkpoint: Path) -> Callable[[Path], Measured]:
    load_modules([])
    spec = CodecSpec(
        name=codec,
        kind="learned",
        parameters={},
        weights=WeightsSpec(source=str(checkpoint), of=codec, part="codec", own=True),
        starts_pretrained=True,
    )
    network: Any = build_codec(spec)
    network.prepare_coding()

    def measure(path: Path) -> Measured:
        image = np.asarray(Image.open(path).convert("RGB"))
        # As the jobs `encode` and `decode`, which compare digests of the latents.
        encoded = network.encode(image, reconstruct=False)
        data, expected = encoded.data, network.latent_digest(encoded.latent)
        latent, *size = network.decode_latent(data)
        assert network.latent_digest(latent) == expected
        found = quality(image, network.finish(latent, *size), ("psnr", "ms_ssim"))
        strings = unpack(data, network.strings)[2]
        return 8 * sum(map(len, strings)) / (image.shape[0] * image.shape[1]), found["psnr"]

    return measure


def _theirs(codec: str, checkpoint: Path) -> Callable[[Path], Measured]:
    network = load_checkpoint(codec, False, str(checkpoint))

    def measure(path: Path) -> Measured:
        found = inference(network, read_image(path))
        return found["bpp"], found["psnr-rgb"]

    return measure


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", type=Path, help="folder of PNGs with sides of multiples of 64")
    parser.add_argument("codec")
    parser.add_argument("checkpoint", type=Path, nargs="?")
    parser.add_argument("--quality", type=int, default=1, help="size of a random network")
    parser.add_argument("--limit", type=int, help="number of images")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = given.checkpoint or Path(folder, "random.pth")
        if given.checkpoint is None:
            _random_checkpoint(given.codec, given.quality, checkpoint)
        sides = {
            "icmbench": _ours(given.codec, checkpoint),
            "eval_model": _theirs(given.codec, checkpoint),
        }
    images = sorted(given.images.glob("*.png"))[: given.limit]
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    found: dict[str, list[Measured]] = {}
    for measure in sides.values():  # both warm
        measure(images[0])
    for _ in range(given.repeats):
        for name, measure in sides.items():
            start = time.process_time()
            found[name] = [measure(path) for path in images]
            seconds[name].append((time.process_time() - start) / len(images))
    medians = {name: statistics.median(own) for name, own in seconds.items()}
    for name, own in seconds.items():
        each = ", ".join(f"{second:.3f}" for second in own)
        print(f"{name:>10}: {medians[name]:.3f} CPU s per image (repeats {each})")
    differences = np.abs(np.subtract(found["icmbench"], found["eval_model"])).max(axis=0)
    print(f"ratio {medians['icmbench'] / medians['eval_model']:.2f}; differences at most "
          f"{differences[0]:.1e} bpp, {differences[1]:.1e} dB")  # fmt: skip


if __name__ == "__main__":
    main()
