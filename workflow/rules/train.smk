# One rule trains every method x data set x seed. The run's identity is in its path, so new parameters are a new folder;
# a finished run has left this rule's reach (`Work.trainable`), and a newer input never restarts a waiting one (ancient).
# A run that builds on another one waits for that one's record, which is written after its weights.
#
# The record alone is declared as output: Snakemake removes what is declared before a job starts and after it failed,
# even when another process, left over by a killed Snakemake, has finished it meanwhile. Trainers put a record back
# (`dica.runs.finished`), and wait for one another as long as an attempt may take.


rule train:
    input:
        data=ancient(manifest_file("{dataset}")),
        source=ancient(lambda wildcards: told(WORK.source_files, wildcards.id)),
    output:
        record=f"{RUN}/{RECORD}",
    log:
        f"{RESULTS}/logs/train/{LOG}",
    benchmark:
        f"{RESULTS}/logs/train/{Path(LOG).stem}.jsonl"
    wildcard_constraints:
        id=WORK.trainable,
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=gpu_resource("gpu"),
        gpu_twelfths=gpu_resource("gpu_twelfths"),
        mem_mb=resource("mem_mb"),
        runtime=resource("runtime_min"),
        # For schedulers: a process for each device, all on one machine.
        cpus_per_task=lambda wildcards: max(1, resource("gpu")(wildcards)),
        nodes=1,
    params:
        # The job gets its own config, not a file that the next dry run may rewrite.
        config=lambda wildcards: canonical_json(told(WORK.run, wildcards.id)),
        command=lambda wildcards: command(
            load_method(wildcards.method, ROOT),
            told(WORK.run, wildcards.id)["determinism"],
        ),
        out=RUN,
        models=WORK.models_folder(RUN),
        data=lambda wildcards, input: Path(input.data).parent,
        source=lambda wildcards: told(WORK.source_options, wildcards.id),
        state=f"{RESULTS}/state/{{id}}",
        tracker=(
            f"--tracker {RESULTS}/logs/tracker/{Path(LOG).stem}"
            if "tracker" in PROFILE
            else ""
        ),
    message:
        "train {wildcards.method} on {wildcards.dataset}, seed {wildcards.seed} (run {wildcards.id})"
    shell:
        # The log is a second name of a file in the run's state: Snakemake removes the one when it tries again, and the
        # other still has what earlier attempts said.
        "mkdir -p {params.state:q} && touch {params.state:q}/attempts.log"
        " && ln -f {params.state:q}/attempts.log {log:q} || true; "
        "{params.command} --config - --data {params.data:q} --out {params.out:q} --models {params.models:q}"
        " --state {params.state:q} {params.source} {params.tracker} --threads {threads} --wait {resources.runtime} <<< {params.config:q} 2>> {log:q}"
