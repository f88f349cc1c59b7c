"""DICM: a codec whose bitstream decodes to features of a ResNet's first stages, not to pixels.

Tang, Yi, Wang, IEEE Transactions on Broadcasting 2025.
"""
