# Learned codecs: real bitstreams, decoded by another process; then the task on the decoded images.
# One job serves all points of a curve: starting a process costs more than a small point. Bitstreams
# are coded on the CPU, on every machine; a cluster gets both ends of a curve as one job.


rule encode:
    input:
        W.coding_inputs,
        job=f"{ROOT}/plan/code/{{split}}/{{curve}}.json",
    output:
        manifest=f"{ROOT}/encoded/{{split}}/{{curve}}/encoded.json",
    log:
        f"{ROOT}/logs/encode/{{split}}/{{curve}}.log",
    wildcard_constraints:
        curve="(?!classical/).+",
    group:
        W.pair("coding", W.runtime.runtime_min)
    conda:
        "../../envs/icmbench.yaml"
    threads: W.threads(W.runtime.threads)
    resources:
        **W.cpu,
        mem_mb=W.mb(W.runtime.memory_mb),
        runtime=W.minutes(W.runtime.runtime_min, pair=True),
    shell:
        "python -m icmbench encode {input.job:q} --log {log:q}"


rule decode:
    input:
        W.coding_inputs,
        job=f"{ROOT}/plan/code/{{split}}/{{curve}}.json",
        encoded=rules.encode.output.manifest,
    output:
        manifest=f"{ROOT}/encoded/{{split}}/{{curve}}/decoded.json",
    log:
        f"{ROOT}/logs/decode/{{split}}/{{curve}}.log",
    wildcard_constraints:
        curve="(?!classical/).+",
    group:
        W.pair("coding", W.runtime.runtime_min)
    conda:
        "../../envs/icmbench.yaml"
    threads: W.threads(W.runtime.threads)
    resources:
        **W.cpu,
        mem_mb=W.mb(W.runtime.memory_mb),
        runtime=W.minutes(W.runtime.runtime_min, pair=True),
    shell:
        "python -m icmbench decode {input.job:q} --log {log:q}"


rule evaluate:
    input:
        W.evaluate_inputs,
        job=f"{ROOT}/plan/evaluate/{{curve}}.json",
    output:
        manifest=f"{ROOT}/runs/{{curve}}/evaluated.json",
    log:
        f"{ROOT}/logs/evaluate/{{curve}}.log",
    conda:
        "../../envs/icmbench.yaml"
    threads: W.threads(W.runtime.threads)
    resources:
        **W.gpu,
        mem_mb=W.mb(W.runtime.memory_mb),
        runtime=W.minutes(W.runtime.runtime_min),
    shell:
        "python -m icmbench evaluate {input.job:q} --log {log:q}"
