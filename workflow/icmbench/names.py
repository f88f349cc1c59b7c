"""Names and versions that the plan and the jobs share; imports nothing."""

from __future__ import annotations

# Raised when a change of the anchors (colour, padding, headers) makes other bits or other decoded
# samples.
ANCHOR_VERSION = 1
# Raised when the rows of a chunk change though what was coded does not: the cache stays valid.
ROWS_VERSION = 2

# What decoding leaves in the folder of an encoding.
DECODED, LATENTS = "decoded.zip", "latents.zip"


def chunk_name(chunk: int, chunks: int) -> str:
    """Return the name of a chunk's file of rows."""
    return f"chunk{chunk}of{chunks}.json"
