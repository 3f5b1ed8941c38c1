# The deposit: what is given to a repository for good.


localrules:
    deposit,


rule deposit:
    # `make deposit` forces it: that sources or records have changed is nothing that the inputs tell.
    input:
        rules.page.output,
    output:
        file=f"dist/dica-{PROFILE['name']}.tar.gz",
    log:
        f"{RESULTS}/logs/deposit.log",
    conda:
        "../../environment.yml"
    params:
        profile=f"params/{PROFILE['name']}.yaml",
    shell:
        "{{ python -m dica.cli deposit build {output.file:q} --profile {params.profile:q}"
        " && python -m dica.cli deposit check {output.file:q}; }} 2>&1 | tee {log:q}"
