# From scored runs to cells, tables, figures and the report; none of it imports torch or needs the images.


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
        made_of(lambda wildcards: ("cells",)),
    output:
        cells=report(
            CELLS,
            caption="../report/cells.rst",
            category="All numbers",
        ),
        inputs=f"{RESULTS}/tables/inputs.csv",
    log:
        f"{RESULTS}/logs/cells.log",
    conda:
        "../../environment.yml"
    params:
        plan=PLAN_FILE,
    shell:
        "python workflow/scripts/cells.py --plan {params.plan:q} --out {output.cells:q} 2> {log:q}"


rule summary:
    input:
        made_of(lambda wildcards: ("summary", wildcards.method)),
    output:
        summary=f"{RESULTS}/metrics/{{method}}.json",
    log:
        f"{RESULTS}/logs/summary/{{method}}.log",
    conda:
        "../../environment.yml"
    params:
        plan=PLAN_FILE,
        datasets=PROFILE["recorded_datasets"],
    shell:
        "python workflow/scripts/cells.py --plan {params.plan:q} --method {wildcards.method}"
        " --datasets {params.datasets} --out {output.summary:q} 2> {log:q}"


rule table:
    input:
        made_of(
            lambda wildcards: ("table", wildcards.paper, wildcards.table),
        ),
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
        plan=PLAN_FILE,
        out=lambda wildcards, output: Path(output[0]).parents[1],
    shell:
        "python workflow/scripts/tables.py --plan {params.plan:q} --artefact {wildcards.paper} {wildcards.table}"
        " --out {params.out:q} 2> {log:q}"


rule figure:
    input:
        made_of(
            lambda wildcards: ("figure", wildcards.paper, wildcards.figure),
            lambda wildcards: WORK.figure_analyses(
                wildcards.paper, wildcards.figure, as_it_is()
            ),
        ),
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
        plan=PLAN_FILE,
        out=lambda wildcards, output: Path(output[0]).parents[1],
    shell:
        "python workflow/scripts/figures.py --plan {params.plan:q} --artefact {wildcards.paper} {wildcards.figure}"
        " --out {params.out:q} 2> {log:q}"


rule tables:
    input:
        made("table"),


rule figures:
    input:
        made("figure"),


rule rulegraph:
    # Drawn anew when a rule changes or other artefacts are asked for.
    input:
        made_of(lambda wildcards: ("rulegraph",), scored=False),
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
    params:
        plan=PLAN_FILE,
    shell:
        "python workflow/scripts/rulegraph.py --plan {params.plan:q} --out {output.graph:q} 2> {log:q}"


rule page:
    input:
        made_of(
            lambda wildcards: ("page",),
            rules.cells.output.cells,
            made("table"),
            made("figure"),
            rules.statistics.output,
            rules.claims.output,
            rules.consistency.output,
            rules.rulegraph.output.graph,
            TOLD,
            scored=False,
        ),
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
        plan=PLAN_FILE,
        cells=CELLS,
        graph=f"{RESULTS}/report/rules.svg",
        out=lambda wildcards, output: Path(output[0]).parent,
    shell:
        "python workflow/scripts/report.py --plan {params.plan:q} --cells {params.cells:q} --graph {params.graph:q}"
        " --out {params.out:q} 2> {log:q}"


rule light:
    # Tables and figures of the runs that are there; see `scores` in common.smk.
    input:
        rules.page.output,
        expand(f"{RESULTS}/metrics/{{method}}.json", method=WORK.methods),
