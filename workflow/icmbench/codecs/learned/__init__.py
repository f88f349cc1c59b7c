"""Learned codecs: what they share, and image codecs with CompressAI's networks."""
