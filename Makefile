# Everything a newcomer needs; `make help` lists it. Python 3.11 or later and make are all that must be there.

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/installed
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
CORES ?= all
# Snakemake keeps a cache in the home folder and ends with a traceback where it cannot be written.
ifneq ($(shell test -w "$$HOME" && echo yes),yes)
export XDG_CACHE_HOME ?= $(CURDIR)/.snakemake/cache
endif

.DEFAULT_GOAL := help
.PHONY: help install demo test coverage lint archive light deposit readme site faults validators slurm kubernetes gpu bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## build .venv from requirements.lock

# Compiled by all cores, which pip does not: where Python may write no bytecode (PYTHONDONTWRITEBYTECODE, read-only images)
# each of the many short processes would compile again what it imports. Some packages hold files that do not compile.
$(STAMP): requirements.lock pyproject.toml
	@echo "installing requirements.lock into $(VENV): some minutes, in which nothing is printed"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	$(VENV)/bin/python -m compileall -qq -j 0 $(VENV)/lib || true
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

demo: $(STAMP)  ## train, score, tabulate and audit on the digits (minutes, no GPU, no download)
	@snakemake --cores $(CORES) --configfile params/demo.yaml --rerun-incomplete --show-failed-logs --quiet host rules
	@dica show dica table-1 --profile params/demo.yaml
	@dica audit dica table-1 imc-swav/digits/acc --profile params/demo.yaml
	@echo; echo "The report: results/demo/report/index.html"
	@echo "Audit another cell: .venv/bin/dica audit dica table-1 drc/digits/nmi --profile params/demo.yaml"

test: $(STAMP)  ## run the tests
	OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

coverage: $(STAMP)  ## run the tests and show which lines they do not reach
	OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov=dica --cov-report=term-missing:skip-covered

lint: $(STAMP)  ## run the linters of Python and Snakemake code
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	mypy
	snakemake --lint

archive: $(STAMP)  ## run the full matrix; what fails or is missing is shown as such in the tables
	snakemake --cores $(CORES) --resources gpu=$${GPUS:-1} --rerun-incomplete --keep-going --show-failed-logs || { snakemake --cores $(CORES) light; exit 1; }

light: $(STAMP)  ## rebuild tables, figures and report from stored predictions
	snakemake --cores $(CORES) light

deposit: $(STAMP)  ## build and check dist/dica-archive.tar.gz: all that an auditor needs, for a repository
	snakemake --cores $(CORES) --forcerun deposit -- deposit

readme: $(STAMP)  ## write the generated parts of README.md, and what other tools read about the archive
	python workflow/scripts/readme.py
	python workflow/scripts/metadata.py

SITE := .venv-site
$(SITE)/installed: site.lock
	$(PYTHON) -m venv $(SITE)
	$(SITE)/bin/python -m pip install --quiet --disable-pip-version-check -r site.lock
	@touch $@

site: $(STAMP) $(SITE)/installed  ## the documentation as pages: dist/site/index.html
	PYTHONPATH=src python workflow/scripts/documentation.py dist/site-source
	$(SITE)/bin/sphinx-build -W --keep-going -q dist/site-source dist/site

faults: $(STAMP)  ## the long tests of kills, faults and bad input; writes docs/{reliability,tampering}.csv and the page
	OMP_NUM_THREADS=1 DICA_FAULTS=docs/reliability.csv python -m pytest -m slow tests
	OMP_NUM_THREADS=1 DICA_FAULTS=docs/reliability.csv python -m pytest tests/audit/test_tampering.py
	PYTHONPATH=src python workflow/scripts/quoted.py

VALIDATORS := .venv-validators
$(VALIDATORS)/installed: validators.lock
	$(PYTHON) -m venv $(VALIDATORS)
	$(VALIDATORS)/bin/python -m pip install --quiet --disable-pip-version-check -r validators.lock
	@touch $@

validators: $(STAMP) $(VALIDATORS)/installed $(SITE)/installed  ## let the tools of repositories check this archive; writes docs/validators.csv and the page
	OMP_NUM_THREADS=1 DICA_VALIDATED=docs/validators.csv python -m pytest -m validators tests
	PYTHONPATH=src python workflow/scripts/quoted.py

.slurm-plugin/installed: slurm.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target .slurm-plugin -r slurm.lock
	@touch $@

slurm: $(STAMP) .slurm-plugin/installed  ## run the archive on a real SLURM of one machine (needs slurmctld, slurmd, munge)
	OMP_NUM_THREADS=1 DICA_VALIDATED=$(CURDIR)/docs/validators.csv PYTHONPATH=$(CURDIR)/.slurm-plugin \
		python -m pytest -m slurm tests/workflow/test_slurm.py
	PYTHONPATH=src python workflow/scripts/quoted.py

.kubernetes-plugin/installed: kubernetes.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target .kubernetes-plugin -r kubernetes.lock
	@touch $@

kubernetes: $(STAMP) .kubernetes-plugin/installed  ## run the archive's jobs as pods, of a pretended kubectl
	OMP_NUM_THREADS=1 DICA_VALIDATED=$(CURDIR)/docs/validators.csv PYTHONPATH=$(CURDIR)/.kubernetes-plugin \
		python -m pytest -m kubernetes tests/workflow/test_kubernetes.py
	PYTHONPATH=src python workflow/scripts/quoted.py

gpu: $(STAMP)  ## one call of nine minutes on a GPU: its tests, the benchmark, the longest run that fits; leaves dist/gpu
	python benchmarks/gpu_call.py --out dist/gpu

bench: $(STAMP)  ## the benchmarks (those for a GPU where there is one); writes benchmarks/results and the page
	for name in commands steps cpu_path shares plan evaluation; do python benchmarks/$$name.py || exit 1; done
	python benchmarks/gpu.py --write-params && { python benchmarks/gpu.py || test $$? = 2; }
	PYTHONPATH=src python workflow/scripts/quoted.py

clean:  ## remove the demo's results
	rm -rf results/demo
