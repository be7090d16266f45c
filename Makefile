# Two commands: `make demo` and `make test`. Both make .venv first; nothing but Python (3.11 to 3.14) and a C++ compiler is needed.
# The newest that can make an environment: pyenv's shims are there for versions that don't run, and Debian's Python may lack pip.
RUNS = $(shell $(1) -c 'import ensurepip, venv' 2>/dev/null && echo $(1))
PYTHON ?= $(or $(call RUNS,python3.14),$(call RUNS,python3.13),$(call RUNS,python3.12),$(call RUNS,python3.11),python3)
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
# Another folder for another Python: `make check PYTHON=python3.12 VENV=.venv-3.12`.
VENV ?= .venv
BIN := $(VENV)/bin
# A run that was killed left a lock and half-done files: it goes on from there.
SNAKEMAKE := $(BIN)/merba unlock && $(BIN)/snakemake --cores $(CORES) --resources gpu=1 --rerun-incomplete

ifneq ($(words $(CURDIR)),1)
$(error The path of this checkout has a space: $(CURDIR). Snakemake can't start Python there; move the checkout to a path without one)
endif

.PHONY: demo install model report docs check test test-slow slurm-plugin lint lock clean

demo: $(VENV)/demo.installed
	$(SNAKEMAKE)
	@echo "Open results/summary.html; its tables and figures are in results/ too."

# The environment alone.
install: $(VENV)/demo.installed

# Models of real micro-expressions for clips of your own, in models/, each with its card. ROOT= is a folder with the public flow images;
# without it they are downloaded. `merba predict` takes public_flow.safetensors by itself: the method that docs/results.md ranks highest.
FIT = $(BIN)/merba fit --config config/public_flow.yaml $(if $(ROOT),--root "$(ROOT)")
model: $(VENV)/demo.installed
	$(FIT) --experiment kernel --error kernel --out models/public_flow.safetensors
	$(FIT) --experiment merba_single_window --error merba_single_window --out models/public_flow_merba.safetensors

report: $(VENV)/demo.installed
	$(SNAKEMAKE)
	$(BIN)/snakemake --report results/report.html

# The documentation site, in site/.
docs: $(VENV)/test.installed
	$(BIN)/mkdocs build --strict

check: $(VENV)/test.installed lint
	$(BIN)/pytest -q -m "not long and not slow"

test: $(VENV)/test.installed lint
	$(BIN)/pytest -q -m "not slow" --durations=15

# What takes minutes each: the whole demo with its controls, the report in a browser, a run killed ten times, a run on Slurm. What
# is skipped for want of a program is listed.
test-slow: $(VENV)/test.installed
	$(BIN)/pytest -q -m slow -rs --durations=15

# For clusters (docs/cluster.md). No part of the demo's environment: where Slurm's programs exist without a daemon, it slows
# every start of Snakemake.
slurm-plugin: $(VENV)/demo.installed
	$(BIN)/pip install -q --no-deps -r envs/slurm.txt

lint: $(VENV)/test.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/ty check --python $(VENV)
	$(BIN)/snakefmt --check Snakefile rules workflow/Snakefile
	$(BIN)/snakemake --lint

$(VENV)/demo.installed: envs/torch.txt envs/cpu.txt pyproject.toml
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 15) else \
		"merba needs Python 3.11 to 3.14: rm -r $(VENV), then make PYTHON=/path/to/python3.13; README.md says how uv brings one")'
	$(BIN)/pip install -q -r envs/torch.txt
	$(BIN)/pip install -q --no-deps -r envs/cpu.txt
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/test.installed: $(VENV)/demo.installed envs/dev.txt
	$(BIN)/pip install -q --no-deps -r envs/dev.txt
	# Only its Python part, whose reference scan one test compares with; without it that test is skipped.
	-MAMBA_FORCE_BUILD=TRUE MAMBA_SKIP_CUDA_BUILD=TRUE $(BIN)/pip install -q --no-build-isolation --no-deps mamba-ssm==2.3.2.post1
	touch $@

# New exact versions from requirements.in and dev.in, in an environment of its own; of the oldest Python, so that all have them.
lock:
	envs/lock.sh python3.11

clean:
	rm -rf $(VENV) .snakemake
