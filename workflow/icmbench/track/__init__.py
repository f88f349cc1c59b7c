"""MLflow as an observer: the result files are the truth, the runs in MLflow a view of them.

:func:`sync` imports results into an MLflow store and can be repeated at any time; :func:`track` is
the command behind the workflow's rule. MLflow is imported only when one of them runs.
"""

from icmbench.track.command import track
from icmbench.track.importer import SyncResult, sync

__all__ = ["SyncResult", "sync", "track"]
