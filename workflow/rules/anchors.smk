# Classical codecs: bitstreams of a split at every quality of a ladder. No job here imports torch.


rule encode_anchor:
    input:
        W.anchor_inputs,
        job=f"{ROOT}/plan/code/{{split}}/anchors/{{curve}}.json",
    output:
        manifest=f"{ROOT}/encoded/{{split}}/anchors/{{curve}}/encoded.json",
    log:
        f"{ROOT}/logs/encode/{{split}}/anchors/{{curve}}.log",
    benchmark:
        f"{ROOT}/benchmarks/encode/{{split}}/anchors/{{curve}}.tsv"
    conda:
        "../../envs/icmbench.yaml"
    resources:
        mem_mb=1000,
        runtime=60,
    shell:
        "python -m icmbench encode {input.job} > {log} 2>&1"


rule decode_anchor:
    input:
        job=f"{ROOT}/plan/code/{{split}}/anchors/{{curve}}.json",
        encoded=rules.encode_anchor.output.manifest,
    output:
        manifest=f"{ROOT}/encoded/{{split}}/anchors/{{curve}}/decoded.json",
    log:
        f"{ROOT}/logs/decode/{{split}}/anchors/{{curve}}.log",
    benchmark:
        f"{ROOT}/benchmarks/decode/{{split}}/anchors/{{curve}}.tsv"
    conda:
        "../../envs/icmbench.yaml"
    resources:
        mem_mb=1000,
        runtime=60,
    shell:
        "python -m icmbench decode {input.job} > {log} 2>&1"
