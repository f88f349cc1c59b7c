"""Show why a job was not submitted to SLURM, which Snakemake's executor does not always do."""

from __future__ import annotations

import sys
from typing import Any

_REFUSED = "SLURM sbatch failed. The error message was "


def report_refusals() -> None:
    """Let every job that the SLURM executor cannot submit fail with one line that gives the reason.

    Executor plugin 2.6.1 submits in another thread and loses what fails there before ``sbatch``
    runs (an unknown account), so that Snakemake would wait without end. Why ``sbatch`` refused a
    group is lost in Snakemake 9.27, which lists the settings of all its jobs instead.
    """
    plugin = sys.modules.get("snakemake_executor_plugin_slurm")  # Snakemake loads all plugins
    if plugin is None or plugin.Executor.run_job.__module__ == __name__:
        return
    submit, explain = plugin.Executor.run_job, plugin.Executor.print_job_error

    def run_job(self: Any, job: Any) -> None:
        try:
            submit(self, job)
        except Exception as error:
            info = plugin.SubmittedJobInfo(job)
            self._report_job_error_threadsafe(info, " ".join(str(error).split()))

    def print_job_error(self: Any, info: Any, msg: str | None = None, **more: Any) -> None:
        if info.external_jobid is not None or msg is None:
            explain(self, info, msg, **more)
            return
        reason, _, call = msg.removeprefix(_REFUSED).partition("\n    sbatch call:")
        what = f"rule {info.job.name}"
        if info.job.is_group():
            what = f"group {info.job.groupid} of {len(info.job.jobs)} jobs"
        self.logger.error(f"Not submitted: {what}: {' '.join(reason.split()).strip(chr(39) + '.')}")
        if call:
            self.logger.error(f"    by: {call.partition(' --wrap=')[0].strip()}")

    plugin.Executor.run_job = run_job
    plugin.Executor.print_job_error = print_job_error
