"""What the Snakefile asks: the inputs of each rule's jobs. Rule files hold no logic."""

from __future__ import annotations

import getpass
import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from icmbench.analyse.agreement import agreement, records
from icmbench.commands.cost import cost_summary
from icmbench.config.job_settings import classical_curves, coded_states, encode_curves, summary
from icmbench.config.load import combine, from_command_line, main_config, read_yaml
from icmbench.config.own_weights import check_weights
from icmbench.config.plan import Plan, load_plan
from icmbench.config.plan_lock import write_plan
from icmbench.config.published import POINTS
from icmbench.config.resources import check_resources
from icmbench.config.run import ClusterSettings, Layer
from icmbench.config.scale import RuntimeSettings
from icmbench.config.study import published_path
from icmbench.config.validate import task_files
from icmbench.config.weights import Point, WeightsOrigin, weights_spec
from icmbench.data.manifest import read_manifest
from icmbench.data.pointer import read_md5
from icmbench.data.specs import FetchedImages, FolderImages
from icmbench.errors import UserError
from icmbench.jobs import PARTS
from icmbench.utils.files import check_writable
from icmbench.utils.places import is_installed
from icmbench.utils.slurm import report_refusals

# Snakemake's resources of a job: numbers, names, or functions of its wildcards.
Resources = dict[str, str | int | Callable[[Any], str | int]]

# Jobs with glibc keep the memory that one training step frees for the next. By default large
# tensors return to the kernel, which clears their pages again: a tenth of face analysis' CPU time.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}


def open_workflow(config: dict[str, Any], snakemake: Any) -> Workflow:
    """Check the configuration, write the plan's files and return what the rules ask.

    Where Snakemake started itself again for one job, maybe on another node, the written plan is
    used, whatever data are available on that node.

    Args:
        config: Snakemake's merged configuration. It has texts where the command line gives
            numbers, so the layers of the command line are read again.
        snakemake: Snakemake's object ``workflow``.

    Raises:
        WorkflowError: with the one-line errors of the configuration, before any job runs.
    """
    from snakemake_interface_common.exceptions import WorkflowError

    # Jobs call `python`: the one that runs Snakemake, even if its environment is not activated.
    # An activated conda environment comes before it.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    os.environ.update(_MALLOC)
    report_refusals()
    try:
        getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name: Snakemake asks for one
        os.environ["LOGNAME"] = str(os.getuid())
    if is_installed() and snakemake.deployment_settings.deployment_method:
        raise WorkflowError(
            "--software-deployment-method, --use-conda: need a checkout of icmbench; "
            "leave them out, jobs run in the environment of Snakemake"
        )
    first, settings = snakemake.is_main_process, snakemake.config_settings
    try:
        main = str(main_config())
        files = [] if settings.replace_workflow_config else [Layer(main, read_yaml(Path(main)))]
        more = [Layer(str(path), read_yaml(path)) for path in settings.configfiles]
        entries = from_command_line(settings.config_args or [])
        run = combine([*files, Layer(main, config), *more, entries])
        plan = load_plan(run, as_written=not first)
        if first:
            check_resources(plan)
            check_writable(plan.root)
            check_writable(Path(".snakemake").absolute())
            check_weights(plan)
            write_plan(plan)
            for line in [*plan.left_out, *plan.unused, *_cost(plan)]:
                logging.getLogger("snakemake.logging").info(f"icmbench: {line}")
    except UserError as error:
        raise WorkflowError(*str(error).splitlines()) from None
    except OSError as error:  # a plan that cannot be written: a full disk, a read-only folder
        raise WorkflowError(f"{error.filename}: {error.strerror or error}") from None
    return Workflow(plan)


def _cost(plan: Plan) -> list[str]:
    """Return what a run on GPUs would cost in all, a line for each study."""
    if not plan.scale.runtime.gpu:
        return []
    try:
        return cost_summary(plan)
    except UserError as error:  # networks or data sets of the user's, whose work is not known
        return [f"cost not estimated: {error}"]


