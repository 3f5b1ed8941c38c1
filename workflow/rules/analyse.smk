# What figures need beyond a run's own files (`dica.analyse`). Like a finished run, an analysis that is there is a plain
# file, made by no rule: Git keeps it, and figures are drawn again without weights or images.

from dica.artefacts import analyses, analysis_path

ANALYSES = {
    analysis_path(RESULTS, kind, run["path"]): (kind, run)
    for artefact in FIGURES
    for kind, run in analyses(PLAN, artefact)
}
# `tables` of dvc.yaml depends on the folder, whether or not anything is in it.
(ROOT / RESULTS / "analyses").mkdir(parents=True, exist_ok=True)
UNANALYSED = [path for path in ANALYSES if not (ROOT / path).is_file()]


def analysed_run(wildcards):
    """Return the planned run behind the analysis of these wildcards."""
    return ANALYSES[f"{RESULTS}/analyses/{wildcards.analysis}.npz"][1]


def models_of(run):
    """Return the folder of a run's weights."""
    return source_models(run["path"])


def figure_analyses(wildcards):
    """Return what the figure of these wildcards needs and can have: what is there, or can be made of weights."""
    artefact = next(
        a for a in FIGURES if (a.paper, a.name) == (wildcards.paper, wildcards.figure)
    )
    light = "light" in workflow.dag_settings.targets
    files = []
    for kind, run in analyses(PLAN, artefact):
        path = analysis_path(RESULTS, kind, run["path"])
        weights = "stages.npz" if kind == "stages" else "weights.safetensors"
        possible = not light and (
            run["id"] in UNFINISHED or (ROOT / models_of(run) / weights).is_file()
        )
        if possible or (ROOT / path).is_file():
            files.append(path)
    return files


rule analyse:
    input:
        record=ancient(lambda wildcards: f"{analysed_run(wildcards)['path']}/run.json"),
        data=ancient(
            lambda wildcards: f"data/prepared/{analysed_run(wildcards)['dataset']}/manifest.json"
        ),
    output:
        analysis=f"{RESULTS}/analyses/{{analysis}}.npz",
    log:
        f"{RESULTS}/logs/analyse/{{analysis}}.log",
    wildcard_constraints:
        analysis="|".join(
            path.removeprefix(f"{RESULTS}/analyses/").removesuffix(".npz")
            for path in UNANALYSED
        )
        or "none",
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        kind=lambda wildcards: wildcards.analysis.split("/")[0],
        run=lambda wildcards, input: Path(input.record).parent,
        models=lambda wildcards: models_of(analysed_run(wildcards)),
        data=lambda wildcards, input: Path(input.data).parent,
        labels=lambda wildcards: f"data/labels/{analysed_run(wildcards)['dataset']}.npz",
    message:
        "analyse {wildcards.analysis}"
    shell:
        "python -m dica.analyse {params.kind} --run {params.run:q} --models {params.models:q} --data {params.data:q}"
        " --labels {params.labels:q} --out {output.analysis:q} --threads {threads} 2> {log:q}"
