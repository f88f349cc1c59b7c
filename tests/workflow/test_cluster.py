"""What jobs request of a cluster: as the executor passes it on, and never more than there is."""

from __future__ import annotations

from copy import copy
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import snakemake_executor_plugin_slurm as plugin
from snakemake_executor_plugin_slurm.submit_string import get_submit_command
from snakemake_executor_plugin_slurm.utils import set_gres_string
from snakemake_executor_plugin_slurm.validation import validate_slurm_extra

from icmbench.config.load import check
from icmbench.config.plan import Plan, load_plan
from icmbench.config.run import ClusterSettings
from icmbench.errors import UserError
from icmbench.utils.slurm import report_refusals
from icmbench.workflow import Workflow

PARAMETERS = dict.fromkeys(("run_uuid", "slurm_logfile", "comment_str", "account", "partition"), "")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


class Resources(dict[str, Any]):
    """Snakemake's: a mapping whose values are also attributes."""

    __getattr__ = dict.__getitem__


def workflow(repository: Path, results: Path, scale: str, **site: Any) -> Workflow:
    plan = copy(_plan(repository, results, scale))
    plan.run = plan.run.model_copy(update={"cluster": check(ClusterSettings, site, "cluster.yaml")})
    return Workflow(plan)


@lru_cache
def _plan(repository: Path, results: Path, scale: str) -> Plan:
    overrides = {"scale": scale, "studies": ["tang2025", "classical"], "results": str(results)}
    return load_plan(repository / "config.yaml", overrides)


def submission(resources: dict[str, Any]) -> list[str]:
    """Return the options of ``sbatch`` that the executor makes of resources."""
    values = {k: v(None) if callable(v) else v for k, v in resources.items()}
    job: Any = SimpleNamespace(resources=Resources(values), threads=8)
    validate_slurm_extra(SimpleNamespace(resources=SimpleNamespace(**values)))
    return (get_submit_command(job, {**PARAMETERS, "workdir": None}) + set_gres_string(job)).split()


@pytest.mark.parametrize(
    ("site", "options"),
    [
        ({}, {"--gpus=1"}),
        ({"gpu_type": "a100"}, {"--gpus=a100:1"}),
        ({"gpu_type": "1g.10gb"}, {"--gpus=1g.10gb:1"}),
        ({"gpu_type": "nvidia_a100-sxm4-80gb"}, {"--gpus-per-node=nvidia_a100-sxm4-80gb:1"}),
        ({"gpu_type": "a100_1g.5gb+me"}, {"--gpus-per-node=a100_1g.5gb+me:1"}),
        ({"gres": "gpu"}, {"--gres=gpu:1"}),
        ({"gres": "gpu:1g.5gb"}, {"--gres=gpu:1g.5gb:1"}),
        ({"gres": "gpu", "gpu_constraint": "a100|h100"}, {"--gres=gpu:1", "'a100|h100'"}),
    ],
)
def test_gpus_are_requested_as_the_cluster_names_them(
    repository: Path, results: Path, site: dict[str, str], options: set[str]
) -> None:
    found = submission(workflow(repository, results, "paper", **site).gpu)
    asked = {word for word in found if word.startswith(("--gpu", "--gres", "'a"))}
    assert asked == options
    # One task on one node, with the threads of the whole job.
    assert "--nodes=1" in found and "--cpus-per-task=8" in found
    assert not any(word.startswith("--ntasks-per-gpu") for word in found)


def test_constraint_is_for_all_jobs(repository: Path, results: Path) -> None:
    w = workflow(repository, results, "paper", constraint="intel")
    assert w.cpu["constraint"] == w.gpu["constraint"] == "intel"


@pytest.mark.parametrize(
    "site",
    [
        {"gpu_type": "a100:2"},
        {"gpu_type": "'a100'"},
        {"gpu_type": "a 100"},
        {"gpu_type": ""},
        {"gpu_type": "-x"},
        {"gpu_type": "a;rm"},
        {"gres": "gpu:2"},
        {"gres": "gpu:a100:1"},
        {"gres": "gpu:a100-80gb"},
        {"gres": "'gpu'"},
        {"gres": "gpu", "gpu_type": "a100"},
        {"constraint": ""},
        {"max_cores": 0},
    ],
)
def test_what_the_executor_would_refuse_is_refused_at_once(site: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"cluster.yaml: key '{next(iter(site))}'|key 'gres'"):
        check(ClusterSettings, site, "cluster.yaml")


@pytest.mark.parametrize("scale", ["smoke", "mini", "paper"])
@pytest.mark.parametrize("limits", [(60, 4000, 2), (20, 1500, 1), (59, 100_000, 64)])
def test_no_request_exceeds_the_cluster(
    repository: Path, results: Path, scale: str, limits: tuple[int, int, int]
) -> None:
    minutes, memory, cores = limits
    w = workflow(
        repository, results, scale, max_minutes=minutes, max_memory_mb=memory, max_cores=cores
    )
    network, coded = w.runtime.runtime_min, w.runtime.classical_min
    for attempt in range(1, 12):
        assert w.mb(w.runtime.classical_mb)(None, attempt) <= memory
        assert w.minutes(coded)(None, attempt) <= minutes
        for base in (network, 30):
            together = 2 if w.pair("coding", base) else 1
            assert together * w.minutes(base, pair=True)(None, attempt) <= minutes
    assert w.threads(w.runtime.threads) <= cores
    if scale == "smoke":  # jobs of seconds
        assert w.minutes(coded)(None, 1) <= 30


# --- refusals -------------------------------------------------------------------------------------


class Job:
    """A job as the executor sees it."""

    name, groupid, wildcards, jobs = "train", "classical-4", None, (1, 2, 3, 4)

    def __init__(self, group: bool) -> None:
        self.group = group

    def is_group(self) -> bool:
        return self.group


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The executor without a cluster, with what it logs and which jobs failed."""
    for name in ("run_job", "print_job_error"):
        monkeypatch.setattr(plugin.Executor, name, getattr(plugin.Executor, name))
    report_refusals()
    own = object.__new__(plugin.Executor)
    own._main_event_loop, own.said, own.failed = None, [], []
    own.logger = SimpleNamespace(error=own.said.append)
    own.workflow = SimpleNamespace(scheduler=SimpleNamespace(error_callback=own.failed.append))
    return own


@pytest.mark.parametrize("group", [False, True])
def test_submission_that_fails_in_the_executor_ends_the_job(
    executor: Any, tmp_path: Path, group: bool
) -> None:
    job = Job(group)
    executor.slurm_logdir = tmp_path / "file"
    executor.slurm_logdir.write_text("")  # where the executor makes a folder
    executor.run_job(job)
    assert executor.failed == [job]
    assert len(executor.said) == 1 and "File exists" in executor.said[0]
    assert ("classical-4 of 4 jobs" if group else "rule train") in executor.said[0]


def test_refusal_by_sbatch_is_shown_without_the_command_of_the_job(executor: Any) -> None:
    refused = "sbatch: error: CPU count per node can not be satisfied"
    message = f"SLURM sbatch failed. The error message was '{refused}'.\n    sbatch call:\n"
    message += "        sbatch --mem 4000 --cpus-per-task=4 --wrap='a very long line'\n"
    executor._report_job_error_threadsafe(plugin.SubmittedJobInfo(Job(True)), message)
    text = "\n".join(executor.said)
    assert refused in text and "--cpus-per-task=4" in text and "very long" not in text
    assert len(text.splitlines()) == 2
