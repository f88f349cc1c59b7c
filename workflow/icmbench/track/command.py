"""What the workflow's rule and the verb ``track`` run: an import that cannot fail a workflow."""

from __future__ import annotations

import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from icmbench.errors import UserError
from icmbench.track.importer import sync
from icmbench.utils.files import write_json
from icmbench.utils.secrets import hide_secrets


def track(
    root: Path, uri: str | None = None, watch: float | None = None, strict: bool = False
) -> int:
    """Import results into MLflow, say what happened and return an exit status.

    Writes ``<root>/tracking.json``, unless it watches: ``{"status": "done", ...SyncResult}`` or
    ``{"status": "failed", "reason": ...}``. A failure is a warning and the status is 0, because the
    results do not depend on MLflow; with ``strict`` it is 1.

    Args:
        root: ``results/<scale>``.
        uri: see :func:`icmbench.track.importer.sync`.
        watch: see there.
        strict: whether a failure counts.
    """
    try:
        # Where a person waits for it, a slow server is given time; a workflow goes on.
        result = sync(root, uri=uri, watch=watch, patient=strict or watch is not None)
    except Exception as error:
        reason = str(error)
        if not isinstance(error, UserError):
            # A defect of ours, to be reported; still no reason to fail.
            print(hide_secrets(traceback.format_exc(), uri or ""), file=sys.stderr)
            reason = hide_secrets(f"{type(error).__name__}: {error}", uri or "")
        print(f"{'error' if strict else 'warning'}: {reason}", file=sys.stderr)
        _mark(root, {"status": "failed", "reason": reason}, watch)
        return int(strict)
    print(
        f"MLflow at {result.uri}: {result.runs} runs ({result.created} new, {result.replaced} "
        f"replaced, {result.updated} updated), {result.values} values sent"
    )
    for problem in result.problems:
        print(f"warning: not imported: {problem}", file=sys.stderr)
    _mark(root, {"status": "done", **asdict(result)}, watch)
    return int(strict and bool(result.problems))


def _mark(root: Path, marker: dict[str, Any], watch: float | None) -> None:
    if watch is None:  # the file is the rule's output; a watch beside the workflow leaves it alone
        write_json(root / "tracking.json", marker)
