# Scores come from stored predictions and labels alone. A run that has them has left this rule's reach: to score it again,
# remove its metrics.json.


localrules:
    evaluate,  # seconds each: on a cluster it is not worth a job a run


rule evaluate:
    input:
        # Written last: predictions and config lie beside it.
        record=ancient(f"{RUN}/{RECORD}"),
        labels=ancient(lambda wildcards: WORK.labels_or_images(wildcards.dataset)),
        unusable=lambda wildcards: WORK.unusable_scores(wildcards.id),
    output:
        metrics=f"{RUN}/{METRICS}",
    log:
        f"{RESULTS}/logs/evaluate/{LOG}",
    wildcard_constraints:
        id=WORK.scorable,
    conda:
        "../../environment.yml"
    params:
        config=f"{RUN}/{CONFIG}",
        predictions=f"{RUN}/{PREDICTIONS}",
        labels=labels_file("{dataset}"),
    shell:
        "python workflow/scripts/evaluate.py --config {params.config:q} --predictions {params.predictions:q}"
        " --labels {params.labels:q} --out {output.metrics:q} 2> {log:q}"
