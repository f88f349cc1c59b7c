"""Read access to an MLflow store."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Stored:
    """The content of the store at an address, by default the SQLite file of a results folder."""

    def __init__(self, root: Path, uri: str | None = None) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(uri or f"sqlite:///{root.parent / 'mlflow.db'}")

    def runs(self) -> dict[str, Any]:
        """Return the runs of all experiments by key, which must be unique."""
        ids = [e.experiment_id for e in self.client.search_experiments()]
        runs = self.client.search_runs(ids, max_results=1000)
        keys = [run.data.tags["run_key"] for run in runs]
        assert len(keys) == len(set(keys))
        return {run.data.tags["run_key"]: run for run in runs}

    def versions(self, run_id: str | None = None) -> list[Any]:
        """Return the registered versions, all or those of a run."""
        wanted = f"run_id='{run_id}'" if run_id else None
        return list(self.client.search_model_versions(wanted))

    def history(self, key: str, metric: str) -> list[tuple[int, float]]:
        """Return (step, value) of every stored value of a metric, in order of steps."""
        run_id = self.runs()[key].info.run_id
        history = self.client.get_metric_history(run_id, metric)
        return sorted((m.step, m.value) for m in history)

    def content(self) -> dict[str, Any]:
        """Return everything in the store that is not an identifier."""
        runs = self.runs()
        names = {run.info.run_id: key for key, run in runs.items()}
        return {
            key: {
                "parameters": run.data.params,
                "metrics": {name: self.history(key, name) for name in run.data.metrics},
                "tags": {
                    k: names[v] if k == "mlflow.parentRunId" else v
                    for k, v in run.data.tags.items()
                },
                "data": [
                    (item.dataset.name, item.dataset.digest, [tag.value for tag in item.tags])
                    for item in run.inputs.dataset_inputs
                ],
                "times": (run.info.status, run.info.start_time, run.info.end_time),
                "files": [f.path for f in self.client.list_artifacts(run.info.run_id)],
                "versions": [
                    (version.name, version.tags) for version in self.versions(run.info.run_id)
                ],
            }
            for key, run in runs.items()
        }
