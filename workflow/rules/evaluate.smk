# Scores come from stored predictions and labels alone.


localrules:
    evaluate,  # seconds each: on a cluster it is not worth a job a run


rule evaluate:
    input:
        # Written last: predictions and config lie beside it.
        record=ancient(
            f"{RESULTS}/runs/{{method}}/{{dataset}}/s{{seed}}-{{id}}/run.json"
        ),
        labels=ancient(lambda wildcards: WORK.labels_or_images(wildcards.dataset)),
        unusable=lambda wildcards: WORK.unusable_scores(wildcards.id),
    output:
        metrics=f"{RESULTS}/runs/{{method}}/{{dataset}}/s{{seed}}-{{id}}/metrics.json",
    log:
        f"{RESULTS}/logs/evaluate/{{method}}-{{dataset}}-s{{seed}}-{{id}}.log",
    conda:
        "../../environment.yml"
    params:
        run=lambda wildcards, input: Path(input.record).parent,
    shell:
        "python workflow/scripts/evaluate.py --config {params.run:q}/config.json"
        " --predictions {params.run:q}/predictions.npz"
        " --labels data/labels/{wildcards.dataset}.npz --out {output.metrics:q} 2> {log:q}"
