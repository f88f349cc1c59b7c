"""What ``icmbench eval`` writes: a study and a configuration, from its arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import yaml

from icmbench.config.classical import rate_problems
from icmbench.config.study import Ladder
from icmbench.data.classes import ClassList
from icmbench.errors import UserError, missing_file, unknown
from icmbench.metrics.catalogue import is_image_quality
from icmbench.registry import CODECS, TASKS, CodecEntry
from icmbench.utils.yaml import parse_yaml

STUDY = "eval"
ROLE = "images"
ORIGINAL = "original"
RECONSTRUCTION = "reconstruction"
_PRETRAINED = "pretrained:"
_OUTPUTS = {"yolox": "detector", "boxes": "detector", "logits": "classifier", "map": "segmenter"}
_YOLOX = {"padding": 114, "channels": "bgr", "range": 255, "antialias": False}
_NO_NAME = re.compile(r"[^\w.-]+")


@dataclass(frozen=True)
class Codec:
    """A codec of the command line.

    Attributes:
        key: its name in the study, which is unique.
        entry: of the registry.
        ladder: its rate settings, as in a study.
        weights: ``codec_from`` of a study, or None.
    """

    key: str
    entry: CodecEntry
    ladder: dict[str, Any]
    weights: Any = None


@dataclass(frozen=True)
class Task:
    """A task of the command line.

    Attributes:
        name: in the study; of a registered task, or a new one with ``settings``.
        settings: under ``tasks`` of the configuration, or None.
        weights: ``task_from`` of a study, or None.
    """

    name: str
    settings: dict[str, Any] | None = None
    weights: Any = None


# --- codecs ---------------------------------------------------------------------------------------


def read_codecs(texts: Sequence[str]) -> list[Codec]:
    """Return the codecs of ``NAME=VALUE[,VALUE...]``, in their order.

    Values are rate settings of a classical codec; files of a learned one, a file for each rate;
    ``pretrained:`` and published qualities; or, where one set of weights has many rates, a file (or
    ``pretrained``), a colon and rate settings.

    Raises:
        UserError: for a name that no codec has, a missing file, or rates that are not in order.
    """
    codecs: list[Codec] = []
    for text in texts:
        codec = _codec(text)
        count = sum(own.entry.name == codec.entry.name for own in codecs)
        key = f"{codec.key}-{count + 1}" if count else codec.key
        codecs.append(Codec(key, codec.entry, codec.ladder, codec.weights))
    return codecs


def _codec(text: str) -> Codec:
    where = f"--codec {text!r}"
    name, _, given = text.partition("=")
    coders = [own for own in CODECS.names() if CODECS[own].kind != "none"]
    if name not in coders:
        raise UserError(f"{where}: {unknown('codec', name, coders)}")
    entry = CODECS[name]
    if not all(given.split(",")):
        form = "RATE,RATE,..." if entry.kind == "classical" else "FILE,... or pretrained:RATE,..."
        raise UserError(f"{where}: give its rates, {name}={form}")
    if entry.kind == "classical":
        return Codec(name, entry, _ladder(where, entry, entry.rate_parameter or "", given))
    if entry.rate_parameter is not None:
        source, sign, rates = given.rpartition(":")
        if not sign:
            form = f"FILE:{entry.rate_parameter.upper()},... or pretrained:..."
            raise UserError(f"{where}: one set of weights has many rates; write {name}={form}")
        weights = "pretrained" if source == "pretrained" else {"file": _file(where, source)}
        return Codec(name, entry, _ladder(where, entry, entry.rate_parameter, rates), weights)
    if given.startswith(_PRETRAINED):
        rates = given.removeprefix(_PRETRAINED)
        return Codec(name, entry, _ladder(where, entry, "quality", rates), "pretrained")
    files = [{"file": _file(where, own)} for own in given.split(",")]
    places = ",".join(map(str, range(1, len(files) + 1)))
    return Codec(name, entry, _ladder(where, entry, "quality", places), files)


def _ladder(where: str, entry: CodecEntry, parameter: str, given: str) -> dict[str, Any]:
    try:
        values = [float(value) for value in given.split(",")]
    except ValueError:
        raise UserError(f"{where}: {given!r} are not numbers; {parameter} is expected") from None
    ladder = {"parameter": parameter, "values": values, "origin": "ours"}
    problems = []
    if entry.rate_parameter is not None:
        problems = rate_problems(entry, Ladder.model_validate(ladder))
    elif values != sorted(set(values)):
        problems = [f"has values {values}, which do not rise; give {sorted(set(values))}"]
    if problems:
        raise UserError(f"{where}: {problems[0]}")
    return ladder


def _file(where: str, text: str) -> str:
    path = Path(text).expanduser()
    if not path.is_file():
        raise missing_file(path, f"correct {where}")
    return str(path.absolute())


# --- tasks ----------------------------------------------------------------------------------------


def read_tasks(
    given: Sequence[Mapping[str, str]], named: Mapping[str, Mapping[str, Any]], labelled: bool
) -> list[Task]:
    """Return the tasks of the command line, reconstruction where there is none.

    Args:
        given: for each its ``task`` (``torchvision:NAME``, ``timm:NAME``, ``onnx:FILE``,
            ``module:Class`` or a name) and its options ``weights``, ``output``, ``input``,
            ``classes``.
        named: ``tasks`` of the user's configuration, by name.
        labelled: whether the images have labels; without, networks are compared with themselves.

    Raises:
        UserError: for a name that no task has, or options that do not go with it.
    """
    tasks: list[Task] = []
    for options in given:
        task = _task(options, named)
        if task.settings is not None and not labelled:
            task.settings.setdefault("truth", "originals")
        taken = {own.name for own in tasks} | (set() if task.settings is None else {*TASKS.names()})
        name, count = task.name, 2
        while name in taken:
            name, count = f"{task.name}-{count}", count + 1
        tasks.append(Task(name, task.settings, task.weights))
    return tasks or [Task(RECONSTRUCTION)]


def _task(options: Mapping[str, str], named: Mapping[str, Mapping[str, Any]]) -> Task:
    text = options["task"]
    where = f"--task {text!r}"
    kind, sign, rest = text.partition(":")
    if text in named:
        settings = dict(named[text])
        network, name = str(settings.get("network")), text
    elif not sign and text in TASKS:
        network, name, settings = text, text, {}
    elif kind == "torchvision":
        network, name, settings = _torchvision(where, rest), rest, {"model": rest}
    elif kind == "timm":
        network, name, settings = "timm-classifier", rest, {"model": rest}
    elif kind == "onnx":
        settings = _onnx(where, rest, options)
        network, name = f"onnx-{_OUTPUTS[options['output']]}", Path(rest).stem
    elif sign:
        settings = {"implementation": text, "answer": _answer(where, options)}
        network, name = "module", rest
    else:
        known = [*named, *TASKS.names(), "torchvision:NAME", "timm:NAME", "onnx:FILE"]
        raise UserError(f"{where}: {unknown('task', text, known)}")
    if "classes" in options:
        names = [own.strip() for own in options["classes"].split(",")]
        settings["classes"] = names[0] if names[0] in get_args(ClassList) else names
    if kind == "onnx":
        settings.setdefault("classes", {"yolox": "coco-80", "logits": "imagenet-1k"}.get(
            options["output"]))  # fmt: skip
    if network == "module" or kind == "onnx":
        if settings.get("classes") is None:
            raise UserError(f"{where}: --task-classes is missing; give NAME,NAME,... or coco-80")
        if "weights" in options:
            raise UserError(f"{where}: --task-weights: its weights are its own; remove the option")
    for option in ("output", "input"):
        if option in options and not (kind == "onnx" or (network, option) == ("module", "output")):
            raise UserError(f"{where}: --task-{option} is for onnx:FILE; remove it")
    weights: Any = {"file": _file(where, options["weights"])} if "weights" in options else None
    if weights is None and network in TASKS and TASKS[network].trainable:
        weights = None if TASKS[network].one_size else "pretrained"
    if not settings:
        return Task(name, None, weights)
    return Task(_NO_NAME.sub("-", name), {"network": network, **settings}, weights)


def _torchvision(where: str, name: str) -> str:
    import torchvision.models

    places = {
        "torchvision-detector": torchvision.models.detection,
        "torchvision-segmenter": torchvision.models.segmentation,
        "torchvision-classifier": torchvision.models,
    }
    names = {kind: torchvision.models.list_models(module=own) for kind, own in places.items()}
    for kind, own in names.items():
        if name in own:
            return kind
    known = [name for own in names.values() for name in own]
    raise UserError(f"{where}: {unknown('network of torchvision', name, known)}")


def _onnx(where: str, file: str, options: Mapping[str, str]) -> dict[str, Any]:
    path, output = _file(where, file), options.get("output")
    if output not in _OUTPUTS:
        raise UserError(f"{where}: --task-output: {unknown('form of output', output, _OUTPUTS)}")
    settings: dict[str, Any] = {"file": path}
    own: dict[str, Any] = {}
    if output == "yolox":
        own = dict(_YOLOX)
        sides = _onnx_sides(path)
        if sides is not None:
            own["letterbox"] = sides
    try:
        given = parse_yaml(options.get("input", "{}"))
    except yaml.YAMLError:
        given = None
    if not isinstance(given, dict):
        raise UserError(f"{where}: --task-input: must be YAML, such as '{{stretch: [512, 512]}}'")
    if {"short_side", "stretch", "letterbox"} & set(given):
        own.pop("letterbox", None)
    if own or given:
        settings["input"] = {**own, **given}
    if _OUTPUTS[output] == "detector":
        settings["output"] = output
    return settings


def _onnx_sides(path: str) -> list[int] | None:
    """Return height and width of a file's input where they are fixed."""
    from icmbench.tasks.fixed.onnx_networks import open_session

    shape = open_session(Path(path)).get_inputs()[0].shape
    return shape[2:] if len(shape) == 4 and all(isinstance(n, int) for n in shape[2:]) else None


