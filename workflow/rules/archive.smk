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
        results=RESULTS,
    shell:
        "{{ python -m dica.deposit build --results {params.results:q} --out {output.file:q}"
        " && python -m dica.deposit check {output.file:q}; }} 2>&1 | tee {log:q}"
