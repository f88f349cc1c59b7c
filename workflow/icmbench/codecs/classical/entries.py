"""Register the classical codecs and their parameters; imports no codec library.

A name consists of codec, chroma format and, where there are several, the implementation:
``bpg-444-x265``.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from icmbench.registry import CODECS, CodecEntry
from icmbench.utils.models import Strict

Chroma = Literal["4:4:4", "4:2:0"]

# Bump if a change of the classical codecs (colour, padding, headers) changes bits or decoded
# samples.
CLASSICAL_VERSION = 1


class ProgramParameters(Strict):
    """Settings of every external program."""

    time_limit_s: float = Field(
        600.0, gt=0, description="Time limit for coding one image, in seconds."
    )


class JpegParameters(Strict):
    """JPEG as Pillow writes it."""

    chroma: Chroma = Field(
        "4:2:0", description="Chroma format; 4:2:0 is Pillow's default and CompressAI's."
    )
    optimize: bool = Field(False, description="Optimised Huffman tables.")


class Jpeg2000Parameters(Strict):
    """JPEG 2000 as Pillow (OpenJPEG) writes it: irreversible transform, one quality layer."""

    container: Literal["jp2", "j2k"] = Field(
        "jp2", description="jp2: file format with its boxes, counted; j2k: the bare codestream."
    )


class WebpParameters(Strict):
    """Lossy WebP as Pillow (libwebp) writes it; always 4:2:0."""

    method: int = Field(6, ge=0, le=6, description="Effort, from fast to slow.")


class AvifParameters(Strict):
    """AVIF (AV1 intra) as Pillow (libavif, libaom) writes it."""

    chroma: Chroma = Field("4:4:4", description="Chroma format.")
    speed: int = Field(4, ge=0, le=10, description="From slow to fast.")


class JpegXlParameters(Strict):
    """Lossy JPEG XL as imagecodecs (libjxl) writes it: the bare codestream, one thread."""

    effort: int = Field(7, ge=1, le=10, description="From fast to slow; 7 is libjxl's default.")


class X265Parameters(Strict):
    """HEVC intra by libx265 inside PyAV: bare bitstream, BT.709 full range."""

    chroma: Chroma = Field("4:4:4", description="Chroma format.")
    bit_depth: Literal[8, 10] = Field(10, description="Bits of the coded samples.")
    preset: Literal[
        "ultrafast",
        "superfast",
        "veryfast",
        "faster",
        "fast",
        "medium",
        "slow",
        "slower",
        "veryslow",
        "placebo",
    ] = Field("veryslow", description="x265's preset; BPG codes with veryslow.")
    tune: Literal["ssim", "psnr", "grain", "none"] = Field(
        "ssim", description="x265's tuning; BPG codes with ssim."
    )
    ip_ratio: float = Field(
        1.0,
        ge=1.0,
        description="x265's ipratio: 1 codes intra images at the nominal QP, x265's default of "
        "1.4 at the QP three below it.",
    )


class VvencFfmpegParameters(ProgramParameters):
    """VVC intra by libvvenc inside imageio-ffmpeg's program: 4:2:0, 10 bit, BT.709 full range."""

    preset: Literal["faster", "fast", "medium", "slow", "slower"] = Field(
        "medium", description="VVenC's preset."
    )


class BpgParameters(ProgramParameters):
    """BPG (HEVC intra) by the programs bpgenc and bpgdec, BT.601 full range inside."""

    chroma: Chroma = Field("4:4:4", description="Chroma format.")
    encoder: Literal["x265", "jctvc"] = Field(
        "x265", description="x265 codes at the QP three below the nominal one, jctvc at it."
    )
    bit_depth: Literal[8, 10, 12] = Field(
        8, description="Bits of the coded samples; x265 is usually built for 8."
    )
    level: int = Field(8, ge=1, le=9, description="bpgenc's compression level.")
    colour_space: Literal["ycbcr", "rgb", "ycgco"] = Field("ycbcr", description="bpgenc's -c.")


