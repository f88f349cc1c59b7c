# The report's pages and figures, made from the tables.


rule report:
    input:
        rules.analyse.output,
        plan=f"{ROOT}/plan.json",
    output:
        W.report_files(),
        report(
            W.figures(),
            caption="../report/figures.rst",
            category="Figures",
        ),
    log:
        f"{ROOT}/logs/report.log",
    group:
        W.pair("tables", 30)
    conda:
        "../../envs/icmbench.yaml"
    resources:
        **W.cpu,
        mem_mb=W.mb(2000),
        runtime=W.minutes(30, pair=True),
    shell:
        "python -m icmbench report {input.plan:q} --log {log:q}"
