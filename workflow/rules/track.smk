# The import into MLflow; it cannot fail the workflow. It runs where Snakemake runs, so that the
# database has one writer.


localrules:
    track,


rule track:
    input:
        rules.analyse.output,
        page=W.report,
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
        "python -m icmbench track {input.plan:q} --log {log:q}"