class ReferenceSoftwareParameters(ProgramParameters):
    """Settings that VTM and HM share."""

    time_limit_s: float = Field(
        7200.0, gt=0, description="Time limit for coding one image, in seconds."
    )
    chroma: Chroma = Field("4:4:4", description="Chroma format.")
    bit_depth: Literal[8, 10] = Field(
        10, description="Bits of the samples given to the encoder; it codes 10 bits."
    )
    rounding: Literal["nearest", "truncate"] = Field(
        "nearest",
        description="Of the colour conversion. truncate, with bit_depth 8, is how CompressAI's "
        "published curves were made; it costs 0.2 to 0.8 dB.",
    )


class VtmParameters(ReferenceSoftwareParameters):
    """VVC intra by VTM's EncoderApp and its intra configuration, BT.709 full range."""


class HmParameters(ReferenceSoftwareParameters):
    """HEVC intra by HM with range extensions and its intra configuration, BT.709 full range."""


class VvencParameters(ProgramParameters):
    """VVC intra by the programs vvencapp and vvdecapp: 4:2:0, 10 bit, BT.709 full range."""

    preset: Literal["faster", "fast", "medium", "slow", "slower"] = Field(
        "medium", description="VVenC's preset."
    )


_LOWER_RATE: dict[str, Literal["smaller", "larger"]] = {
    "quality": "smaller",
    "qp": "larger",
    "ratio": "larger",
    "distance": "larger",
}


def _register(
    name: str,
    parameters: type[Strict],
    implementation: str,
    *,
    rate: str = "qp",
    programs: tuple[str, ...] = (),
    substitute: str | None = None,
    **defaults: Any,
) -> None:
    CODECS.register(
        CodecEntry(
            name=name,
            kind="classical",
            parameters=parameters,
            implementation=f"icmbench.codecs.classical.{implementation}",
            rate_parameter=rate,
            lower_rate=_LOWER_RATE[rate],
            defaults=defaults,
            programs=programs,
            substitute=substitute,
        )
    )


# From packages, always available.
_register("jpeg", JpegParameters, "pillow:Jpeg", rate="quality")
_register("jpeg2000", Jpeg2000Parameters, "pillow:Jpeg2000", rate="ratio")
_register("webp", WebpParameters, "pillow:Webp", rate="quality")
_register("jpegxl", JpegXlParameters, "jpegxl:JpegXl", rate="distance")
_register("avif-444", AvifParameters, "pillow:Avif", rate="quality", chroma="4:4:4")
_register("avif-420", AvifParameters, "pillow:Avif", rate="quality", chroma="4:2:0")
_register("x265-444", X265Parameters, "x265:X265", chroma="4:4:4")
_register("x265-420", X265Parameters, "x265:X265", chroma="4:2:0")
_register("vvenc-ffmpeg-420", VvencFfmpegParameters, "ffmpeg:VvencFfmpeg")

# External programs that users install.
_BPG = ("bpgenc", "bpgdec")
_VTM = ("vtm_encoder", "vtm_decoder", "vtm_config")
_HM = ("hm_encoder", "hm_decoder", "hm_config")
for _short, _chroma in (("444", "4:4:4"), ("420", "4:2:0")):
    for _encoder in ("x265", "jctvc"):
        _register(
            f"bpg-{_short}-{_encoder}",
            BpgParameters,
            "bpg:Bpg",
            programs=_BPG,
            substitute=f"x265-{_short}",
            chroma=_chroma,
            encoder=_encoder,
        )
    _register(
        f"vtm-{_short}",
        VtmParameters,
        "raw_video:Vtm",
        programs=_VTM,
        substitute="vvenc-ffmpeg-420",
        chroma=_chroma,
    )
    _register(
        f"hm-{_short}",
        HmParameters,
        "raw_video:Hm",
        programs=_HM,
        substitute=f"x265-{_short}",
        chroma=_chroma,
    )
_register(
    "hm-444-truncated",
    HmParameters,
    "raw_video:Hm",
    programs=_HM,
    substitute="x265-444",
    chroma="4:4:4",
    bit_depth=8,
    rounding="truncate",
)
_register(
    "vvenc-420",
    VvencParameters,
    "raw_video:Vvenc",
    programs=("vvencapp", "vvdecapp"),
    substitute="vvenc-ffmpeg-420",
)
