# Classical codecs: bitstreams of a split at one quality. No job here imports torch.


rule encode_anchor:
    input:
        W.encode_inputs,
        job=f"{ROOT}/plan/encode/{{dataset}}/anchors/{{key}}.json",
    output:
        bitstreams=f"{ROOT}/encoded/{{dataset}}/anchors/{{key}}/bitstreams.zip",
        table=f"{ROOT}/encoded/{{dataset}}/anchors/{{key}}/encoded.parquet",
    log:
        f"{ROOT}/logs/encode/{{dataset}}/anchors/{{key}}.log",
    benchmark:
        f"{ROOT}/benchmarks/encode/{{dataset}}/anchors/{{key}}.tsv"
    conda:
        "../../envs/icmbench.yaml"
    resources:
        mem_mb=1000,
        runtime=60,
    shell:
        "python -m icmbench encode {input.job} > {log} 2>&1"


rule decode_anchor:
    input:
        job=f"{ROOT}/plan/encode/{{dataset}}/anchors/{{key}}.json",
        bitstreams=rules.encode_anchor.output.bitstreams,
        table=rules.encode_anchor.output.table,
    output:
        pictures=f"{ROOT}/encoded/{{dataset}}/anchors/{{key}}/decoded.zip",
        table=f"{ROOT}/encoded/{{dataset}}/anchors/{{key}}/decoded.parquet",
    log:
        f"{ROOT}/logs/decode/{{dataset}}/anchors/{{key}}.log",
    benchmark:
        f"{ROOT}/benchmarks/decode/{{dataset}}/anchors/{{key}}.tsv"
    conda:
        "../../envs/icmbench.yaml"
    resources:
        mem_mb=1000,
        runtime=60,
    shell:
        "python -m icmbench decode {input.job} > {log} 2>&1"
