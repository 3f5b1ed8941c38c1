# A user's own images (`dica cluster`): what came of the runs that a profile names itself, to be looked at.


if "runs" in PROFILE:

    localrules:
        clusters,

    rule clusters:
        input:
            plan=PLAN_FILE,
            metrics=lambda wildcards: WORK.scores(("cells",), as_it_is()),
            analyses=WORK.own_analyses(),
            data=ancient(manifest_file(PROFILE["runs"]["dataset"])),
        output:
            [f"{RESULTS}/{name}" for name in own_outputs(PROFILE)],
        log:
            f"{RESULTS}/logs/clusters.log",
        conda:
            "../../environment.yml"
        params:
            profile=workflow.overwrite_configfiles[-1],
        shell:
            "python workflow/scripts/clusters.py --profile {params.profile:q} 2> {log:q}"
