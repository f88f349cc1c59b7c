# Records to curves, BD metrics and intervals.


rule analyse:
    input:
        W.evaluated(),
        W.published_curves,
        W.record_curves(),
        plan=f"{ROOT}/plan.json",
    output:
        records=f"{ROOT}/tables/records.parquet",
        curves=report(
            f"{ROOT}/tables/curves.csv",
            caption="../report/curves.rst",
            category="Tables",
        ),
        per_class=report(
            f"{ROOT}/tables/per_class.csv",
            caption="../report/per-class.rst",
            category="Tables",
        ),
        bd=report(
            f"{ROOT}/tables/bd.csv", caption="../report/bd.rst", category="Tables"
        ),
        published=report(
            f"{ROOT}/tables/published.csv",
            caption="../report/published.rst",
            category="Tables",
        ),
        claims=report(
            f"{ROOT}/tables/claims.csv",
            caption="../report/claims.rst",
            category="Tables",
        ),
        claim_parts=f"{ROOT}/tables/claims_parts.csv",
        record=f"{ROOT}/tables/record.csv",
    log:
        f"{ROOT}/logs/analyse.log",
    group:
        W.pair("tables", 30)
    conda:
        "../../envs/icmbench.yaml"
    resources:
        **W.cpu,
        mem_mb=W.mb(2000),
        runtime=W.minutes(30, pair=True),
    shell:
        "python -m icmbench analyse {input.plan:q} --log {log:q}"
