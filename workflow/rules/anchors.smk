# Classical codecs: bitstreams and decoded pictures of one share of a split at one quality.
# No job here imports torch. A cluster gets several short jobs as one. Finished pictures survive a
# failed job in the cache.


rule code_anchor:
    input:
        W.anchor_inputs,
        job=f"{ROOT}/plan/code/{{split}}/anchors/{{point}}.json",
    output:
        rows=f"{ROOT}/encoded/{{split}}/anchors/{{point}}/chunk{{chunk}}of{{chunks}}.json",
    log:
        f"{ROOT}/logs/code/{{split}}/anchors/{{point}}/chunk{{chunk}}of{{chunks}}.log",
    group:
        W.anchor_group
    conda:
        "../../envs/icmbench.yaml"
    resources:
        **W.cpu,
        mem_mb=W.mb(W.runtime.anchor_mb),
        runtime=W.minutes(W.runtime.anchor_min),
    shell:
        "python -m icmbench code {input.job} --chunk {wildcards.chunk} 2> >(tee {log} >&2)"
