# Learned codecs: real bitstreams, decoded by another process; then the task on the decoded pictures.


rule encode:
    input:
        W.encode_inputs,
        job=f"{ROOT}/plan/encode/{{dataset}}/{{key}}.json",
    output:
        bitstreams=f"{ROOT}/encoded/{{dataset}}/{{key}}/bitstreams.zip",
        table=f"{ROOT}/encoded/{{dataset}}/{{key}}/encoded.parquet",
    wildcard_constraints:
        key="(?!anchors/).+",
    log:
        f"{ROOT}/logs/encode/{{dataset}}/{{key}}.log",
    benchmark:
        f"{ROOT}/benchmarks/encode/{{dataset}}/{{key}}.tsv"
    conda:
        "../../envs/icmbench.yaml"
    threads: W.runtime.threads
    resources:
        mem_mb=W.memory,
        runtime=W.minutes,
    shell:
        "python -m icmbench encode {input.job} > {log} 2>&1"


rule decode:
    input:
        W.encode_inputs,
        job=f"{ROOT}/plan/encode/{{dataset}}/{{key}}.json",
        bitstreams=rules.encode.output.bitstreams,
        table=rules.encode.output.table,
    output:
        pictures=f"{ROOT}/encoded/{{dataset}}/{{key}}/decoded.zip",
        table=f"{ROOT}/encoded/{{dataset}}/{{key}}/decoded.parquet",
    wildcard_constraints:
        key="(?!anchors/).+",
    log:
        f"{ROOT}/logs/decode/{{dataset}}/{{key}}.log",
    benchmark:
        f"{ROOT}/benchmarks/decode/{{dataset}}/{{key}}.tsv"
    conda:
        "../../envs/icmbench.yaml"
    threads: W.runtime.threads
    resources:
        mem_mb=W.memory,
        runtime=W.minutes,
    shell:
        "python -m icmbench decode {input.job} > {log} 2>&1"


rule evaluate:
    input:
        W.evaluate_inputs,
        job=f"{ROOT}/plan/evaluate/{{key}}.json",
    output:
        records=f"{ROOT}/runs/{{key}}/records.parquet",
        summary=f"{ROOT}/runs/{{key}}/evaluate.json",
    log:
        f"{ROOT}/logs/evaluate/{{key}}.log",
    benchmark:
        f"{ROOT}/benchmarks/evaluate/{{key}}.tsv"
    conda:
        "../../envs/icmbench.yaml"
    threads: W.runtime.threads
    resources:
        gpu=W.runtime.gpu,
        mem_mb=W.memory,
        runtime=W.minutes,
    shell:
        "python -m icmbench evaluate {input.job} > {log} 2>&1"
