"""Names of files that the plan and the jobs share; imports nothing."""

from __future__ import annotations


def chunk_name(chunk: int, chunks: int) -> str:
    """Return the name of a chunk's file of rows."""
    return f"chunk{chunk}of{chunks}.json"
