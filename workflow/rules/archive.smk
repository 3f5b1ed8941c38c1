# The deposit: what is given to a repository for good.


localrules:
    deposit,


rule deposit:
    # It packs what is there and makes nothing: without inputs, and forced by `make deposit`.
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