class Workflow:
    """Input functions over a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    @property
    def root(self) -> str:
        """Return ``<results>/<scale>``."""
        return str(self._plan.root)

    @property
    def report(self) -> str:
        """Return the report's entry page."""
        return f"{self.root}/report/index.html"

    @property
    def data(self) -> str:
        """Return the folder of fetched data sets."""
        return self._plan.run.data.directory

    @property
    def runtime(self) -> RuntimeSettings:
        """Return threads, GPUs, memory and time of network jobs."""
        return self._plan.scale.runtime

    # --- resources ----------------------------------------------------------------------------

    def threads(self, count: int) -> int:
        """Return the cores of a job that would use ``count``."""
        most = self._cluster.max_cores
        return count if most is None else min(count, most)

    def mb(self, base: int) -> Callable[[Any, int], int]:
        """Return the memory of a job in MB by attempt: half of ``base`` more for each retry."""
        most = self._cluster.max_memory_mb

        def memory(wildcards: Any, attempt: int) -> int:
            wanted = round(base * (1 + 0.5 * (attempt - 1)))
            return wanted if most is None else min(wanted, most)

        return memory

    def minutes(self, base: int, pair: bool = False) -> Callable[[Any, int], int]:
        """Return the time limit of a job by attempt: ``base`` more for each retry.

        Args:
            base: of the first attempt.
            pair: whether it is one of :meth:`pair`.
        """
        most = self._cluster.max_minutes
        if most is not None and pair and self.pair("", base) is not None:
            most //= 2

        def limit(wildcards: Any, attempt: int) -> int:
            return base * attempt if most is None else min(base * attempt, most)

        return limit

    def pair(self, group: str, minutes: int) -> str | None:
        """Return the group of two jobs that a cluster gets as one and runs one after the other.

        None, which submits them one by one, if their ``minutes`` exceed the limit together.
        """
        most = self._cluster.max_minutes
        return group if most is None or 2 * minutes <= most else None

    @property
    def cpu(self) -> Resources:
        """Return where a cluster runs jobs that use no GPU, as far as it is configured."""
        return self._place(self._cluster.partition, self._cluster.constraint)

    @property
    def gpu(self) -> Resources:
        """Return the GPUs of a network job, and where a cluster has them."""
        return self._gpus(lambda wildcards: self.runtime.gpu)

    @property
    def train_gpu(self) -> Resources:
        """Return the GPUs of a training run (one share for each device), and where they are."""
        return self._gpus(lambda wildcards: self.runtime.gpu * self._devices(wildcards))

    def train_threads(self, wildcards: Any) -> int:
        """Return the threads of a training run: those of a network job for each device."""
        return self.threads(self.runtime.threads * self._devices(wildcards))

    def train_memory(self, wildcards: Any, attempt: int) -> int:
        """Return the memory of a training run in MB: that of a network job for each device."""
        return self.mb(self.runtime.memory_mb * self._devices(wildcards))(wildcards, attempt)

    def _devices(self, wildcards: Any) -> int:
        return self._plan.schedule(self._point(wildcards.key)).devices

    @property
    def _cluster(self) -> ClusterSettings:
        return self._plan.run.cluster

    def _place(self, partition: str | None, constraint: str | None) -> Resources:
        wanted = {
            "slurm_account": self._cluster.account,
            "slurm_partition": partition,
            "constraint": constraint,
        }
        return {name: value for name, value in wanted.items() if value is not None}

    def _gpus(self, count: Callable[[Any], int]) -> Resources:
        """Return GPUs as the executor passes them on; see config/run.py for what it refuses."""
        site = self._cluster
        if not self.runtime.gpu:
            return self.cpu
        place = self._place(
            site.gpu_partition or site.partition, site.gpu_constraint or site.constraint
        )
        # The executor would start a task for each GPU, with all threads each, on any nodes.
        place |= {"tasks_per_gpu": 0, "nodes": 1}
        if site.gres is not None:
            return {**place, "gres": lambda wildcards: f"{site.gres}:{count(wildcards)}"}
        if site.gpu_type is not None and not re.fullmatch(r"[\w.]+", site.gpu_type):
            option = f"--gpus-per-node={site.gpu_type}"
            return {**place, "slurm_extra": lambda wildcards: f"{option}:{count(wildcards)}"}
        typed = {} if site.gpu_type is None else {"gpu_model": site.gpu_type}
        return {**place, **typed, "gpu": count}

    # --- inputs -------------------------------------------------------------------------------

    def fetch_job(self, wildcards: Any) -> str:
        """Return the settings of the first role that uses a data set of the catalogue."""
        for role in self._plan.roles:
            dataset = self._plan.scale.datasets[role]
            if isinstance(dataset, FetchedImages) and dataset.name == wildcards.dataset:
                return str(self._plan.job_path("data", role))
        raise ValueError(f"no role of this scale uses data set {wildcards.dataset!r}")

    def images_state(self, wildcards: Any) -> str:
        """Return a digest that changes when a role's own images do; others are generated.

        A parameter of the rule that makes a role ready.
        """
        dataset = self._plan.dataset(wildcards.role)
        if not isinstance(dataset.settings, FolderImages):
            return "generated"
        from icmbench.data.folder import folder_state

        return folder_state(dataset)

    def pointer_state(self, wildcards: Any) -> str:
        """Return ``current``, or the md5 of a DVC pointer that differs from what was fetched.

        A parameter of the fetch rule: a pointer that names other data fetches again, while the
        pointer that a first fetch writes does not.
        """
        folder = Path(self.data)
        pointer = folder / f"{wildcards.dataset}.dvc"
        manifest = folder / f"{wildcards.dataset}.manifest.json"
        if not (pointer.is_file() and manifest.is_file()):
            return "current"
        wanted = read_md5(pointer)
        content = read_manifest(manifest)
        return "current" if content and content.dvc_md5 == wanted else str(wanted)

    def train_inputs(self, wildcards: Any) -> list[str]:
        """Return manifest, initial weights and decoded train images of a training run."""
        plan, point = self._plan, self._point(wildcards.key)
        inputs = [str(plan.manifest_path(plan.variant(point).dataset))]
        inputs += self._weights([plan.initial_weights(point, part) for part in PARTS])
        return inputs + (
            coded_states(plan, point, "train") if plan.trains_on_decoded(point) else []
        )

    def coding_inputs(self, wildcards: Any) -> list[str]:
        """Return manifest and codec weights of a coding curve."""
        jobs = encode_curves(self._plan)[f"{wildcards.split}/{wildcards.curve}"].jobs
        weights = [path for job in jobs for path in job.codec.weights.inputs]
        return [jobs[0].dataset.manifest, *sorted(set(weights))]

    def classical_inputs(self, wildcards: Any) -> list[str]:
        """Return the manifest of a classical codec's images."""
        jobs = classical_curves(self._plan)[f"{wildcards.split}/{wildcards.curve}"].jobs
        return [jobs[0].dataset.manifest]

    def evaluate_inputs(self, wildcards: Any) -> list[str]:
        """Return manifest, decoded images and task weights of a variant's points."""
        plan = self._plan
        points = plan.evaluation_curves[wildcards.curve]
        inputs = [str(plan.manifest_path(plan.variant(points[0]).dataset))]
        inputs += [state for point in points for state in coded_states(plan, point, "test")]
        inputs += task_files(plan.scale, plan.variant(points[0]).task)
        return inputs + self._weights([plan.final_weights(point, "task") for point in points])

    def evaluated(self) -> list[str]:
        """Return the evaluations that the analysis joins."""
        points = self._plan.evaluated
        return sorted({str(self._plan.evaluation_manifest(p.study, p.variant)) for p in points})

    def published_curves(self, wildcards: Any) -> list[str]:
        """Return the files of published curves and points that the analysis compares with."""
        files = {
            str(published_path(curve.file))
            for study in self._plan.studies.values()
            for curve in study.published_curves
        }
        return sorted({*files, str(POINTS)})

    @property
    def agreement(self) -> str:
        """Whether the run agrees with the results of record, in one line; empty if unknown."""
        return agreement(Path(self.root))

    def record_curves(self) -> list[str]:
        """Return the curves of record that the analysis compares with."""
        names = [self._plan.scale.name, *self._plan.run.studies]
        return [str(folder / "curves.csv") for folder in records(names)]

    def figures(self) -> list[str]:
        """Return the report's figures as SVG."""
        return [name for name in self._report_files() if name.endswith(".svg")]

    def report_files(self) -> list[str]:
        """Return the report's other files of fixed names, the entry page first."""
        return [name for name in self._report_files() if not name.endswith(".svg")]

    def _report_files(self) -> list[str]:
        from icmbench.report.outputs import expected_outputs

        return [f"{self.root}/{name}" for name in expected_outputs(summary(self._plan))]

    def targets(self) -> list[str]:
        """Return what ``rule all`` asks for."""
        targets = [self.report, f"{self.root}/tables/bd.csv"]
        if self._plan.run.tracking.mlflow:
            targets.append(f"{self.root}/tracking.json")
        return targets

    def _point(self, key: str) -> Point:
        try:
            return self._plan.by_key[key]
        except KeyError:
            raise ValueError(f"no operating point {key!r} in this configuration") from None

    def _weights(self, origins: list[WeightsOrigin]) -> list[str]:
        specs = [weights_spec(self._plan, origin) for origin in origins]
        return sorted({path for spec in specs for path in spec.inputs})
