# Data sets: generated from a seed, measured in a folder of one's own, or fetched through the
# catalogue and its DVC pointers.
# Fetching runs where Snakemake runs: the nodes of a cluster may lack a network, and DVC needs one
# writer. `update` keeps the manifest of existing data, so that they are checked, not fetched again.


localrules:
    fetch_dataset,
    fetch_weights,


rule generate_dataset:
    input:
        job=f"{ROOT}/plan/data/{{role}}.json",
    output:
        manifest=f"{ROOT}/data/{{role}}/manifest.json",
    log:
        f"{ROOT}/logs/data/{{role}}.log",
    conda:
        "../../envs/icmbench.yaml"
    threads: W.threads(2)
    resources:
        **W.cpu,
        mem_mb=W.mb(1500),
        runtime=W.minutes(20),
    params:
        images=W.images_state,
    shell:
        "python -m icmbench data {input.job:q} --threads {threads} --log {log:q}"


rule fetch_dataset:
    input:
        job=W.fetch_job,
    output:
        manifest=update(f"{W.data}/{{dataset}}.manifest.json"),
    log:
        f"{ROOT}/logs/data/{{dataset}}.log",
    retries: 2
    conda:
        "../../envs/icmbench.yaml"
    params:
        pointer=W.pointer_state,
    shell:
        "python -m icmbench data {input.job:q} --log {log:q}"


rule fetch_weights:
    input:
        job=f"{ROOT}/plan/weights/{{file}}.json",
    output:
        weights=update(f"{W.data}/weights/{{file}}"),
    log:
        f"{ROOT}/logs/weights/{{file}}.log",
    retries: 2
    conda:
        "../../envs/icmbench.yaml"
    shell:
        "python -m icmbench weights {input.job:q} --log {log:q}"
