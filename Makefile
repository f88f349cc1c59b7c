# make results: install everything and run the default configuration.
# make test:    install everything, then linters, type checker and the default tests (others run when
#               named: pytest -m conda, faults, install, slurm, zoo).
# Both install uv if it is missing.

PYTHON ?= 3.11
CORES ?= all
UV := $(if $(shell command -v uv 2>/dev/null),uv,.uv/bin/uv)
OWN_UV := $(filter .uv/%,$(UV))
RUN := .venv/bin

# Without compiled bytecode every job would compile its imports again.
export UV_COMPILE_BYTECODE := 1
# A user's own packages must not leak into the locked environment.
unexport PYTHONPATH

.PHONY: help results photos figure smoke test lint wording unit quick install ui report reference lock benchmark clean

help:
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

results: install ## run the default configuration, three quarters of an hour
	$(RUN)/snakemake --cores $(CORES)

smoke: install ## run the default studies at toy size, some minutes
	$(RUN)/snakemake --cores $(CORES) --config scale=smoke

photos: install ## published networks and codecs on photographs of COCO, what can be had of them
	$(RUN)/snakemake --cores $(CORES) --config scale=photos

figure: install ## the README's figure, from the results of record
	$(RUN)/python benchmarks/record_figure.py results/record/photos/curves.csv docs/images/photos.svg

test: install lint unit ## linters, type checker and all tests

lint: install wording ## ruff, mypy, snakefmt, snakemake --lint, wording
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/snakefmt --check Snakefile workflow/rules
	$(RUN)/snakemake --lint --config scale=smoke

wording: ## words that texts avoid, and what to write instead
	python3 tools/wording.py

unit: install ## the tests alone
	$(RUN)/pytest

quick: install ## the tests to run while you work, under a minute
	$(RUN)/pytest -m quick

install: .venv/.installed ## the locked environment in .venv

.venv/.installed: uv.lock pyproject.toml | $(OWN_UV)
	$(UV) sync --locked --all-extras --python $(PYTHON)
	@touch $@

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/python -m pip install --quiet uv

ui: install ## browse the runs in MLflow on http://127.0.0.1:5000
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=1 \
	$(RUN)/mlflow ui --workers 1 --backend-store-uri sqlite:///results/mlflow.db

# Snakemake must know the scale of the run that it reports on: that of the newest report.
SCALE = $(firstword $(subst /, ,$(patsubst results/%,%,$(shell ls -t results/*/report/index.html | head -1))))

report: install ## Snakemake's own report of the newest run; of another one: make report SCALE=mini
	$(RUN)/snakemake --report results/snakemake-report.html --config scale=$(SCALE)

reference: install ## regenerate docs/configuration and workflow/schemas
	$(RUN)/python -m icmbench reference

lock: | $(OWN_UV) ## update uv.lock and the files made from it
	$(UV) lock
	$(UV) export --quiet --locked --all-extras --no-dev --no-emit-project --format requirements-txt \
	  --output-file envs/requirements.lock
	python3 envs/stamp.py

benchmark: install ## accuracy of scale mini against its targets
	$(RUN)/python benchmarks/targets.py

clean: ## delete results, not data and not the results of record
	find results -mindepth 1 ! -path results/README.md ! -path 'results/record*' -delete
