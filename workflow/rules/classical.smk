# Classical codecs: bitstreams and decoded images of a split, or a share of it, at one quality.
# Jobs here import torch for MS-SSIM and perceptual metrics alone. A cluster gets several short
# jobs as one. Finished images of a failed job stay in the cache.


rule code_classical:
    input:
        W.classical_inputs,
        job=f"{ROOT}/plan/code/{{split}}/classical/{{share}}.json",
    output:
        state=f"{ROOT}/encoded/{{split}}/classical/{{share}}/decode.json",
    log:
        f"{ROOT}/logs/code/{{split}}/classical/{{share}}.log",
    group:
        W.classical_group
    conda:
        "../../envs/icmbench.yaml"
    resources:
        **W.cpu,
        mem_mb=W.classical_memory,
        runtime=W.minutes(W.runtime.classical_min),
    shell:
        "python -m icmbench code {input.job:q} --log {log:q}"
