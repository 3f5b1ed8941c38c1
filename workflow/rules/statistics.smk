# What the stored predictions say about chance, and what bounds say about printed numbers; nothing here imports torch.
# The cells wait for every score: what waits for them names the scores not again, each of which costs Snakemake time.


localrules:
    statistics,
    claims,
    consistency,


rule statistics:
    input:
        made_of(lambda wildcards: ("statistics",), CELLS, scored=False),
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


rule claims:
    input:
        made_of(lambda wildcards: ("claims",), CELLS, scored=False),
    output:
        report(
            f"{RESULTS}/claims.csv",
            caption="../report/claims.rst",
            category="All numbers",
        ),
        f"{RESULTS}/claims.md",
    log:
        f"{RESULTS}/logs/claims.log",
    conda:
        "../../environment.yml"
    params:
        plan=PLAN_FILE,
        out=lambda wildcards, output: Path(output[0]).parent,
    shell:
        "python workflow/scripts/claims.py --plan {params.plan:q} --out {params.out:q} 2> {log:q}"


rule consistency:
    input:
        made_of(lambda wildcards: ("consistency",), CELLS, scored=False),
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
