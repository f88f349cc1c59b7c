"""Names and versions that the plan and the jobs share; imports nothing."""

from __future__ import annotations

# Bump when a change of the classical codecs (colour, padding, headers) changes bits or decoded
# samples.
CLASSICAL_VERSION = 1
# Raised when the rows of a chunk change though what was coded does not: the cache stays valid.
ROWS_VERSION = 2

# What decoding leaves in the folder of an encoding.
DECODED, LATENTS = "decoded.zip", "latents.zip"


def chunk_name(chunk: int, chunks: int) -> str:
    """Return the name of a chunk's file of rows."""
    return f"chunk{chunk}of{chunks}.json"
