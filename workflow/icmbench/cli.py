"""The command line: one verb for each rule of the workflow, and tools for users.

Every verb also runs without Snakemake. Each imports what it needs, so that a data or report job
does not load torch.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO

from icmbench.commands.parser import parser
from icmbench.errors import UserError
from icmbench.utils.job_stats import job_stats
from icmbench.utils.logs import setup_logging

if TYPE_CHECKING:
    from icmbench.config.run import RunConfig
    from icmbench.jobs import Job

logger = logging.getLogger(__name__)

Result = int | str | Path  # an exit status, or what the verb prints
Verb = Callable[[argparse.Namespace], Result]

_MAX_LENGTH = 800  # characters of an error; a damaged file may hold a value of any length
# New objects between two garbage collections. Python's 700 makes a job's imports a fifth slower.
_GC_THRESHOLD = 20_000


def _job(arguments: argparse.Namespace, model: type[Job]) -> Job:
    from icmbench.jobs import read_job
    from icmbench.plugins import load_modules

    job = read_job(arguments.job, model)
    load_modules(job.modules)
    # Set before torch or NumPy start their thread pools: oversubscription costs a factor of 6.
    _set_threads(str(job.threads))
    return job


def _set_threads(threads: str) -> None:
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = threads


def _configuration(arguments: argparse.Namespace, *defaults: str) -> RunConfig:
    from icmbench.config.load import load_given

    return load_given([*defaults, *arguments.config])


def _plan(arguments: argparse.Namespace) -> Result:
    from icmbench.config.job_settings import classical_jobs, encode_jobs
    from icmbench.config.own_weights import check_weights
    from icmbench.config.plan import load_plan
    from icmbench.config.plan_lock import write_plan
    from icmbench.config.resources import check_resources

    plan = load_plan(_configuration(arguments))
    check_resources(plan)
    check_weights(plan)
    write_plan(plan)
    for line in plan.left_out + plan.unused:
        logger.info(line)
    encodings = len(encode_jobs(plan)) + len(classical_jobs(plan))
    evaluations = sum(map(len, plan.evaluation_curves.values()))
    return (
        f"{plan.root / 'plan.json'}: {len(plan.points)} operating points, {len(plan.trained)} "
        f"training runs, {encodings} encodings, {evaluations} evaluations"
    )


def _convert(arguments: argparse.Namespace) -> Result:
    from icmbench.networks.detectron2 import convert_file

    return convert_file(arguments.source, arguments.target)


def _cost(arguments: argparse.Namespace) -> Result:
    from icmbench.commands.cost import cost_table, planned

    return cost_table(planned(arguments.config))


def _data(arguments: argparse.Namespace) -> Result:
    from icmbench.data.checks import check_role
    from icmbench.data.prepare import prepare, resize_faces
    from icmbench.jobs import DataJob

    job = _job(arguments, DataJob)
    manifest = prepare(job, job.mirror, arguments.threads)
    for role in job.checks:
        check_role(role.dataset, role.needs)
        resize_faces(role.dataset)
    if job.networks:
        from icmbench.networks.build import check_network

        for network in job.networks:
            check_network(network)
    return manifest


def _weights(arguments: argparse.Namespace) -> Result:
    from icmbench.data.weights import fetch_weights
    from icmbench.jobs import WeightsJob

    job = _job(arguments, WeightsJob)
    mirror = None if job.mirror is None else Path(job.mirror)
    return fetch_weights(job.url, job.sha256, Path(job.output), mirror)


def _example(arguments: argparse.Namespace) -> Result:
    from icmbench.commands.example import write_example

    return write_example(arguments.folder, arguments.images)


def _fetch(arguments: argparse.Namespace) -> Result:
    from icmbench.data.catalogue import catalogue_path
    from icmbench.data.fetch import fetch

    mirror = arguments.mirror or os.environ.get("ICMBENCH_MIRROR")
    manifests = [
        fetch(
            name,
            data_dir=arguments.directory,
            mirror=None if mirror is None else Path(mirror),
            catalogue=catalogue_path(arguments.directory),
            verify=arguments.verify,
        )
        for name in arguments.names
    ]
    return "\n".join(map(str, manifests))


def _datasets(arguments: argparse.Namespace) -> Result:
    from icmbench.data.catalogue import catalogue_path, list_catalogue

    return list_catalogue(catalogue_path(arguments.directory))


def _train(arguments: argparse.Namespace) -> Result:
    from icmbench.jobs import TrainJob

    job = _job(arguments, TrainJob)
    from icmbench.train.launch import run

    return run(job)


def _encode(arguments: argparse.Namespace) -> Result:
    from icmbench.jobs import EncodeCurve

    curve = _job(arguments, EncodeCurve)
    from icmbench.evaluate.curve import encode_curve

    return encode_curve(curve.jobs)


def _decode(arguments: argparse.Namespace) -> Result:
    from icmbench.jobs import EncodeCurve

    curve = _job(arguments, EncodeCurve)
    from icmbench.evaluate.curve import decode_curve

    return decode_curve(curve.jobs)


def _code(arguments: argparse.Namespace) -> Result:
    from icmbench.jobs import ClassicalCurve

    curve = _job(arguments, ClassicalCurve)
    from icmbench.evaluate.curve import code_curve

    return code_curve(curve)


def _codecs(arguments: argparse.Namespace) -> Result:
    from icmbench.commands.listing import list_classical_codecs

    return list_classical_codecs(_configuration(arguments))


def _cache(arguments: argparse.Namespace) -> Result:
    from icmbench.commands.cache import open_cache, prune, show

    cache = open_cache(_configuration(arguments))
    wanted = (arguments.limit_gb, arguments.unused_days, arguments.implementation)
    if any(value is not None for value in wanted):
        return prune(cache, *wanted)
    return show(cache)


def _rd(arguments: argparse.Namespace) -> Result:
    _set_threads("1")
    from icmbench.commands.choose import codec_settings
    from icmbench.commands.rd import rate_distortion
    from icmbench.utils.files import write_json

    settings = codec_settings(_configuration(arguments), arguments.codec, arguments.set)
    curve = rate_distortion(
        settings, arguments.folder, arguments.rates, arguments.metrics, arguments.jobs
    )
    if arguments.output is None:
        return json.dumps(curve, indent=1)
    write_json(arguments.output, curve)
    return arguments.output


def _eval(arguments: argparse.Namespace) -> Result:
    from icmbench.commands.eval import evaluate_own, how_to_run
    from icmbench.commands.eval_summary import summary_text

    root = evaluate_own(arguments)
    if root is None:
        return how_to_run(arguments.output, arguments.cores)
    return summary_text(root)


def _evaluate(arguments: argparse.Namespace) -> Result:
    from icmbench.jobs import EvaluateCurve

    curve = _job(arguments, EvaluateCurve)
    from icmbench.evaluate.curve import evaluate_curve
    from icmbench.utils.gpus import take_gpus

    take_gpus(max(job.gpu for job in curve.jobs))

    return evaluate_curve(curve.jobs)


def _root(arguments: argparse.Namespace) -> Path:
    root: Path = arguments.root
    return root.parent if root.name == "plan.json" else root


def _analyse(arguments: argparse.Namespace) -> Result:
    from icmbench.analyse.run import analyse_run

    analyse_run(_root(arguments))
    return _root(arguments) / "tables"


def _report(arguments: argparse.Namespace) -> Result:
    from icmbench.report.pages import build_report

    build_report(_root(arguments))
    return _root(arguments) / "report" / "index.html"


def _track(arguments: argparse.Namespace) -> Result:
    from icmbench.track import track

    return track(_root(arguments), arguments.uri, arguments.watch, arguments.strict)


def _compare(arguments: argparse.Namespace) -> Result:
    from icmbench.analyse.agreement import is_record
    from icmbench.analyse.compare import compare
    from icmbench.analyse.compare_text import comparison_text
    from icmbench.analyse.record import compare_records
    from icmbench.analyse.tables import write_result_table

    if is_record(arguments.a):
        found = compare_records([arguments.a], arguments.b)
    else:
        seeds = arguments.seeds and tuple(arguments.seeds)
        found = compare(arguments.a, arguments.b, seeds=seeds)
    if arguments.output is not None:
        write_result_table(arguments.output, found.table)
    return comparison_text(found, arguments.rows)


def _reference(arguments: argparse.Namespace) -> Result:
    from icmbench.config.reference import write_reference

    return "\n".join(str(path) for path in write_reference(Path()))


def _snakefile(arguments: argparse.Namespace) -> Result:
    from icmbench.utils.places import snakefile

    return snakefile()


def _zoo(arguments: argparse.Namespace) -> Result:
    from icmbench.commands.zoo import make_zoo
    from icmbench.config.plan import load_plan

    plan = load_plan(_configuration(arguments, "scale=zoo"), as_written=True)
    return "\n".join(str(path) for path in make_zoo(plan, arguments.folder))


VERBS: dict[str, Verb] = {
    "analyse": _analyse,
    "cache": _cache,
    "code": _code,
    "codecs": _codecs,
    "compare": _compare,
    "convert": _convert,
    "cost": _cost,
    "data": _data,
    "datasets": _datasets,
    "decode": _decode,
    "encode": _encode,
    "eval": _eval,
    "evaluate": _evaluate,
    "example": _example,
    "fetch": _fetch,
    "plan": _plan,
    "rd": _rd,
    "reference": _reference,
    "report": _report,
    "snakefile": _snakefile,
    "track": _track,
    "train": _train,
    "weights": _weights,
    "zoo": _zoo,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit status. User errors are one line, without a traceback."""
    started = time.monotonic()
    parsed = parser().parse_args(arguments)

    def work(terminal: TextIO | None = None) -> int:
        return in_one_line(lambda: _print_result(VERBS[parsed.verb](parsed)), terminal)

    log = getattr(parsed, "log", None)
    status = work() if log is None else in_one_line(lambda: work(_redirect_output(log)))
    if status == 0 and hasattr(parsed, "log") and os.environ.get("RANK", "0") == "0":
        logger.info(job_stats(started))
    return status


