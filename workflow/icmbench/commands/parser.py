"""Arguments of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from icmbench import __version__
from icmbench.metrics.catalogue import PIXEL_METRICS

AddVerb = Callable[[str, str], argparse.ArgumentParser]


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser; the verbs of rules have an option ``--log``."""
    top = argparse.ArgumentParser(
        prog="icmbench", description="Benchmark of image coding for machines"
    )
    top.add_argument("--version", action="version", version=f"icmbench {__version__}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=text, description=text)

    _add_eval(verb)
    _add_job_verbs(verb)
    _add_configuration_verbs(verb)
    _add_codec_verbs(verb)
    _add_data_verbs(verb)
    return top


class _OfTask(argparse.Action):
    """Gather each ``--task`` with the ``--task-...`` that follow it, as a list of mappings."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        key = str(option_string).removeprefix("--task").removeprefix("-") or "task"
        tasks = [dict(task) for task in namespace.task or []]
        if key == "task":
            tasks.append({})
        elif not tasks or key in tasks[-1]:
            parser.error(f"{option_string} {values!r}: put it after the --task that it is for")
        tasks[-1][key] = values
        namespace.task = tasks


def _add_eval(verb: AddVerb) -> None:
    sub = verb("eval", "codecs on your own images, judged by your own networks")
    sub.add_argument("--images", type=Path, required=True, help="folder of images")
    labels = sub.add_mutually_exclusive_group()
    labels.add_argument("--annotations", type=Path, help="their COCO JSON")
    labels.add_argument(
        "--classes", action="store_true", help="the folder has a folder of images for each class"
    )
    labels.add_argument("--maps", type=Path, help="folder of label PNGs, named as their images")
    sub.add_argument("--limit", type=_number(1), help="use the first LIMIT images")
    sub.add_argument(
        "--codec",
        action="append",
        required=True,
        metavar="NAME=VALUES",
        help="rates of a classical codec (jpeg=10,30,50,80), files of a learned one, or "
        "pretrained:1,3,6; may be repeated",
    )
    sub.add_argument("--anchor", help="what the others are compared with: the first classical one")
    for option, value, text in (
        ("", "KIND:NAME", "torchvision:NAME, timm:NAME, onnx:FILE, module:Class or a task's name; "
         "may be repeated; without one only image quality is measured"),
        ("-weights", "FILE", "weights of the network before it; else the published ones"),
        ("-output", "FORM", "what it answers: yolox, boxes, logits, map, or masks of a module"),
        ("-input", "YAML", "preprocessing of an ONNX file, such as '{stretch: [512, 512]}'"),
        ("-classes", "NAMES", "its classes: NAME,NAME,..., coco-80, coco-91, voc-21, imagenet-1k"),
    ):  # fmt: skip
        sub.add_argument(f"--task{option}", action=_OfTask, dest="task", metavar=value, help=text)
    sub.add_argument(
        "--perceptual", metavar="NAMES", help="also measure lpips, dists or lpips,dists"
    )
    sub.add_argument(
        "--published",
        metavar="PROTOCOL",
        help="images and network are those of this protocol, whose published points are drawn",
    )
    sub.add_argument("--output", type=Path, required=True, help="folder of everything it makes")
    sub.add_argument(
        "--config",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="files laid under what is written, with command codecs, programs, tasks",
    )
    sub.add_argument("--cores", default="all", help="CPU cores to use")
    sub.add_argument("--gpu", action="store_true", help="run networks on a GPU")
    sub.add_argument("--no-run", action="store_true", help="check and write the files only")


def _add_job_verbs(verb: AddVerb) -> None:
    for name, text in (
        ("data", "make or fetch the data set of a role"),
        ("weights", "fetch weights that a study names by address"),
        ("train", "train one operating point; resumes from its checkpoint"),
        ("code", "code a split, or a share of it, with a classical codec, through the cache"),
        ("encode", "encode a split at every rate of a curve, to real bitstreams"),
        ("decode", "decode the bitstreams and check them against the encoder"),
        ("evaluate", "run a task on the decoded images of a curve"),
    ):
        sub = verb(name, text)
        sub.add_argument("--log", type=Path, help="write all output here; errors are printed, too")
        sub.add_argument("job", type=Path, help="settings file below <results>/<scale>/plan/")
        if name == "data":
            sub.add_argument("--threads", type=_number(1), default=1)
    for name, text in (
        ("analyse", "compute curves, BD metrics and intervals from the records"),
        ("report", "write the HTML report and its figures"),
        ("track", "import the runs into MLflow"),
    ):
        sub = verb(name, text)
        sub.add_argument("--log", type=Path, help="write all output here; errors are printed, too")
        sub.add_argument("root", type=Path, help="<results>/<scale>, or its plan.json")
    sub.add_argument("--uri", help="tracking address; overrides the configured one")
    sub.add_argument(
        "--watch", type=float, help="repeat every WATCH seconds until all runs are complete"
    )
    sub.add_argument("--strict", action="store_true", help="fail if MLflow cannot be reached")


def _add_configuration(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--config",
        "--configfile",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE or FILE",
        help="laid over config.yaml, as Snakemake's options --config and --configfile",
    )


def _number(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return int(text)

    return number


def _add_configuration_verbs(verb: AddVerb) -> None:
    sub = verb("plan", "check the configuration and write every job's settings")
    _add_configuration(sub)

    sub = verb("convert", "convert Detectron2's Mask R-CNN X101-32x8d-FPN for task mask-rcnn")
    sub.add_argument("source", type=Path, help="its file (.pkl, or .pth of tensors)")
    sub.add_argument("target", type=Path, help="weights file to write")

    sub = verb("cost", "estimate GPU hours, CPU hours and disk of a run, variant by variant")
    _add_configuration(sub)

    sub = verb("compare", "compare two result sets: differences beyond noise")
    sub.add_argument("a", type=Path, metavar="A", help="<results>/<scale> or results/record/<name>")
    sub.add_argument("b", type=Path, metavar="B", help="the other; differences are B - A")
    sub.add_argument("--output", type=Path, help="write every comparison to this CSV file")
    sub.add_argument(
        "--seeds", type=int, nargs=2, metavar=("OF_A", "OF_B"), help="use one seed of each"
    )
    sub.add_argument("--rows", type=_number(0), default=20, help="lines of each list; 0 prints all")

    sub = verb("zoo", "add what scale zoo, or another one, trained to a zoo of weights")
    sub.add_argument("folder", type=Path, help="of the zoo; workflow/zoo is the shipped one")
    _add_configuration(sub)

    verb("snakefile", "print the path of the Snakefile; config.yaml and profiles are beside it")

    verb("reference", "write docs/configuration and the JSON Schemas for editors")


def _add_codec_verbs(verb: AddVerb) -> None:
    sub = verb("codecs", "list the classical codecs found, and what is missing")
    _add_configuration(sub)

    sub = verb("cache", "show the cache of coded images, or prune it by an option")
    _add_configuration(sub)
    sub.add_argument(
        "--limit-gb", type=float, help="evict least recently used entries down to this size"
    )
    sub.add_argument("--unused-days", type=float, help="remove entries unused for this many days")
    sub.add_argument(
        "--implementation", help="remove the entries of one implementation, e.g. 'bpgenc 0.9.8'"
    )

    sub = verb("rd", "rate-distortion curve of a classical codec, as CompressAI's JSON")
    sub.add_argument("codec", help="a name that `codecs` lists")
    sub.add_argument("folder", type=Path, help="folder of images")
    sub.add_argument("rates", type=float, nargs="+", help="values of its rate parameter")
    sub.add_argument("--metrics", nargs="+", default=["psnr"], choices=PIXEL_METRICS)
    sub.add_argument("--jobs", type=_number(1), default=1, help="number of processes")
    sub.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="its parameters")
    sub.add_argument("--output", type=Path, help="write here instead of printing")
    _add_configuration(sub)


def _add_data_verbs(verb: AddVerb) -> None:
    sub = verb("example", "write a folder to try `eval` on: drawn images, labels, weights")
    sub.add_argument("folder", type=Path)
    sub.add_argument("--images", type=_number(1), default=8, help="number of images")

    sub = verb("fetch", "fetch data sets of the catalogue, verified and resumable")
    sub.add_argument("names", nargs="+", metavar="NAME")
    sub.add_argument("--directory", type=Path, default=Path("data"))
    sub.add_argument("--mirror", help="folder tried first; also ICMBENCH_MIRROR")
    sub.add_argument("--verify", action="store_true", help="check every file, not only sizes")

    sub = verb("datasets", "list the catalogue: size, licence, files to place by hand")
    sub.add_argument("--directory", type=Path, default=Path("data"))
