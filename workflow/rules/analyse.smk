# What figures need beyond a run's own files (`dica.analyse`). Like a finished run, an analysis that is there is a plain
# file, made by no rule: Git keeps it, and figures are drawn again without weights or images.
#
# Without a GPU, so that whoever has the weights gets the same file: t-SNE follows the last bit of what it is given. What
# takes longest is the forward passes: CRLC's ResNet-34 on the 13,000 labelled images of STL-10 (its Figure 2) takes 0.25
# s each on one core of 2026, 55 minutes in all; 6,000 images of CIFAR-10 in three layers 7 minutes, and t-SNE half a
# minute a layer. Nothing is resumed, so each further attempt gets more time. Memory: STL-10 itself (3 GB) and a batch.


rule analyse:
    input:
        record=ancient(lambda wildcards: f"{analysed_run(wildcards)['path']}/{RECORD}"),
        data=ancient(
            lambda wildcards: manifest_file(analysed_run(wildcards)["dataset"])
        ),
    output:
        analysis=f"{RESULTS}/analyses/{{analysis}}.npz",
    log:
        f"{RESULTS}/logs/analyse/{{analysis}}.log",
    wildcard_constraints:
        analysis=WORK.analysable,
    conda:
        "../../environment.yml"
    # One thread where several seeds are analysed side by side: two threads of t-SNE wait for each other all the time.
    threads: lambda wildcards: 1 if wildcards.analysis.startswith(("outlook/", "counts/")) else 2
    resources:
        mem_mb=8000,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        kind=lambda wildcards: wildcards.analysis.split("/")[0],
        run=lambda wildcards, input: Path(input.record).parent,
        models=lambda wildcards: WORK.models_folder(analysed_run(wildcards)["path"]),
        data=lambda wildcards, input: Path(input.data).parent,
        labels=lambda wildcards: labels_file(analysed_run(wildcards)["dataset"]),
    message:
        "analyse {wildcards.analysis}"
    shell:
        "python -m dica.analyse {params.kind} --run {params.run:q} --models {params.models:q} --data {params.data:q}"
        " --labels {params.labels:q} --out {output.analysis:q} --threads {threads} 2> {log:q}"
