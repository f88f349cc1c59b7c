"""The final weights of an operating point, as MLflow's model registry should show them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icmbench.errors import UserError
from icmbench.track.signature import Signature, signature_of


@dataclass(frozen=True)
class Weights:
    """Final weights of a training, for MLflow's model registry.

    Attributes:
        name: of the registered model; the operating points of a variant are its versions.
        about: of the registered model, in Markdown.
        description: of the version.
        path: relative to the results folder.
        digest: SHA-256 of the file.
        tags: of the registered model and of the version.
        version_tags: of the version alone.
        signature: None where a module of the job's cannot be imported here.
    """

    name: str
    about: str
    description: str
    path: str
    digest: str
    tags: dict[str, str]
    version_tags: dict[str, str]
    signature: Signature | None


def weights_of(
    root: Path, plan: dict[str, Any], point: dict[str, Any], training: dict[str, Any] | None
) -> Weights | None:
    """Return what to register of an operating point, None where it was not trained to its end."""
    if training is None or not training.get("weights_sha256"):
        return None
    path = (root / "runs" / point["key"] / "weights.pt").relative_to(root.parent).as_posix()
    rate = f"{point['rate_parameter']} {point['rate_value']}, " if point["rate_parameter"] else ""
    about = (
        f"Weights of **{point['label']}**, study {point['study']}, scale {point['scale']}: one "
        "version for each operating point. The files stay in the results folder."
    )
    names = ("study", "scale", "variant", "codec", "task", "mode")
    own = ("rate_index", "rate_parameter", "rate_value", "seed")
    return Weights(
        name=_model_name(plan, point),
        about=about,
        description=f"{point['label']}, {rate}seed {point['seed']}: `{path}` below the results "
        f"folder, SHA-256 `{training['weights_sha256']}`",
        path=path,
        digest=training["weights_sha256"],
        tags=_text({name: point[name] for name in names}),
        version_tags=_text(
            {
                "run_key": point["key"],
                **{name: point[name] for name in own},
                "weights_path": path,
                "weights_sha256": training["weights_sha256"],
                "git_commit": (training.get("environment") or {}).get("git_commit"),
            }
        ),
        signature=_signature(training.get("job") or {}),
    )


def _model_name(plan: dict[str, Any], point: dict[str, Any]) -> str:
    """Return e.g. ``icmbench.chamain2021.mini.hyperprior.faster-rcnn.j-ft``, without / and :."""
    prefix = plan["run"]["tracking"]["experiment"]
    name = "/".join((prefix, point["study"], plan["scale"]["name"], point["variant"]))
    return re.sub(r"[/:']", ".", name)


def _signature(job: dict[str, Any]) -> Signature | None:
    try:
        return signature_of(job)
    except (UserError, KeyError, ValueError):
        return None  # of a module that is not here, or of an older version


def _text(values: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value is not None}
