# MLflow, an observer: the only job that imports it, and one that cannot fail the workflow. It runs
# where Snakemake runs: one writer, beside the database, whatever nodes the runs came from.


localrules:
    track,


rule track:
    input:
        rules.analyse.output,
        page=rules.report.output.page,
        plan=f"{ROOT}/plan.json",
    output:
        state=f"{ROOT}/tracking.json",
    log:
        f"{ROOT}/logs/track.log",
    conda:
        "../../envs/icmbench.yaml"
    resources:
        mlflow=1,
    shell:
        "python -m icmbench track {input.plan} --log {log}"
