"""DICM: a codec whose bitstream decodes to features of a ResNet's first stages, not to pixels.

Tang, Yi, Wang, IEEE Transactions on Broadcasting 2025. A backbone's head turns the image into
features, redundancy elimination (RE) strips what self-supervision does not need, and a compression
network codes the rest; tasks read the decoded features through the backbone's tail.
"""
