# One job trains one operating point. Its checkpoint, run.json and metrics.jsonl are in the folder of
# the output and undeclared on purpose: Snakemake deletes the declared outputs of a failed job.


rule train:
    input:
        W.train_inputs,
        job=f"{ROOT}/plan/train/{{key}}.json",
    output:
        weights=f"{ROOT}/runs/{{key}}/weights.pt",
    log:
        f"{ROOT}/logs/train/{{key}}.log",
    retries: W.runtime.retries
    conda:
        "../../envs/icmbench.yaml"
    threads: W.train_threads
    resources:
        **W.train_gpu,
        mem_mb=W.train_memory,
        runtime=W.minutes(W.runtime.runtime_min),
    shell:
        "python -m icmbench train {input.job:q} --log {log:q}"
