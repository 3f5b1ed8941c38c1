# Scores come from stored predictions and labels alone.


rule evaluate:
    input:
        predictions=ancient(
            f"{RESULTS}/runs/{{method}}/{{dataset}}/s{{seed}}-{{id}}/predictions.npz"
        ),
        config=ancient(
            f"{RESULTS}/runs/{{method}}/{{dataset}}/s{{seed}}-{{id}}/config.json"
        ),
        labels=ancient(labels_or_images),
    output:
        metrics=f"{RESULTS}/runs/{{method}}/{{dataset}}/s{{seed}}-{{id}}/metrics.json",
    log:
        f"{RESULTS}/logs/evaluate/{{method}}-{{dataset}}-s{{seed}}-{{id}}.log",
    conda:
        "../../environment.yml"
    shell:
        "python workflow/scripts/evaluate.py --config {input.config:q} --predictions {input.predictions:q}"
        " --labels data/labels/{wildcards.dataset}.npz --out {output.metrics:q} 2> {log:q}"
