from snakemake.utils import min_version

min_version("9.27")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/analyse.smk"
include: "workflow/rules/own.smk"
include: "workflow/rules/statistics.smk"
include: "workflow/rules/artefacts.smk"
include: "workflow/rules/archive.smk"


onstart:
    if workflow.is_main_process:
        shell.prefix(prefix(ROOT, *start(ROOT)))
        tell(WORK.plan["runs"], ROOT, RESULTS)


rule all:
    default_target: True
    input:
        rules.light.input,
