# Classical codecs: bitstreams and decoded images of a split, or a share of it, at one quality or all.
# Jobs here import torch for MS-SSIM and perceptual metrics alone. Finished images of a failed job
# stay in the cache.


rule code_classical:
    input:
        W.classical_inputs,
        job=f"{ROOT}/plan/code/{{split}}/{{curve}}.json",
    output:
        manifest=f"{ROOT}/encoded/{{split}}/{{curve}}/decoded.json",
    log:
        f"{ROOT}/logs/code/{{split}}/{{curve}}.log",
    wildcard_constraints:
        curve="classical/.+",
    conda:
        "../../envs/icmbench.yaml"
    resources:
        **W.cpu,
        mem_mb=W.mb(W.runtime.classical_mb),
        runtime=W.minutes(W.runtime.classical_min),
    shell:
        "python -m icmbench code {input.job:q} --log {log:q}"
