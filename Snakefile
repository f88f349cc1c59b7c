# icmbench: the accuracy that vision tasks keep at a given bitrate. Checks the configuration, plans all
# jobs from it, and includes the rules by phase.
from pathlib import Path

from snakemake.utils import min_version

from icmbench.config.load import main_config
from icmbench.utils.job_stats import phase_seconds
from icmbench.workflow import open_workflow

min_version("9.0")


configfile: main_config()


report: "workflow/report/workflow.rst"


W = open_workflow(config, workflow)
ROOT = W.root


wildcard_constraints:
    key=".+",
    role="[^/]+",
    dataset="[^/]+",
    file="[^/]+",
    split="[^/]+",
    curve=".+",


include: "workflow/rules/data.smk"
include: "workflow/rules/classical.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/analyse.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/track.smk"


rule all:
    default_target: True
    input:
        W.targets(),


onsuccess:
    if Path(W.report).exists():
        logger.info(phase_seconds(Path(ROOT, "logs")))
        logger.info(f"Report: {W.report}")
        if agrees := W.agreement:
            logger.info(agrees)
