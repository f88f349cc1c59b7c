"""``icmbench eval``: one's own images, networks and codecs by one command.

Writes a study and a configuration into the output folder, runs the workflow there and prints what
came out. docs/eval.md describes it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import yaml

from icmbench.analyse.protocols import set_obstacle
from icmbench.commands.eval_study import (
    ROLE,
    STUDY,
    Codec,
    Task,
    configuration,
    read_codecs,
    read_tasks,
    study,
)
from icmbench.config.job_settings import data_job, summary
from icmbench.config.load import combine, load_scale, merge, read_yaml
from icmbench.config.own_weights import check_weights
from icmbench.config.plan import Plan, load_plan
from icmbench.config.published import published_points
from icmbench.config.resources import check_resources
from icmbench.config.run import Layer
from icmbench.config.scale import Scale
from icmbench.config.validate import is_task, task_entry
from icmbench.data.checks import check_role
from icmbench.data.index import open_index
from icmbench.data.specs import Photographs
from icmbench.errors import UserError, missing_file, unknown
from icmbench.plugins import load_modules
from icmbench.report.outputs import study_metrics
from icmbench.utils.files import write_text
from icmbench.utils.places import snakefile, workflow_folder

_CONFIG = "config.yaml"
_STUDY_FILE = f"studies/{STUDY}.yaml"
# The profile's pauses suit runs of hours; here each stage would wait for most of a minute.
_PACE = "200/2s"
_HEADER = "# Written by `icmbench eval`, which overwrites it. All keys: docs/configuration.\n"
_LABELS = ("annotations", "classes", "maps")


def evaluate_own(arguments: argparse.Namespace) -> Path | None:
    """Check, write and run; return ``<results>/<scale>`` of the run, or None with ``no_run``.

    Raises:
        UserError: for whatever does not fit, before anything is coded.
        SystemExit: with Snakemake's status, where a job fails; it has shown why.
    """
    layers = [Layer(str(path), _absolute(read_yaml(path))) for path in arguments.config]
    if arguments.perceptual:
        layers.append(Layer("--perceptual", {"perceptual": arguments.perceptual.split(",")}))
    run = combine(layers)
    load_modules(run.modules, run.command_codecs, run.where)
    images = _images(arguments) | _before_codec(arguments.published)
    labelled = any(key in images for key in ("annotations", "maps", "layout"))
    codecs = read_codecs(arguments.codec)
    anchor = _anchor(codecs, arguments.anchor)
    tasks = read_tasks(arguments.task or [], run.tasks, labelled)
    own = configuration(codecs, tasks, images, arguments.gpu)
    values: dict[str, Any] = {"tracking": {"mlflow": False}}
    for over in [*(layer.values for layer in layers), own]:
        values = merge(values, over)
    content = study(codecs, tasks, anchor, _metrics(values, tasks), run.perceptual)
    content |= {"protocol": arguments.published} if arguments.published else {}

    folder: Path = arguments.output.absolute()
    _write(folder / _CONFIG, values)
    _write(folder / _STUDY_FILE, content)
    with chdir(folder):
        plan = load_plan(combine([Layer(str(folder / _CONFIG), values)]))
        check_resources(plan)
        check_weights(plan)
        for role in plan.roles:
            _check_images(plan, role)
        if arguments.published:
            _check_protocol(plan, arguments.published)
    if arguments.no_run:
        return None
    pace = ["--max-jobs-per-timespan", _PACE]
    status = _run([sys.executable, "-m", *_command(arguments.cores), *pace], folder)
    if status != 0:
        raise SystemExit(status)
    return folder / plan.root


def how_to_run(output: Path, cores: str) -> str:
    """Return the command that runs what :func:`evaluate_own` wrote."""
    return f"cd {shlex.quote(str(output))} && {shlex.join(_command(cores))}"


# --- arguments ------------------------------------------------------------------------------------


def _images(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the data set of the configuration."""
    given = {key: getattr(arguments, key) for key in _LABELS if getattr(arguments, key)}
    if len(given) > 1:
        first, second = list(given)[:2]
        raise UserError(f"--{first} and --{second} exclude each other; keep one")
    folder = arguments.images
    if not folder.exists():
        raise missing_file(folder, "correct --images")
    images: dict[str, Any] = {"images": str(folder.absolute())}
    if "classes" in given:
        images["layout"] = "classes"
    elif given:
        (key, path), *_ = given.items()
        if not path.exists():
            raise missing_file(path, f"correct --{key}")
        images[key] = str(path.absolute())
    if arguments.limit is not None:
        images["limit"] = arguments.limit
    return images


