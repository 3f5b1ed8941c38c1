# From scored runs to cells, tables, figures and the report; none of it imports torch or needs the images.


# What tables set beside the runs: printed numbers and facts of data sets and networks.
FACTS = [
    *(f"params/published/{name}.csv" for name in ("results", "datasets", "networks")),
    "params/networks.csv",
    "params/datasets.yaml",
]


localrules:
    cells,
    summary,
    table,
    figure,
    rulegraph,
    page,
    tables,
    figures,
    light,


rule cells:
    input:
        plan=PLAN_FILE,
        losses=LOSSES_FILE,
        metrics=scores(),
        declared=expand("params/artefacts/{paper}.yaml", paper=PAPERS),
        facts=FACTS,
    output:
        cells=report(
            f"{RESULTS}/tables/cells.csv",
            caption="../report/cells.rst",
            category="All numbers",
        ),
        inputs=f"{RESULTS}/tables/inputs.csv",
    log:
        f"{RESULTS}/logs/cells.log",
    conda:
        "../../environment.yml"
    shell:
        "python workflow/scripts/cells.py --plan {input.plan:q} --out {output.cells:q} 2> {log:q}"


rule summary:
    input:
        plan=PLAN_FILE,
        losses=LOSSES_FILE,
        metrics=scores(recorded),
    output:
        summary=f"{RESULTS}/metrics/{{method}}.json",
    log:
        f"{RESULTS}/logs/summary/{{method}}.log",
    conda:
        "../../environment.yml"
    params:
        datasets=PROFILE["recorded_datasets"],
    shell:
        "python workflow/scripts/cells.py --plan {input.plan:q} --method {wildcards.method}"
        " --datasets {params.datasets} --out {output.summary:q} 2> {log:q}"


rule table:
    input:
        plan=PLAN_FILE,
        losses=LOSSES_FILE,
        metrics=scores(needed_by),
        declared="params/artefacts/{paper}.yaml",
        facts=FACTS,
    output:
        report(
            f"{RESULTS}/tables/{{paper}}/{{table}}.html",
            caption="../report/table.rst",
            category="{paper}",
            subcategory="Tables",
            labels={"table": "{table}"},
        ),
        multiext(f"{RESULTS}/tables/{{paper}}/{{table}}", ".md", ".tex", ".csv"),
    log:
        f"{RESULTS}/logs/table/{{paper}}-{{table}}.log",
    conda:
        "../../environment.yml"
    params:
        out=lambda wildcards, output: Path(output[0]).parents[1],
    shell:
        "python workflow/scripts/tables.py --plan {input.plan:q} --artefact {wildcards.paper} {wildcards.table}"
        " --out {params.out:q} 2> {log:q}"


rule figure:
    input:
        plan=PLAN_FILE,
        losses=LOSSES_FILE,
        metrics=scores(needed_by),  # histories and looks lie beside them
        analyses=lambda wildcards: WORK.figure_analyses(
            wildcards.paper, wildcards.figure, as_it_is()
        ),
        declared="params/artefacts/{paper}.yaml",
    output:
        report(
            f"{RESULTS}/figures/{{paper}}/{{figure}}.svg",
            caption="../report/figure.rst",
            category="{paper}",
            subcategory="Figures",
            labels={"figure": "{figure}"},
        ),
        f"{RESULTS}/figures/{{paper}}/{{figure}}.png",
    log:
        f"{RESULTS}/logs/figure/{{paper}}-{{figure}}.log",
    conda:
        "../../environment.yml"
    params:
        out=lambda wildcards, output: Path(output[0]).parents[1],
    shell:
        "python workflow/scripts/figures.py --plan {input.plan:q} --artefact {wildcards.paper} {wildcards.figure}"
        " --out {params.out:q} 2> {log:q}"


rule tables:
    input:
        [f"{RESULTS}/tables/{a.paper}/{a.name}.md" for a in TABLES],


rule figures:
    input:
        [f"{RESULTS}/figures/{a.paper}/{a.name}.png" for a in FIGURES],


rule rulegraph:
    # Drawn anew when a rule changes or other artefacts are asked for.
    input:
        "Snakefile",
        sorted(
            str(path.relative_to(ROOT)) for path in ROOT.glob("workflow/rules/*.smk")
        ),
        "params/archive.yaml",
        expand("params/artefacts/{paper}.yaml", paper=PAPERS),
    output:
        graph=report(
            f"{RESULTS}/report/rules.svg",
            caption="../report/rules.rst",
            category="Pages",
        ),
    log:
        f"{RESULTS}/logs/rulegraph.log",
    conda:
        "../../environment.yml"
    shell:
        "python workflow/scripts/rulegraph.py --out {output.graph:q} 2> {log:q}"


rule page:
    input:
        plan=PLAN_FILE,
        cells=rules.cells.output.cells,
        tables=rules.tables.input,
        figures=rules.figures.input,
        statistics=rules.statistics.output,
        consistency=rules.consistency.output,
        graph=rules.rulegraph.output.graph,
    output:
        report(
            expand(f"{RESULTS}/report/{{page}}", page=PAGES),
            caption="../report/page.rst",
            category="Pages",
        ),
    log:
        f"{RESULTS}/logs/page.log",
    conda:
        "../../environment.yml"
    params:
        out=lambda wildcards, output: Path(output[0]).parent,
    shell:
        "python workflow/scripts/report.py --plan {input.plan:q} --cells {input.cells:q} --graph {input.graph:q}"
        " --out {params.out:q} 2> {log:q}"


rule light:
    # Tables and figures of the runs that are there; see `scores` in common.smk.
    input:
        rules.page.output,
