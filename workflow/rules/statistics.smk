# What the stored predictions say about chance, and what bounds say about printed numbers; nothing here imports torch.


localrules:
    statistics,
    consistency,


rule statistics:
    input:
        made_of(lambda wildcards: ("statistics",)),
    output:
        report(
            expand(
                f"{RESULTS}/tables/statistics/{{name}}.csv",
                name=["intervals", "pairs", "stability"],
            ),
            caption="../report/statistics.rst",
            category="All numbers",
        ),
    log:
        f"{RESULTS}/logs/statistics.log",
    conda:
        "../../environment.yml"
    params:
        plan=PLAN_FILE,
        out=lambda wildcards, output: Path(output[0]).parent,
    shell:
        "python workflow/scripts/inference.py --plan {params.plan:q} --out {params.out:q} 2> {log:q}"


rule consistency:
    input:
        made_of(lambda wildcards: ("consistency",)),
    output:
        table=report(
            f"{RESULTS}/tables/consistency.csv",
            caption="../report/consistency.rst",
            category="All numbers",
        ),
    log:
        f"{RESULTS}/logs/consistency.log",
    conda:
        "../../environment.yml"
    params:
        plan=PLAN_FILE,
    shell:
        "python workflow/scripts/consistency.py --plan {params.plan:q} --out {output.table:q} 2> {log:q}"
