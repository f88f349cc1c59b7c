# The report's pages and figures, made from the tables.


rule report:
    input:
        rules.analyse.output,
        plan=f"{ROOT}/plan.json",
    output:
        W.figures("png", pixels=False),
        W.figures("png", pixels=True),
        W.figures("pdf", pixels=False),
        W.figures("pdf", pixels=True),
        report(
            W.figures("svg", pixels=False),
            caption="../report/rate-accuracy.rst",
            category="Figures",
        ),
        report(
            W.figures("svg", pixels=True),
            caption="../report/rate-psnr.rst",
            category="Figures",
        ),
        page=report(
            W.pages(),
            caption="../report/page.rst",
            category="Report",
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
