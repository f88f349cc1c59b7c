"""What can be had of the data sets and published weights that a run needs, before any job.

For scales that set ``leave_out_missing``: what is not on this machine is asked for at its address,
once. For studies that set ``local_weights``: weights on this machine alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import requests

from icmbench.codecs.learned.entries import (
    LearnedParameters,
    VariableParameters,
    published_quality,
)
from icmbench.config.run import RunConfig
from icmbench.config.scale import Scale
from icmbench.config.study import Study, Variant
from icmbench.config.validate import codec_parameters, takes_from_zoo, task_parameters
from icmbench.data.catalogue import catalogue_path, load_catalogue
from icmbench.data.specs import FetchedImages
from icmbench.networks.pretrained import hub_is_used, hub_weights
from icmbench.registry import CODECS
from icmbench.tasks.fixed.entries import TimmClassifierParameters, TorchvisionParameters

_TIMEOUT_S = 5.0


def is_local(dataset: FetchedImages, run: RunConfig) -> bool:
    """Return whether a data set is in the data folder or in the mirror, maybe in part."""
    directory = Path(run.data.directory)
    entry = load_catalogue(catalogue_path(directory)).get(dataset.name)
    mirrored = (entry and entry.mirrored_as) or dataset.name
    return (directory / f"{dataset.name}.manifest.json").is_file() or (
        run.data.mirror is not None and (Path(run.data.mirror) / mirrored).is_dir()
    )


def obtainable(dataset: FetchedImages, run: RunConfig) -> bool:
    """Return whether a data set is available here, or its first address answers."""
    directory = Path(run.data.directory)
    entry = load_catalogue(catalogue_path(directory)).get(dataset.name)
    # Unknown names, and files that the repository lacks, are errors of their own.
    if entry is None or entry.files or is_local(dataset, run):
        return True
    url = entry.archives[0].url
    return (directory / dataset.name).is_dir() or (url is not None and answers(url))


def missing(studies: dict[str, Study], scale: Scale, run: RunConfig) -> dict[str, list[str]]:
    """Return the curves to leave out, as ``<study>/<variant>``, by what they lack, in a phrase.

    Args:
        studies: those of the run.
        scale: with its data sets.
        run: where data are.
    """
    found: dict[str, list[str]] = {}
    for study in studies.values():
        for name, variant in study.variants.items():
            if scale.leave_out_missing:
                lack = next(_not_to_be_had(study, variant, scale, run), None)
            elif study.local_weights:
                lack = next(_not_local(study, variant, scale), None)
            else:
                break
            if lack is not None:
                found.setdefault(lack, []).append(f"{study.name}/{name}")
    return found


def _not_to_be_had(study: Study, variant: Variant, scale: Scale, run: RunConfig) -> Iterator[str]:
    dataset = scale.datasets.get(variant.dataset)
    if isinstance(dataset, FetchedImages) and not obtainable(dataset, run):
        yield f"not to be had: data set {dataset.name!r}"
    for what, url in _weights(study, variant, scale):
        # Libraries keep what they downloaded in torch's folder, or in that of Hugging Face.
        if not _cached(url) and not answers(url):
            yield f"not to be had: weights of {what}"


def _not_local(study: Study, variant: Variant, scale: Scale) -> Iterator[str]:
    task = task_parameters(scale, variant.task)
    if isinstance(task, TimmClassifierParameters) and not hub_is_used():
        # Only timm knows its addresses, and importing it takes seconds.
        yield f"not on this machine: weights of {task.model}"
        return
    for what, url in _weights(study, variant, scale):
        if not _cached(url):
            yield f"not on this machine: weights of {what}"


def _weights(study: Study, variant: Variant, scale: Scale) -> Iterator[tuple[str, str]]:
    """Yield name and address of each file of published weights."""
    published = variant.codec_from == "pretrained" and not takes_from_zoo(scale, variant, "codec")
    codec = codec_parameters(scale, variant.codec) if published else None
    if isinstance(codec, VariableParameters):
        from compressai.zoo.image_vbr import model_urls as variable_urls

        yield variant.codec, variable_urls[variant.codec][codec.metric]
    elif isinstance(codec, LearnedParameters) and CODECS[variant.codec].published_rates:
        from compressai.zoo.image import model_urls

        urls = model_urls.get(variant.codec, {}).get(codec.metric, {})
        ladder = study.ladder(variant)
        for value in ladder.values if ladder else ():
            if (url := urls.get(published_quality(codec, value))) is not None:
                yield variant.codec, url
    task = task_parameters(scale, variant.task)
    if isinstance(task, TorchvisionParameters):
        from torchvision.models import get_model_weights

        yield task.model, get_model_weights(task.model)[task.weights].url
    if isinstance(task, TimmClassifierParameters):
        from timm.models import get_pretrained_cfg

        config = get_pretrained_cfg(task.model)
        if config is not None and config.hf_hub_id:
            yield task.model, f"https://huggingface.co/{config.hf_hub_id}/resolve/main/config.json"


def _cached(url: str) -> bool:
    parts = urlsplit(url)
    if parts.netloc == "huggingface.co":
        owner, name = parts.path.split("/")[1:3]
        return hub_weights(f"{owner}/{name}") is not None
    home = os.environ.get("TORCH_HOME", Path.home() / ".cache" / "torch")
    return (Path(home) / "hub" / "checkpoints" / Path(parts.path).name).is_file()


@cache
def _reachable(host: str) -> bool:
    """Return whether a host answers at all: without a network, one attempt is enough."""
    try:
        requests.head(host, timeout=_TIMEOUT_S)
    except requests.RequestException:
        return False
    return True


@cache
def answers(url: str) -> bool:
    """Return whether a file can be downloaded from its address."""
    parts = urlsplit(url)
    if not _reachable(f"{parts.scheme}://{parts.netloc}"):
        return False
    try:
        answer = requests.head(url, timeout=_TIMEOUT_S, allow_redirects=True)
    except requests.RequestException:
        return False
    return answer.ok
