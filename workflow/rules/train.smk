# One rule trains every method x data set x seed. The run's identity is in its path, so new parameters are a new folder;
# a finished run has left this rule's reach (UNFINISHED), and a newer input never restarts a waiting one (ancient).
# A run that builds on another one waits for that one's weights.


rule train:
    input:
        data=ancient("data/prepared/{dataset}/manifest.json"),
        source=ancient(source_files),
    output:
        config=f"{RESULTS}/runs/{{method}}/{{dataset}}/s{{seed}}-{{id}}/config.json",
        history=f"{RESULTS}/runs/{{method}}/{{dataset}}/s{{seed}}-{{id}}/history.csv",
        predictions=f"{RESULTS}/runs/{{method}}/{{dataset}}/s{{seed}}-{{id}}/predictions.npz",
        record=f"{RESULTS}/runs/{{method}}/{{dataset}}/s{{seed}}-{{id}}/run.json",
        weights=f"{RESULTS}/models/{{method}}/{{dataset}}/s{{seed}}-{{id}}/weights.safetensors",
    log:
        f"{RESULTS}/logs/train/{{method}}-{{dataset}}-s{{seed}}-{{id}}.log",
    benchmark:
        f"{RESULTS}/logs/train/{{method}}-{{dataset}}-s{{seed}}-{{id}}.jsonl"
    wildcard_constraints:
        id=UNFINISHED_ID,
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=gpu_resource("gpu"),
        gpu_twelfths=gpu_resource("gpu_twelfths"),
        mem_mb=resource("mem_mb"),
        runtime=resource("runtime_min"),
    params:
        # The job gets its own config, not a file that the next dry run may rewrite.
        config=lambda wildcards: canonical_json(CONFIGS[wildcards.id]),
        command=lambda wildcards: command(
            load_method(wildcards.method, ROOT), PROFILE["determinism"]
        ),
        out=lambda wildcards, output: Path(output.record).parent,
        models=lambda wildcards, output: Path(output.weights).parent,
        data=lambda wildcards, input: Path(input.data).parent,
        source=source_options,
        # Checkpoints are nobody's output: Snakemake deletes declared outputs before a rerun.
        state=f"{RESULTS}/state/{{id}}",
    message:
        "train {wildcards.method} on {wildcards.dataset}, seed {wildcards.seed} (run {wildcards.id})"
    shell:
        "{params.command} --config - --data {params.data:q} --out {params.out:q} --models {params.models:q}"
        " --state {params.state:q} {params.source} --threads {threads} <<< {params.config:q} 2>> {log:q}"
