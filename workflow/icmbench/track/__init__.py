"""MLflow as an observer: the result files are the truth, the runs in MLflow a view of them.

:func:`track` is the verb and the workflow's rule. MLflow is imported only when it runs.
"""

from icmbench.track.importer import ImportResult, sync, track

__all__ = ["ImportResult", "sync", "track"]
