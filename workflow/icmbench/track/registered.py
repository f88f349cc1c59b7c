"""Final weights in MLflow's model registry: one version per operating point that was trained.

The weights themselves are not copied. A version holds their place, their SHA-256 and, in the file
``MLmodel`` of its run, the signature.
"""

from __future__ import annotations

from typing import Any

from icmbench.track.signature import TensorOf
from icmbench.track.weights import Weights
from icmbench.utils.files import digest_json

_FOLDER = "model"


def weights_digest(weights: Weights) -> str:
    """Return what changes with anything that :func:`register` would write."""
    return digest_json(
        {
            **{k: v for k, v in vars(weights).items() if k != "signature"},
            "signature": repr(weights.signature),
        }
    )


def register(client: Any, run_id: str, weights: Weights, created: int) -> None:
    """Make the version of a run's weights anew.

    Args:
        client: an ``mlflow.MlflowClient``.
        run_id: the run that trained them.
        weights: what to register.
        created: when they were finished, in Unix milliseconds.
    """
    unregister(client, run_id)
    client.log_text(run_id, _mlmodel(run_id, weights, created), f"{_FOLDER}/MLmodel")
    if not client.search_registered_models(f"name='{weights.name}'"):
        client.create_registered_model(weights.name, weights.tags, weights.about)
    client.create_model_version(
        weights.name,
        f"runs:/{run_id}/{_FOLDER}",
        run_id,
        tags={**weights.tags, **weights.version_tags},
        description=weights.description,
    )


def unregister(client: Any, run_id: str) -> None:
    """Delete the versions that belong to a run."""
    for version in client.search_model_versions(f"run_id='{run_id}'"):
        client.delete_model_version(version.name, version.version)


def _mlmodel(run_id: str, weights: Weights, created: int) -> str:
    from datetime import UTC, datetime

    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema

    signature = None
    if weights.signature is not None:
        sides = (weights.signature.inputs, weights.signature.outputs)
        signature = ModelSignature(*(Schema([_spec(t) for t in side]) for side in sides))
    model = Model(
        artifact_path=_FOLDER,
        run_id=run_id,
        utc_time_created=datetime.fromtimestamp(created / 1000, UTC).strftime("%F %T.%f"),
        flavors={"icmbench": {"weights": weights.path, "sha256": weights.digest}},
        signature=signature,
        model_uuid=None,
    )
    return str(model.to_yaml())


def _spec(tensor: TensorOf) -> Any:
    import numpy as np
    from mlflow.types import TensorSpec

    return TensorSpec(np.dtype(tensor.type), tensor.shape, tensor.name)