def _answer(where: str, options: Mapping[str, str]) -> str:
    output = options.get("output")
    allowed = ("boxes", "masks", "logits", "map")
    if output not in allowed:
        raise UserError(f"{where}: --task-output: {unknown('form of output', output, allowed)}")
    return "maps" if output == "map" else output


# --- study and configuration ----------------------------------------------------------------------


def study(
    codecs: Sequence[Codec],
    tasks: Sequence[Task],
    anchor: Codec,
    metrics: Mapping[str, str | None],
    perceptual: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the content of the study's file: every task judges every codec.

    Args:
        codecs: at least one.
        tasks: at least one.
        anchor: one of the codecs, which the others are compared with.
        metrics: the leading metric of each task by name, or None.
        perceptual: further metrics of image quality.
    """
    others = [codec for codec in codecs if codec is not anchor]
    comparisons = [
        {
            "anchor": f"{anchor.key}/{task.name}",
            "variants": [f"{codec.key}/{task.name}" for codec in others],
            "metrics": _compared(metrics[task.name], perceptual, first=task is tasks[0]),
        }
        for task in tasks
    ]
    return {
        "name": STUDY,
        "title": "Codecs on images of one's own",
        "reference": {"authors": "icmbench eval", "venue": "no paper", "year": _year()},
        "summary": "Written by `icmbench eval`.",
        "ladders": {codec.key: codec.ladder for codec in codecs},
        "variants": dict(_variants(codecs, tasks)),
        "comparisons": comparisons if others else [],
    }


def _compared(metric: str | None, perceptual: Sequence[str], first: bool) -> list[str]:
    """Return what is compared for a task; image quality is the same for all."""
    own = [] if metric is None or is_image_quality(metric) else [metric]
    return [*own, "psnr", "ms_ssim", *perceptual] if first else own


def _year() -> int:
    return datetime.now(UTC).year


def _variants(
    codecs: Sequence[Codec], tasks: Sequence[Task]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for task in tasks:
        common: dict[str, Any] = {"task": task.name, "dataset": ROLE, "mode": "baseline"}
        if task.weights is not None:
            common["task_from"] = task.weights
        suffix = f", {task.name}" if len(tasks) > 1 else ""
        if task.name != RECONSTRUCTION:
            label = f"Original images{suffix}"
            yield f"{ORIGINAL}/{task.name}", {"label": label, "codec": "uncoded", **common}
        for codec in codecs:
            own = {"label": f"{codec.key}{suffix}", "codec": codec.entry.name, **common}
            own["ladder"] = codec.key
            if codec.weights is not None:
                own["codec_from"] = codec.weights
            yield f"{codec.key}/{task.name}", own


def configuration(
    codecs: Sequence[Codec], tasks: Sequence[Task], images: dict[str, Any], gpu: bool
) -> dict[str, Any]:
    """Return what the configuration's file sets, for a run in the folder that holds it."""
    classical = [codec.entry.name for codec in codecs if codec.entry.kind == "classical"]
    return {
        "scale": "own-gpu" if gpu else "own",
        "studies": [STUDY],
        "study_folders": ["studies"],
        "results": ".",
        "classical_codecs": list(dict.fromkeys(classical)),
        "datasets": {ROLE: images},
        "tasks": {task.name: task.settings for task in tasks if task.settings is not None},
    }
