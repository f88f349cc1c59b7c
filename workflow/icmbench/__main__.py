"""The command line: one verb per rule. Every verb runs without Snakemake, too."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icmbench import __version__
from icmbench.errors import UserError
from icmbench.registry import PIXEL_METRICS

if TYPE_CHECKING:
    from icmbench.jobs import Job, TrainJob
from icmbench.utils.job_stats import cost, keep_freed_memory

# Nothing heavy is imported at the top: each verb imports what it needs, so that a JPEG or report
# job never pays for torch.

_STARTED = time.monotonic()
# The verbs of rules, which tell in their logs what they took.
_JOBS = ("analyse", "code", "data", "decode", "encode", "evaluate", "report", "track", "train")
_LONGEST = 800  # characters of an error
# New objects between two looks for garbage. Python's 700 makes the imports of a job a fifth longer.
_GARBAGE = 20_000


def _job(arguments: argparse.Namespace, model: type[Job]) -> Job:
    from icmbench.jobs import read_job
    from icmbench.plugins import load_modules

    gc.set_threshold(_GARBAGE)
    keep_freed_memory()
    job = read_job(arguments.job, model)
    load_modules(job.modules)
    # Set before torch or NumPy start their thread pools: oversubscription was measured to cost 6x.
    _set_threads(str(job.threads))
    return job


def _set_threads(threads: str) -> None:
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = threads


def _plan(arguments: argparse.Namespace) -> int:
    from icmbench.config.job_settings import classical_jobs, encode_jobs
    from icmbench.config.plan import load_plan
    from icmbench.config.plan_lock import write_plan

    overrides: dict[str, Any] = {}
    if arguments.scale:
        overrides["scale"] = arguments.scale
    if arguments.studies:
        overrides["studies"] = arguments.studies
    plan = load_plan(arguments.config, overrides)
    write_plan(plan)
    for line in plan.left_out:
        print(f"icmbench: {line}", file=sys.stderr)
    print(
        f"{plan.root / 'plan.json'}: {len(plan.points)} operating points, {len(plan.trained)} "
        f"training runs, {len(encode_jobs(plan)) + len(classical_jobs(plan))} encodings, "
        f"{len(plan.evaluated)} evaluations"
    )
    return 0


def _data(arguments: argparse.Namespace) -> int:
    from icmbench.data.prepare import prepare
    from icmbench.jobs import DataJob

    job = _job(arguments, DataJob)
    print(prepare(job, job.mirror, arguments.threads))
    return 0


def _fetch(arguments: argparse.Namespace) -> int:
    from icmbench.data.fetch import fetch

    mirror = arguments.mirror or os.environ.get("ICMBENCH_MIRROR")
    for name in arguments.names:
        manifest = fetch(
            name,
            data_dir=arguments.directory,
            mirror=None if mirror is None else Path(mirror),
            catalogue=arguments.directory / "catalogue.yaml",
            verify=arguments.verify,
        )
        print(manifest)
    return 0


def _datasets(arguments: argparse.Namespace) -> int:
    from icmbench.data.catalogue import list_catalogue

    print(list_catalogue(arguments.directory / "catalogue.yaml"))
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from icmbench.jobs import TrainJob

    job = _job(arguments, TrainJob)
    from icmbench.train import launch
    from icmbench.utils.gpus import take_gpus

    if launch.is_member():
        launch.take_part(lambda: _train_here(job, launch.leads()))
    take_gpus(job.runtime.gpu * job.schedule.devices)
    if launch.wants_processes(job):
        return launch.launch(arguments.job, job)
    return _train_here(job)


def _train_here(job: TrainJob, speaks: bool = True) -> int:
    from icmbench.train.launch import INTERRUPTED
    from icmbench.train.run import Interrupted, train

    try:
        weights = train(job)
    except Interrupted as stop:
        if speaks:
            print(f"icmbench: {stop}", file=sys.stderr)
        return INTERRUPTED
    if speaks:
        print(weights)
    return 0


def _encode(arguments: argparse.Namespace) -> int:
    from icmbench.jobs import EncodeCurve

    curve = _job(arguments, EncodeCurve)
    from icmbench.evaluate.curve import encode_curve

    print(encode_curve(curve.jobs))
    return 0


def _decode(arguments: argparse.Namespace) -> int:
    from icmbench.jobs import EncodeCurve

    curve = _job(arguments, EncodeCurve)
    from icmbench.evaluate.curve import decode_curve

    print(decode_curve(curve.jobs))
    return 0


def _code(arguments: argparse.Namespace) -> int:
    from icmbench.jobs import ClassicalJob

    job = _job(arguments, ClassicalJob)
    from icmbench.evaluate.classical import code_share

    print(code_share(job))
    return 0


def _codecs(arguments: argparse.Namespace) -> int:
    from icmbench.commands.listing import list_classical_codecs

    print(list_classical_codecs(arguments.config))
    return 0


def _cache(arguments: argparse.Namespace) -> int:
    from icmbench.commands.cache import open_cache, prune, show

    cache = open_cache(arguments.config)
    wanted = (arguments.limit_gb, arguments.unused_days, arguments.implementation)
    if any(value is not None for value in wanted):
        print(prune(cache, *wanted))
    else:
        print(show(cache))
    return 0


def _rd(arguments: argparse.Namespace) -> int:
    import json

    _set_threads("1")
    from icmbench.commands.choose import codec_settings
    from icmbench.commands.rd import rate_distortion
    from icmbench.utils.files import write_json

    settings = codec_settings(arguments.config, arguments.codec, arguments.set)
    curve = rate_distortion(
        settings, arguments.folder, arguments.rates, arguments.metrics, arguments.jobs
    )
    if arguments.output is None:
        print(json.dumps(curve, indent=1))
    else:
        write_json(arguments.output, curve)
        print(arguments.output)
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from icmbench.jobs import EvaluateCurve

    curve = _job(arguments, EvaluateCurve)
    from icmbench.evaluate.curve import evaluate_curve
    from icmbench.utils.gpus import take_gpus

    take_gpus(max(job.gpu for job in curve.jobs))

    print(evaluate_curve(curve.jobs))
    return 0


def _root(arguments: argparse.Namespace) -> Path:
    root: Path = arguments.root
    return root.parent if root.name == "plan.json" else root


def _analyse(arguments: argparse.Namespace) -> int:
    from icmbench.analyse.run import analyse_run

    analyse_run(_root(arguments))
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from icmbench.report.build import build_report

    for path in build_report(_root(arguments)):
        print(path)
    return 0


def _track(arguments: argparse.Namespace) -> int:
    from icmbench.track import track

    return track(_root(arguments), arguments.uri, arguments.watch, arguments.strict)


def _compare(arguments: argparse.Namespace) -> int:
    from icmbench.analyse.compare import compare
    from icmbench.analyse.compare_text import comparison_text
    from icmbench.analyse.tables import write_csv

    found = compare(arguments.a, arguments.b, seeds=arguments.seeds and tuple(arguments.seeds))
    if arguments.output is not None:
        write_csv(arguments.output, found.table)
    print(comparison_text(found, arguments.rows))
    return 0


def _reference(arguments: argparse.Namespace) -> int:
    from icmbench.config.reference import write_reference

    write_reference(arguments.output)
    print(arguments.output)
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser(prog="icmbench", description=__doc__)
    top.add_argument("--version", action="version", version=f"icmbench {__version__}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, run: Callable[[argparse.Namespace], int], text: str) -> Any:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    sub = verb("plan", _plan, "check the configuration and write every job's settings")
    sub.add_argument("--config", type=Path, default=Path("config.yaml"))
    sub.add_argument("--scale", help="in place of the configuration's scale")
    sub.add_argument("--studies", nargs="+", help="in place of the configuration's studies")

    sub = verb("data", _data, "make or fetch the data set of a role")
    sub.add_argument("job", type=Path, help="settings file below <results>/<scale>/plan/data/")
    sub.add_argument("--threads", type=int, default=1)

    for name, run, text in (
        ("train", _train, "train one operating point; goes on where it was interrupted"),
        ("encode", _encode, "encode a split at every rate of a curve, to real bitstreams"),
        ("decode", _decode, "decode the bitstreams and check them against the encoder"),
        ("code", _code, "code a share of a split with a classical codec, through the cache"),
        ("evaluate", _evaluate, "run a task on the decoded images of a curve"),
    ):
        sub = verb(name, run, text)
        sub.add_argument("job", type=Path, help="settings file below <results>/<scale>/plan/")

    sub = verb("codecs", _codecs, "list the classical codecs found, and what is missing")
    sub.add_argument("--config", type=Path, default=Path("config.yaml"))
    sub = verb("cache", _cache, "show the cache of coded images; prune it where options say")
    sub.add_argument("--config", type=Path, default=Path("config.yaml"))
    sub.add_argument("--limit-gb", type=float, help="keep so many GB, those used last")
    sub.add_argument("--unused-days", type=float, help="remove what was not used for so long")
    sub.add_argument("--implementation", help="remove what this text names, e.g. 'bpgenc 0.9.8'")
    sub = verb(
        "rd", _rd, "rate-distortion curve of a classical codec over a folder, CompressAI's JSON"
    )
    sub.add_argument("codec", help="a name that `codecs` lists")
    sub.add_argument("folder", type=Path, help="folder of images")
    sub.add_argument("rates", type=float, nargs="+", help="values of its rate parameter")
    sub.add_argument("--metrics", nargs="+", default=["psnr"], choices=PIXEL_METRICS)
    sub.add_argument("--jobs", type=int, default=1, help="processes that share the work")
    sub.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="its parameters")
    sub.add_argument("--output", type=Path, help="write here instead of printing")
    sub.add_argument("--config", type=Path, default=Path("config.yaml"))

    for name, run, text in (
        ("analyse", _analyse, "curves, BD metrics and intervals from the records"),
        ("report", _report, "the HTML report and its figures"),
        ("track", _track, "bring the runs into MLflow"),
    ):
        sub = verb(name, run, text)
        sub.add_argument("root", type=Path, help="<results>/<scale>, or its plan.json")
    sub.add_argument("--uri", help="tracking address, in place of the configured one")
    sub.add_argument("--watch", type=float, help="repeat every WATCH seconds while runs go on")
    sub.add_argument("--strict", action="store_true", help="fail where MLflow cannot be reached")

    sub = verb("compare", _compare, "what differs between two result sets, beyond noise or not")
    sub.add_argument("a", type=Path, metavar="A", help="<results>/<scale>, or its plan.json")
    sub.add_argument("b", type=Path, metavar="B", help="the other; differences are B - A")
    sub.add_argument("--output", type=Path, help="write every comparison to this CSV file")
    sub.add_argument(
        "--seeds", type=int, nargs=2, metavar=("OF_A", "OF_B"), help="one seed of either, not all"
    )
    sub.add_argument("--rows", type=int, default=20, help="lines of each list; 0 prints all")

    sub = verb("fetch", _fetch, "fetch data sets of the catalogue, verified and resumable")
    sub.add_argument("names", nargs="+", metavar="NAME")
    sub.add_argument("--directory", type=Path, default=Path("data"))
    sub.add_argument("--mirror", help="folder tried first; also ICMBENCH_MIRROR")
    sub.add_argument("--verify", action="store_true", help="check every file, not only sizes")
    sub = verb("datasets", _datasets, "list the catalogue: size, licence, what to place where")
    sub.add_argument("--directory", type=Path, default=Path("data"))

    sub = verb("reference", _reference, "write the configuration reference page")
    sub.add_argument("output", type=Path, nargs="?", default=Path("docs/configuration.md"))
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit status. User errors are one line, without a traceback."""
    parsed = parser().parse_args(arguments)
    return in_one_line(lambda: int(parsed.run(parsed)))


def in_one_line(run: Callable[[], int]) -> int:
    """Return the exit status of ``run``; what users can mend is told in one line.

    Anything else is a defect, and passes with its traceback.
    """
    try:
        return run()
    except UserError as error:
        for line in str(error).splitlines():
            # A damaged file may hold a value of any length, which the line repeats.
            shown = line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."
            print(f"icmbench: error: {shown}", file=sys.stderr)
        return 1
    except OSError as error:
        # A missing folder, a full disk, a directory in the place of a file: not ours to mend.
        if error.filename is None:
            raise
        places = " and ".join(str(f) for f in (error.filename, error.filename2) if f is not None)
        print(f"icmbench: error: {places}: {error.strerror or error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    from icmbench.train.launch import is_member

    _status = main()
    if _status == 0 and sys.argv[1] in _JOBS and not is_member():
        print(f"icmbench: {cost(time.monotonic() - _STARTED)}", file=sys.stderr)
    # Python's last look for garbage, in all that a job has imported, would take a CPU second.
    gc.freeze()
    sys.exit(_status)
