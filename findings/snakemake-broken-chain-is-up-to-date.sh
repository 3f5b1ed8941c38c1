#!/usr/bin/env bash
# Snakemake calls a target up to date that it cannot make (9.27.1): a table of two scores, each made of a file of weights.
# When one file of weights and its score are gone and the other weights have changed, the table is out of date and the
# one score could be made anew. With the table on the disk, snakemake says that nothing is to be done, exit code 0, and the
# table stays as it was; without it the same command names the missing file and fails.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check snakemake==9.27.1
export PATH="$folder/venv/bin:$PATH"
mkdir "$folder/project"
cd "$folder/project"
cat > Snakefile << 'RULES'
rule all:
    input: "table.txt"

rule table:
    input: "a.score", "b.score"
    output: "table.txt"
    shell: "cat {input} > {output}"

rule score:
    input: "{name}.weights"
    output: "{name}.score"
    shell: "cp {input} {output}"
RULES
echo 1 > a.weights
echo 2 > b.weights
snakemake --cores 1 --quiet all 2> /dev/null
rm b.weights b.score
echo 10 > a.weights
code=0
said=$(snakemake --cores 1 2>&1) || code=$?
told=$(grep -o 'Nothing to be done' <<< "$said" || true)
first=$(head -1 table.txt)
rm table.txt
missing=$(snakemake --cores 1 2>&1 | grep -c 'b.weights' || true)
echo "snakemake $(snakemake --version): exit code $code, '$told', the table begins with $first, a.weights is 10;" \
  "lines about b.weights once the table is gone: $missing"
[ "$code" = 0 ] && [ "$told" = "Nothing to be done" ] && [ "$first" = 1 ] && [ "$missing" -gt 0 ]