def run() -> NoReturn:
    """Run the verb that the command line names, and exit."""
    gc.set_threshold(_GC_THRESHOLD)
    setup_logging()
    status = main()
    # Python's last garbage collection, over everything a job imported, takes a CPU second.
    gc.freeze()
    sys.exit(status)


def in_one_line(run: Callable[[], int], terminal: TextIO | None = None) -> int:
    """Return the exit status of ``run``; errors that users can fix are one line each.

    Any other exception is a defect and keeps its traceback.

    Args:
        run: the work.
        terminal: where errors are printed, too, if standard error is a log file.
    """
    try:
        return run()
    except UserError as error:
        lines = str(error).splitlines()
    except OSError as error:
        if error.filename is None:
            raise
        # A missing folder, a full disk, a directory in place of a file.
        names = " and ".join(str(f) for f in (error.filename, error.filename2) if f is not None)
        lines = [f"{names}: {error.strerror or error}"]
    for line in lines:
        shown = line if len(line) <= _MAX_LENGTH else f"{line[: _MAX_LENGTH - 3]}..."
        if terminal is not None:
            print(f"icmbench: error: {shown}", file=terminal, flush=True)
        with suppress(OSError):  # the log's disk may be full
            print(f"icmbench: error: {shown}", file=sys.stderr, flush=True)
    return 1


def _print_result(result: Result) -> int:
    if isinstance(result, int):
        return result
    print(result, flush=True)
    return 0


def _redirect_output(log: Path) -> TextIO:
    """Send the output of this process and its children to a file; return the old standard error."""
    log.parent.mkdir(parents=True, exist_ok=True)
    terminal = os.fdopen(os.dup(sys.stderr.fileno()), "w")
    with log.open("ab") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    return terminal
