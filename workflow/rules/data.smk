# Raw archives are fetched and their digests proved; prepared arrays carry the fingerprint that run ids rest on.


localrules:
    fetch,
    ready,


rule fetch:
    output:
        sources="data/raw/{dataset}.sources.json",
    log:
        f"{RESULTS}/logs/fetch/{{dataset}}.log",
    retries: 2
    conda:
        "../../environment.yml"
    message:
        "fetch {wildcards.dataset}"
    shell:
        "python -m dica.data fetch {wildcards.dataset} --record {output.sources:q} 2>&1 | tee {log:q}"


rule prepare:
    input:
        sources=ancient(rules.fetch.output.sources),
        declared=f"{RESULTS}/state/{{dataset}}.json",
    output:
        # The labels are written too, but Git owns them: Snakemake would delete declared ones when a job fails.
        manifest=manifest_file("{dataset}"),
    log:
        f"{RESULTS}/logs/prepare/{{dataset}}.log",
    wildcard_constraints:
        dataset="|".join(WORK.unprepared) or NONE,
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        mem_mb=4000,
        runtime=120,
    message:
        "prepare {wildcards.dataset}"
    shell:
        "python -m dica.data prepare {wildcards.dataset} 2> {log:q}"


rule ready:
    # A target to ask for by name, also when there is nothing to prepare (then no rule makes the manifest).
    input:
        manifest=ancient(rules.prepare.output.manifest),
    output:
        touch(f"{RESULTS}/state/{{dataset}}.ready"),