def _before_codec(name: str | None) -> dict[str, Any]:
    """Return what a protocol does to images before the codec, as settings of the data set."""
    if name is None:
        return {}
    points = published_points()
    if name not in (known := {curve.protocol for curve in points.curves}):
        raise UserError(f"--published: {unknown('protocol', name, known)}")
    return points.protocols[name].model_dump(include={*Photographs.model_fields}, exclude_none=True)


def _anchor(codecs: Sequence[Codec], name: str | None) -> Codec:
    by_name = {codec.key: codec for codec in codecs}
    if name is None:
        classical = (codec for codec in codecs if codec.entry.kind == "classical")
        return next(classical, codecs[0])
    if name not in by_name:
        raise UserError(f"--anchor: {unknown('codec of --codec', name, by_name)}")
    return by_name[name]


def _metrics(values: Mapping[str, Any], tasks: Sequence[Task]) -> dict[str, str | None]:
    """Return the leading metric of each task."""
    scale = load_scale(workflow_folder() / "scales", values["scale"])
    scale = scale.model_copy(update={"tasks": {**scale.tasks, **values["tasks"]}})
    return {task.name: _leading(scale, task.name) for task in tasks}


def _leading(scale: Scale, task: str) -> str | None:
    return task_entry(scale, task).metrics[0] if is_task(scale, task) else None


def _absolute(values: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration whose paths hold in another folder.

    Those are words of commands, and texts under ``tasks``, that name a file here.
    """

    def path(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: path(own) for key, own in value.items()}
        if isinstance(value, list):
            return [path(own) for own in value]
        return str(Path(value).absolute()) if isinstance(value, str) and _is_file(value) else value

    def line(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: line(own) for key, own in value.items()}
        if not isinstance(value, str) or not any(_is_file(word) for word in value.split()):
            return value
        return shlex.join(path(word) for word in shlex.split(value))

    change = {"tasks": path, "programs": line, "command_codecs": line}
    return {key: change.get(key, lambda own: own)(value) for key, value in values.items()}


def _is_file(word: str) -> bool:
    return os.sep in word and Path(word).is_file()


def _write(path: Path, content: Mapping[str, Any]) -> None:
    text = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=100)
    if not path.is_file() or path.read_text() != _HEADER + text:
        write_text(path, _HEADER + text)


# --- checks ---------------------------------------------------------------------------------------


def _check_images(plan: Plan, role: str) -> None:
    """Check images, labels and networks as the data job will, without reading all pixels."""
    from icmbench.networks.build import check_network

    job = data_job(plan, role)
    for network in job.networks:
        check_network(network)
    for own in job.checks:
        check_role(own.dataset, own.needs)


def _check_protocol(plan: Plan, name: str) -> None:
    """Check what is known before the run: the images, and that the metric is measured."""
    protocol = published_points().protocols[name]
    dataset = plan.dataset(ROLE)
    count = len(open_index(dataset, "test").ids)
    if (why := set_obstacle(dataset, count, protocol, stated=True)) is not None:
        raise UserError(f"--published {name!r}: {why}; give what the protocol has, or drop it")
    wanted = {curve.metric for curve in published_points().curves if curve.protocol == name}
    if wanted.isdisjoint(study_metrics(summary(plan), STUDY)):
        network = protocol.network.name if protocol.network else ""
        raise UserError(
            f"--published {name!r}: its points are of {', '.join(wanted)}, which is not measured; "
            f"give labels and, with --task, {network}"
        )


# --- the run --------------------------------------------------------------------------------------


def _command(cores: str) -> list[str]:
    return ["snakemake", "--snakefile", str(snakefile()), "--cores", cores]


def _run(command: Sequence[str], folder: Path) -> int:
    """Run Snakemake in a folder; return its exit status. Signals are left to it."""
    paths = [os.path.abspath(path) for path in [".", *sys.path] if path]  # noqa: PTH100
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
    with subprocess.Popen(command, cwd=folder, env=environment) as child:
        before = signal.signal(signal.SIGINT, lambda *_: None)  # the terminal sends it to both
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        try:
            return child.wait()
        finally:
            signal.signal(signal.SIGINT, before)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
