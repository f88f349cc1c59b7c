"""Which attributes a generated face has: a small Bayesian network in place of independent coins.

Frequencies and dependences are modelled on CelebA's (Liu et al., ICCV 2015), whose attribute names
are used; ``Freckles`` is ours.
"""

from __future__ import annotations

import numpy as np

ATTRIBUTES = (
    "5_o_Clock_Shadow",
    "Arched_Eyebrows",
    "Bags_Under_Eyes",
    "Bangs",
    "Black_Hair",
    "Blond_Hair",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Eyeglasses",
    "Freckles",
    "Gray_Hair",
    "Mouth_Slightly_Open",
    "Narrow_Eyes",
    "Pale_Skin",
    "Smiling",
    "Wavy_Hair",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Young",
)


def sample_attributes(rng: np.random.Generator) -> tuple[dict[str, bool], bool]:
    """Return the attributes by name, and whether the hair is long (which is not an attribute)."""

    def coin(probability: float) -> bool:
        return bool(rng.random() < probability)

    # A hidden style that ties the attributes together, as fashion does in photographs.
    style = coin(0.5)
    young = coin(0.6)
    long_hair = coin(0.75 if style else 0.1)
    hat = coin(0.08)
    gray = coin(0.03 if young else 0.3)
    colour = str(rng.choice(["Black", "Brown", "Blond", "Red"], p=[0.34, 0.34, 0.2, 0.12]))
    smiling = coin(0.55 if style else 0.4)
    pale = coin(0.12)
    has = {
        "5_o_Clock_Shadow": coin(0.02 if style else 0.3),
        "Arched_Eyebrows": coin(0.45 if style else 0.1),
        "Bags_Under_Eyes": coin(0.12 if young else 0.4),
        "Bangs": not hat and coin(0.28 if style else 0.1),
        "Black_Hair": not gray and colour == "Black",
        "Blond_Hair": not gray and colour == "Blond",
        "Brown_Hair": not gray and colour == "Brown",
        "Bushy_Eyebrows": coin(0.06 if style else 0.3),
        "Eyeglasses": coin(0.05 if young else 0.16),
        "Freckles": coin(0.4 if pale else 0.12),
        "Gray_Hair": gray,
        "Mouth_Slightly_Open": coin(0.7 if smiling else 0.25),
        "Narrow_Eyes": coin(0.2 if smiling else 0.08),
        "Pale_Skin": pale,
        "Smiling": smiling,
        "Wavy_Hair": coin(0.5 if long_hair else 0.2),
        "Wearing_Earrings": coin(0.4 if style else 0.05),
        "Wearing_Hat": hat,
        "Wearing_Lipstick": coin(0.7 if style else 0.02),
        "Young": young,
    }
    assert tuple(has) == ATTRIBUTES
    return has, long_hair
