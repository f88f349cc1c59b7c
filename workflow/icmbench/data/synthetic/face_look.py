"""What one generated face looks like beyond its attributes: geometry, colours, light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from icmbench.data.synthetic.face_attributes import sample_attributes

Array = np.ndarray[Any, np.dtype[Any]]

PARSING = (
    "background",
    "skin",
    "nose",
    "glasses",
    "eyes",
    "brows",
    "ears",
    "mouth",
    "lips",
    "hair",
    "hat",
    "earring",
    "neck",
    "cloth",
)
LABELS = {name: index for index, name in enumerate(PARSING)}

_SKIN = np.array(
    [[0.90, 0.72, 0.61], [0.85, 0.65, 0.51], [0.70, 0.50, 0.37], [0.52, 0.35, 0.25],
     [0.36, 0.24, 0.18]], np.float32,
)  # fmt: skip
_PALE = np.array([0.95, 0.86, 0.81], np.float32)
_HAIR = {
    "Black_Hair": (0.09, 0.075, 0.07),
    "Brown_Hair": (0.33, 0.21, 0.13),
    "Blond_Hair": (0.80, 0.65, 0.40),
    "Gray_Hair": (0.62, 0.61, 0.60),
}
_RED = (0.56, 0.26, 0.12)
_IRIS = np.array([[0.22, 0.13, 0.08], [0.30, 0.42, 0.55], [0.30, 0.42, 0.25]], np.float32)


@dataclass(frozen=True)
class Look:
    """One face: attributes, and geometry in face units (see ``face_painter``)."""

    has: dict[str, bool]
    long_hair: bool
    skin: Array
    hair: Array
    iris: Array
    lips: Array
    light: Array
    """Unit vector towards the light: right, down, to the viewer."""
    jaw: float
    """Half width at the corners of the jaw."""
    chin: float
    """Height of the chin, positive because y points down."""
    cheek: float
    """Half width at the cheekbones."""
    eye: tuple[float, float, float, float]
    """Distance from the middle, height, half width and half height of an eye."""
    gaze: float
    brow: tuple[float, float]
    """Height and half thickness of a brow."""
    nose: tuple[float, float]
    """Half width and height of the tip of the nose."""
    mouth: tuple[float, float, float]
    """Height, half width and thickness of a lip."""
    smile: float
    """How far the corners of the mouth rise."""
    open: float
    """Half of the gap between the lips."""
    parting: float
    """Where the hair parts."""
    hairline: float
    """Height of the hairline, negative."""


def sample_look(rng: np.random.Generator) -> Look:
    """Draw attributes, then a face that has them."""
    has, long_hair = sample_attributes(rng)
    tone = rng.beta(1.0, 1.7) * (len(_SKIN) - 1.001)
    below = int(tone)
    skin = _SKIN[below] + (tone - below) * (_SKIN[below + 1] - _SKIN[below])
    skin = _PALE if has["Pale_Skin"] else skin
    skin = skin * rng.normal(1, 0.02, 3)
    hair = np.array(next((rgb for name, rgb in _HAIR.items() if has[name]), _RED))
    hair = hair * rng.normal(1, 0.05, 3) * rng.uniform(0.85, 1.15)
    red = np.array([rng.uniform(0.55, 0.8), rng.uniform(0.1, 0.25), rng.uniform(0.15, 0.3)])
    lips = skin * [0.88, 0.66, 0.66]
    lips = 0.25 * lips + 0.75 * red if has["Wearing_Lipstick"] else lips
    light = np.array([rng.normal(0, 0.5), rng.uniform(-0.8, 0.0), rng.uniform(0.7, 1.2)])
    height = rng.uniform(0.05, 0.065) if has["Narrow_Eyes"] else rng.uniform(0.09, 0.125)
    dark = skin.mean() < 0.5  # brown eyes are by far the most common with dark skin
    smile = rng.uniform(0.11, 0.19) if has["Smiling"] else rng.uniform(-0.05, 0.01)
    wide = rng.uniform(0.36, 0.45) if has["Smiling"] else rng.uniform(0.26, 0.33)
    thick = rng.uniform(0.065, 0.09) if has["Bushy_Eyebrows"] else rng.uniform(0.018, 0.03)
    return Look(
        has=has,
        long_hair=long_hair,
        skin=skin.astype(np.float32),
        hair=np.clip(hair, 0.03, 0.95).astype(np.float32),
        iris=_IRIS[0 if dark else int(rng.choice(3, p=[0.5, 0.3, 0.2]))],
        lips=lips.astype(np.float32),
        light=(light / np.linalg.norm(light)).astype(np.float32),
        jaw=rng.uniform(0.6, 0.8),
        chin=rng.uniform(1.15, 1.32),
        cheek=rng.uniform(0.88, 0.98),
        eye=(rng.uniform(0.36, 0.42), rng.uniform(-0.16, -0.08), rng.uniform(0.17, 0.21), height),
        gaze=rng.normal(0, 0.03),
        brow=(rng.uniform(-0.42, -0.35), thick),
        nose=(rng.uniform(0.15, 0.23), rng.uniform(0.34, 0.44)),
        mouth=(rng.uniform(0.70, 0.78), wide, rng.uniform(0.05, 0.085)),
        smile=smile,
        open=rng.uniform(0.05, 0.11) if has["Mouth_Slightly_Open"] else 0.0,
        parting=rng.uniform(-0.45, 0.45),
        hairline=rng.uniform(-0.9, -0.72),
    )
