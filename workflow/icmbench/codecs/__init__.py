"""Codecs: an image to a bitstream, and a bitstream to an image or to features.

    classical/  JPEG, HEVC, VVC, ...: libraries and external programs
    learned/    what learned codecs share, and those with CompressAI's networks
    dicm/       a feature codec (tang2025)
    layered/    a codec with two layers (zhang2022)

Each folder registers its codecs and their parameters in ``entries.py``, which imports no network
library.
"""
